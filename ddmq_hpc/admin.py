"""Looking into a queue and clearing it up: where a message is, what comes next, purge, clean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ddmq_hpc import journal, workers
from ddmq_hpc.errors import BadMessage, MessageNotFound
from ddmq_hpc.fs import GONE
from ddmq_hpc.messages import NO_OPTIONS, Message, decode_line
from ddmq_hpc.names import (
    Entry,
    Lease,
    bucket_of,
    bucket_start,
    is_bucket,
    is_delay_window,
    is_priority,
    message_id,
    parse_dead,
    parse_delayed,
    parse_entry,
    parse_lease,
    parse_message_id,
)
from ddmq_hpc.queue import Queue
from ddmq_hpc.settling import Held, carve, kept_runs, split_lease

STATES = ("ready", "leased", "delayed", "dead")
_KEY_SECONDS = 30 * 86400


class Found(NamedTuple):
    """An entry where it stands; `detail` is the lease's deadline, the due time (both seconds) or the reason of
    death."""

    state: str
    path: str
    priority: int
    entry: Entry
    detail: Any = None
    owner: str = ""


@dataclass(frozen=True)
class Item:
    """One message and its state, for lists."""

    state: str
    message: Message
    detail: Any = None
    owner: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Its properties by name, as commands print them: without a receipt, which only its holder has."""
        found = {"state": self.state, **self.message.to_dict()}
        for name in ("receipt", "filename"):
            found.pop(name)
        if self.state == "leased":
            found["deadline"], found["owner"] = self.detail, self.owner
        elif self.state == "delayed":
            found["due"] = self.detail
        elif self.state in ("dead", "damaged"):
            found["reason"] = self.detail
        return found


def entries(queue: Queue, states: tuple[str, ...] = STATES) -> Iterator[Found]:
    """Entries in the order in which they would be taken, state by state."""
    fs, paths = queue.fs, queue.paths
    if "ready" in states:
        for priority in sorted(int(name) for name in fs.directories(paths.ready) if is_priority(name)):
            yield from _ready(queue, priority)
    if "leased" in states:
        for name in sorted(fs.names(paths.leased)):
            if lease := parse_lease(name):
                yield Found(
                    "leased", f"{paths.leased}/{name}", lease.priority, lease.entry, lease.deadline / 1000, lease.owner
                )
    if "delayed" in states:
        for window in sorted(filter(is_delay_window, fs.directories(paths.delayed))):
            for name in sorted(fs.names(f"{paths.delayed}/{window}")):
                if late := parse_delayed(name):
                    path = f"{paths.delayed}/{window}/{name}"
                    yield Found("delayed", path, late.priority, late.entry, late.due / 1000)
    for state, directory in (("dead", paths.dead), ("damaged", paths.damaged)):
        if state in states:
            for name in sorted(fs.names(directory)):
                if dead := parse_dead(name):
                    yield Found(state, f"{directory}/{name}", dead.priority, dead.entry, dead.reason)


def _ready(queue: Queue, priority: int) -> Iterator[Found]:
    """Bucket windows nest: what a narrower bucket holds is merged with the rest of the wider ones around it."""
    fs, top = queue.fs, f"{queue.paths.ready}/{priority}"
    waiting: list[tuple[str, str]] = []
    buckets = sorted(filter(is_bucket, fs.directories(top)))
    for position, bucket in enumerate(buckets):
        waiting += [(name, f"{top}/{bucket}/{name}") for name in fs.names(f"{top}/{bucket}")]
        waiting.sort()
        horizon = bucket_start(buckets[position + 1]) if position + 1 < len(buckets) else "~"
        cut = next((at for at, pair in enumerate(waiting) if pair[0] >= horizon), len(waiting))
        for name, path in waiting[:cut]:
            if entry := parse_entry(name):
                yield Found("ready", path, priority, entry)
        del waiting[:cut]


def items(queue: Queue, states: tuple[str, ...] = STATES, limit: int | None = None) -> Iterator[Item]:
    """Messages without taking them, at most `limit`. Those that move meanwhile are left out."""
    left = limit if limit is not None else -1
    for found in entries(queue, states):
        for message in _open(queue, found):
            if left == 0:
                return
            left -= 1
            yield Item(found.state, message, found.detail, found.owner)


def _open(queue: Queue, found: Found) -> list[Message]:
    try:
        good, bad = queue.reader.read(found.path, found.entry)
    except OSError as error:
        if error.errno in GONE:
            return []
        raise
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
    for found in entries(queue, ("leased", "delayed", "dead", "damaged")):
        if _has(found.entry, pack, index):
            return found
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
    history.sort(key=lambda record: record.get("at", 0))
    for _ in range(3):  # it may move while it is looked for
        found = locate(queue, ident)
        if found is None:
            break
        for message in _open(queue, found._replace(entry=found.entry.part(index, index + 1))):
            return {**Item(found.state, message, found.detail, found.owner).to_dict(), "history": history}
    if history:
        return {"state": history[-1].get("state"), "id": ident, "queue": queue.name, "history": history}
    raise MessageNotFound(queue.name, ident)


def covers(recorded: str, pack: str, index: int) -> bool:
    """Whether the id of a journal record, `<pack>.<index>` or `<pack>.<first>-<stop>`, tells of a message."""
    of, _, numbers = recorded.rpartition(".")
    first, dash, stop = numbers.partition("-")
    if of != pack or not first.isdigit() or (dash and not stop.isdigit()):
        return False
    return int(first) <= index < int(stop) if dash else int(first) == index


def claim_waiting(queue: Queue, found: Found, index: int) -> Held | None:
    """Lease one message where it stands, out of its turn; None when somebody else was first."""
    fs, paths = queue.fs, queue.paths
    duration = 60_000
    now_ms = int(fs.now(paths.tmp) * 1000)
    whole = Lease(found.priority, found.entry, now_ms + duration, duration, queue.taker.new_owner())
    marked = paths.in_leased(split_lease(whole, whole.entry, now_ms))
    if not fs.claim(found.path, marked):
        return None
    mine = whole.part(index, index + 1)
    path = paths.in_leased(mine)
    back = [(run, _stand(queue, found, run)) for run in kept_runs(found.entry, [index])]
    if not carve(fs, paths, marked, [path], back):
        return None
    queue.taker.forget()
    return Held(queue, mine, path)


def _stand(queue: Queue, found: Found, run: Entry) -> str:
    """The path of a part of an entry where the whole one stood."""
    directory, _, name = found.path.rpartition("/")
    return f"{directory}/{name.replace(found.entry.name, run.name)}"


def remove_waiting(queue: Queue, ident: str) -> bool:
    """Remove a message that is ready, delayed, dead or damaged; False when it is leased or in no state."""
    parsed = parse_message_id(ident)
    for _ in range(10):
        found = locate(queue, ident)
        if parsed is None or found is None or found.state == "leased":
            return False
        if held := claim_waiting(queue, found, parsed[1]):
            queue.settle_held(held, parsed[1], "deleted")
            return True
    return False


def purge(queue: Queue) -> int:
    """Remove every message that is ready, delayed or leased; dead letters stay. How many."""
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
    leftovers = queue.sweeper.remove_leftovers()
    return {
        "requeued": swept.requeued,
        "dead": swept.dead,
        "due": swept.due,
        "placed": placed,
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
            _, options = decode_line(fs.read(paths.in_tmp(name)).split(b"\n")[0])
        except (OSError, BadMessage):
            continue
        priority = queue.settings.priority if options.priority is None else options.priority
        placed += fs.put(paths.in_tmp(name), paths.in_ready(priority, Entry(name, 0, 1, 0, 0)))
    return placed


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
