"""One that wants a lock for users: in the queue of its node, then in the one at the file server."""

from __future__ import annotations

import os
from functools import lru_cache
from random import uniform

from ddmq_hpc.errors import LockBusy
from ddmq_hpc.expiry import NodeFiles
from ddmq_hpc.fs import GONE
from ddmq_hpc.hold import Hold
from ddmq_hpc.holders import Judge, holders, record
from ddmq_hpc.identity import Identity
from ddmq_hpc.lockdir import LockDirectory, View
from ddmq_hpc.names import Lock, Ticket, parse_lock
from ddmq_hpc.turnstile import Tenure, Turnstile

#: Who has waited so many seconds in the queue of its node waits at the file server by itself: a holder may be stopped.
_PATIENCE = 3.0
#: Seconds between two looks at the own ticket: at least, at most, and as a part of the time waited so far.
_SOON, _LATE, _PART = 0.01, 1.0, 0.15
#: Seconds between two looks at everything; once it was free with others before, at most. Of those who are behind, this
#: often more for each before them.
_LOOK, _LOOK_AGAIN, _LOOK_MOST = 1.0, 0.25, 30.0
#: Tickets of the dead are looked for by the holder of every so manyth generation.
_TIDY_EVERY = 64


@lru_cache(maxsize=64)
def _node_files(top: str, _: str | None) -> NodeFiles:
    """To find out where they are takes a file server's time."""
    return NodeFiles(top)


class Waiter:
    """One try to get a lock."""

    def __init__(self, directory: LockDirectory, slots: int, lease: float, identity: Identity) -> None:
        self._directory, self._slots, self._lease = directory, slots, lease
        self._fs = directory.fs
        self._identity = identity
        #: This try, for those that hand a lock over on this node.
        self._owner = identity.owner()
        self._node = node = _node_files(directory.top, os.environ.get("TMPDIR"))
        # Those of one lease can go on with one file.
        self._turnstile = Turnstile(f"{node.path}.{lease:g}") if slots == 1 and node.path else None
        self._judge: Judge | None = None
        self._seen: list[Lock] = []
        self._ticket: Ticket | None = None
        self._touched = self._began = self._fs.monotonic()
        self._cost = 0.0
        self._was_free = False

    def wait(self, most: float | None) -> Hold:
        """Wait for `most` seconds at most. Raises OSError, `LockBusy`, `NotFound`."""
        ends = self._began + most if most is not None else float("inf")
        try:
            return self._inherit(ends) or self._queue(ends)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        """What was handed over meanwhile goes to the next."""
        try:
            if self._ticket:
                self._fs.drop(self._directory.file(self._ticket))
            if self._ticket or (self._turnstile and self._turnstile.was_next):
                view = self._directory.look()
                mine = {holder.token for holder in holders(self._directory, view.held) if holder.owner == self._owner}
                for lock in view.held:
                    if lock.generation in mine and self._directory.let_go(lock):
                        self._directory.call_next(self._directory.peek(), self._slots)
        except OSError:
            pass  # a ticket without a waiter: somebody removes it in time
        finally:
            if self._turnstile:
                self._turnstile.leave()

    # -- on this node

    def _inherit(self, ends: float) -> Hold | None:
        """What the one before on this node passed on."""
        turnstile = self._turnstile
        if turnstile is None or not self._enter(turnstile, min(ends - self._fs.monotonic(), _PATIENCE, self._lease)):
            return None
        note = turnstile.note()
        lock = parse_lock(note.name) if note else None
        if note is None or lock is None:
            return None
        tenure = note.tenure.next_turn()
        # Somebody else's, who gave up or died, or old: then it may have been taken away.
        if lock.owner != self._owner or self._fs.monotonic() - tenure.since > self._lease / 2:
            claimed = self._claim(lock)
            if claimed is None:
                return None
            lock = claimed
        return Hold(self._directory, lock, 1, self._lease, tenure, turnstile)

    def _enter(self, turnstile: Turnstile, timeout: float) -> bool:
        try:
            return turnstile.enter(self._owner, timeout)
        except OSError:
            return False  # this node's disk is in trouble: that is no matter between hosts

    def _claim(self, lock: Lock) -> Lock | None:
        """Hold what was passed on to this node, unless another came first."""
        return self._directory.pass_on(lock, self._identity.owner())

    # -- at the file server

    def _queue(self, ends: float) -> Hold:
        view = self._directory.open()
        if ends > self._began and (view.tickets or len(view.held) >= self._slots):
            self._enter_queue(view)
            view = self._directory.peek()  # who let go meanwhile had not seen the ticket
        hold = self._try(view, ends <= self._began)
        while hold is None:
            if self._fs.monotonic() >= ends:
                raise LockBusy(self._directory.path, [str(one) for one in holders(self._directory, view.held)])
            called = self._await(view, ends)
            view = self._directory.look()
            hold = self._confirm(view)
            if called and hold is None:
                self._was_free = True  # it was no slot of its own, as when two are called at once: take one
                view = self._directory.look()
            hold = hold or self._try(view, self._fs.monotonic() >= ends)
        return hold

    def _enter_queue(self, view: View) -> Ticket:
        self._touched = self._fs.monotonic()
        self._ticket = self._directory.enter(view, record(self._owner, self._lease))
        return self._ticket

    def _await(self, view: View, ends: float) -> bool:
        """Wait to be called, or, False, until it is time for a look."""
        ticket = self._ticket or self._enter_queue(view)
        behind = sum(other < ticket for other in view.tickets)
        look = _LOOK_AGAIN if self._was_free else min(_LOOK * (1 + behind), _LOOK_MOST)
        until = min(ends, self._fs.monotonic() + look)
        while (now := self._fs.monotonic()) < until:
            # A look takes no more time than the pause: waiters must not keep a slow file server from its work.
            pause = min(max((now - self._began) * _PART, _SOON, self._cost), _LATE) * uniform(0.5, 1.0)
            self._fs.sleep(min(pause, until - now))
            if self._is_called(ticket):
                return True
        return False

    def _is_called(self, ticket: Ticket) -> bool:
        began = self._fs.monotonic()
        try:
            called = self._directory.is_called(ticket)
        except OSError as error:
            if error.errno not in GONE or not self._directory.is_there():
                raise
            self._ticket = None  # it was taken for one without a waiter, or its handle is stale
            return True
        self._touched, self._cost = began, self._fs.monotonic() - began
        return called

    def _try(self, view: View, last: bool) -> Hold | None:
        """Take a free slot; those who wait for longer have `_LOOK_AGAIN` seconds to come first, unless it is the last
        try."""
        if hold := self._found(view):
            return hold
        free = self._slots - len(view.held)
        if free <= 0:
            free += sum(self._directory.evict(lock) for lock in self._over(view, last))
        ahead = sum(self._ticket is None or ticket < self._ticket for ticket in view.tickets)
        if free <= 0 or (ahead >= free and not self._was_free and not last):
            self._was_free = free > 0
            return None
        try:
            if not self._directory.take(view, self._ticket or self._enter_queue(view)):
                return None
        except OSError as error:
            if error.errno not in GONE or not self._directory.is_there():
                raise
            return None  # the ticket was removed, or its handle is stale: the next look at it tells
        return self._confirm(self._directory.look())

    def _over(self, view: View, last: bool) -> list[Lock]:
        """Holders that are there no more. Those that come and go are not looked at: an NFS v4 client that reads a file
        is asked first when another one renames it, which takes a tenth of a second and more."""
        stay = [lock for lock in view.held if last or lock in self._seen]
        self._seen = view.held
        if not stay:
            return []
        self._judge = self._judge or Judge(self._directory, self._node)
        return self._judge.over(stay)

    def _found(self, view: View) -> Hold | None:
        """What was passed on to this one on its node, by one that died then."""
        for lock in view.held:
            if lock.owner == self._owner and (mine := self._claim(lock)):
                self._touched = self._fs.monotonic()
                self._fs.touch(self._directory.file(mine))
                return self._hold(mine, view)
        return None

    def _confirm(self, view: View) -> Hold | None:
        lock = self._directory.confirm(view, self._ticket, self._slots) if self._ticket else None
        return self._hold(lock, view) if lock else None

    def _hold(self, lock: Lock, view: View) -> Hold:
        turnstile = self._turnstile if self._turnstile and self._turnstile.inside else None
        tenure = Tenure.begin(self._touched)
        return Hold(self._directory, lock, self._slots, self._lease, tenure, turnstile, lambda: self._clear(view, lock))

    def _clear(self, view: View, lock: Lock) -> None:
        """Remove what is of no use any more, once the lock is held."""
        try:
            if self._ticket:
                self._fs.drop(self._directory.file(self._ticket))
            if self._slots > 1:
                self._directory.call_next(self._directory.peek(), self._slots)  # there may be more that are free
            self._directory.tidy(view)
            if lock.generation % _TIDY_EVERY == 0:
                self._directory.tidy_tickets(view)
        except OSError:
            pass  # it is in nobody's way: the next one removes it
