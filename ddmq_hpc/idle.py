"""Waiting for messages that costs the file server next to nothing, however long it takes.

A look for messages lists several directories. Between two looks the directories' times of change are asked for, which
is one small request each, and a look follows when one of them changed, when something known falls due, or after
`LOOK_EVERY` in any case, should a change have been missed (two within one tick of an NFS server's clock are).
"""

from __future__ import annotations

from random import uniform
from threading import Lock
from time import monotonic
from typing import Callable

from ddmq_hpc.errors import StorageError
from ddmq_hpc.fs import GONE
from ddmq_hpc.names import is_bucket, is_delay_window, is_priority, parse_after, parse_delayed, parse_lease
from ddmq_hpc.queue import Queue
from ddmq_hpc.units import human

#: Seconds between two polls, at first and at last; each half as long again as the one before, give or take a quarter.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 30.0
#: Seconds after which a look is taken although nothing seems to have changed.
LOOK_EVERY = 600.0
#: A directory that changed so lately (seconds) may have changed again since without telling.
_FRESH = 0.05
#: With more directories than this it is cheaper to look.
_MOST_WATCHED = 16
#: Seconds for which a worker tries on while the file system refuses everything.
PATIENCE = 600.0
_TELL_EVERY = 60.0


class Backoff:
    """Ever longer pauses, spread so that many workers do not poll in step."""

    def __init__(self, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._first = first
        self._longest = longest
        self._pause = first

    def next(self) -> float:
        pause = self._pause
        self._pause = min(pause * 1.5, self._longest)
        return pause * uniform(0.75, 1.25)

    def reset(self) -> None:
        self._pause = self._first


class Patience:
    """Waits out what the file system refuses: a full disk is cleared, a read-only one made writable, and what was done
    meanwhile need not be done again. Threads may share it."""

    def __init__(self, tell: Callable[[str], None], sleep: Callable[[float], object]) -> None:
        self._tell = tell
        self._sleep = sleep
        self._lock = Lock()
        self._since: float | None = None
        self._told = -1e9
        self._backoff = Backoff(0.1, 10.0)

    def wait(self, error: StorageError) -> None:
        """Sleep for a while after an error. Raises it once there were nothing but errors for `PATIENCE` seconds."""
        with self._lock:
            now = monotonic()
            if self._since is None:
                self._since = now
            if now - self._told > _TELL_EVERY:
                self._told = now
                self._tell(f"{error}; trying on for up to {human(PATIENCE)}")
            if now - self._since > PATIENCE:
                raise error
            pause = self._backoff.next()
        self._sleep(pause)

    def succeeded(self) -> None:
        """The file system does what it is asked for."""
        if self._since is not None:
            with self._lock:
                self._since = None
                self._backoff.reset()


class Watch:
    """What one queue looked like when nothing was ready in it."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._looked = -1e9
        self._due = 0.0
        self._marks: dict[str, int] | None = None

    def remember(self) -> None:
        """Nothing was ready just now: what to wait for from here on."""
        queue = self._queue
        fs, paths = queue.fs, queue.paths
        self._looked = fs.monotonic()
        self._due = self._next_due()
        directories = [paths.ready, paths.delayed, *([paths.drop] if queue.fetcher else [])]
        if any(map(parse_after, fs.names(paths.delayed))):
            directories.append(paths.leased)  # where the last message of a group goes away
        for priority in filter(is_priority, fs.names(paths.ready)):
            top = f"{paths.ready}/{priority}"
            directories += [top, *(f"{top}/{bucket}" for bucket in fs.names(top) if is_bucket(bucket))]
        if len(directories) > _MOST_WATCHED:
            self._marks = None
            return
        now = fs.now(paths.tmp)
        self._marks = {path: self._mark(path) for path in directories}
        for path, mark in self._marks.items():
            if now - mark / 1e9 < _FRESH:
                self._marks[path] = -1

    def calls_for_a_look(self) -> bool:
        """Whether messages may have come since `remember`."""
        fs = self._queue.fs
        if self._marks is None or fs.monotonic() - self._looked > LOOK_EVERY:
            return True
        if fs.now(self._queue.paths.tmp) > self._due:
            return True
        return any(self._mark(path) != mark for path, mark in self._marks.items())

    def _mark(self, path: str) -> int:
        fs = self._queue.fs
        try:
            if fs.network:
                fs.open_directory(path)  # or an NFS client answers for up to a minute from what it remembers
            return fs.lstat(path).st_mtime_ns
        except OSError as error:
            if error.errno in GONE:
                return 0
            raise

    def _next_due(self) -> float:
        """When the first delayed message is due or the first lease runs out, in the file system's clock."""
        queue = self._queue
        fs, paths = queue.fs, queue.paths
        leases = filter(None, map(parse_lease, fs.names(paths.leased)))
        times = [lease.deadline / 1000 + queue.settings.grace for lease in leases]
        windows = sorted(filter(is_delay_window, fs.names(paths.delayed)))
        if windows:
            names = fs.names(f"{paths.delayed}/{windows[0]}")
            times += [late.due / 1000 for late in filter(None, map(parse_delayed, names))]
        return min(times, default=float("inf"))
