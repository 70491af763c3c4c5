"""The messages that one run of Snakemake holds: taken, kept by heartbeats, let go of by what became of their jobs."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Container
from typing import Any

from ddmq_hpc.beats import Beats
from ddmq_hpc.errors import DdmqError, LeaseLost, StorageError
from ddmq_hpc.identity import Owner, host
from ddmq_hpc.idle import Patience
from ddmq_hpc.messages import Message
from ddmq_hpc.names import Entry, is_delay_directory, make_receipt, message_id, parse_delayed, parse_leases
from ddmq_hpc.queue import Queue
from ddmq_hpc.snakemake.internals import warn
from ddmq_hpc.trust import Trust

#: Seconds between two looks whether a lease is to be renewed.
_BEAT = 0.5
_TELL_EVERY = 60.0
ACKED, NACKED, RELEASED = "acked", "nacked", "released"


class Claims:
    """What is held of one queue, by the file that each message's job makes: `target` with the id for `{task}`.

    Used by one thread. Another one of its own renews leases and carries out verdicts: they are given while Snakemake
    holds the lock of its scheduler, where no job should wait for a file server.

    A message that failed here and comes again is held and not worked on until the end: Snakemake tries a job again by
    `retries:` alone.
    """

    def __init__(self, queue: Queue, trust: Trust, target: str, lease: float | None) -> None:
        self.held: dict[str, Message] = {}
        #: Targets that Snakemake was not told of yet.
        self.fresh: list[str] = []
        #: The body of each message that was ever held, by its id: Snakemake asks again after the end of a job.
        self.bodies: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self._queue, self._trust, self._target, self._lease = queue, trust, target, lease
        self._failed: set[str] = set()
        self._aside: list[Message] = []
        self._verdicts: deque[tuple[Message, str]] = deque()  # not carried out yet: these are held, too
        self._worker = f"snakemake-{host()}-{os.getpid()}"
        self._told = -1e9
        self._lock = threading.Lock()  # of what is held
        self._carrying = threading.Lock()  # of the one thread that carries out verdicts
        self._wake = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="ddmq-hpc-claims", daemon=True)
        self._thread.start()

    def take(self, count: int) -> None:
        """Hold up to `count` messages more. Raises `QueuePaused`, `StorageError`, and `Untrusted` for a message that
        somebody else could have written, which is released."""
        wanted = len(self.fresh) + count
        while len(self.fresh) < wanted:
            taken = self._queue.take(wanted - len(self.fresh), duration=self._lease)
            if not taken:
                return
            for at, message in enumerate(taken):
                try:
                    self._trust.check_pack(message)
                except LeaseLost:
                    continue
                except DdmqError:
                    self._queue.release(taken[at:])
                    raise
                self._hold(message)

    def _hold(self, message: Message) -> None:
        target = self._target.replace("{task}", message.id)
        with self._lock:
            if message.id in self._failed:
                self._aside.append(message)
                return
            self.held[target] = message
        if message.id not in self.bodies:
            self.bodies[message.id] = message.message
            self.fresh.append(target)

    # -- verdicts

    def done(self, target: str) -> None:
        """Its job made what it was to make: acked within moments."""
        self._judge(target, ACKED)

    def failed(self, target: str) -> None:
        """Its job failed for good: nacked within moments."""
        self._failed.add(self.held[target].id)
        self._judge(target, NACKED)

    def _judge(self, target: str, verdict: str) -> None:
        with self._lock:
            self._verdicts.append((self.held.pop(target), verdict))
        self._wake.set()

    def end(self) -> None:
        """Carry out the verdicts, and put back what has none, no attempt counted. Waits out what the file system
        refuses for as long as workers do, then raises `StorageError`."""
        patience = Patience(warn, time.sleep)
        left = [*self.held.values(), *self._aside]
        while True:
            try:
                self._carry_out()
                self._release(left)
                break
            except StorageError as error:
                patience.wait(error)
        self._is_over = True
        self._wake.set()
        self._thread.join()
        self.held.clear()

    def _carry_out(self) -> None:
        """Raises `StorageError`: the rest is left for another time."""
        with self._carrying:
            while self._verdicts:
                self._let_go(*self._verdicts[0])
                with self._lock:
                    self._verdicts.popleft()

    def _let_go(self, message: Message, verdict: str) -> None:
        try:
            if verdict == ACKED:
                self._queue.ack_one(message, {"worker": self._worker})
            else:
                self._queue.nack([message], worker=self._worker, error="its Snakemake job failed")
        except LeaseLost as error:
            warn(f"task {message.id} is not {verdict}: {error}")
        else:
            self.counts[verdict] += 1

    def _release(self, messages: list[Message]) -> None:
        lost = 0
        if messages:
            try:
                self._queue.release(messages, worker=self._worker)
            except LeaseLost as error:
                lost = len(error.receipts)
            self.counts[RELEASED] += len(messages) - lost

    # -- the thread

    def _work(self) -> None:
        beats = Beats(self._queue)
        while not self._is_over:
            self._wake.clear()
            try:
                self._carry_out()
            except StorageError as error:
                self._tell(error)
            try:
                beats.renew(self._all())
            except OSError:
                pass  # the next one may do, long before a lease is over; what is lost is told when it is settled
            self._wake.wait(_BEAT)

    def _all(self) -> list[Message]:
        with self._lock:
            return [*self.held.values(), *self._aside, *(message for message, _ in self._verdicts)]

    def _tell(self, error: StorageError) -> None:
        if time.monotonic() - self._told > _TELL_EVERY:
            self._told = time.monotonic()
            warn(f"{error}; trying on")

    # -- others

    def more_may_come(self) -> bool:
        """Whether others hold messages, or some are delayed, which may be ready again: those that failed here do not
        count. Raises `StorageError`."""
        fs, paths = self._queue.fs, self._queue.paths
        mine = {message.id for message in self._all()}
        try:
            leased = [lease.entry for lease in parse_leases(fs.names(paths.leased))]
            if not all(_is_all_of(entry, mine) for entry in leased):
                return True
            for window in filter(is_delay_directory, fs.directories(paths.delayed)):
                late = filter(None, map(parse_delayed, fs.names(f"{paths.delayed}/{window}")))
                if not all(_is_all_of(delayed.entry, self._failed) for delayed in late):
                    return True
        except OSError as error:
            raise self._queue.trouble(error, f"look what else is in queue {self._queue.name!r}") from error
        return False


def release_all_of(queue: Queue, owner: str) -> int:
    """Put back all that a process held that is gone, no attempt counted: `owner` is one of its owners. How many.
    Raises `StorageError`."""
    gone = Owner.parse(owner)
    try:
        queue.fs.refresh(queue.paths.leased)
        leases = [lease for lease in parse_leases(queue.fs.names(queue.paths.leased)) if not lease.split]
    except OSError as error:
        raise queue.trouble(error, f"look for leases in queue {queue.name!r}") from error
    receipts = [
        make_receipt(queue.name, lease.part(index, index + 1))
        for lease in leases
        if gone and (its := Owner.parse(lease.owner)) and its.holder == gone.holder
        for index in range(lease.entry.first, lease.entry.stop)
    ]
    try:
        if receipts:
            queue.release(receipts)
    except LeaseLost as error:
        return len(receipts) - len(error.receipts)  # others were faster
    return len(receipts)


def _is_all_of(entry: Entry, ids: Container[str]) -> bool:
    return all(message_id(entry.pack, index) in ids for index in range(entry.first, entry.stop))
