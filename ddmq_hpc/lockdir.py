"""What stands in the directory of a lock for users, and each move there, decided by one name.

    want.<generation seen>.<token>   a ticket: the file of one who wants the lock; sorted, they are in turn
    lock.<generation>                a holder: its ticket, linked there
    lock.<generation>@<owner>        a holder that got it from the one before: the same file under a new name
    lock.<generation>.free           let go
    lock.<generation>.over           taken away

A ticket is linked to the generation after the newest one, by its owner or by whoever lets go, for the first who waits;
its owner sees that by the number of its links. One LINK wins, whoever made it, and the owner confirms it by a complete
listing. What is held has one name that exists once, and everything that ends it renames that name: let go, handed
over, taken away. One of them comes first. No generation is used twice, so a call that is repeated since its reply was
lost hits nobody else's lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Callable

from ddmq_hpc.errors import NotFound, UsageError
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import token
from ddmq_hpc.names import (
    Lock,
    LockPaths,
    Ticket,
    evicted_name,
    lock_directory,
    lock_name,
    parse_lock,
    parse_ticket,
)

_WHAT = "lock"
#: Seconds without a sign of life after which a waiter is passed over: it gives one each second. Its ticket stays.
_SILENT = 15.0
#: A ticket without a waiter is removed after so many seconds. Who still waits makes a new one.
_TICKET_AGE = 3600.0


@lru_cache(maxsize=64)
def usual_filesystem(directory: str) -> Filesystem:
    """Whoever takes a lock again and again need not look each time what it is on, nor who shares the directory that it
    is for."""
    fs = Filesystem(directory)
    try:
        return fs.below(directory, directory)
    except OSError:
        return fs  # the error is told when the lock is taken


class View:
    """What one listing shows: who holds, the newest generation (0: there was none), who waits, in turn."""

    def __init__(self, names: Iterable[str]) -> None:
        locks = []
        self.tickets: list[Ticket] = []
        for name in names:
            if ticket := parse_ticket(name):
                self.tickets.append(ticket)
            elif (lock := parse_lock(name)) and lock.what == _WHAT:
                locks.append((lock, name))
        self.tickets.sort()
        self.newest = max((lock.generation for lock, _ in locks), default=0)
        # Let go by its holder and made again by a latecomer is over.
        over = {lock.generation for lock, _ in locks if lock.free}
        self.held = sorted(lock for lock, _ in locks if lock.generation not in over)
        #: Names that are of no use any more. The newest is never removed: nobody may make it again.
        self.old = [name for lock, name in locks if lock.generation in over and lock.generation < self.newest]

    def is_newest(self, lock: Lock) -> bool:
        """Whether this one, and no other of its number, is the newest generation."""
        return [held for held in self.held if held.generation == self.newest] == [lock]


class LockDirectory:
    """The directory of one lock. Every method raises OSError unless it says otherwise."""

    def __init__(
        self, path: str | os.PathLike[str], filesystem: Callable[[str], Filesystem] = usual_filesystem
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        if not os.fspath(path) or not os.path.basename(self.path):
            raise UsageError(f"bad path of a lock {os.fspath(path)!r}: give a name in a directory that all hosts share")
        self.top = lock_directory(self.path)
        self.paths = LockPaths(self.top, self.top)
        self.fs = filesystem(os.path.dirname(self.top))

    # -- looking

    def is_there(self) -> bool:
        return self.fs.is_there(self.top)

    def open(self) -> View:
        """A listing; the directory is made when it is not there. ENOTDIR for a link: it may lead anywhere. Raises
        `NotFound` when there is no place for it."""
        try:
            return View(self.fs.listdir(self.top))
        except OSError as error:
            if error.errno not in GONE:
                raise
        parent = os.path.dirname(self.top)
        if not self.fs.is_there(parent):
            raise NotFound(f"no directory {parent} to put the lock {os.path.basename(self.path)} into; make it first")
        self.fs.make_directory(self.top)
        return self.peek()

    def peek(self) -> View:
        """A listing as it comes: on NFS v3 names can be missing from it."""
        return View(self.fs.names(self.top))

    def look(self) -> View:
        """A complete listing."""
        self.fs.refresh(self.top)
        return self.peek()

    def now(self) -> float:
        """The file system's clock."""
        return self.fs.now(self.top)

    def file(self, held: Lock | Ticket) -> str:
        return self.paths.in_locks(held.name)

    # -- waiting

    def enter(self, view: View, record: bytes) -> Ticket:
        """Wait behind all that `view` shows. `record` says who waits."""
        ticket = Ticket(view.newest, token())
        self.fs.create(self.file(ticket), record, False)
        return ticket

    def is_called(self, ticket: Ticket) -> bool:
        """A sign of life; whether somebody linked the ticket meanwhile. ENOENT or ESTALE when the ticket was removed.

        On NFS the answer to a touch brings the number of links along: one or two requests (measured).
        """
        path = self.file(ticket)
        self.fs.touch(path)
        return self.fs.lstat(path).st_nlink > 1

    def take(self, view: View, ticket: Ticket) -> bool:
        """Link a ticket to the generation after the newest: its owner must confirm that. False when that is another's;
        ENOENT or ESTALE when the ticket is gone."""
        return self.fs.link_new(self.file(ticket), self.paths.in_locks(lock_name(_WHAT, view.newest + 1, False)))

    def confirm(self, view: View, ticket: Ticket, slots: int) -> Lock | None:
        """What a ticket was linked to, if it is a slot for its owner alone; it is let go of otherwise. `view` is
        complete and younger than the link.

        Whoever made the link may have slept since it looked, and the generation have come and gone since; and a listing
        of NFS v3 that has the newest generation may still miss others.
        """
        linked = [lock for lock in view.held if self.fs.same_file(self.file(lock), self.file(ticket))]
        kept = None
        for lock in reversed(linked):
            if kept is None and view.is_newest(lock) and len(view.held) - len(linked) < slots:
                kept = lock
            else:
                self.let_go(lock)
        return kept

    # -- what ends a hold; the first one wins

    def let_go(self, lock: Lock) -> bool:
        """False when it was not held (any more)."""
        return self.fs.claim(self.file(lock), self.paths.in_locks(lock_name(_WHAT, lock.generation, True)))

    def let_go_of_others(self, lock: Lock) -> None:
        """Of one that was let go: let go of what else its file was linked to, by those that took its owner for a waiter
        when it was none any more."""
        free = self.paths.in_locks(lock_name(_WHAT, lock.generation, True))
        if self.fs.lstat(free).st_nlink > 1:
            for other in self.look().held:
                # In this order: as long as its own name is there the file's number is no other's.
                if self.fs.same_file(self.file(other), free):
                    self.let_go(other)

    def evict(self, lock: Lock) -> bool:
        """Take it away from its holder. False when it is not the holder's any more."""
        return self.fs.claim(self.file(lock), self.paths.in_locks(evicted_name(_WHAT, lock.generation)))

    def pass_on(self, lock: Lock, owner: str) -> Lock | None:
        """Make it another's, under the next generation; None when it was not held (any more). `owner` stands for one
        try of one process to get it, so the new name is unique to this call."""
        passed = Lock(_WHAT, lock.generation + 1, False, owner)
        return passed if self.fs.claim(self.file(lock), self.file(passed)) else None

    # -- courtesies

    def call_next(self, view: View, slots: int) -> None:
        """Link the ticket of the first who waits, if a slot is free: it is as if its owner had done that."""
        if len(view.held) >= slots:
            return
        for ticket in view.tickets:
            try:
                if self._is_waiting(ticket):
                    self.take(view, ticket)
                    return
            except OSError as error:
                if error.errno not in GONE:
                    raise

    def _is_waiting(self, ticket: Ticket) -> bool:
        """Whether its owner gave a sign of life lately, and was not called by another this very moment."""
        found = self.fs.lstat(self.file(ticket))
        # Whoever calls has just changed the directory: it tells the time.
        silent = self.fs.mount.trusted_clock and self.fs.lstat(self.top).st_mtime - found.st_mtime > _SILENT
        return found.st_nlink == 1 and not silent

    def tidy(self, view: View) -> None:
        """Remove what holders left."""
        for name in view.old:
            self.fs.drop(self.paths.in_locks(name))

    def tidy_tickets(self, view: View) -> None:
        """Remove what waiters left that died."""
        now = self.now()
        for ticket in view.tickets:
            try:
                if now - self.fs.lstat(self.file(ticket)).st_mtime > _TICKET_AGE:
                    self.fs.drop(self.file(ticket))
            except OSError as error:
                if error.errno not in GONE:
                    raise
