"""Heartbeats: leases are renewed for as long as their messages are worked on, and what was lost is told."""

from __future__ import annotations

from collections.abc import Collection

from ddmq_hpc.errors import LeaseLost, StorageError
from ddmq_hpc.messages import Message
from ddmq_hpc.queue import Queue

#: A lease is renewed when this part of it is over, so that two renewals may fail (a client hangs up to 60 s in one call
#: after a server's crash; measured on NFS) before it runs out.
_RENEW_AT = 1 / 3


def renew(queue: Queue, messages: Collection[Message]) -> list[Message]:
    """Renew the leases of `messages` that need it now; those that are not held (any more).

    A failure of the file system is no loss: the next call tries again. No file is touched when nothing is due.
    """
    now = queue.fs.now(queue.paths.tmp)
    due = [message for message in messages if _is_due(message, now)]
    try:
        if due:
            queue.extend(due)
    except (LeaseLost, StorageError):
        pass
    return [message for message in messages if message.held is None or message.held.run_of(message.index) is None]


def _is_due(message: Message, now: float) -> bool:
    lease = message.held.run_of(message.index) if message.held else None
    return lease is not None and lease.deadline / 1000 - now < lease.duration / 1000 * (1 - _RENEW_AT)
