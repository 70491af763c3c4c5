"""One queue as a state machine: publish, take, settle, look. All moves of messages between states begin here."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Callable

from ddmq_hpc.errors import (
    DdmqError,
    KeyFileError,
    LeaseLost,
    QueueDraining,
    QueueNotFound,
    QueuePaused,
    RootNotFound,
    StorageBusy,
    storage_error,
)
from ddmq_hpc.fate import Fate, Rules
from ddmq_hpc.fs import GONE, NO_FILE, Filesystem
from ddmq_hpc.handles import Handle, Handles, receipt_of
from ddmq_hpc.identity import Identity
from ddmq_hpc.journal import Journal
from ddmq_hpc.leases import Leases
from ddmq_hpc.messages import NO_OPTIONS, LineEncoder, Message, Options
from ddmq_hpc.names import (
    DAMAGED,
    Lease,
    QueuePaths,
    message_id,
)
from ddmq_hpc.packs import PackReader, unreadable
from ddmq_hpc.publishing import AT_ONCE, Publisher, Start
from ddmq_hpc.settings import Settings
from ddmq_hpc.settling import Held
from ddmq_hpc.sweeping import Sweeper, Swept
from ddmq_hpc.taking import Taker

if TYPE_CHECKING:
    from ddmq_hpc.dropping import Fetcher
    from ddmq_hpc.signing import Signer  # loads what it computes with

#: How often a client takes again before it says that a queue is empty, since others were faster with all that it saw.
_TRIES = 40
_POLL_FIRST, _POLL_LONGEST = 0.05, 5.0


class Queue:
    """One queue of one client. Threads may share it. `settings` is asked anew for each operation."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, identity: Identity, settings: Callable[[], Settings]) -> None:
        self.name = paths.queue
        self.fs = fs
        self.paths = paths
        self.journal = Journal(fs, paths)
        self.reader = PackReader(fs, lambda: settings().max_message_bytes)
        self.taker = Taker(fs, paths, identity)
        self.publisher = Publisher(fs, paths)
        self.sweeper = Sweeper(fs, paths, identity, self.reader, self.journal)
        self.handles = Handles(fs, paths, self)
        self._leases = Leases(fs, paths, self.journal, self.reader)
        self.publish_lock = Lock()
        #: Asked to bring messages back when nothing is ready and other batch jobs hold some.
        self.idle_hook: Callable[[Queue], Swept | None] | None = None
        #: Brings in what others dropped who may only publish; None in most queues, to which nobody may drop anything.
        self.fetcher: Fetcher | None = None
        self._settings = settings
        self._signer: Signer | None = None

    @property
    def settings(self) -> Settings:
        return self._settings()

    # -- publish

    def publish(
        self, body: Any, options: Options = NO_OPTIONS, start: Start = AT_ONCE, durable: bool | None = None
    ) -> Message:
        """Publish one message. Raises `BadMessage`, `QueueDraining`, `StorageError`; then it was not published."""
        settings = self.accepting()
        line = self.signed(LineEncoder(options, settings.max_message_bytes).line(body), settings)
        priority = settings.priority if options.priority is None else options.priority
        durable = settings.durable if durable is None else durable
        try:
            with self.publish_lock:
                pack = self.publisher.put([line], priority, start, durable, options.group)
                if start is AT_ONCE:
                    self.taker.published(priority)
        except OSError as error:
            raise self.trouble(error, f"publish to queue {self.name!r}") from error
        return Message(message_id(pack, 0), body, self.name, options, settings)

    def signed(self, line: bytes, settings: Settings) -> bytes:
        """A line of a pack as it is published. Raises `KeyFileError`."""
        signer = self._signer_by(settings)
        return signer.signed(line) if signer else line

    def _signer_by(self, settings: Settings) -> Signer | None:
        """What signs and judges messages, as settings say that were read a moment ago; None in most queues. Raises
        `KeyFileError`."""
        if not settings.signs:
            return None
        from ddmq_hpc.signing import signer

        self._signer = signer(self._signer, self.name, settings)
        return self._signer

    def doubt(self, settings: Settings) -> Callable[[bytes], str | None] | None:
        """What says why a line of a pack is not to be believed, or None; None where nothing has to be signed. Raises
        `KeyFileError`."""
        signer = self._signer_by(settings) if settings.sign else None
        if signer and self.fetcher:
            return signer.judge  # whoever drops what looks signed would else end every worker
        return signer.doubt if signer else None

    def accepting(self) -> Settings:
        """The settings of a queue that takes new messages. Raises `QueueDraining`."""
        settings = self._settings()
        if settings.draining:
            raise QueueDraining(self.name, settings.steered)
        return settings

    # -- take

    def take(self, count: int = 1, wait: float = 0.0, duration: float | None = None) -> list[Message]:
        """Lease up to `count` messages, in order. Nothing only when nothing is ready, and has not been for `wait`
        seconds; a `StorageBusy` is waited out as long.

        The lease lasts `duration` seconds, or as long as the first message's own timeout or the queue's says. Raises
        `QueuePaused`, `StorageError`.
        """
        end = self.fs.monotonic() + wait if wait else 0.0
        pause = _POLL_FIRST
        while True:
            settings = self._settings()
            if settings.paused:
                raise QueuePaused(self.name, settings.steered)
            found: list[Message] = []
            try:
                found = self._take_now(count, duration, settings)
            except OSError as error:
                failure = self.trouble(error, f"take from queue {self.name!r}")
                if not isinstance(failure, StorageBusy) or not wait or self.fs.monotonic() >= end:
                    raise failure from error
            if found or not wait:
                return found
            left = end - self.fs.monotonic()
            if left <= 0:
                return found
            self.fs.sleep(min(pause, left))
            pause = min(pause * 1.5, _POLL_LONGEST)

    def _take_now(self, count: int, duration: float | None, settings: Settings) -> list[Message]:
        self.sweeper.maybe(settings)
        if self.fetcher:
            self.fetcher.maybe(settings)
        if self.taker.stranded:
            self.taker.give_back()
        if settings.sign:
            self._signer_by(settings)  # without the key nothing is taken
        while True:
            leases, messages = self._take_once(count, duration, settings)
            if messages or not leases:  # else all of it was damaged: it is out of the way now
                return messages

    def _take_once(
        self, count: int, duration: float | None, settings: Settings
    ) -> tuple[list[tuple[Lease, str]], list[Message]]:
        """What was leased, and the messages that could be read of it."""
        milliseconds = int((settings.timeout if duration is None else duration) * 1000) or 1
        leases = self.taker.take(count, milliseconds)
        for _ in range(_TRIES):
            if leases or self._looks_empty(settings):
                break
            leases = self.taker.take(count, milliseconds)  # nothing when others were faster with all that was seen
        messages: list[Message] = []
        for at, (lease, path) in enumerate(leases):
            try:
                messages += self._open(lease, path, settings, duration is None)
            except (OSError, KeyFileError):
                self.taker.give_back([unread for unread, _ in leases[at:]])
                if not messages:
                    raise
                break
        return leases, messages

    def told_aside(self) -> str:
        """What this client moved to damaged/ since it opened the queue, as the end of a sentence; empty if nothing."""
        why = ", ".join(f"{count} {reason}" for reason, count in self._leases.aside.most_common())
        return f"; set aside were {why}: see `{self.paths.command('list', '--state', DAMAGED)}`" if why else ""

    def _looks_empty(self, settings: Settings) -> bool:
        from ddmq_hpc.emptiness import looks_empty  # when there is something it is not looked for

        return looks_empty(self, settings)

    def is_drained(self) -> bool:
        """Whether nothing is ready, leased, delayed, or dropped by those who may only publish. Clients that move
        messages about do not make it seem so. Raises `StorageError`."""
        from ddmq_hpc.emptiness import is_drained

        settings = self._settings()
        try:
            return is_drained(self, settings)
        except OSError as error:
            raise self.trouble(error, f"look whether queue {self.name!r} is drained") from error

    def _open(self, lease: Lease, path: str, settings: Settings, own_timeout: bool) -> list[Message]:
        """The messages of a fresh lease; what cannot be read is moved to damaged."""
        entry = lease.entry
        held = Held(self, lease, path if entry.stop - entry.first == 1 else None)
        try:
            good, bad = self.reader.read(path, lease.entry, self.doubt(settings))
        except OSError as error:
            if error.errno in GONE:
                return []  # reclaimed already: the lease was over before it was read
            if error.errno in NO_FILE:
                bad = unreadable(lease.entry, error)
                self._leases.set_aside(held, bad, settings.durable)
                return []
            raise
        if bad:
            self._leases.set_aside(held, bad, settings.durable)
        if own_timeout and good and good[0][2].timeout is not None and good[0][2].timeout != settings.timeout:
            self._leases.extend_all(held, good[0][2].timeout)
        name, priority = self.name, lease.priority
        prefix, failed, lost = entry.pack + ".", entry.failed, entry.lost
        messages = []
        for index, body, options in good:
            messages.append(Message(f"{prefix}{index}", body, name, options, settings, failed, lost, priority, held))
        return messages

    # -- settle

    def ack_one(self, message: Message, outcome: dict[str, Any]) -> None:
        """The same as `ack` of one message, in few steps when it was leased alone and its lease has not run out."""
        held = message.held
        if held is not None and message.queue == self.name:
            settings, now = self._settings(), self.fs.now(self.paths.tmp)
            with held.lock:
                if held.path and settings.keep_done <= 0 and now * 1000 <= held.runs[0].deadline:
                    attempt = message.failed + message.lost + 1
                    record = self.journal.record("acked", message.id, attempt, now, held.taken, outcome)
                    try:
                        lost = self._leases.ack_whole(held, record, held.path, now, settings.durable)
                    except OSError as error:
                        raise self.trouble(error, f"settle messages of queue {self.name!r}") from error
                    if lost:
                        raise self._lost([message])
                    return
        self.ack([message], **outcome)

    def ack(self, messages: Iterable[Handle], **outcome: Any) -> None:
        """The messages are done. Raises `LeaseLost` for those that are no longer held; the others are acked all the
        same."""
        self._settle_all(messages, "acked", _kept if self._settings().keep_done > 0 else None, outcome)

    def nack(
        self, messages: Iterable[Handle], requeue: bool | None = None, delay: float | None = None, **outcome: Any
    ) -> None:
        """The messages failed: requeued, or made dead letters, as they and the queue say; `requeue` forces either."""
        self._settle_all(
            messages, "nacked", lambda rules, run: rules.after_failure(run.priority, run.entry, requeue, delay), outcome
        )

    def release(self, messages: Iterable[Handle], delay: float = 0.0, **outcome: Any) -> None:
        """Back in their place, no attempt counted."""
        self._settle_all(
            messages, "released", lambda rules, run: rules.after_release(run.priority, run.entry, delay), outcome
        )

    def extend(self, messages: Iterable[Handle], duration: float | None = None) -> None:
        """Hold on to the messages (and to what was taken with them) for `duration` seconds from now, by default as long
        as they were taken for. Raises `LeaseLost`."""
        lost = []
        try:
            for held, handles in self.handles.by_lease(messages):
                lost += [handles[index] for index in self._leases.extend(held, handles, duration)]
        except OSError as error:
            raise self.trouble(error, "extend a lease") from error
        if lost:
            raise self._lost(lost)

    def _settle_all(
        self,
        messages: Iterable[Handle],
        state: str,
        fate_of: Callable[[Rules, Lease], Fate] | None,
        outcome: dict[str, Any],
    ) -> None:
        lost: list[Handle] = []
        done: list[tuple[Held, set[int]]] = []
        settings = self._settings()  # before anything is done: they may be out of reach
        try:
            for held, handles in self.handles.by_lease(messages):
                missing = self._leases.settle(held, handles, state, fate_of, outcome, settings)
                lost += [handles[index] for index in missing]
                done.append((held, handles.keys() - missing))
        except OSError as error:
            for held, indexes in done:
                held.gone |= indexes
            raise self.trouble(error, f"settle messages of queue {self.name!r}") from error
        if state != "acked":
            self.taker.forget()
        if lost:
            raise self._lost(lost)

    # -- housekeeping

    def sweep(self) -> Swept:
        """Requeue what ran out, make ready what is due, and bring in what was dropped, now."""
        settings = self._settings()
        try:
            fetched = self.fetch(settings)
            swept = self.sweeper.sweep(settings)._replace(fetched=fetched)
        except OSError as error:
            raise self.trouble(error, f"sweep queue {self.name!r}") from error
        self.taker.forget()
        return swept

    def fetch(self, settings: Settings) -> int:
        """Bring in what others dropped; how many messages. Raises OSError."""
        fetched = self.fetcher.fetch(settings) if self.fetcher else 0
        if fetched:
            self.taker.forget()
        return fetched

    def close(self) -> None:
        self.journal.close()

    # -- errors

    def trouble(self, error: OSError, doing: str) -> DdmqError:
        """What to raise for what the operating system said while `doing` something (an infinitive)."""
        return (error.errno in GONE and self._removed()) or storage_error(error, doing)

    def _lost(self, handles: list[Handle]) -> DdmqError:
        return self._removed() or LeaseLost([receipt_of(handle) for handle in handles])

    def _removed(self) -> DdmqError | None:
        """The error that says so when the queue, or its root, is not there any more. Nothing when that cannot be
        seen."""
        root = self.paths.root
        try:
            if self.fs.is_there(self.paths.top):
                return None
            gone = QueueNotFound(root, self.name) if self.fs.is_there(root) else RootNotFound(root)
        except OSError:
            return None
        self.close()  # the journal may be made again, but it is another file then
        return gone


def _kept(rules: Rules, run: Lease) -> Fate:
    return rules.after_success(run.priority, run.entry)
