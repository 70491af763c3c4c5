"""What callers hold of leased messages: the messages themselves, or receipts; and the leases behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from ddmq_hpc.errors import BadReceipt
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.messages import Message
from ddmq_hpc.names import Lease, QueuePaths, parse_leases, parse_receipt
from ddmq_hpc.settling import Held, Settler

#: What settles a message: the message itself, or its receipt.
Handle = Union[Message, str]


class Handles:
    """Finds the leases of one queue by messages and receipts."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, queue: Settler) -> None:
        self.fs = fs
        self.paths = paths
        self._queue = queue
        self.name = paths.queue

    def by_lease(self, messages: Iterable[Handle]) -> list[tuple[Held, dict[int, Handle]]]:
        """Leases with those of their messages that are meant, by index: so that a batch costs few calls.

        What is no longer held comes with an empty lease. Raises `BadReceipt`.
        """
        groups: dict[int, tuple[Held, dict[int, Handle]]] = {}
        for handle in messages:
            if isinstance(handle, Message):
                if handle.held is None or handle.queue != self.name:
                    raise BadReceipt(handle.id, "not a message leased from this queue")
                held, index = handle.held, handle.index
            else:
                held, index = self._find(handle, [group[0] for group in groups.values()])
            group = groups.get(id(held))
            if group is None:
                groups[id(held)] = (held, {index: handle})
            else:
                group[1][index] = handle
        return list(groups.values())

    def _find(self, receipt: str, known: Iterable[Held]) -> tuple[Held, int]:
        """The lease that a receipt stands for now, however often it was extended or divided since."""
        wanted = parse_receipt(receipt, self.name)
        index = wanted.entry.first
        for held in known:
            lease = held.run_of(index)
            if lease and _is_same(lease, wanted):
                return held, index
        found = self._look(wanted)
        held = Held(self._queue, wanted)
        held.runs = [found] if found else []
        return held, index

    def _look(self, wanted: Lease) -> Lease | None:
        if self.fs.is_there(self.paths.in_leased(wanted)):
            return wanted
        for wait in (0.01, 0.05, 0.2, 0.0):
            leases = parse_leases(self.fs.names(self.paths.leased))
            same = [lease for lease in leases if _is_same(lease, wanted)]
            for lease in same:
                if not lease.split:
                    return lease
            if not same:
                return None
            self.fs.sleep(wait)  # another process is settling a neighbour of it
        return None


def _is_same(lease: Lease, wanted: Lease) -> bool:
    return lease.owner == wanted.owner and lease.entry.contains(wanted.entry)


def receipt_of(handle: Handle) -> str:
    return handle if isinstance(handle, str) else (handle.receipt or handle.id)
