"""What stands for messages: packs, the entries that name ranges of them, their names in each state, ids and receipts.

A pack is one immutable file of 1..N messages, named `<nanoseconds, 19 digits>-<level><token>`. An entry is a hard link
that names a range of a pack and carries what changes: `<pack>.<first>-<stop>.<failed>-<lost>`. Its directory is its
state. Sorted as text, entries are first in, first out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ddmq_hpc.errors import BadReceipt

#: Priorities are numbers in names: this keeps every name under 255 bytes.
MAX_PRIORITY = 10**18
#: Messages of a pack. A name that tells of more was not made by clients, and counting through them could take for ever.
MAX_PACK = 1024
#: The end of the name of a lease under division.
SPLIT = "!split"
#: Of the name of a pack, with which the name of each of its entries begins.
PACK_LENGTH = 29
#: An id that is cut short has so many digits at least: the second in which its message was published.
SHORTEST_ID = 10
#: Why messages are dead letters.
REJECTED, NO_REQUEUE, REQUEUE_LIMIT, LOSS_LIMIT, LOST = REASONS = (
    "rejected",
    "no-requeue",
    "requeue-limit",
    "loss-limit",
    "lost",
)
#: Why something is in damaged/ of which no line was read.
NO_PACK, TOO_LARGE = "no-file", "too-large"
#: Patterns of the name of a pack, and of a number without leading zeros.
PACK, NUMBER = r"\d{19}-[0-6][a-z2-7]{8}", r"0|[1-9]\d{0,18}"
_ENTRY = rf"({PACK})\.({NUMBER})-([1-9]\d{{0,8}})\.(\d{{1,9}})-(\d{{1,9}})"
_ENTRY_NAME = re.compile(_ENTRY, re.ASCII)
_LEASE_NAME = re.compile(
    rf"({NUMBER})\.{_ENTRY}~(\d{{1,15}})\+(\d{{1,13}})@([A-Za-z0-9._:=-]{{1,140}})({SPLIT})?", re.ASCII
)
_DELAYED_NAME = re.compile(rf"(\d{{15}})\.({NUMBER})\.{_ENTRY}", re.ASCII)
_DEAD_NAME = re.compile(rf"({NUMBER})\.{_ENTRY}~([a-z0-9-]{{1,60}})", re.ASCII)
_DROPPED_NAME = re.compile(rf"(\d{{15}})\.({NUMBER}|-)\.({PACK})", re.ASCII)
_PACK_NAME = re.compile(PACK, re.ASCII)
_PRIORITY_NAME = re.compile(NUMBER, re.ASCII)
_MESSAGE_ID = re.compile(rf"({PACK})\.({NUMBER})", re.ASCII)
_MESSAGE_RANGE = re.compile(rf"({PACK})\.(\d{{1,9}})(?:-(\d{{1,9}}))?", re.ASCII)


class Entry(NamedTuple):
    """The messages `first` to `stop` (exclusive) of a pack and how often they were tried in vain."""

    pack: str
    first: int
    stop: int
    failed: int  # attempts that ended in a nack
    lost: int  # attempts whose worker died or whose lease ran out

    @property
    def name(self) -> str:
        return "%s.%d-%d.%d-%d" % self

    def part(self, first: int, stop: int) -> Entry:
        return tuple.__new__(Entry, (self[0], first, stop, self[3], self[4]))  # twice a message: Entry() takes longer

    def contains(self, other: Entry) -> bool:
        """Whether `other` is a range of this one in the same attempt: it is then a half-done split of it."""
        return (
            self.pack == other.pack
            and self.first <= other.first
            and other.stop <= self.stop
            and self.failed == other.failed
            and self.lost == other.lost
        )


class Lease(NamedTuple):
    """A leased entry: `deadline` and `duration` are milliseconds, the deadline in the file system's clock.

    `split` marks an entry that is being divided: it is put back without counting an attempt when its owner dies.
    """

    priority: int
    entry: Entry
    deadline: int
    duration: int
    owner: str
    split: bool = False

    @property
    def name(self) -> str:
        return lease_name(self.priority, self.entry.name, self.deadline, self.duration, self.owner, SPLIT * self.split)

    def part(self, first: int, stop: int) -> Lease:
        priority, entry, deadline, duration, owner, split = self
        return Lease(priority, entry.part(first, stop), deadline, duration, owner, split)


def lease_name(priority: int, entry: str, deadline: int, duration: int, owner: str, mark: str = "") -> str:
    """The name of a lease of the entry of that name: for those who have it at hand, as takers do."""
    return f"{priority}.{entry}~{deadline}+{duration}@{owner}{mark}"


class Delayed(NamedTuple):
    """An entry that is not ready before `due` (milliseconds, the file system's clock)."""

    due: int
    priority: int
    entry: Entry

    @property
    def name(self) -> str:
        return f"{self.due:015d}.{self.priority}.{self.entry.name}"


class Done(NamedTuple):
    """A finished message that is kept, and when it ended (milliseconds, the file system's clock)."""

    ended: int
    priority: int
    entry: Entry

    @property
    def name(self) -> str:
        return f"{self.ended:015d}.{self.priority}.{self.entry.name}"


class Dropped(NamedTuple):
    """A pack of one message that somebody dropped who may only publish: `due` as of a delayed one, 0 when it is ready
    at once, `priority` None when it is to have the queue's. Whoever fetches it gives it another pack's name."""

    due: int
    priority: int | None
    pack: str

    @property
    def name(self) -> str:
        return f"{self.due:015d}.{'-' if self.priority is None else self.priority}.{self.pack}"

    def hidden(self, token: str) -> Dropped:
        """The same, in its place in the order, by a name that only those know who know `token`, eight letters."""
        return self._replace(pack=self.pack[: -len(token)] + token)


class Dead(NamedTuple):
    """A dead letter and the word for why it died."""

    priority: int
    entry: Entry
    reason: str

    @property
    def name(self) -> str:
        return f"{self.priority}.{self.entry.name}~{self.reason}"


def _entry(groups: tuple[str, ...]) -> Entry | None:
    pack, first, stop, failed, lost = groups
    entry = Entry(pack, int(first), int(stop), int(failed), int(lost))
    return entry if entry.first < entry.stop <= MAX_PACK else None


def parse_entry(name: str) -> Entry | None:
    """The entry of a name in ready/; None for a foreign file."""
    found = _ENTRY_NAME.fullmatch(name)
    return _entry(found.groups()) if found else None


def entry_order(name: str) -> tuple[str, int, str]:
    """What to sort names in ready/ by where several are of the same pack; foreign ones anywhere. Of two numbers without
    leading zeros the longer one is the greater, which takes a tenth of the time of parsing them."""
    first = name[PACK_LENGTH + 1 :].partition("-")[0]
    return name[:PACK_LENGTH], len(first), first


def parse_lease(name: str) -> Lease | None:
    """The lease of a name in leased/; None for a foreign file."""
    found = _LEASE_NAME.fullmatch(name)
    if not found:
        return None
    groups = found.groups()
    entry = _entry(groups[1:6])
    return entry and Lease(int(groups[0]), entry, int(groups[6]), int(groups[7]), groups[8], groups[9] is not None)


def parse_leases(names: Iterable[str]) -> list[Lease]:
    """The leases of a listing of leased/, foreign files left out."""
    return [lease for lease in map(parse_lease, names) if lease]


def any_divided(names: Iterable[str]) -> bool:
    """Whether a listing of leased/ shows an entry that somebody divides: its messages may be in no state just now."""
    return any(name.endswith(SPLIT) and parse_lease(name) for name in names)


def parse_delayed(name: str) -> Delayed | None:
    found = _DELAYED_NAME.fullmatch(name)
    if not found:
        return None
    groups = found.groups()
    entry = _entry(groups[2:7])
    return entry and Delayed(int(groups[0]), int(groups[1]), entry)


def parse_done(name: str) -> Done | None:
    found = parse_delayed(name)
    return found and Done(*found)


def parse_dead(name: str) -> Dead | None:
    found = _DEAD_NAME.fullmatch(name)
    if not found:
        return None
    groups = found.groups()
    entry = _entry(groups[1:6])
    return entry and Dead(int(groups[0]), entry, groups[6])


def parse_dropped(name: str) -> Dropped | None:
    """What a name in drop/ says; None for a foreign file."""
    found = _DROPPED_NAME.fullmatch(name)
    if found is None:
        return None
    priority = None if found[2] == "-" else int(found[2])
    return Dropped(int(found[1]), priority, found[3]) if priority is None or priority <= MAX_PRIORITY else None


def is_priority(name: str) -> bool:
    return _PRIORITY_NAME.fullmatch(name) is not None


def is_pack(name: str) -> bool:
    return _PACK_NAME.fullmatch(name) is not None


def pack_name(ns: int, level: int, token: str) -> str:
    return "%019d-%d%s" % (ns, level, token)


def new_entry_name(pack: str, count: int) -> str:
    """The name of the entry of a whole new pack of `count` messages."""
    return f"{pack}.0-{count}.0-0"


def published_ns(pack: str) -> int:
    """Nanoseconds since 1970 when the pack was published, in the file system's clock."""
    return int(pack[:19])


def message_id(pack: str, index: int) -> str:
    return f"{pack}.{index}"


def parse_message_id(text: str) -> tuple[str, int] | None:
    """(pack, index) of a message id."""
    found = _MESSAGE_ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None


def is_id_or_beginning(text: str) -> bool:
    """Whether text is a message id, or one cut short that says enough not to mean any message by a slip."""
    return parse_message_id(text) is not None or (len(text) >= SHORTEST_ID and text[:SHORTEST_ID].isdecimal())


def message_range(pack: str, first: int, stop: int) -> str:
    """How records name messages of a pack: by the id of one, or by the range of several."""
    return message_id(pack, first) if stop - first == 1 else f"{pack}.{first}-{stop}"


def parse_message_range(text: str) -> tuple[str, int, int] | None:
    """(pack, first, stop) of what a record names."""
    found = _MESSAGE_RANGE.fullmatch(text)
    if not found:
        return None
    first = int(found[2])
    stop = int(found[3]) if found[3] else first + 1
    return (found[1], first, stop) if 0 < stop - first <= MAX_PACK else None


def make_receipt(queue: str, lease: Lease) -> str:
    """What stands for one leased message outside this process: `<queue>/<name of its lease>`."""
    return f"{queue}/{lease.name}"


def parse_receipt(receipt: object, queue: str) -> Lease:
    """The lease that a receipt of `queue` names; raises `BadReceipt` for anything else. Does not look whether it is
    held."""
    if not isinstance(receipt, str):
        raise BadReceipt(receipt)
    of, slash, name = receipt.strip().rpartition("/")
    lease = parse_lease(name)
    if not slash or lease is None or lease.split:
        raise BadReceipt(receipt)
    if of.rpartition("/")[2] != queue:
        raise BadReceipt(receipt, f"a receipt of another queue than {queue!r}")
    return lease
