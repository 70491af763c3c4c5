"""Heartbeats: leases are renewed for as long as their messages are worked on, and what was lost is told, and why."""

from __future__ import annotations

from collections.abc import Collection

from ddmq_hpc import journal
from ddmq_hpc.admin import covers
from ddmq_hpc.attempts import REMOVED
from ddmq_hpc.errors import LeaseLost, StorageError
from ddmq_hpc.messages import Message
from ddmq_hpc.names import Lease, parse_message_id
from ddmq_hpc.queue import Queue

#: A lease is renewed when this part of it is over, so that two renewals may fail (a client hangs up to 60 s in one call
#: after a server's crash; measured on NFS) before it runs out.
_RENEW_AT = 1 / 3
#: Seconds after which it is looked whether a lease is still there that is not to be renewed yet: somebody may have
#: cancelled its message.
LOOK_EVERY = 25.0
#: Bytes that are read of the end of each file of the journal, to find out who took a message away.
_TAIL = 1 << 16
#: How a message was lost: somebody else may have it now, or nobody shall have it.
LOST, CANCELLED = "lost", "cancelled"


class Beats:
    """The heartbeats of what one client holds of a queue. Used by one thread."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._looked = queue.fs.monotonic()

    def renew(self, messages: Collection[Message]) -> list[Message]:
        """Renew the leases of `messages` that need it now; those that are not held (any more).

        A failure of the file system is no loss: the next call tries again. No file is touched when nothing is due.
        Where leases have stood for `LOOK_EVERY` seconds there is one listing in that time, however many they are: what
        is not in it is renewed at once, which tells whether it was lost.
        """
        queue = self._queue
        now = queue.fs.now(queue.paths.tmp)
        try:
            gone = self._gone(messages, now)
            if due := [message for message in messages if _is_due(message, now) or _lease_of(message) in gone]:
                queue.extend(due)
        except (LeaseLost, StorageError):
            pass
        return [message for message in messages if message.held is None or _lease_of(message) is None]

    def _gone(self, messages: Collection[Message], now: float) -> set[Lease | None]:
        """The leases that were not seen where they should be, when it was time to look. Raises `StorageError`."""
        queue, fs = self._queue, self._queue.fs
        old = any(now - _touched(lease) > LOOK_EVERY for message in messages if (lease := _lease_of(message)))
        if not old or fs.monotonic() - self._looked < LOOK_EVERY:
            return set()
        self._looked = fs.monotonic()
        leases = {lease for message in messages if (lease := _lease_of(message))}
        try:
            names = set(fs.names(queue.paths.leased))
        except OSError as error:
            raise queue.trouble(error, f"look into queue {queue.name!r}") from error
        return {lease for lease in leases if lease.name not in names}


def how_lost(queue: Queue, message: Message) -> str:
    """`CANCELLED` where the journal, as far as it was written lately, tells that somebody removed a message that is not
    held any more, else `LOST`. Costs the same however long the journal is."""
    pack, index = parse_message_id(message.id) or ("", 0)
    try:
        tails, _ = journal.tails(queue.fs, queue.paths, _TAIL)
    except OSError:
        return LOST
    wanted = pack.encode()
    told = journal.parsed(line for tail in tails for line in tail.lines if wanted in line)
    removed = any(record.get("state") in REMOVED and covers(record["id"], pack, index) for record in told)
    return CANCELLED if removed else LOST


def _lease_of(message: Message) -> Lease | None:
    return message.held.run_of(message.index) if message.held else None


def _touched(lease: Lease) -> float:
    """When it was taken or renewed last, in seconds since 1970."""
    return (lease.deadline - lease.duration) / 1000


def _is_due(message: Message, now: float) -> bool:
    lease = _lease_of(message)
    return lease is not None and lease.deadline / 1000 - now < lease.duration / 1000 * (1 - _RENEW_AT)
