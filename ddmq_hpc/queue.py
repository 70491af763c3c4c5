"""One queue as a state machine: publish, take, settle, look. All moves of messages between states are made here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from threading import Lock
from typing import Any, Callable

from ddmq_hpc.errors import DdmqError, LeaseLost, QueueNotFound, QueuePaused, RootNotFound, StorageBusy, storage_error
from ddmq_hpc.fate import Fate, Rules
from ddmq_hpc.fs import GONE, NO_FILE, Filesystem, Unanswered
from ddmq_hpc.handles import Handle, Handles, receipt_of
from ddmq_hpc.identity import Identity
from ddmq_hpc.journal import Journal
from ddmq_hpc.messages import NO_OPTIONS, LineEncoder, Message, Options
from ddmq_hpc.names import SPLIT, Dead, Entry, Lease, QueuePaths, message_id
from ddmq_hpc.packs import PackReader
from ddmq_hpc.publishing import Publisher
from ddmq_hpc.settings import Settings
from ddmq_hpc.settling import Held, Parting, carve, kept_runs, runs_of, split_lease
from ddmq_hpc.sweeping import Sweeper, Swept
from ddmq_hpc.taking import Taker

#: How often a client looks again before it says that a queue is empty while others move its messages about, the waits
#: between (seconds), and the age from which a directory's time of change is sure to tell of every change.
_LOOKS, _FIRST_WAIT, _LONGEST_WAIT, _QUIET = 40, 0.004, 0.05, 0.02
_POLL_FIRST, _POLL_LONGEST = 0.05, 5.0


class Queue:
    """One queue of one client. Threads may share it. `settings` is asked anew for each operation."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, identity: Identity, settings: Callable[[], Settings]) -> None:
        self.name = paths.queue
        self.fs = fs
        self.paths = paths
        self.journal = Journal(fs, paths)
        self.reader = PackReader(fs)
        self.taker = Taker(fs, paths, identity)
        self.publisher = Publisher(fs, paths)
        self.sweeper = Sweeper(fs, paths, identity, self.reader, self.journal)
        self.handles = Handles(fs, paths, self)
        self.publish_lock = Lock()
        #: Asked to bring messages back when nothing is ready and other batch jobs hold some.
        self.idle_hook: Callable[[Queue], Swept | None] | None = None
        self._settings = settings

    @property
    def settings(self) -> Settings:
        return self._settings()

    # -- publish

    def publish(
        self, body: Any, options: Options = NO_OPTIONS, delay: float = 0.0, durable: bool | None = None
    ) -> Message:
        """Publish one message. Raises `BadMessage`, `StorageError`; then it was not published."""
        settings = self._settings()
        line = LineEncoder(options, settings.max_message_bytes).line(body)
        priority = settings.priority if options.priority is None else options.priority
        try:
            with self.publish_lock:
                pack = self.publisher.put([line], priority, delay, settings.durable if durable is None else durable)
                if delay <= 0:
                    self.taker.published(priority)
        except OSError as error:
            raise self.trouble(error, f"publish to queue {self.name!r}") from error
        return Message(message_id(pack, 0), body, self.name, options, settings)

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
                raise QueuePaused(self.name)
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
        if self.taker.stranded:
            self.taker.give_back()
        milliseconds = int((settings.timeout if duration is None else duration) * 1000) or 1
        leases = self.taker.take(count, milliseconds)
        for _ in range(_LOOKS):
            if leases or self._looks_empty(settings):
                break
            leases = self.taker.take(count, milliseconds)  # nothing when others were faster with all that was seen
        messages: list[Message] = []
        for at, (lease, path) in enumerate(leases):
            try:
                messages += self._open(lease, path, settings, duration is None)
            except OSError:
                self.taker.give_back([unread for unread, _ in leases[at:]])
                if not messages:
                    raise
                break
        if leases and not messages:
            return self._take_now(count, duration, settings)  # all of it was damaged: it is out of the way now
        return messages

    def _looks_empty(self, settings: Settings) -> bool:
        """Whether nothing is ready and nothing is about to be put back. False: take again.

        An entry that is being divided is in neither place for one moment and in `leased` for the next. One listing of
        each cannot tell, so `leased` must have been without one, and unchanged, while `ready` was found empty.
        """
        wait = _FIRST_WAIT
        if self.fs.network:
            self.fs.refresh(self.paths.leased)
            self.fs.sleep(_QUIET)  # that touch shall not look like a change
        for _ in range(_LOOKS):
            before = self.fs.lstat(self.paths.leased).st_mtime_ns
            if self.taker.look_again():
                return False
            names = self.fs.names(self.paths.leased)
            swept = self.sweeper.sweep_names(names, settings)
            if swept.requeued or swept.due or self._recover(names):
                self.taker.forget()
                return False
            dividing = any(name.endswith(SPLIT) for name in names)
            after = self.fs.lstat(self.paths.leased).st_mtime_ns
            quiet = self.fs.now(self.paths.tmp) - after / 1e9 > _QUIET
            if not dividing and before == after and (quiet or not names):
                return True
            self.fs.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
        return True

    def _recover(self, names: list[str]) -> bool:
        """Whether messages of batch jobs that have ended came back."""
        if self.idle_hook is None or not self.sweeper.other_jobs_hold(names):
            return False
        recovered = self.idle_hook(self)
        return recovered is not None and recovered.requeued > 0

    def _open(self, lease: Lease, path: str, settings: Settings, own_timeout: bool) -> list[Message]:
        """The messages of a fresh lease; what cannot be read is moved to damaged."""
        entry = lease.entry
        held = Held(self, lease, path if entry.stop - entry.first == 1 else None)
        try:
            good, bad = self.reader.read(path, lease.entry)
        except OSError as error:
            if error.errno in GONE:
                return []  # reclaimed already: the lease was over before it was read
            if error.errno in NO_FILE:
                self._set_aside(held, dict.fromkeys(range(lease.entry.first, lease.entry.stop), "no-file"))
                return []
            raise
        if bad:
            self._set_aside(held, bad)
        if own_timeout and good and good[0][2].timeout is not None and good[0][2].timeout != settings.timeout:
            self._extend_held(held, good[0][2].timeout)
        name, priority = self.name, lease.priority
        prefix, failed, lost = entry.pack + ".", entry.failed, entry.lost
        messages = []
        for index, body, options in good:
            messages.append(Message(f"{prefix}{index}", body, name, options, settings, failed, lost, priority, held))
        return messages

    def _set_aside(self, held: Held, bad: dict[int, str]) -> None:
        lease = held.runs[0]
        for reason in sorted(set(bad.values())):
            indexes = {index for index, why in bad.items() if why == reason}
            now = self.fs.time()
            self.journal.write(
                [
                    self._record("damaged", lease, run, now, held, {"reason": reason})
                    for run in runs_of(lease.entry, indexes)
                ],
                self._settings().durable,
            )

            def target(run: Lease, part: Entry, reason: str = reason) -> str:
                return f"{self.paths.damaged}/{Dead(run.priority, part, reason).name}"

            self._settle(held, indexes, target)

    # -- settle

    def ack_one(self, message: Message, outcome: dict[str, Any]) -> None:
        """The same as `ack` of one message, in few steps when it was leased alone and its lease has not run out."""
        held = message.held
        if held is not None and message.queue == self.name:
            now = self.fs.now(self.paths.tmp)
            with held.lock:
                if held.path and now * 1000 <= held.runs[0].deadline:
                    attempt = message.failed + message.lost + 1
                    record = self.journal.record("acked", message.id, attempt, now, held.taken, outcome)
                    try:
                        done = self._settle_whole(held, record, held.path)
                    except OSError as error:
                        raise self.trouble(error, f"settle messages of queue {self.name!r}") from error
                    if done:
                        return
                    self._too_late(held, [message.index], now)
                    raise self._lost([message])
        self.ack([message], **outcome)

    def ack(self, messages: Iterable[Handle], **outcome: Any) -> None:
        """The messages are done. Raises `LeaseLost` for those that are no longer held; the others are acked all the
        same."""
        self._settle_all(messages, "acked", None, outcome)

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

    def settle_held(self, held: Held, index: int, state: str) -> None:
        """Let go for good of a message that the caller leased, recorded as `state`."""
        self._settle_held(held, {index: ""}, state, None, {})

    def extend(self, messages: Iterable[Handle], duration: float | None = None) -> None:
        """Hold on to the messages (and to what was taken with them) for `duration` seconds from now, by default as long
        as they were taken for. Raises `LeaseLost`."""
        lost = []
        try:
            for held, handles in self.handles.by_lease(messages):
                with held.lock:
                    self._make_sure(held)
                    for lease in {lease for index in handles if (lease := held.run_of(index))}:
                        span = lease.duration if duration is None else max(1, int(duration * 1000))
                        self._renew(held, lease, span)
                    lost += [handle for index, handle in handles.items() if not held.run_of(index)]
        except OSError as error:
            raise self.trouble(error, "extend a lease") from error
        if lost:
            raise self._lost(lost)

    def _extend_held(self, held: Held, seconds: float) -> None:
        with held.lock:
            for lease in list(held.runs):
                self._renew(held, lease, max(1, int(seconds * 1000)))

    def _make_sure(self, held: Held) -> None:
        """Of a lease that a call failed on it is found out what stands. Under its lock. Raises OSError."""
        if held.doubtful:
            held.find_again(self.fs, self.paths)

    def _renew(self, held: Held, lease: Lease, span: int) -> None:
        longer = lease._replace(deadline=int(self.fs.now(self.paths.tmp) * 1000) + span, duration=span)
        if longer == lease:
            longer = longer._replace(deadline=lease.deadline + 1)  # a heartbeat is seen by its new name
        held.path = None
        try:
            kept = self.fs.claim(self.paths.in_leased(lease), self.paths.in_leased(longer))
        except OSError:
            held.doubtful = True
            raise
        at = held.runs.index(lease)
        held.runs[at : at + 1] = [longer] if kept else []

    def _settle_all(
        self,
        messages: Iterable[Handle],
        state: str,
        fate_of: Callable[[Rules, Lease], Fate] | None,
        outcome: dict[str, Any],
    ) -> None:
        lost: list[Handle] = []
        done: list[tuple[Held, set[int]]] = []
        try:
            for held, handles in self.handles.by_lease(messages):
                missing = self._settle_held(held, handles, state, fate_of, outcome)
                lost += [handles[index] for index in missing]
                done.append((held, handles.keys() - missing))
        except OSError as error:
            for held, indexes in done:
                held.gone |= indexes
            raise self.trouble(error, f"settle messages of queue {self.name!r}") from error
        if fate_of is not None:
            self.taker.forget()
        if lost:
            raise self._lost(lost)

    def _settle_held(
        self,
        held: Held,
        handles: Mapping[int, Handle],
        state: str,
        fate_of: Callable[[Rules, Lease], Fate] | None,
        outcome: dict[str, Any],
    ) -> Collection[int]:
        """Settle some messages of one lease: look, write the outcome down, let go. The indexes of those that were
        lost."""
        now = self.fs.now(self.paths.tmp)
        with held.lock:
            self._make_sure(held)
            if fate_of is None and _is_all(held, handles) and now * 1000 <= held.runs[0].deadline:
                record = self._record(state, held.runs[0], held.runs[0].entry, now, held, outcome)
                whole = self.paths.in_leased(held.runs[0])
                return () if self._settle_whole(held, record, whole) else self._too_late(held, handles.keys(), now)
        self._forget_reclaimed(held, now)
        mine = {index for index in handles if held.run_of(index)}
        lost = handles.keys() - mine - held.gone
        if not mine:
            return lost
        # The runs of a lease differ in nothing but their ranges, which other threads may divide meanwhile.
        lease, settings = held.first, self._settings()
        fate = None if fate_of is None else fate_of(Rules(settings, self._options(held, handles)), lease)
        more = outcome if fate is None else {"to": fate.state, **outcome}
        runs = runs_of(lease.entry, mine)
        self.journal.write([self._record(state, lease, run, now, held, more) for run in runs], settings.durable)
        if fate is None:
            late = self._settle(held, mine, None)
        else:
            late = self._settle(held, mine, lambda _, part: fate.path(self.paths, part, now))
        return lost | self._too_late(held, late, now)

    def _too_late(self, held: Held, indexes: Collection[int], now: float) -> set[int]:
        """Take back outcomes that were written of leases which turned out to be lost: reclaimed before their deadlines,
        since their process or their batch job was known to be gone, or removed."""
        lease = held.first
        late = [self._record("late", lease, run, now, held, {}) for run in runs_of(lease.entry, indexes)]
        if late:
            self.journal.write(late, self._settings().durable)
        return set(indexes)

    def _forget_reclaimed(self, held: Held, now: float) -> None:
        """What may have been reclaimed is looked at before an outcome is written that would not be true."""
        with held.lock:
            for lease in list(held.runs):
                if now * 1000 > lease.deadline and not self.fs.is_there(self.paths.in_leased(lease)):
                    held.runs.remove(lease)
                    held.path = None

    def _settle_whole(self, held: Held, record: str, path: str) -> bool:
        """The usual case in few calls: everything of a lease is done, and the lease has not run out. Under its lock."""
        self.journal.write([record], self._settings().durable)
        held.path = None
        try:
            done = self.fs.drop(path) or self._reply_was_lost(held.runs[0], path)
        except OSError:
            held.doubtful = True
            raise
        held.runs.clear()
        return done

    def _settle(self, held: Held, indexes: Collection[int], target: Callable[[Lease, Entry], str] | None) -> set[int]:
        """Let go of messages: to the path that `target` names for each range of them, or for good. Those that were
        lost."""
        lost = set(indexes)
        with held.lock:
            held.path = None
            for lease in list(held.runs):
                mine = [index for index in indexes if lease.entry.first <= index < lease.entry.stop]
                if not mine:
                    continue
                kept = [lease._replace(entry=run) for run in kept_runs(lease.entry, mine)]
                parts = runs_of(lease.entry, mine)
                go = [(part, target(lease, part)) for part in parts] if target else []
                try:
                    done = self._divide(lease, kept, go)
                except OSError:
                    held.doubtful = True
                    held.gone |= set(indexes) - lost
                    raise
                at = held.runs.index(lease)
                held.runs[at : at + 1] = kept if done else []
                if done:
                    lost.difference_update(mine)
        return lost

    def _divide(self, lease: Lease, kept: list[Lease], go: list[Parting]) -> bool:
        whole, taken = lease, self.paths.in_leased(lease)
        path = taken
        if len(kept) + len(go) > 1:
            whole = split_lease(lease, lease.entry, int(self.fs.now(self.paths.tmp) * 1000))
            path = self.paths.in_leased(whole)
            if not self.fs.claim(taken, path):
                return False
        try:
            if carve(self.fs, self.paths, path, [self.paths.in_leased(piece) for piece in kept], go):
                return True
        except Unanswered:
            raise
        except OSError:
            if whole is not lease:
                self.fs.claim(path, taken)  # held on to, as before
            raise
        return not kept and self._reply_was_lost(whole, path)

    def _reply_was_lost(self, lease: Lease, path: str) -> bool:
        """Whether a lease is gone although nobody may reclaim it yet: on a network file system that was this client's
        own call, its reply lost."""
        return self.fs.network and self.fs.now(self.paths.tmp) * 1000 < lease.deadline and not self.fs.is_there(path)

    def _record(self, state: str, lease: Lease, run: Entry, now: float, held: Held, more: dict[str, Any]) -> str:
        single = run.stop - run.first == 1
        ident = message_id(run.pack, run.first) if single else f"{run.pack}.{run.first}-{run.stop}"
        return self.journal.record(state, ident, run.failed + run.lost + 1, now, held.taken, more)

    def _options(self, held: Held, handles: Mapping[int, Handle]) -> Options:
        first = next(iter(handles.values()))
        if isinstance(first, Message):
            return first.options
        lease = held.runs[0] if held.runs else held.first
        options = self.reader.options(self.paths.in_leased(lease), lease.entry)
        return options if options is not None else Options()

    # -- housekeeping

    def sweep(self) -> Swept:
        """Requeue what ran out and make ready what is due, now."""
        try:
            swept = self.sweeper.sweep(self._settings())
        except OSError as error:
            raise self.trouble(error, f"sweep queue {self.name!r}") from error
        self.taker.forget()
        return swept

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


def _is_all(held: Held, indexes: Collection[int]) -> bool:
    """Whether `indexes` are all that is held, in one run."""
    if len(held.runs) != 1:
        return False
    entry = held.runs[0].entry
    return len(indexes) == entry.stop - entry.first and all(map(indexes.__contains__, range(entry.first, entry.stop)))
