"""Locks for users: at most so many holders at a time, over all hosts that share a file system.

A lock is a directory, `PATH.lock`; what its names mean is told in `lockdir.py`. Who wants it waits in the queue of its
node (`turnstile.py`), and the first of each node at the file server (`waiter.py`). A holder touches its file to give
signs of life (`hold.py`). It is replaced when its process is gone on this host, when its batch job has ended, or when
it gave no sign of life for its lease, by the file system's clock where all clients see one, else as observed
(`holders.py`).

The generation is a fencing token: it is higher than that of all who came before. A holder that slept past its lease
may find out only afterwards; what must not happen then has to compare tokens. Turns are a courtesy, not a promise.
"""

from __future__ import annotations

import os
from functools import cache
from types import TracebackType
from typing import Callable, NamedTuple

from ddmq_hpc.errors import DdmqError, UsageError, storage_error
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.hold import Hold
from ddmq_hpc.holders import LEASE, Holder, holders, record
from ddmq_hpc.identity import Identity, batch_job
from ddmq_hpc.lockdir import LockDirectory, usual_filesystem
from ddmq_hpc.waiter import Waiter


@cache
def _identity(job: str) -> Identity:
    """This process's, as long as it is in that batch job."""
    return Identity()


class Overview(NamedTuple):
    """What a look at a lock finds; `now` is the file system's clock."""

    path: str
    holders: list[Holder]
    waiting: int
    now: float


class Semaphore:
    """At most `slots` holders at a time of what `path` stands for: `with Semaphore("/shared/scratch", 4) as held:`.

    All who use one path should say the same number of slots. `wait` is how many seconds to wait at most (None: for as
    long as it takes), `lease` for how long a holder may give no sign of life; a thread gives them while the lock is
    held. `held.token` is the fencing token; `held.lost` tells whether the lock may be somebody else's by now. An object
    holds once; it is not for several threads. Raises `LockBusy`, `LockLost` when letting go of what was lost,
    `StorageError`, `NotFound` when the directory that `path` is in is not there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        slots: int,
        *,
        wait: float | None = None,
        lease: float = LEASE,
        filesystem: Callable[[str], Filesystem] = usual_filesystem,
    ) -> None:
        if slots < 1:
            raise UsageError(f"{slots} slots: at least 1")
        if lease < 1:
            raise UsageError("a lease of a lock is at least 1 second")
        self._place = LockDirectory(path, filesystem)
        self.path = self._place.path
        self.slots, self.wait, self.lease = slots, wait, lease
        self._identity = _identity(batch_job())
        self._hold: Hold | None = None

    @property
    def token(self) -> int:
        """The fencing token of what is held: higher than any before. 0 when nothing is held."""
        return self._hold.token if self._hold else 0

    @property
    def lost(self) -> bool:
        """Whether what was taken may be somebody else's by now. Looks at no file."""
        return self._hold is not None and self._hold.is_lost()

    def acquire(self) -> int:
        """Wait for the lock and take it: its token."""
        if self._hold:
            raise UsageError(f"{self.path} is held already by this very object")
        try:
            self._hold = Waiter(self._place, self.slots, self.lease, self._identity).wait(self.wait)
        except OSError as error:
            raise storage_error(error, f"take the lock {self.path}") from error
        return self._hold.token

    def release(self) -> None:
        """Let go. Raises `LockLost` when it was not held any more."""
        hold, self._hold = self._hold, None
        if hold is None:
            raise UsageError(f"{self.path} is not held")
        try:
            hold.end()
        except OSError as error:
            raise storage_error(error, f"let go of the lock {self.path}") from error

    def __enter__(self) -> Semaphore:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.release()
        except DdmqError:
            if kind is None:
                raise


class Lock(Semaphore):
    """One holder at a time of what `path` stands for: a `Semaphore` of one slot."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        wait: float | None = None,
        lease: float = LEASE,
        filesystem: Callable[[str], Filesystem] = usual_filesystem,
    ) -> None:
        super().__init__(path, 1, wait=wait, lease=lease, filesystem=filesystem)


def overview(path: str | os.PathLike[str]) -> Overview:
    """Who holds a lock and how many wait at the file server. Raises `StorageError`."""
    place = LockDirectory(path)
    try:
        if not place.is_there():
            return Overview(place.path, [], 0, place.fs.time())
        view = place.look()
        return Overview(place.path, holders(place, view.held), len(view.tickets), place.now())
    except OSError as error:
        raise storage_error(error, f"look at the lock {place.path}") from error


def break_lock(path: str | os.PathLike[str]) -> list[Holder]:
    """Take a lock away from all who hold it: who they were. They find out by their next sign of life, within 15
    seconds; until then they go on. Raises `StorageError`."""
    place = LockDirectory(path)
    try:
        return _break(place) if place.is_there() else []
    except OSError as error:
        raise storage_error(error, f"break the lock {place.path}") from error


def _break(place: LockDirectory) -> list[Holder]:
    """Take it from its holders, hold it for a moment and let go of it as any holder does, for those that wait."""
    view = place.look()
    found = {lock.generation: lock for lock in view.held}
    broken = [holder for holder in holders(place, view.held) if place.evict(found[holder.token])]
    if broken:
        ticket = place.enter(view, record(Identity().owner(), LEASE))
        try:
            if place.take(view, ticket) and (mine := place.confirm(place.look(), ticket, len(broken))):
                place.let_go(mine)
        finally:
            place.fs.drop(place.file(ticket))
        place.call_next(place.peek(), len(broken))
    return broken
