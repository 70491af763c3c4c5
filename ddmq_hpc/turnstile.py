"""Where the processes of one node queue for a lock, so that one of them at a time bothers the file server.

Two flock(2) locks on the node's own disk: who waits next has `turn`, who may turn to the file server has `lock`. The
kernel frees both when a process dies, and wakes those that wait in turn. A holder hands its lock on to who is next by a
note. Nothing here decides who holds a lock: what it says is checked by names on the file server, and who has waited
here for long goes there by itself.

filelock serves where one node's locks are all that is needed; it asks again and again, out of turn, and cannot tell who
waits.
"""

from __future__ import annotations

import fcntl
import json
import os
from _thread import start_new_thread
from threading import Lock
from typing import NamedTuple

_NOTE_BYTES = 1024
#: A node has a lock for so many seconds at most before another node's turn,
_TENURE = 1.0
#: and each of its processes for so many turns, and not more than so many processes.
_TURNS, _MOST = 4, 16


class Tenure(NamedTuple):
    """A node's time with a lock: since when (monotonic clock: when its file was last touched), and its turns."""

    since: float
    turns: int
    pids: tuple[int, ...]

    @classmethod
    def begin(cls, since: float) -> Tenure:
        return cls(since, 1, (os.getpid(),))

    def next_turn(self) -> Tenure:
        return self._replace(turns=self.turns + 1, pids=tuple({*self.pids, os.getpid()}))

    def is_over(self, clock: float, lease: float) -> bool:
        """Whether it is another node's turn. No sign of life is needed before."""
        return clock - self.since > min(_TENURE, lease / 4) or self.turns >= _TURNS * min(len(self.pids), _MOST)


class Note(NamedTuple):
    """What a holder leaves for the next one: the name of what it passed on."""

    name: str
    tenure: Tenure

    def encode(self) -> bytes:
        return json.dumps([self.name, *self.tenure]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Note | None:
        try:
            name, since, turns, pids = json.loads(data)
            return cls(str(name), Tenure(float(since), int(turns), tuple(map(int, pids))))
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None


class Turnstile:
    """The queue of this node for one lock, as one who wants it sees it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: _Waiting | None = None
        #: Whether others could learn that this one is next.
        self.was_next = False

    @property
    def inside(self) -> bool:
        """Whether this one may turn to the file server."""
        return self._waiting is not None

    def enter(self, owner: str, timeout: float) -> bool:
        """Wait for the turn of `owner`, for `timeout` seconds at most. Raises OSError."""
        waiting = _Waiting(self._path, owner)
        if not waiting.try_now():
            try:
                entered = timeout > 0 and waiting.wait(timeout)
            except BaseException:
                if not waiting.give_up():
                    waiting.leave()
                raise
            finally:
                self.was_next |= waiting.was_next
            if not entered and waiting.give_up():
                return False
        self._waiting = waiting
        return True

    def note(self) -> Note | None:
        """What the one before left, once."""
        assert self._waiting
        return Note.decode(self._waiting.read())

    def next_owner(self) -> str:
        """Who is next; nothing when nobody waits."""
        return self._waiting.next_owner() if self._waiting else ""

    def pass_on(self, note: Note) -> bool:
        """Leave, with a note. False, still inside, when nobody came for it."""
        assert self._waiting
        if not self._waiting.pass_on(note.encode()):
            return False
        self._waiting = None
        return True

    def leave(self) -> None:
        """Let the next one in, if inside."""
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.leave()


class _Waiting:
    """The two locks of one who waits, or is inside.

    A thread waits in flock(2), which has no time limit: of one who gave up it gets the lock in the end, and frees it.
    """

    def __init__(self, path: str, owner: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._owner = owner
        self._turn = os.open(f"{path}.turn", flags, 0o600)
        try:
            self._lock = os.open(f"{path}.lock", flags, 0o600)
        except OSError:
            os.close(self._turn)
            raise
        self._mutex = Lock()
        self._gave_up = self._entered = self._has_thread = False
        self._done = Lock()
        self._done.acquire()
        self._is_next = self.was_next = False

    def try_now(self) -> bool:
        """Whether nobody was inside or waited."""
        if not _try(self._turn):
            return False
        if _try(self._lock):
            _free(self._turn)
            return True
        self._is_next = True
        return False

    def wait(self, timeout: float) -> bool:
        if self._is_next:
            self._become_next()
        # A Thread has half a dozen switches between the two until it runs; this is in the way of all that wait.
        start_new_thread(self._wait, ())
        self._has_thread = True
        return self._done.acquire(timeout=timeout)

    def _wait(self) -> None:
        try:
            if not self._is_next:
                fcntl.flock(self._turn, fcntl.LOCK_EX)
                with self._mutex:
                    if self._gave_up:
                        return self._close()
                    self._become_next()
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            with self._mutex:
                if self._gave_up:
                    return self._close()
                self._be_next_no_more()
                self._entered = True
            self._done.release()
        except OSError:
            pass  # this node's disk is in trouble: whoever waits gives up in time

    def give_up(self) -> bool:
        """False when it is its turn just now."""
        with self._mutex:
            if self._entered:
                return False
            self._gave_up = True
            if self._is_next:
                self._be_next_no_more()
            if not self._has_thread:
                self._close()
            return True

    def _become_next(self) -> None:
        self._is_next = self.was_next = True
        os.ftruncate(self._turn, 0)
        os.pwrite(self._turn, self._owner.encode("ascii", "replace"), 0)

    def _be_next_no_more(self) -> None:
        self._is_next = False
        os.ftruncate(self._turn, 0)
        _free(self._turn)

    def next_owner(self) -> str:
        if _try(self._turn):
            _free(self._turn)
            return ""
        return os.pread(self._turn, _NOTE_BYTES, 0).decode("ascii", "replace")

    def read(self) -> bytes:
        data = os.pread(self._lock, _NOTE_BYTES, 0)
        if data:
            os.ftruncate(self._lock, 0)
        return data

    def pass_on(self, data: bytes) -> bool:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, data, 0)
        _free(self._lock)
        # Who waited may have given up just now. When it got the lock meanwhile it has read the note, or will.
        if self.next_owner() or not _try(self._lock):
            self._close()
            return True
        if os.pread(self._lock, _NOTE_BYTES, 0) != data:
            self.leave()
            return True
        os.ftruncate(self._lock, 0)
        return False

    def leave(self) -> None:
        _free(self._lock)  # a forked child may have a copy of the handle
        self._close()

    def _close(self) -> None:
        os.close(self._turn)
        os.close(self._lock)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _free(handle: int) -> None:
    fcntl.flock(handle, fcntl.LOCK_UN)
