"""One holder at a time, by the generations of a name: the newest of `<what>.<generation>` in a directory tells.

Who wants a lock links a file of its own to the generation after the newest one: one LINK wins. No name is ever used
again, and the newest is never removed, so a repeated call whose reply was lost hits nobody else's lock, and the holder
lets go by renaming what only it made.

A lock of a queue, `locks/<what>`, is broken, by taking the generation after it, when its holder's process is gone on
this host or when it was held for `LONGEST` seconds of the file system's clock. So a holder that hung for longer may
share it: what is done under such a lock is short, and must do no harm when done twice. Locks for users, whose holders
give signs of life, stand on the same generations: see `lockdir.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ddmq_hpc.fs import GONE, NO_FILE, Filesystem
from ddmq_hpc.identity import Identity, token
from ddmq_hpc.names import LockPaths, lock_name, minute_stamp, parse_lock, stamped_minute

#: Seconds after which a lock is taken from whoever holds it. A scheduler's command is given a minute at most.
LONGEST = 600.0
#: What a generation is.
HELD, FREE = "held", "free"


class Taken(NamedTuple):
    """A lock that this process holds: `generation` is higher than that of anybody before."""

    path: str
    generation: int


@contextmanager
def locked(fs: Filesystem, paths: LockPaths, what: str) -> Iterator[Taken | None]:
    """Hold the lock `what` of a queue for a `with` block; None, at once, when somebody else holds it."""
    taken = acquire(fs, paths, what)
    try:
        yield taken
    finally:
        if taken:
            release(fs, paths, what, taken)


def acquire(fs: Filesystem, paths: LockPaths, what: str) -> Taken | None:
    """The lock, or None when somebody else holds it. Raises OSError."""
    found = look(fs, paths, what)
    newest = max(found, default=0)
    if newest and found[newest] == HELD and not _is_over(fs, paths, what, newest):
        return None
    source = paths.in_tmp(f"lock-{token()}")
    fs.create(source, Identity().owner().encode(), False)
    try:
        mine = take_next(fs, paths, what, source, newest)
    finally:
        fs.drop(source)
    if mine is None:
        return None
    forget(fs, paths, what, [old for old in found if old < mine])
    return Taken(paths.in_locks(lock_name(what, mine, False)), mine)


def take_next(fs: Filesystem, paths: LockPaths, what: str, source: str, newest: int) -> int | None:
    """Link `source`, a file that was linked to no lock before, to the generation after `newest`: that generation, or
    None when somebody else was faster. Raises OSError, also when `source` is gone."""
    mine = newest + 1
    path = paths.in_locks(lock_name(what, mine, False))
    if not fs.link_new(source, path):
        return None
    # This process may have slept since it looked, and the name it wanted been made and removed since: then there are
    # later ones, or its own is free.
    try:
        found = look(fs, paths, what)
    except OSError:
        fs.drop(path)
        raise
    if max(found, default=mine) == mine and found.get(mine, HELD) == HELD:
        return mine
    fs.drop(path)
    return None


def forget(fs: Filesystem, paths: LockPaths, what: str, generations: Iterable[int]) -> None:
    """Remove the names of generations that are older than the newest and are held no more."""
    for generation in generations:
        for is_free in (False, True):
            fs.drop(paths.in_locks(lock_name(what, generation, is_free)))


def first_to_make(fs: Filesystem, paths: LockPaths, name: str, content: bytes = b"") -> bool:
    """Whether this call is the one of all hosts that made `name` in locks/. Raises OSError.

    That holds for as long as nobody removes the name who could still meet somebody that wants it.
    """
    source = paths.in_tmp(f"lock-{token()}")
    fs.create(source, content, False)
    try:
        return fs.link_new(source, paths.in_locks(name))
    finally:
        fs.drop(source)


def first_in_minute(fs: Filesystem, paths: LockPaths, kind: str, minute: int) -> bool:
    """Whether this client is the one of the cluster that does what `kind` says in that minute (since 1970)."""
    stamp = minute_stamp(kind, minute)
    if fs.is_there(paths.in_locks(stamp)) or not first_to_make(fs, paths, stamp):
        return False
    for name in fs.names(paths.locks):
        old = stamped_minute(kind, name)
        if old is not None and old < minute - 1:
            fs.drop(paths.in_locks(name))
    return True


def release(fs: Filesystem, paths: LockPaths, what: str, taken: Taken) -> None:
    """Let go. Nothing happens when the lock was broken meanwhile."""
    let_go(fs, paths, what, taken.generation)


def let_go(fs: Filesystem, paths: LockPaths, what: str, generation: int) -> bool:
    """Make a generation free; False when it was not held (any more)."""
    held, free = (paths.in_locks(lock_name(what, generation, is_free)) for is_free in (False, True))
    return fs.claim(held, free)


def look(fs: Filesystem, paths: LockPaths, what: str) -> dict[int, str]:
    """`HELD` or `FREE` by generation, by a listing that is complete. Raises OSError."""
    fs.refresh(paths.locks)
    return generations(fs.names(paths.locks), what)


def generations(names: Iterable[str], what: str) -> dict[int, str]:
    """The same of names. Released by its holder and made again by a latecomer counts as free."""
    found: dict[int, str] = {}
    for name in names:
        lock = parse_lock(name)
        if lock and lock.what == what:
            state = FREE if lock.free else HELD
            found[lock.generation] = FREE if found.get(lock.generation) == FREE else state
    return found


def _is_over(fs: Filesystem, paths: LockPaths, what: str, generation: int) -> bool:
    path = f"{paths.locks}/{lock_name(what, generation, False)}"
    try:
        made = fs.lstat(path).st_mtime
        owner = fs.read(path).decode("ascii", "replace")
    except OSError as error:
        if error.errno in GONE:
            return False  # let go this very moment: whoever wants it may come again
        if error.errno in NO_FILE:
            return True  # nobody has a lock by such a thing
        raise
    return fs.now(paths.tmp) - made > LONGEST or Identity().is_dead(owner)
