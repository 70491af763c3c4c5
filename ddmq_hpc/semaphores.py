"""Locks for users: at most so many holders at a time, over all hosts that share a file system.

A lock is a directory, `PATH.lock`, where the generations of `locks.py` stand:

    want.<generation seen>.<token>   a ticket: the file of one who wants the lock; sorted, they are in turn
    lock.<generation>                a holder: the same file, linked there
    lock.<generation>.free           let go

Who finds fewer than `slots` holders links its ticket to the next generation. A holder touches its file to give signs of
life. It is replaced when its process is gone on this host, when its batch job has ended, or when it gave no sign of
life for its lease, by the file system's clock where all clients see one, else as observed. Whoever replaces it takes a
generation of its own first, so no name is ever unlinked that could be somebody else's.

The generation is a fencing token: it is higher than that of all who came before. A holder that slept past its lease
may find out only afterwards; what must not happen then has to compare tokens.

Waiters poll: soon when they are next and the lock changes hands, seldom when they are far behind or it is held for
long. Turns are a courtesy, not a promise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from random import uniform
from threading import Event, Thread
from types import TracebackType
from typing import Any, Callable, NamedTuple

from ddmq_hpc.errors import DdmqError, LockBusy, LockLost, NotFound, UsageError, storage_error
from ddmq_hpc.expiry import Expiry, NodeFiles
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import Identity, Owner, batch_job, fork_count, token, user_name
from ddmq_hpc.locks import FREE, HELD, first_in_minute, forget, generations, let_go, look, take_next
from ddmq_hpc.names import LockPaths, Ticket, lock_directory, lock_name, parse_ticket
from ddmq_hpc.settings import DEFAULTS

#: Seconds without a sign of life after which a holder is replaced: a client can hang for 60 s in one call when its file
#: server restarts (measured on NFS).
LEASE = 120.0
_WHAT = "lock"
#: A holder gives a sign of life when this part of its lease is over, and this often in seconds: it then also finds out
#: that its lock was broken.
_RENEW_AT, _RENEW_EVERY = 1 / 4, 15.0
#: Seconds between two looks of who is next: at least, at most, and as a part of the time since anything changed.
_SOON, _LATE, _PART = 0.004, 1.0, 0.1
#: Of those who are behind, how much more seldom they look, for each turn before theirs.
_BEHIND = 3
#: Seconds between two looks of who is far behind, at most.
_FAR = 30.0
#: Seconds between two looks at the signs of life of those who hold what one waits for.
_JUDGE_EVERY = 1.0
#: A ticket without a waiter is removed after so many seconds. Who still waits makes a new one.
_TICKET_AGE = 3600.0
#: Tickets are looked at by the holder of every so manyth generation.
_TIDY_EVERY = 16
_MINUTE = 60
_LONGEST_FILE = 4096


class Holder(NamedTuple):
    """Who holds a lock, as its file tells. `since` and `seen` (its last sign of life) are in seconds since 1970 of the
    file system's clock, `lease` in seconds; unknown numbers are 0."""

    token: int
    host: str
    pid: int
    job: str
    user: str
    since: float
    seen: float
    lease: float
    owner: str

    @property
    def name(self) -> str:
        return f"{self.token}@{self.seen:.6f}"

    @property
    def deadline(self) -> int:
        return int((self.seen + self.lease) * 1000)

    @property
    def duration(self) -> int:
        return int(self.lease * 1000)

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"{self.user or 'somebody'} on {self.host or 'an unknown host'} (PID {self.pid}{job})"


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
        filesystem: Callable[[str], Filesystem] = Filesystem,
    ) -> None:
        if slots < 1:
            raise UsageError(f"{slots} slots: at least 1")
        if lease < 1:
            raise UsageError("a lease of a lock is at least 1 second")
        self._place = _Place(path, filesystem)
        self.path = self._place.path
        self.slots, self.wait, self.lease = slots, wait, lease
        self._hold: _Hold | None = None

    @property
    def token(self) -> int:
        """The fencing token of what is held: higher than any before. 0 when nothing is held."""
        return self._hold.generation if self._hold else 0

    @property
    def lost(self) -> bool:
        """Whether what was taken may be somebody else's by now. Looks at no file."""
        return self._hold is not None and self._hold.is_lost()

    def acquire(self) -> int:
        """Wait for the lock and take it: its token."""
        if self._hold:
            raise UsageError(f"{self.path} is held already by this very object")
        try:
            self._hold = _Waiter(self._place, self.slots, self.lease).wait(self.wait)
        except OSError as error:
            raise storage_error(error, f"take the lock {self.path}") from error
        self._hold.keep()
        return self._hold.generation

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
        filesystem: Callable[[str], Filesystem] = Filesystem,
    ) -> None:
        super().__init__(path, 1, wait=wait, lease=lease, filesystem=filesystem)


def overview(path: str | os.PathLike[str]) -> Overview:
    """Who holds a lock and how many wait. Raises `StorageError`."""
    place = _Place(path, Filesystem)
    try:
        if not place.is_there():
            return Overview(place.path, [], 0, place.fs.time())
        place.fs.refresh(place.directory)
        found = place.fs.names(place.directory)
        return Overview(place.path, place.holders(_held(found)), len(_tickets(found)), place.now())
    except OSError as error:
        raise storage_error(error, f"look at the lock {place.path}") from error


def break_lock(path: str | os.PathLike[str]) -> list[Holder]:
    """Take a lock away from all who hold it: who they were. They find out by their next sign of life, within 15
    seconds; until then they go on. Raises `StorageError`."""
    place = _Place(path, Filesystem)
    try:
        return place.replace_all() if place.is_there() else []
    except OSError as error:
        raise storage_error(error, f"break the lock {place.path}") from error


def _held(names: Collection[str]) -> list[int]:
    return sorted(number for number, state in generations(names, _WHAT).items() if state == HELD)


def _tickets(names: Collection[str]) -> list[Ticket]:
    return sorted(ticket for ticket in map(parse_ticket, names) if ticket)


class _Place:
    """The directory of one lock."""

    def __init__(self, path: str | os.PathLike[str], filesystem: Callable[[str], Filesystem]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.directory = lock_directory(self.path)
        self.paths = LockPaths(self.directory, self.directory)
        self.fs = filesystem(os.path.dirname(self.directory))

    def is_there(self) -> bool:
        return self.fs.is_there(self.directory)

    def names(self) -> list[str]:
        """What is in the directory, which is made when it is not there. ENOTDIR for a link: it may lead anywhere."""
        try:
            return self.fs.listdir(self.directory)
        except OSError as error:
            if error.errno not in GONE:
                raise
        parent = os.path.dirname(self.directory)
        if not self.fs.is_there(parent):
            raise NotFound(f"no directory {parent} to put the lock {os.path.basename(self.path)} into; make it first")
        self.fs.make_directory(self.directory)
        return self.fs.names(self.directory)

    def now(self) -> float:
        return self.fs.now(self.directory)

    def file_of(self, generation: int) -> str:
        return self.paths.in_locks(lock_name(_WHAT, generation, False))

    def write(self, path: str, lease: float) -> None:
        """A file for one that wants to hold: who it is."""
        record = {"owner": Identity().owner(), "user": user_name(os.geteuid()), "lease": lease}
        self.fs.create(path, json.dumps(record).encode() + b"\n", False)

    def holders(self, held: Collection[int]) -> list[Holder]:
        """Those of these generations that are there still."""
        return [holder for holder in map(self._holder, held) if holder]

    def _holder(self, generation: int) -> Holder | None:
        try:
            # Opening it makes an NFS client ask for its times: remembered ones may be a minute old.
            found, data = self.fs.read_some(self.file_of(generation), _LONGEST_FILE)
        except OSError as error:
            if error.errno in GONE:
                return None
            raise
        record = _record(data)
        text = str(record.get("owner", ""))
        owner = Owner.parse(text) or Owner("", 0, 0, "", "", "")
        since, lease = (_number(record.get(key)) for key in ("since", "lease"))
        user = str(record.get("user", ""))[:64]
        seen = found.st_mtime
        return Holder(generation, owner.host, owner.pid, owner.job, user, since or seen, seen, lease or LEASE, text)

    def replace_all(self) -> list[Holder]:
        """Take the generation after all that are held, and let go of it."""
        ticket = self.paths.in_tmp(Ticket(0, token()).name)
        self.write(ticket, LEASE)
        try:
            while True:
                found = look(self.fs, self.paths, _WHAT)
                held = sorted(number for number, state in found.items() if state == HELD)
                holders = self.holders(held)
                if not holders:
                    return []
                mine = take_next(self.fs, self.paths, _WHAT, ticket, max(found))
                if mine is not None:
                    forget(self.fs, self.paths, _WHAT, found)
                    let_go(self.fs, self.paths, _WHAT, mine)
                    return holders
        finally:
            self.fs.drop(ticket)


def _record(data: bytes) -> dict[str, Any]:
    """The lines of a holder's file, the last word on each subject; nothing of what is no such line."""
    record: dict[str, Any] = {}
    for line in data.splitlines():
        try:
            record.update(json.loads(line))
        except (ValueError, TypeError):
            continue
    return record


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e11 else 0.0


class _Waiter:
    """One that wants a lock."""

    def __init__(self, place: _Place, slots: int, lease: float) -> None:
        self._place, self._slots, self._lease = place, slots, lease
        self._fs, self._paths = place.fs, place.paths
        self._judges = _Judge(place)
        self._over: Collection[int] = ()
        self._newest, self._turn, self._cost = -1, 0.0, 0.0
        self._changed = self._look_again = self._fs.monotonic()

    def wait(self, most: float | None) -> _Hold:
        fs = self._fs
        began = fs.monotonic()
        names = self._place.names()
        others = bool(_tickets(names))
        self._ticket = Ticket(max(generations(names, _WHAT), default=0), token())
        path = self._paths.in_tmp(self._ticket.name)
        self._place.write(path, self._lease)
        written = fs.monotonic()
        try:
            while True:
                # Who comes while others wait looks on first: they were here before.
                if not (others and most != 0) and (mine := self._try(names, path)):
                    break
                others = False
                left = (began + most if most is not None else fs.monotonic() + _FAR) - fs.monotonic()
                if left <= 0:
                    raise LockBusy(self._place.path, [str(one) for one in self._place.holders(_held(names))])
                fs.sleep(min(left, self._pause(names)))
                names = self._names()
        except BaseException:
            self._drop_ticket()
            raise
        return _Hold(self._place, mine, self._lease, written, lambda: self._clear(names, mine))

    def _drop_ticket(self) -> None:
        try:
            self._fs.drop(self._paths.in_tmp(self._ticket.name))
        except OSError:
            pass  # a ticket without a waiter: somebody removes it in time

    def _clear(self, names: Collection[str], mine: int) -> None:
        """Remove what is of no use any more, once the lock is held."""
        self._drop_ticket()
        self._forget(generations(names, _WHAT), mine)
        self._tidy(names, mine)

    def _names(self) -> list[str]:
        """What is in the directory. Now and then by a listing that is complete: one that misses a change may miss it
        for good (NFS v3)."""
        now = self._fs.monotonic()
        if now >= self._look_again:
            self._look_again = now + _JUDGE_EVERY
            self._fs.refresh(self._place.directory)
        names = self._fs.names(self._place.directory)
        self._cost = self._fs.monotonic() - now
        return names

    def _pause(self, names: Collection[str]) -> float:
        now = self._fs.monotonic()
        newest = max(generations(names, _WHAT), default=0)
        if newest != self._newest:
            if self._newest >= 0:
                self._turn = (now - self._changed) / (newest - self._newest)
            self._newest, self._changed = newest, now
        behind = sum(ticket < self._ticket for ticket in _tickets(names))
        pause = min(max((now - self._changed) * _PART, _SOON, self._cost), _LATE)
        # Whoever is behind has the turns of those before to wait, though some may have gone. A look takes no more time
        # than the pause: waiters must not keep a slow file server from its work.
        return min(max(pause * (1 + _BEHIND * behind), behind * self._turn * 0.75), _FAR) * uniform(0.5, 1.0)

    def _try(self, names: Collection[str], path: str) -> int | None:
        """The generation that was taken, if there was a free one."""
        found = generations(names, _WHAT)
        held = _held(names)
        over = self._judges.over(held) if len(held) >= self._slots else set()
        if len(held) - len(over) >= self._slots:
            return None
        try:
            mine = take_next(self._fs, self._paths, _WHAT, path, max(found, default=0))
        except OSError as error:
            if error.errno not in GONE or not self._place.is_there():
                raise
            if not self._fs.is_there(path):
                self._place.write(path, self._lease)  # it was taken for one without a waiter
            return None  # else a stale handle: looking has cured that
        if mine is None:
            return None
        if self._slots > 1 and self._are_too_many(mine, over):
            let_go(self._fs, self._paths, _WHAT, mine)
            return None
        self._over = over
        return mine

    def _are_too_many(self, mine: int, over: Collection[int]) -> bool:
        """A listing of NFS v3 that has the newest generation may still miss older ones: count again."""
        found = look(self._fs, self._paths, _WHAT)
        held = [number for number, state in found.items() if state == HELD and number <= mine and number not in over]
        return len(held) > self._slots

    def _forget(self, found: Mapping[int, str], mine: int) -> None:
        try:
            for number, state in found.items():
                if state == FREE and number < mine:
                    self._fs.drop(self._paths.in_locks(lock_name(_WHAT, number, True)))
            forget(self._fs, self._paths, _WHAT, self._over)
        except OSError:
            pass  # they are in nobody's way: the next one removes them

    def _tidy(self, names: Collection[str], mine: int) -> None:
        if mine % _TIDY_EVERY:
            return
        try:
            now = self._place.now()
            for ticket in _tickets(names):
                path = self._paths.in_tmp(ticket.name)
                try:
                    if now - self._fs.lstat(path).st_mtime > _TICKET_AGE:
                        self._fs.drop(path)
                except OSError as error:
                    if error.errno not in GONE:
                        raise
        except OSError:
            pass


class _Judge:
    """Whether those who hold a lock are there still."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._expiry = Expiry(place.fs, NodeFiles(place.directory))
        self._next = 0.0

    def over(self, held: Collection[int]) -> set[int]:
        """Those that are not. Looks once a second at most."""
        clock = self._place.fs.monotonic()
        if clock < self._next:
            return set()
        self._next = clock + _JUDGE_EVERY
        holders = self._place.holders(held)
        over = set(self._expiry.expired(holders, self._place.now(), DEFAULTS))
        identity = Identity()
        over.update(holder for holder in holders if identity.is_dead(holder.owner))
        over.update(self._ended([holder for holder in holders if holder not in over]))
        return {holder.token for holder in over}

    def _ended(self, holders: Collection[Holder]) -> list[Holder]:
        """Those whose batch job has ended: of all who wait, one asks once a minute."""
        from ddmq_hpc import schedulers

        own = batch_job()
        jobs = {holder: schedulers.parse_label(holder.job) for holder in holders if holder.job and holder.job != own}
        known = {job for job in jobs.values() if job and schedulers.get(job.scheduler).available()}
        minute = int(self._place.now() // _MINUTE)
        if not known or not first_in_minute(self._place.fs, self._place.paths, "recover", minute):
            return []
        from ddmq_hpc.recovery import MAYBE_SECONDS, ask

        states = ask(known, True, MAYBE_SECONDS)
        return [holder for holder, job in jobs.items() if job and states.get(job) == schedulers.ENDED]


class _Hold:
    """A lock that is held: signs of life, and the end. `renewed`: when it gave the last one, by the steady clock."""

    def __init__(self, place: _Place, generation: int, lease: float, renewed: float, begin: Callable[[], None]) -> None:
        self.generation = generation
        self._begin = begin
        self._is_dated = False
        self._place, self._lease, self._renewed = place, lease, renewed
        self._file = place.file_of(generation)
        self._gone = False
        self._done = Event()
        self._forks = fork_count()

    def is_lost(self) -> bool:
        return self._gone or self._place.fs.monotonic() - self._renewed > self._lease

    def keep(self) -> None:
        """Give signs of life from now on: the file tells when it was taken until the first one of them."""
        if self._place.fs.monotonic() - self._renewed > min(1.0, self._lease / 10):
            self._renew()  # the file was made long ago
        self._thread = Thread(target=self._beat, name="ddmq-hpc-lock", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        self._begin()
        while not self._done.wait(min(self._lease * _RENEW_AT, _RENEW_EVERY)):
            if not self._is_dated:
                self._date()
            self._renew()

    def _date(self) -> None:
        """Write down when it was taken, before signs of life change what the file's time tells."""
        fs = self._place.fs
        try:
            record = {"since": round(fs.lstat(self._file).st_mtime, 3)}
            fs.append_to(self._file, json.dumps(record).encode() + b"\n")
            self._is_dated = True
        except OSError:
            pass

    def _renew(self) -> None:
        fs = self._place.fs
        now = fs.monotonic()
        try:
            fs.touch(self._file)
        except OSError:
            pass  # gone, or the storage is in trouble: the look tells
        else:
            self._renewed = now
        try:
            # An NFS client can touch a file by a name that is gone: a look past its memory is needed.
            self._gone = self._gone or not fs.is_there(self._file)
        except OSError:
            pass

    def end(self) -> None:
        """Let go. Raises OSError, `LockLost`."""
        self._done.set()
        if self._forks != fork_count():
            return  # a child's copy: the parent holds it
        lost = self.is_lost()
        try:
            held = let_go(self._place.fs, self._place.paths, _WHAT, self.generation)
        finally:
            self._thread.join()
        if lost or not held:
            raise LockLost(self._place.path, self.generation)
