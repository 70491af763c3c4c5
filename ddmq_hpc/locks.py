"""A lock that many hosts may want, held by the newest of the names `locks/<what>.<generation>`.

Who wants it links a file of its own to the generation after the newest one: one LINK wins. No name is ever used again,
so a repeated call whose reply was lost hits nobody else's lock, and the holder lets go by renaming what only it made.
A lock is broken, by taking the generation after it, when its holder's process is gone on this host or when it was held
for `LONGEST` seconds of the file system's clock. So a holder that hung for longer may share it: what is done under such
a lock is short, and must do no harm when done twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import Identity, token
from ddmq_hpc.names import QueuePaths, lock_name, parse_lock

#: Seconds after which a lock is taken from whoever holds it. A scheduler's command is given a minute at most.
LONGEST = 600.0


class Taken(NamedTuple):
    """A lock that this process holds: `generation` is higher than that of anybody before."""

    path: str
    generation: int


@contextmanager
def locked(fs: Filesystem, paths: QueuePaths, what: str) -> Iterator[Taken | None]:
    """Hold the lock `what` of a queue for a `with` block; None, at once, when somebody else holds it."""
    taken = acquire(fs, paths, what)
    try:
        yield taken
    finally:
        if taken:
            release(fs, paths, what, taken)


def acquire(fs: Filesystem, paths: QueuePaths, what: str) -> Taken | None:
    """The lock, or None when somebody else holds it. Raises OSError."""
    found = _generations(fs, paths, what)
    newest = max(found, default=0)
    if newest and found[newest] == "held" and not _is_over(fs, paths, what, newest):
        return None
    mine = newest + 1
    name = lock_name(what, mine, False)
    path = paths.in_locks(name)
    if not first_to_make(fs, paths, name, Identity().owner().encode()):
        return None
    # This process may have slept since it looked, and the name it wanted been made and removed since.
    later = [other for other, state in _generations(fs, paths, what).items() if (other, state) != (mine, "held")]
    if any(other >= mine for other in later):
        fs.drop(path)
        return None
    for old in later:
        for free in (False, True):
            fs.drop(f"{paths.locks}/{lock_name(what, old, free)}")
    return Taken(path, mine)


def first_to_make(fs: Filesystem, paths: QueuePaths, name: str, content: bytes = b"") -> bool:
    """Whether this call is the one of all hosts that made `name` in locks/. Raises OSError.

    That holds for as long as nobody removes the name who could still meet somebody that wants it.
    """
    source = paths.in_tmp(f"lock-{token()}")
    fs.create(source, content, False)
    try:
        return fs.link_new(source, paths.in_locks(name))
    finally:
        fs.drop(source)


def release(fs: Filesystem, paths: QueuePaths, what: str, taken: Taken) -> None:
    """Let go. Nothing happens when the lock was broken meanwhile."""
    fs.claim(taken.path, f"{paths.locks}/{lock_name(what, taken.generation, True)}")


def _generations(fs: Filesystem, paths: QueuePaths, what: str) -> dict[int, str]:
    """`held` or `free` by generation. Released by its holder and made again by a latecomer counts as free."""
    fs.refresh(paths.locks)
    found: dict[int, str] = {}
    for name in fs.names(paths.locks):
        lock = parse_lock(name)
        if lock and lock.what == what:
            state = "free" if lock.free else "held"
            found[lock.generation] = "free" if found.get(lock.generation) == "free" else state
    return found


def _is_over(fs: Filesystem, paths: QueuePaths, what: str, generation: int) -> bool:
    path = f"{paths.locks}/{lock_name(what, generation, False)}"
    try:
        made = fs.lstat(path).st_mtime
        owner = fs.read(path).decode("ascii", "replace")
    except OSError as error:
        if error.errno in GONE:
            return False  # let go this very moment: whoever wants it may come again
        raise
    return fs.now(paths.tmp) - made > LONGEST or Identity().is_dead(owner)
