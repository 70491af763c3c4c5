"""A lock for users that is held: signs of life, and the end: handed to the next one on this node, or let go."""

from __future__ import annotations

from threading import Event, Thread
from typing import Callable

from ddmq_hpc.errors import LockLost
from ddmq_hpc.heart import HEART
from ddmq_hpc.holders import dated
from ddmq_hpc.identity import Owner, fork_count
from ddmq_hpc.lockdir import LockDirectory
from ddmq_hpc.names import Lock
from ddmq_hpc.turnstile import Note, Tenure, Turnstile

#: A holder gives a sign of life when this part of its lease is over, and this often in seconds: it then also finds out
#: that its lock was broken.
_RENEW_AT, _RENEW_EVERY = 1 / 4, 15.0


class Hold:
    """One slot of a lock, held from now on. `tenure.since` is when its file was touched last, by the steady clock;
    `clear` is what is left to do at the server, beside what the lock is for."""

    def __init__(
        self,
        directory: LockDirectory,
        lock: Lock,
        slots: int,
        lease: float,
        tenure: Tenure,
        turnstile: Turnstile | None,
        clear: Callable[[], None] | None = None,
    ) -> None:
        self.token = lock.generation
        self._directory, self._lock, self._slots, self._lease = directory, lock, slots, lease
        self._tenure, self._turnstile = tenure, turnstile
        self._renewed = tenure.since
        self._clear = clear
        self._is_dated = self._is_gone = False
        self._forks = fork_count()
        self._pause = min(lease * _RENEW_AT, _RENEW_EVERY)
        self._done = Event()
        self._thread: Thread | None = None
        if directory.fs.monotonic() - self._renewed > min(1.0, lease / 10):
            self._renew()  # the file was touched long ago
        if clear:
            self._start()
        else:
            HEART.add(self, self._start, self._pause)

    def is_lost(self) -> bool:
        """Whether it may be somebody else's by now. Looks at no file."""
        return self._is_gone or self._directory.fs.monotonic() - self._renewed > self._lease

    def end(self) -> None:
        """Let it be the next one's. Raises OSError, `LockLost`."""
        if self._forks != fork_count():
            return  # a child's copy: the parent holds it
        self._done.set()
        lost = self.is_lost()
        try:
            held = self._hand_over("" if lost else self._heir())
        finally:
            HEART.remove(self)
            if self._thread:
                self._thread.join()
            if self._turnstile:
                self._turnstile.leave()
        if lost or not held:
            raise LockLost(self._directory.path, self._lock.generation)

    # -- signs of life

    def _start(self) -> None:
        self._thread = Thread(target=self._beat, name="ddmq-hpc-lock", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        pause = 0.0  # it was held for one before
        if self._clear:
            self._clear()
            pause = self._pause
        while not self._done.wait(pause):
            pause = self._pause
            if not self._is_dated:
                self._date()
            self._renew()

    def _date(self) -> None:
        """Write down since when it is held, before signs of life change what the file's time tells."""
        fs, path = self._directory.fs, self._directory.file(self._lock)
        try:
            fs.append_to(path, dated(self._lock, fs.lstat(path).st_mtime))
            self._is_dated = True
        except OSError:
            pass

    def _renew(self) -> None:
        fs, path = self._directory.fs, self._directory.file(self._lock)
        now = fs.monotonic()
        try:
            fs.touch(path)
        except OSError:
            pass  # gone, or the storage is in trouble: the look tells
        else:
            self._renewed = now
        try:
            # An NFS client can touch a file by a name that is gone: a look past its memory is needed.
            self._is_gone = self._is_gone or not fs.is_there(path)
        except OSError:
            pass

    # -- the end

    def _heir(self) -> str:
        """Who waits on this node, if it may have the next turn."""
        if self._turnstile is None or self._tenure.is_over(self._directory.fs.monotonic(), self._lease):
            return ""
        heir = self._turnstile.next_owner()
        return heir if Owner.parse(heir) else ""

    def _hand_over(self, heir: str) -> bool:
        """False when it was not held any more."""
        lock = self._lock
        if heir and self._turnstile:
            passed = self._directory.pass_on(lock, heir)
            if passed is None:
                return False
            if self._turnstile.pass_on(Note(passed.name, self._tenure)):
                return True
            lock = passed  # the heir gave up this very moment
        let_go = self._directory.let_go(lock)
        self._call_next(lock)
        return let_go or lock is not self._lock  # else the heir looked for itself, and found it

    def _call_next(self, lock: Lock) -> None:
        """Let go of what else the file was linked to, and call the first who waits."""
        try:
            self._directory.let_go_of_others(lock)
            view = self._directory.peek()
            if view.newest < lock.generation:
                view = self._directory.look()  # a listing of NFS v3 that is not complete
            self._directory.call_next(view, self._slots)
        except OSError:
            pass  # it was let go: those who wait look for themselves
