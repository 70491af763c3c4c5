"""Messages taken out of a queue wherever they stand, by somebody who does not work on them.

An entry of which only some messages are meant is first renamed aside, to a marked name in `leased` that is nobody
else's, and divided there. Whoever dies in between leaves it to the sweepers, which make all of it ready.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ddmq_hpc.admin import Found, locate
from ddmq_hpc.fs import Unanswered
from ddmq_hpc.names import Entry, Lease, message_range, parse_lease, parse_message_id
from ddmq_hpc.queue import Queue
from ddmq_hpc.settling import SPLIT_MS, Parting, carve, kept_runs, runs_of, split_lease, take_over

#: How often a message that keeps moving is looked for.
_LOOKS = range(10)
#: States whose entries are not made ready, not even for a moment.
_AT_REST = ("dead", "damaged")


def remove_waiting(queue: Queue, ident: str) -> bool:
    """Remove a message that is ready, delayed, dead or damaged; False when it is leased or in no state."""
    parsed = parse_message_id(ident)
    for _ in _LOOKS:
        found = locate(queue, ident)
        if parsed is None or found is None or found.state == "leased":
            return False
        if take_out(queue, found, [parsed[1]], "deleted"):
            return True
    return False


def cancel(queue: Queue, ident: str) -> str | None:
    """Remove a message wherever it stands; the state it was in. None when it was in none, or others keep moving it.

    Whoever works on it finds its lease lost, a worker when it renews it, and ends the task. What was leased with it in
    one go is ready again, no attempt counted.
    """
    parsed = parse_message_id(ident)
    for _ in _LOOKS:  # it may move while it is looked for
        found = locate(queue, ident)
        if found is None or parsed is None:
            return None
        if take_out(queue, found, [parsed[1]], "cancelled"):
            return found.state
    return None


def take_out(
    queue: Queue, found: Found, indexes: Collection[int], state: str, more: dict[str, Any] | None = None
) -> bool:
    """Remove messages of an entry, recorded as `state` with what `more` says; False when it does not stand there any
    more, or somebody divides it at the moment. Raises OSError."""
    if found.state in _AT_REST and len(indexes) == found.entry.stop - found.entry.first:
        return _drop(queue, found, state, more or {})
    whole = aside(queue, found)
    if whole is None:
        return False
    owner = {"owner": found.owner} if found.owner else {}
    try:
        write(queue, found.entry, indexes, state, {**owner, **(more or {})})
    except OSError:
        give_back(queue, found, whole)
        raise
    return divide(queue, found, whole, indexes, [])


def _drop(queue: Queue, found: Found, state: str, more: dict[str, Any]) -> bool:
    """Remove a whole entry in one call. The record comes first, and is taken back when somebody was faster."""
    every = range(found.entry.first, found.entry.stop)
    now = write(queue, found.entry, every, state, more)
    if queue.fs.drop(found.path):
        return True
    write(queue, found.entry, every, "late", {}, now)
    return False


def aside(queue: Queue, found: Found) -> Lease | None:
    """Make an entry nobody else's, to `divide` it at once; None when it does not stand there any more, or is being
    divided. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    now_ms = int(fs.now(paths.tmp) * 1000)
    queue.taker.forget()
    if found.state == "leased":
        lease = parse_lease(found.path.rpartition("/")[2])
        return take_over(fs, paths, lease, queue.taker.new_owner(), now_ms) if lease and not lease.split else None
    lease = Lease(found.priority, found.entry, now_ms, SPLIT_MS, queue.taker.new_owner())
    whole = split_lease(lease, found.entry, now_ms)
    return whole if fs.claim(found.path, paths.in_leased(whole)) else None


def divide(queue: Queue, found: Found, whole: Lease, indexes: Collection[int], go: list[Parting]) -> bool:
    """Of what stands aside, send the messages `indexes` where `go` says, for good when that is nothing, and the rest
    back. False when that took so long that a sweeper made all of it ready. Raises OSError; then it is back, too."""
    fs, paths = queue.fs, queue.paths
    path = paths.in_leased(whole)
    back = [(run, _stand(queue, found, run)) for run in kept_runs(found.entry, indexes)]
    try:
        done = carve(fs, paths, path, [], back + go)
    except Unanswered:
        raise
    except OSError:
        give_back(queue, found, whole)
        raise
    # As long as the mark holds nobody else may have moved it: then the reply was lost.
    return done or (fs.now(paths.tmp) * 1000 < whole.deadline and not fs.is_there(path))


def give_back(queue: Queue, found: Found, whole: Lease) -> None:
    """Put back what stands aside as it was, as far as the file system lets."""
    try:
        queue.fs.put(queue.paths.in_leased(whole), _stand(queue, found, found.entry))
    except OSError:
        pass  # the first error is the one to tell; sweepers make it ready


def _stand(queue: Queue, found: Found, run: Entry) -> str:
    """The path of a part of an entry where the whole one stood; of a leased one, where it is ready."""
    if found.state == "leased":
        return queue.paths.in_ready(found.priority, run)
    directory, _, name = found.path.rpartition("/")
    return f"{directory}/{name.replace(found.entry.name, run.name)}"


def write(
    queue: Queue, entry: Entry, indexes: Collection[int], state: str, more: dict[str, Any], at: float | None = None
) -> float:
    """Record what was done to messages of an entry by somebody who did not work on them; when, in seconds since 1970.
    Raises OSError."""
    now = queue.fs.now(queue.paths.tmp) if at is None else at
    attempt = entry.failed + entry.lost + 1
    told = [
        queue.journal.record(state, message_range(run.pack, run.first, run.stop), attempt, now, now, more)
        for run in runs_of(entry, indexes)
    ]
    queue.journal.write(told, queue.settings.durable)
    return now
