"""Who holds a lock for users, as its file and name tell, and whether they are there still."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from ddmq_hpc.errors import UsageError
from ddmq_hpc.expiry import Expiry, NodeFiles
from ddmq_hpc.fs import GONE
from ddmq_hpc.identity import Identity, Owner, batch_job, user_name
from ddmq_hpc.lockdir import LockDirectory
from ddmq_hpc.locks import first_in_minute
from ddmq_hpc.names import Lock
from ddmq_hpc.settings import DEFAULTS

#: Seconds without a sign of life after which a holder is replaced: a client can hang for 60 s in one call when its file
#: server restarts (measured on NFS).
LEASE = 120.0
#: Seconds between two looks at the signs of life of those who hold what one waits for.
JUDGE_EVERY = 1.0
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


def record(owner: str, lease: float) -> bytes:
    """What stands in the file of one who wants to hold."""
    if lease < 1:
        raise UsageError("a lease of a lock is at least 1 second")
    return json.dumps({"owner": owner, "user": user_name(os.geteuid()), "lease": lease}).encode() + b"\n"


def dated(lock: Lock, since: float) -> bytes:
    """A line for the file of one who holds: since when."""
    return json.dumps({"since": round(since, 3), "token": lock.generation}).encode() + b"\n"


def holders(directory: LockDirectory, held: Iterable[Lock]) -> list[Holder]:
    """Those of these that are there still. Raises OSError."""
    return [holder for lock in held if (holder := _holder(directory, lock))]


def _holder(directory: LockDirectory, lock: Lock) -> Holder | None:
    try:
        # Opening it makes an NFS client ask for its times: remembered ones may be a minute old.
        found, data = directory.fs.read_some(directory.file(lock), _LONGEST_FILE)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    told = _record(data)
    text = lock.owner or _text(told.get("owner"))
    owner = Owner.parse(text) or Owner("", 0, 0, "", "", "")
    # The file goes from holder to holder of a node: what another one wrote into it says nothing of this one.
    since = _number(told.get("since")) if told.get("token") == lock.generation else 0.0
    user = _text(told.get("user"))[:64]
    seen, lease = found.st_mtime, _number(told.get("lease")) or LEASE
    return Holder(lock.generation, owner.host, owner.pid, owner.job, user, since or seen, seen, lease, text)


def _record(data: bytes) -> dict[str, Any]:
    """The lines of a holder's file, the last word on each subject; nothing of what is no such line."""
    told: dict[str, Any] = {}
    for line in data.splitlines():
        try:
            told.update(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            continue
    return told


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e11 else 0.0


class Judge:
    """Whether those who hold a lock are there still."""

    def __init__(self, directory: LockDirectory, node: NodeFiles) -> None:
        self._directory = directory
        self._expiry = Expiry(directory.fs, node)
        self._next = 0.0

    def over(self, held: Collection[Lock]) -> list[Lock]:
        """Those that are not. Looks once a second at most. Raises OSError."""
        clock = self._directory.fs.monotonic()
        if clock < self._next:
            return []
        self._next = clock + JUDGE_EVERY
        found = holders(self._directory, held)
        over = set(self._expiry.expired(found, self._directory.now(), DEFAULTS))
        identity = Identity()
        over.update(holder for holder in found if identity.is_dead(holder.owner))
        over.update(self._ended([holder for holder in found if holder not in over]))
        tokens = {holder.token for holder in over}
        return [lock for lock in held if lock.generation in tokens]

    def _ended(self, found: Collection[Holder]) -> list[Holder]:
        """Those whose batch job has ended: of all who wait, one asks once a minute."""
        from ddmq_hpc import schedulers

        own = batch_job()
        jobs = {holder: schedulers.parse_label(holder.job) for holder in found if holder.job and holder.job != own}
        known = {job for job in jobs.values() if job and schedulers.get(job.scheduler).available()}
        minute = int(self._directory.now() // _MINUTE)
        if not known or not first_in_minute(self._directory.fs, self._directory.paths, "recover", minute):
            return []
        from ddmq_hpc.recovery import MAYBE_SECONDS, ask

        shared = {holder.user for holder in jobs} != {user_name(os.geteuid())}
        states = ask(known, shared, MAYBE_SECONDS)
        return [holder for holder, job in jobs.items() if job and states.get(job) == schedulers.ENDED]
