"""What runs of Snakemake in one working directory have between them: one at a time takes tasks, and the next one knows
what the last one held."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from zlib import crc32

from ddmq_hpc.errors import LockBusy, LockLost, UsageError
from ddmq_hpc.holders import LEASE
from ddmq_hpc.identity import Owner, host, kernel, process_start, token
from ddmq_hpc.queue import Queue
from ddmq_hpc.semaphores import Lock, overview
from ddmq_hpc.snakemake.internals import say, warn

#: Of a lease of messages, the part after which a run on another host that gives no sign of life is taken for dead: what
#: it held is still held then. Seconds at least; and how much longer than that one waits.
_LOCK_PART, _LOCK_LEAST, _LOCK_GRACE = 1 / 4, 5.0, 10.0
#: By `.snakemake`: a workflow may take tasks of several queues.
_IN_USE: dict[str, WorkingDirectory] = {}


class WorkingDirectory:
    """The directory whose `.snakemake` is `top`, entered by this process and by no other.

    Snakemake's own lock is of the files that are known at the start: those of tasks are not. This one is free as soon
    as its process is gone on this host, or when it gave no sign of life for a while on another one.
    """

    def __init__(self, top: str, lease: float) -> None:
        self._top = top
        self._lock = Lock(f"{top}/ddmq-hpc", wait=0, lease=max(min(LEASE, lease * _LOCK_PART), _LOCK_LEAST))
        self._queues: set[str] = set()

    @classmethod
    @contextmanager
    def of(cls, top: str, queue: Queue, lease: float) -> Iterator[WorkingDirectory]:
        """Be in it for a `with` block, to take the tasks of a queue. Raises `UsageError` when another run is in it,
        `StorageError`."""
        found = _IN_USE.get(top)
        if found is None:
            os.makedirs(top, exist_ok=True)
            found = cls(top, lease)
            found._acquire()
            _IN_USE[top] = found
        path = queue.paths.top
        if path in found._queues:
            raise UsageError(f"this workflow takes the tasks of {path} already: one `tasks()` for each queue")
        found._queues.add(path)
        try:
            yield found
        finally:
            found._queues.discard(path)
            if not found._queues:
                del _IN_USE[top]
                found._release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
            return
        except LockBusy as busy:
            others = overview(self._lock.path).holders
            if any(holder.host == host() for holder in others):
                raise self._refusal(busy) from None
            wait = max((holder.lease for holder in others), default=0.0) + _LOCK_GRACE
            say(f"{'; '.join(busy.holders)} took tasks in this directory; waiting {wait:.0f} s for a sign of life")
        self._lock.wait = wait
        try:
            self._lock.acquire()
        except LockBusy as busy:
            raise self._refusal(busy) from None

    def _refusal(self, busy: LockBusy) -> UsageError:
        return UsageError(
            f"another run takes tasks in this directory: {'; '.join(busy.holders) or 'it just began'}; "
            "wait for its end, or use another directory (snakemake --directory)"
        )

    @property
    def is_lost(self) -> bool:
        """Whether another run may be in it by now, this one having slept for too long."""
        return self._lock.lost

    def _release(self) -> None:
        try:
            self._lock.release()
        except LockLost as error:
            warn(str(error))

    # -- who held what

    def last_owner(self, queue: Queue) -> str | None:
        """The owner under which an earlier run in this directory took messages of a queue; None when there was none, or
        when it is there still. A copy of a directory knows nothing of what its original held."""
        with suppress(OSError, ValueError, KeyError, TypeError), open(self._record(queue), encoding="utf-8") as file:
            told = json.load(file)
            owner = Owner.parse(str(told["owner"]))
            if owner and told["inode"] == os.fstat(file.fileno()).st_ino and not _is_here(owner):
                return str(told["owner"])
        return None

    def remember(self, queue: Queue, owner: str) -> None:
        """Note the owner of this run, for the next. Raises OSError."""
        path = self._record(queue)
        with open(f"{path}.{token()}", "w", encoding="utf-8") as file:
            json.dump({"owner": owner, "inode": os.fstat(file.fileno()).st_ino}, file)
        os.replace(file.name, path)

    def _record(self, queue: Queue) -> str:
        path = os.path.realpath(queue.paths.top).encode("utf-8", "surrogateescape")
        os.makedirs(f"{self._top}/ddmq-hpc", exist_ok=True)
        return f"{self._top}/ddmq-hpc/{queue.name}-{crc32(path):08x}.json"


def marker(top: str) -> str:
    """An empty file in `.snakemake`, relative to the working directory: input that is there and tells nothing."""
    os.makedirs(f"{top}/ddmq-hpc", exist_ok=True)
    path = f"{top}/ddmq-hpc/no-more-tasks"
    if not os.path.exists(path):
        with open(path, "a", encoding="utf-8"):
            pass
    return os.path.relpath(path)


def _is_here(owner: Owner) -> bool:
    """Whether the process of an owner is known to be alive, on this host."""
    return owner.host == host() and owner.kernel == kernel() and process_start(owner.pid) == owner.start
