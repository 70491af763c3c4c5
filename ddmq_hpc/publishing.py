"""Publishing: packs are written aside, flushed, and renamed into place, so they are visible whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

from ddmq_hpc import groups
from ddmq_hpc.errors import BadMessage, UsageError
from ddmq_hpc.fs import Filesystem, Unanswered
from ddmq_hpc.identity import fork_count, token
from ddmq_hpc.names import WINDOWS, Delayed, Entry, QueuePaths, after_directory, bucket_at, new_entry_name, pack_name
from ddmq_hpc.units import seconds

#: Bounds of a pack, where `pack_size` does not say: a million messages are 8,000 inodes, and none is too big to read in
#: one go. Each part of a divided pack is a link to it.
PACK_MESSAGES, PACK_MESSAGES_FEW_LINKS, PACK_BYTES = 128, 12, 256 * 1024
#: A publisher turns to buckets that hold no more entries than this at its pace: where names cost time, and where
#: looking at one more directory costs a network file system three requests.
BUCKET_FULL_LOCAL, BUCKET_FULL_NETWORK = 64, 256
_NARROWEST = len(WINDOWS) - 1


class Start(NamedTuple):
    """When what is published becomes ready: not before `delay` seconds are over and the groups `after` are finished."""

    delay: float = 0.0
    after: tuple[str, ...] = ()

    @classmethod
    def of(cls, delay: float | str | None, after: str | Iterable[str] | None, group: str | None) -> Start:
        """What callers ask for, for a message of `group`. Raises `UsageError`, `BadMessage`."""
        groups = (after,) if isinstance(after, str) else tuple(after or ())
        if group in groups:
            raise BadMessage(f"a message of group {group!r} cannot come after that group: it would wait for itself")
        try:
            if groups:
                after_directory(groups)
        except UsageError as error:
            raise BadMessage(f"bad group to come after: {error}") from None
        return cls(seconds(delay) if delay else 0.0, groups)

    def target(self, paths: QueuePaths, priority: int, entry: Entry, now: float) -> str | None:
        """Where an entry waits that is published `now`; None when it is ready at once."""
        if self.delay <= 0 and not self.after:
            return None
        late = Delayed(int((now + self.delay) * 1000), priority, entry)
        return paths.in_after(self.after, late) if self.after else paths.in_delayed(late)


AT_ONCE = Start()


class PackNames:
    """Names of new packs: ever later, never twice, whatever the clock does, also after a fork.

    At the caller's pace no bucket holds many more than `full` of them, and few hold less than a quarter of that.
    """

    def __init__(self, full: int) -> None:
        self._full = full
        self._forks = -1
        self._last_ns = 0
        self._level = 0
        self._window = -1
        self._in_window = 0
        self._entered_ns = 0
        self.bucket = ""  # of the last name

    def next(self, ns: int) -> str:
        """A name for a pack published at `ns`, at a level that keeps its bucket small."""
        if self._forks != fork_count():
            self._token, self._forks = token(), fork_count()
        if ns <= self._last_ns:
            ns = self._last_ns + 1
        self._last_ns = ns
        self._choose_level(ns)
        return pack_name(ns, self._level, self._token)

    def _choose_level(self, ns: int) -> None:
        if ns // WINDOWS[self._level] == self._window:
            self._in_window += 1
            if self._in_window > self._full and self._level < _NARROWEST:
                self._enter(self._fitting_level(ns, self._level + 1), ns)
        elif self._in_window < self._full // 4 and self._level > 0:
            self._enter(self._fitting_level(ns, 0), ns)
        else:
            self._enter(self._level, ns)

    def _fitting_level(self, ns: int, widest: int) -> int:
        """The first level from `widest` on whose buckets stay below `full` at the pace of this one: each level in
        between would be one more bucket for takers to list."""
        pace = self._in_window / (ns - self._entered_ns)
        fitting = range(widest, _NARROWEST)
        return next((level for level in fitting if WINDOWS[level] * pace <= self._full), _NARROWEST)

    def _enter(self, level: int, ns: int) -> None:
        self._level, self._window = level, ns // WINDOWS[level]
        self._in_window, self._entered_ns = 1, ns
        self.bucket = bucket_at(ns, level)


class Publisher:
    """Puts packs into one queue. Callers serialise their calls."""

    def __init__(self, fs: Filesystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._paths = paths
        self._names = PackNames(BUCKET_FULL_NETWORK if fs.network else BUCKET_FULL_LOCAL)
        self._synced = ""

    def put(self, lines: list[bytes], priority: int, start: Start, durable: bool, group: str | None = None) -> str:
        """One pack of `lines`, taken not before its `start`; on disk when `durable`. Its name. Raises OSError, and then
        nothing of it is visible, unless it is `Unanswered`."""
        if durable and self._fs.sync_keeps_name:
            return self._put_then_sync(lines, priority, start, group)
        pack, target = self.put_unsynced(lines, priority, start, durable, group)
        if durable:
            try:
                self.sync(self._paths.parent(target))
            except OSError as error:
                self._withdraw(target, error)
        return pack

    def _withdraw(self, target: str, error: OSError) -> NoReturn:
        """Nothing stays of what could not be flushed. `Unanswered` where that is not known: it cannot be removed, or
        somebody took it already."""
        try:
            withdrawn = self._fs.drop(target)
        except OSError:
            withdrawn = False
        if withdrawn:
            raise error
        raise Unanswered(error.errno, error.strerror, target) from error

    def _put_then_sync(self, lines: list[bytes], priority: int, start: Start, group: str | None) -> str:
        """One flush for the pack and its name, half the cost of one for each.

        A power cut in between can leave a pack that is empty, of a publish that never returned: readers set it aside.
        """
        fs = self._fs
        pack, source, target = self._new(len(lines), priority, start)
        handle = fs.create_open(source, b"".join(lines))
        try:
            if group:
                self._enter_group(source, pack, group)
            self.place(source, target)
            try:
                fs.sync_file(handle)
            except OSError as error:
                self._withdraw(target, error)
        finally:
            os.close(handle)
        return pack

    def sync(self, directory: str) -> None:
        """Bring a directory to the disk, and those above it the first time: it may be new itself."""
        self._fs.sync_directory(directory)
        if directory != self._synced:
            parent = self._paths.parent(directory)
            self._fs.sync_directory(parent)
            self._fs.sync_directory(self._paths.parent(parent))
            self._synced = directory

    def put_unsynced(
        self, lines: list[bytes], priority: int, start: Start, durable: bool, group: str | None = None
    ) -> tuple[str, str]:
        """Like `put`, but leaves flushing the directory to the caller: bulk publishes share it. The pack's name and the
        path of its entry."""
        pack, source, target = self._new(len(lines), priority, start)
        self._fs.create(source, b"".join(lines), durable)
        if group:
            self._enter_group(source, pack, group)
        self.place(source, target)
        return pack, target

    def _enter_group(self, source: str, pack: str, group: str) -> None:
        """A written pack is one of a group before anybody can take it. Raises OSError, and then it is not written."""
        try:
            groups.enter(self._fs, self._paths, group, pack, source)
        except OSError:
            self._fs.drop(source)
            raise

    def _new(self, count: int, priority: int, start: Start) -> tuple[str, str, str]:
        """The name of a new pack, where to write it and where to put it then."""
        paths = self._paths
        now = self._fs.now(paths.tmp)
        pack = self._names.next(int(now * 1e9))
        ready = f"{paths.ready}/{priority}/{self._names.bucket}/{new_entry_name(pack, count)}"
        target = ready if start is AT_ONCE else start.target(paths, priority, Entry(pack, 0, count, 0, 0), now) or ready
        return pack, f"{paths.tmp}/{pack}", target

    def new_pack(self) -> str:
        return self._names.next(int(self._fs.now(self._paths.tmp) * 1e9))

    def place(self, source: str, target: str) -> None:
        """Rename a written pack to where it is visible. Raises OSError, and then it is not; `Unanswered` when nobody
        knows."""
        fs = self._fs
        try:
            fs.put(source, target)
        except OSError as error:
            if fs.drop(source) and not fs.is_there(target):
                raise OSError(error.errno, error.strerror, target) from error
            # It was renamed after all, and only the look at that had failed.
