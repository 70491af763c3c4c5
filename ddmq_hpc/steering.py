"""What a person does to messages that were chosen: dead letters are retried, anything is removed.

Several may do so at once, and clients go on working: what does not stand any more where it was chosen is looked for
again, since it may have moved, or its entry have been divided, and each message is dealt with by one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Callable, NamedTuple

from ddmq_hpc.admin import entries
from ddmq_hpc.attempts import RETRIED
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.errors import UsageError
from ddmq_hpc.messages import body_text
from ddmq_hpc.names import STATES, Entry
from ddmq_hpc.queue import Queue
from ddmq_hpc.removing import aside, divide, take_out, write
from ddmq_hpc.selection import Chosen, by_pack, ids_of, read, select, select_again
from ddmq_hpc.settings import note
from ddmq_hpc.settling import runs_of

#: Where messages can be, and where those that are not over.
EVERYWHERE = (*STATES, "damaged")
#: What can be made ready again: dead letters, with `keep_done` finished messages, and what was set aside, say by a
#: client that had the wrong key.
RETRYABLE = ("dead", "done", "damaged")
WAITING = tuple(state for state in STATES if state != "dead")
#: How often what moves is looked for, and the pause before (seconds): while somebody divides an entry, its messages are
#: nowhere for a few calls.
_LOOKS, _PAUSE = 5, 0.05


def retry(
    queue: Queue, chosen: Sequence[Chosen], priority: int | None = None, states: tuple[str, ...] = RETRYABLE
) -> list[str]:
    """Make dead letters, or finished messages that were kept, ready again, in their place or at another priority, as if
    they had never been tried: their limits count anew, and the journal knows what was before. The ids of those that
    this call made ready; the others were retried or removed by somebody else. Raises `StorageError`: repeated, it goes
    on with the rest.
    """
    done = _each(queue, states, chosen, "retry messages", lambda one: _retry(queue, one, priority))
    queue.taker.forget()
    return done


def remove(queue: Queue, states: tuple[str, ...], chosen: Sequence[Chosen], record: str, reason: str = "") -> list[str]:
    """Remove messages for good, recorded as `record` with the `reason`, also when they move from one of `states` to
    another meanwhile. The ids of those that this call removed. Who works on one finds its lease lost. Raises
    `StorageError`: repeated, it goes on with the rest."""
    more: dict[str, Any] = {"reason": reason} if reason else {}
    return _each(
        queue, states, chosen, "remove messages", lambda one: take_out(queue, one.found, one.indexes, record, more)
    )


def retry_chosen(
    queue: Queue, which: Criteria, priority: int | None = None, dry_run: bool = False, state: str = "dead"
) -> list[str]:
    """`retry` of the messages that are meant, in one of the `RETRYABLE` states; with `dry_run` only which those are.
    Raises what `select` raises, `UsageError` for another state."""
    if state not in RETRYABLE:
        raise UsageError(f"{state!r:.40} messages cannot be retried: use {', '.join(RETRYABLE)}")
    chosen = select(queue, (state,), which.demand_something())
    return ids_of(chosen) if dry_run else retry(queue, chosen, priority, (state,))


def purgeable(queue: Queue, which: Criteria) -> list[Chosen]:
    """The dead letters that are meant. Raises what `select` raises."""
    return select(queue, ("dead",), which.demand_something())


def purge(queue: Queue, chosen: Sequence[Chosen]) -> list[str]:
    """`remove` dead letters."""
    return remove(queue, ("dead",), chosen, "purged")


def how_many_dead(queue: Queue) -> int:
    """All dead letters there are, by one listing. Raises `StorageError`."""
    try:
        return sum(found.entry.stop - found.entry.first for found in entries(queue, ("dead",)))
    except OSError as error:
        raise queue.trouble(error, f"look into queue {queue.name!r}") from error


def cancel_chosen(
    queue: Queue, which: Criteria, states: tuple[str, ...] = (), reason: str = "", dry_run: bool = False
) -> list[str]:
    """`cancel` the messages that are `cancellable`; with `dry_run` only which those are."""
    found = cancellable(queue, which, states)
    return ids_of(found.chosen) if dry_run else cancel(queue, found, reason)


class Cancellable(NamedTuple):
    """Messages that are meant, and the states in which they are to be removed."""

    chosen: list[Chosen]
    states: tuple[str, ...]

    @property
    def number(self) -> int:
        return sum(len(one.indexes) for one in self.chosen)


def cancellable(queue: Queue, which: Criteria, states: tuple[str, ...] = ()) -> Cancellable:
    """The messages in `states` that are meant. Without them ids are looked for everywhere, and only they find what is
    dead. Raises what `select` raises."""
    among = states or (EVERYWHERE if which.ids else WAITING)
    return Cancellable(select(queue, among, which.demand_something()), among)


def cancel(queue: Queue, found: Cancellable, reason: str = "") -> list[str]:
    """`remove` them, the `reason` kept in the journal."""
    return remove(queue, found.states, found.chosen, "cancelled", note(reason))


def texts(queue: Queue, chosen: Sequence[Chosen], most: int) -> dict[str, str]:
    """The texts of the first `most` messages by their ids, of those that stand where they were found. Raises
    `StorageError`."""
    try:
        items = islice((item for one in chosen for item in read(queue, one)), most)
        return {item.message.id: body_text(item.message.message) for item in items}
    except OSError as error:
        raise queue.trouble(error, f"read messages of queue {queue.name!r}") from error


def _each(
    queue: Queue, states: tuple[str, ...], chosen: Sequence[Chosen], doing: str, act: Callable[[Chosen], bool]
) -> list[str]:
    done: list[str] = []
    left = by_pack(chosen)
    try:
        for look in range(_LOOKS):
            if look:
                queue.fs.sleep(_PAUSE)
                chosen = select_again(queue, states, left)
            for one in chosen:
                if act(one):
                    done += one.ids
                    left[one.found.entry.pack].difference_update(one.indexes)
            if not any(left.values()):
                break
    except OSError as error:
        raise queue.trouble(error, f"{doing} of queue {queue.name!r}") from error
    return done


def _retry(queue: Queue, one: Chosen, priority: int | None) -> bool:
    """False when the entry was not there any more. Its record comes last: a crash before it loses no message."""
    found, paths = one.found, queue.paths
    target = found.priority if priority is None else priority

    def ready(run: Entry) -> str:
        return paths.in_ready(target, run._replace(failed=0, lost=0))

    if one.whole:
        moved = queue.fs.put(found.path, ready(found.entry))
    else:
        whole = aside(queue, found)
        go = [(run, ready(run)) for run in runs_of(found.entry, one.indexes)]
        moved = whole is not None and divide(queue, found, whole, one.indexes, go)
    if moved:
        write(queue, found.entry, one.indexes, RETRIED, {"to": "ready"})
    return moved
