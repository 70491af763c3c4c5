"""The Python interface: a root directory, its queues, and every operation on them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypeVar, Union

from ddmq_hpc import legacy_names
from ddmq_hpc import settings as _settings
from ddmq_hpc.errors import (
    BadMessage,
    LegacyQueue,
    QueueNotFound,
    RootNotFound,
    UnfitDirectory,
    UsageError,
    storage_error,
)
from ddmq_hpc.fs import GONE, NO_LINKS, Filesystem
from ddmq_hpc.handles import Handle
from ddmq_hpc.identity import Identity, token
from ddmq_hpc.messages import NO_OPTIONS, OPTION_NAMES, Message, Options
from ddmq_hpc.names import (
    DIRECTORIES,
    GRAVE,
    LAYOUT_KEY,
    LEGACY_WORK,
    SETTINGS,
    QueuePaths,
    check_queue_name,
    is_queue_name,
)
from ddmq_hpc.queue import Queue
from ddmq_hpc.settings import DEFAULTS, Settings
from ddmq_hpc.units import seconds

if TYPE_CHECKING:
    from ddmq_hpc.doctor import Report
    from ddmq_hpc.recovery import Recovered
    from ddmq_hpc.stats import Stats
    from ddmq_hpc.sweeping import Swept

_Answer = TypeVar("_Answer")
Handles = Union[Handle, Iterable[Handle]]
#: Seconds for which settings files are believed.
_SETTINGS_AGE = 30.0
#: Whom settings trust counts only if nobody else can write them, whatever the umask.
_SETTINGS_MODE = 0o644
_MISSING: Any = object()
_NONE_GIVEN = (None,) * len(OPTION_NAMES)


class Broker:
    """The queues below `root`. Threads may share one; a forked child may go on with it.

    `create=True` makes the root, and queues when they are first published to. Raises `RootNotFound` when there is no
    root. `identity` says whose the leases are: by default this process's, so that they come back when it dies.

    A root that is made is looked at before, and the findings are kept in it (`doctor.look`). `admission` may refuse:
    by default it raises `UnfitDirectory` where queues cannot work at all.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        create: bool = False,
        *,
        identity: Identity | None = None,
        filesystem: Callable[[str], Filesystem] | None = None,
        admission: Callable[[Report], None] | None = None,
    ) -> None:
        self.root = os.path.abspath(os.fspath(root))
        self._create = create
        self._settings_file = f"{self.root}/{SETTINGS}"
        #: Directories in the root that this user may not look into, when queues were last listed.
        self.closed: list[str] = []
        #: What was found about the file system when this made the root; None where the root was there.
        self.checkup: Report | None = None
        if create and not os.path.lexists(self._settings_file):
            self._make_root(filesystem or Filesystem, admission)
        self._identity = identity or Identity()
        try:
            self.fs = (filesystem or Filesystem)(self.root)
            self.fs.lstat(self._settings_file)
        except OSError as error:
            if error.errno in GONE or error.errno == errno.ENOTDIR:
                raise RootNotFound(self.root) from None
            raise storage_error(error, f"open {self.root}") from error
        self._queues: dict[str, Queue] = {}

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Bring outcomes to the disk and close files. Leases stay as they are."""
        for queue in self._queues.values():
            queue.close()

    # -- queues

    def create_queue(self, queue: str, **settings: Any) -> None:
        """Make a queue with `settings` of its own (see `Settings`); nothing changes when it is there already.

        Only its owner may enter it: whoever can write to a queue can have commands run.
        Raises `BadName`, `SettingsError`, `StorageError`.
        """
        paths = QueuePaths(self.root, queue)
        _settings.apply(DEFAULTS, settings, "the settings given")
        try:
            for directory in (paths.top, *(f"{paths.top}/{name}" for name in DIRECTORIES)):
                try:
                    self.fs.mkdir(directory, 0o700 if directory == paths.top else 0o755)
                except FileExistsError:
                    if directory == paths.top and self._is_legacy(paths):
                        raise LegacyQueue(self.root, queue) from None
            if settings or not os.path.lexists(paths.settings):
                self._write_settings(paths, settings)
        except OSError as error:
            raise storage_error(error, f"create queue {queue!r}") from error

    def _write_settings(self, paths: QueuePaths, values: dict[str, Any]) -> None:
        path = f"{paths.tmp}/settings-{token()}"
        text = _settings.dump(values) + ("\n" if values else "") + _settings.example()
        self.fs.create(path, text.encode(), False, _SETTINGS_MODE)
        self.fs.rename(path, paths.settings)

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with all that is in it. Raises `QueueNotFound`."""
        self._find(queue)
        from shutil import rmtree

        grave = f"{self.root}/{GRAVE}{queue}-{token()}"
        try:
            self.fs.rename(f"{self.root}/{queue}", grave)
        except OSError as error:
            raise storage_error(error, f"delete queue {queue!r}") from error
        if found := self._queues.pop(queue, None):
            found.close()
        rmtree(grave, ignore_errors=True)

    def list_queues(self) -> list[str]:
        """The names of all queues that this user may look into, sorted; `closed` has the others afterwards."""
        try:
            names = sorted(filter(is_queue_name, self.fs.directories(self.root)))
        except OSError as error:
            raise storage_error(error, "list queues") from error
        self.closed = [name for name in names if not os.access(f"{self.root}/{name}", os.R_OK | os.X_OK)]
        return [name for name in names if os.path.isdir(f"{self.root}/{name}/ready") and name not in self.closed]

    def queue(self, name: str) -> Queue:
        """The queue itself; made when the broker may create. Raises `QueueNotFound`, `BadName`."""
        known = self._queues.get(name)
        return known if known and self._is_queue(known.paths) else self._find(name)

    def _known(self, name: str) -> Queue:
        """The same without looking whether it is still there: its methods find out."""
        return self._queues.get(name) or self._find(name)

    def _find(self, name: str) -> Queue:
        paths = QueuePaths(self.root, check_queue_name(name))
        if known := self._queues.pop(name, None):
            known.close()
        if not self._is_queue(paths):
            if not self._create:
                raise (LegacyQueue if self._is_legacy(paths) else QueueNotFound)(self.root, name)
            self.create_queue(name)
        reader = _SettingsReader(self.fs, (self._settings_file, paths.settings))
        found = self._queues[name] = Queue(self.fs, paths, self._identity, reader.settings)
        found.idle_hook = _recover_maybe
        return found

    def _is_queue(self, paths: QueuePaths) -> bool:
        """Whether all state directories are there as real ones: links could lead out of the root."""
        if os.path.islink(paths.top):
            return False
        try:
            return set(self.fs.directories(paths.top)) >= set(DIRECTORIES)
        except OSError as error:
            raise storage_error(error, f"open queue {paths.queue!r}") from error

    def _is_legacy(self, paths: QueuePaths) -> bool:
        return self.fs.is_there(f"{paths.top}/{LEGACY_WORK}") and not self.fs.is_there(paths.ready)

    # -- publish

    def publish(
        self,
        queue: str,
        message: Any = _MISSING,
        priority: int | None = None,
        timeout: float | None = None,
        requeue: bool | None = None,
        requeue_limit: int | None = None,
        requeue_prio: int | None = None,
        delay: float | str | None = None,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        durable: bool | None = None,
        if_exists: str = "skip",
        loss_limit: int | None = None,
        time_request: float | str | None = None,
        **legacy: Any,
    ) -> Message:
        """Publish one message: any JSON value. It is in the queue, on disk when `durable`, once this returns.

        `delay` seconds pass before it is ready. A `key` publishes a message once however often this is called: with
        `if_exists` "skip" the one published first is returned, "replace" replaces it unless it is being worked on,
        "error" raises `KeyExists`. Raises `BadMessage`, `QueueNotFound`, `StorageError`; then nothing was published,
        unless the error says that it `may_be_done`.
        """
        if legacy or message is _MISSING:
            message = legacy_names.message_of(message, _MISSING, legacy)
        target = self._known(queue)
        options = NO_OPTIONS
        given = (priority, timeout, requeue, requeue_limit, requeue_prio, headers, loss_limit, time_request)
        if given != _NONE_GIVEN:
            options = Options.checked(
                priority=priority,
                timeout=timeout,
                requeue=requeue,
                requeue_limit=requeue_limit,
                requeue_prio=requeue_prio,
                headers=headers,
                loss_limit=loss_limit,
                time_request=time_request,
            )
        wait = seconds(delay) if delay else 0.0
        if key is None:
            return target.publish(message, options, wait, durable)
        from ddmq_hpc.keyed import publish_once

        try:
            ident = publish_once(target, message, options, key, if_exists, wait)
        except OSError as error:
            raise target.trouble(error, f"publish to queue {queue!r}") from error
        return Message(ident, message, queue, options, target.settings)

    def publish_many(
        self,
        queue: str,
        messages: Iterable[Any],
        priority: int | None = None,
        timeout: float | None = None,
        requeue: bool | None = None,
        requeue_limit: int | None = None,
        requeue_prio: int | None = None,
        delay: float | str | None = None,
        headers: dict[str, Any] | None = None,
        durable: bool | None = None,
        progress: Callable[[int], None] | None = None,
        loss_limit: int | None = None,
        time_request: float | str | None = None,
    ) -> int:
        """Publish any number of messages, streamed, many in one file; how many. Each file appears whole or not at all.

        When one message is bad or the disk is full those before it are published: the error has their number as
        `published`. `progress` is called with the number so far.
        """
        records: Iterator[tuple[Any, dict[str, Any]]] = ((message, {}) for message in messages)
        return self.publish_records(
            queue,
            records,
            progress,
            priority=priority,
            timeout=timeout,
            requeue=requeue,
            requeue_limit=requeue_limit,
            requeue_prio=requeue_prio,
            loss_limit=loss_limit,
            time_request=time_request,
            delay=delay,
            headers=headers,
            durable=durable,
        )

    def publish_records(
        self,
        queue: str,
        records: Iterable[tuple[Any, dict[str, Any]]],
        progress: Callable[[int], None] | None = None,
        *,
        delay: float | str | None = None,
        durable: bool | None = None,
        **options: Any,
    ) -> int:
        """Like `publish_many`, of (message, its own properties) pairs."""
        from ddmq_hpc.bulk import publish_stream

        target = self._known(queue)
        wait = seconds(delay) if delay else 0.0
        return publish_stream(target, records, Options.checked(**options), wait, durable, progress)

    # -- take and settle

    def consume(self, queue: str, n: int = 1, wait: float | str = 0, lease: float | str | None = None) -> list[Message]:
        """Lease up to `n` messages, first in first out within a priority; an empty list when there are none.

        They come back to the queue unless acked within `lease` seconds (by default the timeout of message or queue).
        Waits up to `wait` seconds for the first. Raises `QueueNotFound`, `QueuePaused`, `StorageError`.
        """
        target = self._known(queue)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"bad number of messages {n!r}: it must be 1 or more")
        duration = None if lease is None else _settings.lease_duration(lease)
        return target.take(n, seconds(wait) if wait else 0.0, duration)

    def ack(self, messages: Handles, queue: str | None = None, **outcome: Any) -> None:
        """These are done: messages or receipts, one or many. Raises `LeaseLost` for those that are no longer held."""
        if isinstance(messages, Message) and queue is None:
            return self._known(messages.queue).ack_one(messages, outcome)
        for target, handles in self._by_queue(messages, queue):
            target.ack(handles, **outcome)

    def nack(
        self,
        messages: Handles,
        queue: str | None = None,
        requeue: bool | None = None,
        delay: float | str | None = None,
        **outcome: Any,
    ) -> None:
        """These failed: requeued as they and their queue say; `requeue` True forces that, False makes dead letters."""
        for target, handles in self._by_queue(messages, queue):
            target.nack(handles, requeue, None if delay is None else seconds(delay), **outcome)

    def release(self, messages: Handles, queue: str | None = None, delay: float | str = 0) -> None:
        """Back in their place, no attempt counted."""
        for target, handles in self._by_queue(messages, queue):
            target.release(handles, seconds(delay) if delay else 0.0)

    def extend(self, messages: Handles, lease: float | str | None = None, queue: str | None = None) -> None:
        """Hold on for `lease` seconds from now, by default as long as they were taken for."""
        for target, handles in self._by_queue(messages, queue):
            target.extend(handles, None if lease is None else _settings.lease_duration(lease))

    def _by_queue(self, messages: Handles, queue: str | None) -> list[tuple[Queue, list[Handle]]]:
        if isinstance(messages, Message) and queue is None:
            return [(self._known(messages.queue), [messages])]
        handles = [messages] if isinstance(messages, (str, Message)) else list(messages)
        groups: dict[str, list[Handle]] = {}
        for handle in handles:
            if isinstance(handle, Message):
                name = handle.queue
            elif isinstance(handle, str):
                name = queue if queue is not None else handle.rpartition("/")[0].rpartition("/")[2]
            else:
                raise BadMessage(f"neither a message nor a receipt: {handle!r:.80}")
            groups.setdefault(name, []).append(handle)
        return [(self._known(name), group) for name, group in groups.items()]

    # -- housekeeping and looking

    def purge_queue(self, queue: str) -> int:
        """Remove every message that is ready, delayed or leased; dead letters stay. How many."""
        from ddmq_hpc.admin import purge

        return self._looking(lambda: purge(self.queue(queue)))

    def clean(self, queue: str | None = None) -> dict[str, Any]:
        """Do the housekeeping of a queue, or of all, now: {queue: what was done}."""
        from ddmq_hpc.admin import clean

        names = self.list_queues() if queue is None else [queue]
        return {name: self._looking(partial(clean, self.queue(name))) for name in names}

    def recover(self, queue: str | None = None, dry_run: bool = False) -> dict[str, Recovered]:
        """Reclaim the leases of batch jobs that have ended, of a queue or of all, now: {queue: `Recovered`}.

        One query to each scheduler whose jobs hold leases; a job of which it says nothing clear keeps them. With
        `dry_run` nothing is reclaimed. Clients do this as they work, at most once a minute over the cluster.
        """
        from ddmq_hpc.recovery import recover_all

        names = self.list_queues() if queue is None else [queue]
        return recover_all([self.queue(name) for name in names], dry_run)

    def stats(self, queue: str) -> Stats:
        """`Stats` of a queue, from directory listings alone."""
        from ddmq_hpc.stats import stats

        return self._looking(lambda: stats(self.queue(queue)))

    @staticmethod
    def _looking(act: Callable[[], _Answer]) -> _Answer:
        try:
            return act()
        except OSError as error:
            raise storage_error(error, "look into the queue") from error

    # -- the root

    def _make_root(self, make: Callable[[str], Filesystem], admission: Callable[[Report], None] | None) -> None:
        from ddmq_hpc import doctor
        from ddmq_hpc.doctor import checkup

        was_there = os.path.lexists(self.root)
        try:
            _make_directories(self.root)
            fs = make(self.root)
            self.checkup = doctor.look(self.root, fs)
            try:
                (admission or checkup.admit)(self.checkup)
            except UnfitDirectory:
                if not was_there:
                    fs.remove_empty(self.root)
                raise
            self._write_root_settings(fs)
            checkup.write(fs, self.root, self.checkup)
        except OSError as error:
            raise storage_error(error, f"create the root {self.root}") from error

    def _write_root_settings(self, fs: Filesystem) -> None:
        text = f"{LAYOUT_KEY}: {_settings.LAYOUT}\n\n{_settings.example()}"
        path = f"{self.root}/.settings-{token()}"
        fs.create(path, text.encode(), False, _SETTINGS_MODE)
        try:
            fs.link_new(path, self._settings_file)  # False: another client was first
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            fs.rename(path, self._settings_file)  # somebody wants a root even here
        fs.drop(path)


def _recover_maybe(queue: Queue) -> Swept | None:
    from ddmq_hpc.recovery import maybe  # only once another batch job is seen

    return maybe(queue)


def _make_directories(path: str) -> None:
    """A directory and those above it; others may write to none of those that are new, whatever the umask."""
    if os.path.isdir(path):
        return
    _make_directories(os.path.dirname(path))
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


class _SettingsReader:
    """The settings that files give, read again after half a minute."""

    def __init__(self, fs: Filesystem, files: tuple[str, str]) -> None:
        self._fs = fs
        self._files = files
        self._read_at = -1e9
        self._settings = DEFAULTS

    def settings(self) -> Settings:
        """What they say now, or said half a minute ago."""
        if self._fs.monotonic() - self._read_at > _SETTINGS_AGE:
            settings = DEFAULTS
            for path in self._files:
                try:
                    text = self._fs.read(path).decode("utf-8", "replace")
                except OSError as error:
                    if error.errno in GONE:
                        continue
                    raise storage_error(error, "read the settings") from error
                settings = _settings.apply(settings, _settings.parse(text, path), path)
            self._settings, self._read_at = settings, self._fs.monotonic()
        return self._settings


#: As ddmq spelled it.
broker = Broker
