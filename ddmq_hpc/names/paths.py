"""Where things are in a root and in a queue: directories, how time and groups divide them, files of the journal, and
the path of everything."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ddmq_hpc.errors import BadName, UsageError
from ddmq_hpc.names.entries import Dead, Delayed, Done, Entry, Lease, is_pack

SETTINGS = "ddmq.yaml"
#: The line of the root settings that says which layout this is.
LAYOUT_KEY = "layout"
READY, LEASED, DELAYED, DEAD = "ready", "leased", "delayed", "dead"
#: Made when somebody needs them: output of tasks, and directories that tasks keep from one attempt to the next.
LOGS, STATE = "logs", "state"
#: Made by those who publish jobs and wait for them: who finished what, a directory for each who waits.
REPORTS = "reports"
#: Made when the first message of a group is published; when the first finished message is kept.
GROUPS, DONE = "groups", "done"
#: Made with a queue to which some may only publish: what they drop there.
DROP = "drop"
TMP, DAMAGED, KEYS, JOURNAL, WORKERS, LOCKS = "tmp", "damaged", "keys", "journal", "workers", "locks"
#: What a message can be; with what was set aside, all that stands in a queue; and what is listed when it is asked for.
STATES = (READY, LEASED, DELAYED, DEAD)
STANDING = (*STATES, DAMAGED)
LISTED = (*STANDING, DONE)
#: Everything a queue directory holds.
DIRECTORIES = (*STATES, TMP, DAMAGED, KEYS, JOURNAL, WORKERS, LOCKS)
#: What else it may hold.
LATER_DIRECTORIES = (LOGS, STATE, REPORTS, GROUPS, DONE, DROP)
#: Where ddmq, the predecessor, has the consumed messages of a queue.
LEGACY_WORK = "work"
#: What was found about the file system when the root was made.
CHECKUP = "ddmq-checkup.json"
#: A deleted queue is first renamed to this, so that it is gone at once however long removing its files takes.
GRAVE = ".deleted-"

#: Width in nanoseconds of the time window of a bucket, by level. Each divides the one before, so buckets nest.
WINDOWS = (64_000_000_000, 16_000_000_000, 4_000_000_000, 1_000_000_000, 250_000_000, 62_500_000, 15_625_000)
_UNIT = WINDOWS[-1]
_DELAY_WINDOW = 64_000
#: The same for finished messages, in milliseconds: few directories for weeks of them.
_DONE_WINDOW = 1_024_000
#: How names in tmp/ begin, besides those of packs.
_IN_TMP = ("explain-", "group-", "import-", "job-", "journal-", "lock-", "made-", "report-", "settings-", "workers-")
#: Ends of the names of files with records, and of those that are compressed.
JOURNAL_END, _PACKED_END = ".jsonl", ".jsonl.gz"
_RETIRED = "retired."
_AFTER, _OPEN = "after.", "open."
#: The groups that one message can wait for: their names have to fit into one.
_MOST_AFTER = 200

_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_GROUP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_BUCKET_NAME = re.compile(r"\d{12}-[0-6]", re.ASCII)
_JOURNAL_NAME = re.compile(rf".+\.[0-9a-f]+\.\d+\.(\d{{1,9}}){re.escape(JOURNAL_END)}", re.ASCII)
_RETIRED_NAME = re.compile(rf"{re.escape(_RETIRED)}[a-z2-7]{{8}}\.(.+{re.escape(JOURNAL_END)})", re.ASCII)
_PACKED_NAME = re.compile(rf"packed-(\d{{15}})-(\d{{15}})-([a-z2-7]{{8}}){re.escape(_PACKED_END)}", re.ASCII)


def check_queue_name(name: object) -> str:
    """`name`, when it is a valid queue name; raises `BadName` otherwise."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise BadName(name)
    return name


def is_queue_name(name: str) -> bool:
    return _QUEUE.fullmatch(name) is not None


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


def is_bucket(name: str) -> bool:
    return _BUCKET_NAME.fullmatch(name) is not None


def delay_window(due_ms: int) -> str:
    """The directory of a delayed entry: few at a time are due, so few are ever listed."""
    return "%012d" % (due_ms // _DELAY_WINDOW)


def is_delay_window(name: str) -> bool:
    return len(name) == 12 and name.isascii() and name.isdigit()


def check_group_name(name: object) -> str:
    """`name`, when it is a valid name of a group; raises `UsageError` otherwise."""
    if not isinstance(name, str) or not _GROUP_NAME.fullmatch(name):
        raise UsageError(f"{name!r:.80}: use up to 64 letters, digits, '-', '_' and '.', no '.' or '-' first")
    return name


def is_group_name(name: str) -> bool:
    return _GROUP_NAME.fullmatch(name) is not None


def after_directory(groups: Iterable[str]) -> str:
    """The directory in delayed/ of messages that wait for these groups. Raises `UsageError`."""
    name = _AFTER + "+".join(sorted({check_group_name(group) for group in groups}))
    if len(name) > _MOST_AFTER:
        raise UsageError("too many groups to wait for: put what they have in common into one")
    return name


def parse_after(name: str) -> tuple[str, ...] | None:
    """The groups that the messages in that directory wait for; None for other directories."""
    groups = name[len(_AFTER) :].split("+") if name.startswith(_AFTER) else []
    return tuple(groups) if groups and all(map(is_group_name, groups)) else None


def is_delay_directory(name: str) -> bool:
    """Whether messages that are not ready yet stand in such a directory."""
    return is_delay_window(name) or parse_after(name) is not None


def open_name(token: str) -> str:
    """The file in the directory of a group that says that somebody publishes to it."""
    return _OPEN + token


def is_open_name(name: str) -> bool:
    return name.startswith(_OPEN)


def done_window(ended_ms: int) -> str:
    """The directory in done/ of a message that ended then."""
    return "%012d" % (ended_ms // _DONE_WINDOW)


def done_window_end_ms(window: str) -> int:
    """The time before which all in that directory ended."""
    return (int(window) + 1) * _DONE_WINDOW


is_done_window = is_delay_window


def key_name(key: str) -> str:
    """The file under keys/ of an idempotency key, two levels so that no directory grows large."""
    from hashlib import sha256

    digest = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:2]}/{digest[2:40]}"


def is_leftover(name: str) -> bool:
    """Whether a name in tmp/ is one that clients make there."""
    return is_pack(name) or name.startswith(_IN_TMP)


def directory_leftover(token: str) -> str:
    """A directory in tmp/ that all of a group may enter, before it is renamed into place."""
    return f"made-{token}"


def group_leftover(token: str) -> str:
    """The directory of a new group in tmp/, before it is renamed into place."""
    return f"group-{token}"


def is_journal(name: str) -> bool:
    """Whether a file in journal/ is one that clients write records to."""
    return name.endswith(JOURNAL_END) and not name.startswith(_RETIRED)


def journal_name(host: str, boot: str, user: int, day: int) -> str:
    """The file in journal/ that one kernel writes for one user on one day, counted since 1970."""
    return f"{host}.{boot}.{user}.{day}{JOURNAL_END}"


def journal_day(name: str) -> int | None:
    """The day on which such a file is written; None for other files."""
    found = _JOURNAL_NAME.fullmatch(name) if is_journal(name) else None
    return int(found[1]) if found else None


def retired_journal_name(name: str, token: str) -> str:
    """What a file of the journal is renamed to, once, when nobody writes it any more."""
    return f"{_RETIRED}{token}.{name}"


def retired_from(name: str) -> str | None:
    """The name that such a file had when it was written; None for other files."""
    found = _RETIRED_NAME.fullmatch(name)
    return found[1] if found else None


class PackedJournal(NamedTuple):
    """A compressed file of the journal, by when the files in it were last written, in milliseconds: the first of them,
    and the last."""

    oldest: int
    newest: int
    token: str

    @property
    def name(self) -> str:
        return f"packed-{self.oldest:015d}-{self.newest:015d}-{self.token}{_PACKED_END}"


def parse_packed_journal(name: str) -> PackedJournal | None:
    """None for other files."""
    found = _PACKED_NAME.fullmatch(name)
    return PackedJournal(int(found[1]), int(found[2]), found[3]) if found else None


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
        self.reports = f"{self.top}/{REPORTS}"
        self.groups = f"{self.top}/{GROUPS}"
        self.done = f"{self.top}/{DONE}"
        self.drop = f"{self.top}/{DROP}"

    def command(self, verb: str, *words: str) -> str:
        """A command of ddmq-hpc on this queue, for a shell."""
        from shlex import join  # which takes messages need not wait for

        return join(["ddmq-hpc", *verb.split(), self.root, self.queue, *words])

    def bucket(self, priority: int, pack: str) -> str:
        return f"{self.ready}/{priority}/{bucket_of(pack)}"

    def in_ready(self, priority: int, entry: Entry) -> str:
        return f"{self.ready}/{priority}/{bucket_of(entry.pack)}/{entry.name}"

    def in_leased(self, lease: Lease) -> str:
        return f"{self.leased}/{lease.name}"

    def in_delayed(self, delayed: Delayed) -> str:
        return f"{self.delayed}/{delay_window(delayed.due)}/{delayed.name}"

    def in_after(self, groups: Iterable[str], delayed: Delayed) -> str:
        """Where a message stands that waits for groups, and until it is due."""
        return f"{self.delayed}/{after_directory(groups)}/{delayed.name}"

    def in_group(self, group: str, name: str) -> str:
        """What stands in the directory of a group: packs, and who publishes."""
        return f"{self.groups}/{group}/{name}"

    def in_done(self, done: Done) -> str:
        return f"{self.done}/{done_window(done.ended)}/{done.name}"

    def in_drop(self, name: str) -> str:
        return f"{self.drop}/{name}"

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

    def in_reports(self, directory: str, name: str) -> str:
        """A report for the one who waits that has that directory."""
        return f"{self.reports}/{directory}/{name}"

    @staticmethod
    def parent(path: str) -> str:
        return path.rpartition("/")[0]
