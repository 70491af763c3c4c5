"""Looking into a queue and clearing it up: where a message is, what comes next, purge, clean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Callable, NamedTuple, TypeVar

from ddmq_hpc import archive, journal, workers
from ddmq_hpc.errors import BadMessage, MessageNotFound
from ddmq_hpc.fs import GONE, NO_FILE
from ddmq_hpc.identity import user_name
from ddmq_hpc.messages import NO_OPTIONS, Message, decode_line
from ddmq_hpc.names import (
    STATES,
    Entry,
    Lease,
    bucket_of,
    bucket_start,
    entry_order,
    is_bucket,
    is_delay_directory,
    is_done_window,
    is_priority,
    message_id,
    parse_after,
    parse_dead,
    parse_delayed,
    parse_done,
    parse_entry,
    parse_lease,
    parse_message_id,
    parse_message_range,
)
from ddmq_hpc.packs import unreadable
from ddmq_hpc.queue import Queue

_Name = TypeVar("_Name")
_KEY_SECONDS = _REPORT_SECONDS = 30 * 86400


class Found(NamedTuple):
    """An entry where it stands; `detail` is the lease's deadline, the due time, the end (all seconds) or the reason of
    death."""

    state: str
    path: str
    priority: int
    entry: Entry
    detail: Any = None
    owner: str = ""
    after: tuple[str, ...] = ()  # the groups that it waits for


@dataclass(frozen=True)
class Item:
    """One message and its state, for lists."""

    state: str
    message: Message
    detail: Any = None
    owner: str = ""
    after: tuple[str, ...] = ()
    user: str | None = None  # who published it; None when it moved meanwhile

    def to_dict(self) -> dict[str, Any]:
        """Its properties by name, as commands print them: without a receipt, which only its holder has."""
        found = {"state": self.state, "user": self.user, **self.message.to_dict()}
        for name in ("receipt", "filename"):
            found.pop(name)
        if self.state == "leased":
            found["deadline"], found["owner"] = self.detail, self.owner
        elif self.state == "delayed":
            found["due"] = self.detail
            if self.after:
                found["after"] = list(self.after)
        elif self.state == "done":
            found["ended"] = self.detail
        elif self.state in ("dead", "damaged"):
            found["reason"] = self.detail
            found["attempt"] = self.message.requeue_counter  # there will be no other
        return found


def entries(queue: Queue, states: tuple[str, ...] = STATES) -> Iterator[Found]:
    """Entries state by state: ready and dead ones in the order in which they would be taken, leased ones by when they
    were, or were last held on to; delayed ones by when they are due, those that wait for groups last; done ones by when
    they ended. Of delayed and done ones a directory at a time is sorted."""
    fs, paths = queue.fs, queue.paths
    if "ready" in states:
        for priority in sorted(int(name) for name in fs.directories(paths.ready) if is_priority(name)):
            yield from _ready(queue, priority)
    if "leased" in states:
        for lease, path in sorted(_parsed(queue, paths.leased, parse_lease), key=_taken):
            yield Found("leased", path, lease.priority, lease.entry, lease.deadline / 1000, lease.owner)
    if "delayed" in states:
        for window in sorted(filter(is_delay_directory, fs.directories(paths.delayed))):
            after = parse_after(window) or ()
            for late, path in sorted(_parsed(queue, f"{paths.delayed}/{window}", parse_delayed)):
                yield Found("delayed", path, late.priority, late.entry, late.due / 1000, after=after)
    for state, directory in (("dead", paths.dead), ("damaged", paths.damaged)):
        if state in states:
            letters = _parsed(queue, directory, parse_dead)
            yield from sorted(
                (Found(state, path, dead.priority, dead.entry, dead.reason) for dead, path in letters), key=_place
            )
    if "done" in states:
        for window in sorted(filter(is_done_window, fs.directories(paths.done))):
            for done, path in sorted(_parsed(queue, f"{paths.done}/{window}", parse_done)):
                yield Found("done", path, done.priority, done.entry, done.ended / 1000)


def _parsed(queue: Queue, directory: str, parse: Callable[[str], _Name | None]) -> Iterator[tuple[_Name, str]]:
    """What the names in a directory say, with their paths; foreign files are left out."""
    for name in queue.fs.names(directory):
        if found := parse(name):
            yield found, f"{directory}/{name}"


def _taken(found: tuple[Lease, str]) -> tuple[int, int, Entry]:
    lease = found[0]
    return lease.deadline - lease.duration, lease.priority, lease.entry


def _ready_order(place: tuple[str, str]) -> tuple[str, int, str]:
    return entry_order(place[0])


def _place(found: Found) -> tuple[int, str, int]:
    """First in, first out within a priority: as numbers, which names sorted as text are not."""
    return found.priority, found.entry.pack, found.entry.first


def _ready(queue: Queue, priority: int) -> Iterator[Found]:
    """Bucket windows nest: what a narrower bucket holds is merged with the rest of the wider ones around it."""
    fs, top = queue.fs, f"{queue.paths.ready}/{priority}"
    waiting: list[tuple[str, str]] = []
    buckets = sorted(filter(is_bucket, fs.directories(top)))
    for position, bucket in enumerate(buckets):
        waiting += [(name, f"{top}/{bucket}/{name}") for name in fs.names(f"{top}/{bucket}")]
        waiting.sort(key=_ready_order)
        horizon = bucket_start(buckets[position + 1]) if position + 1 < len(buckets) else "~"
        cut = next((at for at, pair in enumerate(waiting) if pair[0] >= horizon), len(waiting))
        for name, path in waiting[:cut]:
            if entry := parse_entry(name):
                yield Found("ready", path, priority, entry)
        del waiting[:cut]


def items(queue: Queue, states: tuple[str, ...] = STATES, limit: int | None = None) -> Iterator[Item]:
    """Messages without taking them, at most `limit`. Those that move meanwhile are left out."""
    return islice((item for found in entries(queue, states) for item in items_of(queue, found)), limit)


def items_of(queue: Queue, found: Found) -> Iterator[Item]:
    """The messages of an entry; none when it moved. Raises OSError."""
    if messages := messages_of(queue, found):
        uid = publisher(queue, found)
        user = None if uid is None else user_name(uid)
        for message in messages:
            yield Item(found.state, message, found.detail, found.owner, found.after, user)


def publisher(queue: Queue, found: Found) -> int | None:
    """The id of the user who published an entry: a move to another state changes nothing about whose file it is. None
    when it moved meanwhile. Raises OSError."""
    try:
        return queue.fs.lstat(found.path).st_uid
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def messages_of(queue: Queue, found: Found) -> list[Message]:
    """The messages of an entry, those that cannot be read with None as body; nothing when it moved. Raises OSError."""
    try:
        good, bad = queue.reader.read(found.path, found.entry)
    except OSError as error:
        if error.errno in GONE:
            return []
        if error.errno not in NO_FILE:
            raise
        good, bad = [], unreadable(found.entry, error)
    entry = found.entry
    read = {index: (body, options) for index, body, options in good}
    read.update(dict.fromkeys(bad, (None, NO_OPTIONS)))
    return [
        Message(
            message_id(entry.pack, index),
            body,
            queue.name,
            options,
            queue.settings,
            entry.failed,
            entry.lost,
            found.priority,
        )
        for index, (body, options) in sorted(read.items())
    ]


def locate(queue: Queue, ident: str) -> Found | None:
    """Where a message stands now, found by its id with a listing of one bucket a priority; None when it is in no
    state."""
    parsed = parse_message_id(ident)
    if parsed is None:
        raise MessageNotFound(queue.name, ident)
    pack, index = parsed
    fs, paths = queue.fs, queue.paths
    for priority in fs.directories(paths.ready):
        directory = f"{paths.ready}/{priority}/{bucket_of(pack)}"
        for name in fs.names(directory) if is_priority(priority) else ():
            entry = parse_entry(name)
            if entry and _has(entry, pack, index):
                return Found("ready", f"{directory}/{name}", int(priority), entry)
    for found in entries(queue, ("leased", "delayed", "dead", "damaged", "done")):
        if _has(found.entry, pack, index):
            return found
    return None


def find(queue: Queue, ident: str) -> Item | None:
    """A message where it stands, without taking it; None when it is in no state. Raises `MessageNotFound` for what is
    no id."""
    for _ in range(3):  # it may move while it is looked for
        found = locate(queue, ident)
        if found is None:
            break
        index = int(ident.rpartition(".")[2])
        for item in items_of(queue, found._replace(entry=found.entry.part(index, index + 1))):
            return item
    return None


def _has(entry: Entry, pack: str, index: int) -> bool:
    return entry.pack == pack and entry.first <= index < entry.stop


def show(queue: Queue, ident: str) -> dict[str, Any]:
    """A message with its state and every outcome that the journal has of it. Raises `MessageNotFound`."""
    parsed = parse_message_id(ident)
    if parsed is None:
        raise MessageNotFound(queue.name, ident)
    pack, index = parsed
    history = [record for record in journal.read(queue.fs, queue.paths, pack) if covers(record["id"], pack, index)]
    history.sort(key=lambda record: at if isinstance(at := record.get("at"), (int, float)) else 0)
    if item := find(queue, ident):
        return {**item.to_dict(), "history": history}
    if history:
        return {"state": history[-1].get("state"), "id": ident, "queue": queue.name, "history": history}
    raise MessageNotFound(queue.name, ident)


def covers(recorded: str, pack: str, index: int) -> bool:
    """Whether the id of a journal record, `<pack>.<index>` or `<pack>.<first>-<stop>`, tells of a message."""
    found = parse_message_range(recorded)
    return found is not None and found[0] == pack and found[1] <= index < found[2]


def purge(queue: Queue) -> int:
    """Remove every message that is ready, delayed or leased, after what was dropped was brought in; dead letters stay.
    How many."""
    queue.fetch(queue.settings)
    removed = 0
    for found in list(entries(queue, ("ready", "delayed", "leased"))):
        entry = found.entry
        ident, attempt = f"{entry.pack}.{entry.first}-{entry.stop}", entry.failed + entry.lost + 1
        record = queue.journal.record("purged", ident, attempt, queue.fs.time(), 0.0, {})
        queue.journal.write([record], queue.settings.durable)
        if queue.fs.drop(found.path):
            removed += entry.stop - entry.first
    queue.taker.forget()
    return removed


def clean(queue: Queue) -> dict[str, int]:
    """All housekeeping now: ended leases, what is due, leftovers of clients and workers that died, old keys."""
    swept = queue.sweep()
    placed = _place_forgotten(queue)
    leftovers = queue.sweeper.remove_leftovers() + _old_reports(queue)
    leftovers += queue.fetcher.remove_leftovers() if queue.fetcher else 0
    forgotten = queue.sweeper.forget_done(queue.settings)
    compacted = archive.compact(queue.fs, queue.paths, queue.settings)
    return {
        "requeued": swept.requeued,
        "dead": swept.dead,
        "due": swept.due,
        "fetched": swept.fetched,
        "placed": placed,
        "forgotten": forgotten,
        "compacted": compacted.files,
        "journals": compacted.forgotten,
        "leftovers": leftovers,
        "keys": _old_keys(queue),
        "registrations": workers.forget(queue),
    }


def _place_forgotten(queue: Queue) -> int:
    """Keyed messages whose publisher died between taking the key and placing the message."""
    fs, paths = queue.fs, queue.paths
    placed = 0
    for name in fs.names(paths.tmp):
        try:
            if fs.lstat(paths.in_tmp(name)).st_nlink != 2:
                continue
            _, options = decode_line(queue.reader.content(paths.in_tmp(name)).split(b"\n")[0])
        except (OSError, BadMessage):
            continue
        if options.group:
            continue  # that is what its second link is for
        priority = queue.settings.priority if options.priority is None else options.priority
        placed += fs.put(paths.in_tmp(name), paths.in_ready(priority, Entry(name, 0, 1, 0, 0)))
    return placed


def _old_reports(queue: Queue) -> int:
    """Reports that nobody came to read."""
    fs, now = queue.fs, queue.fs.now(queue.paths.tmp)
    removed = 0
    for path in fs.walk(queue.paths.reports):
        try:
            age = now - fs.lstat(path).st_mtime
        except OSError:
            continue
        removed += age > _REPORT_SECONDS and fs.drop(path)
    return removed


def _old_keys(queue: Queue) -> int:
    fs, now = queue.fs, queue.fs.now(queue.paths.tmp)
    removed = 0
    for path in fs.walk(queue.paths.keys):
        try:
            found = fs.lstat(path)
        except OSError:
            continue
        if found.st_nlink == 1 and now - found.st_mtime > _KEY_SECONDS:
            removed += fs.drop(path)
    return removed
