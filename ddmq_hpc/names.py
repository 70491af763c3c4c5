"""Every name and path of the on-disk layout, in one place. Pure: nothing here touches a file system.

    ROOT/ddmq-checkup.json                           what was found about the file system when the root was made
    ROOT/ddmq.yaml                                   global settings, layout version
    ROOT/QUEUE/ddmq.yaml                             queue settings
    ROOT/QUEUE/ready/<priority>/<bucket>/<entry>     may be taken
    ROOT/QUEUE/leased/<priority>.<entry>~<deadline>+<duration>@<owner>[!split]
    ROOT/QUEUE/delayed/<window>/<due>.<priority>.<entry>
    ROOT/QUEUE/dead/<priority>.<entry>~<reason>      dead letters
    ROOT/QUEUE/{tmp,damaged,keys,journal,workers,locks}/

A pack is one immutable file of 1..N messages, named `<nanoseconds, 19 digits>-<level><token>`. An entry is a hard link
that names a range of a pack and carries what changes: `<pack>.<first>-<stop>.<failed>-<lost>`. Its directory is its
state. Sorted as text, entries are first in, first out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ddmq_hpc.errors import BadName, BadReceipt

SETTINGS = "ddmq.yaml"
#: The line of the root settings that says which layout this is.
LAYOUT_KEY = "layout"
READY, LEASED, DELAYED, DEAD = "ready", "leased", "delayed", "dead"
#: Made when somebody needs them: output of tasks, and directories that tasks keep from one attempt to the next.
LOGS, STATE = "logs", "state"
TMP, DAMAGED, KEYS, JOURNAL, WORKERS, LOCKS = "tmp", "damaged", "keys", "journal", "workers", "locks"
#: Everything a queue directory holds; the first four are the states of a message.
DIRECTORIES = (READY, LEASED, DELAYED, DEAD, TMP, DAMAGED, KEYS, JOURNAL, WORKERS, LOCKS)
#: Where ddmq, the predecessor, has the consumed messages of a queue.
LEGACY_WORK = "work"
#: The end of the name of a lease under division.
SPLIT = "!split"
#: The end of the directory of a lock for users.
LOCK_END = ".lock"
#: What was found about the file system when the root was made.
CHECKUP = "ddmq-checkup.json"
#: The directories that `doctor` works in, `PATH/.ddmq-hpc-doctor-<token>`.
_PROBE = ".ddmq-hpc-doctor-"
#: A deleted queue is first renamed to this, so that it is gone at once however long removing its files takes.
GRAVE = ".deleted-"

#: Priorities are numbers in names: this keeps every name under 255 bytes.
MAX_PRIORITY = 10**18
#: Width in nanoseconds of the time window of a bucket, by level. Each divides the one before, so buckets nest.
WINDOWS = (64_000_000_000, 16_000_000_000, 4_000_000_000, 1_000_000_000, 250_000_000, 62_500_000, 15_625_000)
_UNIT = WINDOWS[-1]
#: How names in tmp/ begin, besides those of packs.
_IN_TMP = ("job-", "lock-", "settings-", "workers-")
_DELAY_WINDOW = 64_000

_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NUMBER = r"0|[1-9]\d{0,18}"
#: Of the name of a pack, with which the name of each of its entries begins.
PACK_LENGTH = 29
_PACK = r"\d{19}-[0-6][a-z2-7]{8}"
_ENTRY = rf"({_PACK})\.({_NUMBER})-([1-9]\d{{0,8}})\.(\d{{1,9}})-(\d{{1,9}})"
_ENTRY_NAME = re.compile(_ENTRY, re.ASCII)
_LEASE_NAME = re.compile(
    rf"({_NUMBER})\.{_ENTRY}~(\d{{1,15}})\+(\d{{1,13}})@([A-Za-z0-9._:=-]{{1,140}})({SPLIT})?", re.ASCII
)
_DELAYED_NAME = re.compile(rf"(\d{{15}})\.({_NUMBER})\.{_ENTRY}", re.ASCII)
_DEAD_NAME = re.compile(rf"({_NUMBER})\.{_ENTRY}~([a-z0-9-]{{1,60}})", re.ASCII)
_LOCK_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.(\d{10})(\.free|\.over|@[A-Za-z0-9.:=_-]{1,160})?", re.ASCII)
_TICKET_NAME = re.compile(r"want\.(\d{10})\.([a-z2-7]{8})", re.ASCII)
_SUBMISSION_NAME = re.compile(r"job-((?:slurm|pbs|sge)-[A-Za-z0-9._=-]{1,60})\.json", re.ASCII)
_PROBE_NAME = re.compile(rf"{re.escape(_PROBE)}[a-z2-7]{{8}}", re.ASCII)
_PACK_NAME = re.compile(_PACK, re.ASCII)
_BUCKET_NAME = re.compile(r"\d{12}-[0-6]", re.ASCII)
_PRIORITY_NAME = re.compile(_NUMBER, re.ASCII)
_WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,120}", re.ASCII)
_MESSAGE_ID = re.compile(rf"({_PACK})\.({_NUMBER})", re.ASCII)


def check_queue_name(name: object) -> str:
    """`name`, when it is a valid queue name; raises `BadName` otherwise."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise BadName(name)
    return name


def is_queue_name(name: str) -> bool:
    return _QUEUE.fullmatch(name) is not None


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
    return entry if entry.first < entry.stop else None


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


def parse_delayed(name: str) -> Delayed | None:
    found = _DELAYED_NAME.fullmatch(name)
    if not found:
        return None
    groups = found.groups()
    entry = _entry(groups[2:7])
    return entry and Delayed(int(groups[0]), int(groups[1]), entry)


def parse_dead(name: str) -> Dead | None:
    found = _DEAD_NAME.fullmatch(name)
    if not found:
        return None
    groups = found.groups()
    entry = _entry(groups[1:6])
    return entry and Dead(int(groups[0]), entry, groups[6])


def parse_message_id(text: str) -> tuple[str, int] | None:
    """(pack, index) of a message id."""
    found = _MESSAGE_ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None


def is_worker_id(text: str) -> bool:
    return _WORKER_ID.fullmatch(text) is not None and not text.startswith(".")


def parse_worker_file(name: str) -> tuple[str, str] | None:
    """(worker id, "json" or "stop") of a name in workers/; None for other files, and for records of submissions."""
    ident, _, kind = name.rpartition(".")
    if kind not in ("json", "stop") or not is_worker_id(ident) or parse_submission(name):
        return None
    return ident, kind


def is_leftover(name: str) -> bool:
    """Whether a name in tmp/ is one that clients make there."""
    return is_pack(name) or name.startswith(_IN_TMP)


def probe_name(token: str) -> str:
    """The directory that one run of `doctor` works in."""
    return _PROBE + token


def is_probe(name: str) -> bool:
    return _PROBE_NAME.fullmatch(name) is not None


def is_pack(name: str) -> bool:
    return _PACK_NAME.fullmatch(name) is not None


def is_bucket(name: str) -> bool:
    return _BUCKET_NAME.fullmatch(name) is not None


def is_priority(name: str) -> bool:
    return _PRIORITY_NAME.fullmatch(name) is not None


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


def bucket_of(pack: str) -> str:
    """The bucket of a pack: the start of the time window that its level gives it, and the level.

    A function of the pack's name alone, so an entry that is put back needs no search for its place.
    """
    return bucket_at(int(pack[:19]), int(pack[20]))


def bucket_at(ns: int, level: int) -> str:
    """The bucket of a pack of that time and level."""
    start = ns // WINDOWS[level] * WINDOWS[level]
    return "%012d-%d" % (start // _UNIT, level)


def bucket_start(bucket: str) -> str:
    """The first pack name that belongs into a bucket, for comparing with pack names."""
    return "%019d" % (int(bucket[:12]) * _UNIT)


def bucket_end_ns(bucket: str) -> int:
    return int(bucket[:12]) * _UNIT + WINDOWS[int(bucket[13])]


def delay_window(due_ms: int) -> str:
    """The directory of a delayed entry: few at a time are due, so few are ever listed."""
    return "%012d" % (due_ms // _DELAY_WINDOW)


def is_delay_window(name: str) -> bool:
    return len(name) == 12 and name.isascii() and name.isdigit()


def key_name(key: str) -> str:
    """The file under keys/ of an idempotency key, two levels so that no directory grows large."""
    from hashlib import sha256

    digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:2]}/{digest[2:40]}"


class Lock(NamedTuple):
    """A name in locks/: the newest generation of a lock says who holds it, or that it is free: let go, or taken away.

    `owner` is who got it from the one before; who took a generation by itself is told by the file."""

    what: str
    generation: int
    free: bool
    owner: str = ""

    @property
    def name(self) -> str:
        """Of one that is held."""
        return lock_name(self.what, self.generation, False) + (f"@{self.owner}" if self.owner else "")


class Ticket(NamedTuple):
    """The file of one who wants a lock: `seen` is the newest generation when it came. Sorted, they are in turn."""

    seen: int
    token: str

    @property
    def name(self) -> str:
        return f"want.{self.seen:010d}.{self.token}"


def parse_ticket(name: str) -> Ticket | None:
    found = _TICKET_NAME.fullmatch(name)
    return Ticket(int(found[1]), found[2]) if found else None


def lock_directory(path: str) -> str:
    """The directory of the lock of `path`, which may be a file that the lock protects. No queue has such a name."""
    top = path.rstrip("/") or "/"
    return top if top.endswith(LOCK_END) else top + LOCK_END


def lock_name(what: str, generation: int, free: bool) -> str:
    return f"{what}.{generation:010d}{'.free' * free}"


def evicted_name(what: str, generation: int) -> str:
    """A generation that was taken away from its holder."""
    return f"{what}.{generation:010d}.over"


def parse_lock(name: str) -> Lock | None:
    found = _LOCK_NAME.fullmatch(name)
    if found is None:
        return None
    end = found[3] or ""
    return Lock(found[1], int(found[2]), end.startswith("."), end[1:] if end.startswith("@") else "")


def submission_name(label: str) -> str:
    """The file under workers/ that tells of the batch job (an array, as a rule) with that label."""
    return f"job-{label}.json"


def parse_submission(name: str) -> str | None:
    """The label of the batch job that a file under workers/ tells of; None for other files."""
    found = _SUBMISSION_NAME.fullmatch(name)
    return found[1] if found else None


def chain_name(label: str, attempt: int) -> str:
    """The name under locks/ of the n-th attempt to submit the successor of a submission: made once, by one worker."""
    return f"chain-{label}.{attempt}"


def chain_failed_name(label: str, attempt: int) -> str:
    """Says that an attempt submitted nothing, so that there may be another."""
    return f"chain-{label}.{attempt}.failed"


def is_chain_of(name: str, label: str) -> bool:
    """Whether a name under locks/ tells of an attempt to submit the successor of that submission."""
    return name.startswith(f"chain-{label}.")


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


def minute_stamp(kind: str, minute: int) -> str:
    """The name in locks/ whose maker alone may do what `kind` says in that minute (since 1970)."""
    return f"{kind}-{minute}"


def stamped_minute(kind: str, name: str) -> int | None:
    """The minute of such a stamp; None for anything else."""
    prefix, _, minute = name.partition("-")
    return int(minute) if prefix == kind and minute.isascii() and minute.isdigit() else None


class LockPaths:
    """Where locks are, and where files are made that become locks: a directory for both of a lock for users."""

    def __init__(self, locks: str, tmp: str) -> None:
        self.locks = locks
        self.tmp = tmp

    def in_locks(self, name: str) -> str:
        return f"{self.locks}/{name}"

    def in_tmp(self, name: str) -> str:
        return f"{self.tmp}/{name}"


class QueuePaths(LockPaths):
    """The paths of one queue as text; `/` joins are spelled out because these run once or more a message."""

    def __init__(self, root: str, queue: str) -> None:
        self.root = root
        self.queue = check_queue_name(queue)
        self.top = f"{root}/{queue}"
        self.settings = f"{self.top}/{SETTINGS}"
        self.ready = f"{self.top}/{READY}"
        self.leased = f"{self.top}/{LEASED}"
        self.delayed = f"{self.top}/{DELAYED}"
        self.dead = f"{self.top}/{DEAD}"
        super().__init__(f"{self.top}/{LOCKS}", f"{self.top}/{TMP}")
        self.workers = f"{self.top}/{WORKERS}"
        self.damaged = f"{self.top}/{DAMAGED}"
        self.keys = f"{self.top}/{KEYS}"
        self.journal = f"{self.top}/{JOURNAL}"
        self.logs = f"{self.top}/{LOGS}"
        self.state = f"{self.top}/{STATE}"

    def bucket(self, priority: int, pack: str) -> str:
        return f"{self.ready}/{priority}/{bucket_of(pack)}"

    def in_ready(self, priority: int, entry: Entry) -> str:
        return f"{self.ready}/{priority}/{bucket_of(entry.pack)}/{entry.name}"

    def in_leased(self, lease: Lease) -> str:
        return f"{self.leased}/{lease.name}"

    def in_delayed(self, delayed: Delayed) -> str:
        return f"{self.delayed}/{delay_window(delayed.due)}/{delayed.name}"

    def in_dead(self, dead: Dead) -> str:
        return f"{self.dead}/{dead.name}"

    def in_workers(self, ident: str, kind: str = "json") -> str:
        """The registration of a worker, or the request to it to `stop`."""
        return f"{self.workers}/{ident}.{kind}"

    def in_keys(self, key: str) -> str:
        return f"{self.keys}/{key_name(key)}"

    def in_logs(self, name: str, kind: str = "log") -> str:
        return f"{self.logs}/{name}.{kind}"

    def in_state(self, ident: str) -> str:
        """The directory that a message keeps from one attempt to the next."""
        return f"{self.state}/{ident}"

    @staticmethod
    def parent(path: str) -> str:
        return path.rpartition("/")[0]
