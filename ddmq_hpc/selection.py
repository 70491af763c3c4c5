"""Choosing messages by where they stand, what became of them and what they say, for what is done to several at once.

Names tell what stands where, one pass over the journal what the last failed attempt was like, packs what is said; each
is read only when it is asked for, and what the one before left out is not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

from ddmq_hpc.admin import Found, Item, entries, items_of, locate, messages_of
from ddmq_hpc.attempts import DONE, FAILED, LOST, Attempt, attempts
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.errors import MessageElsewhere, MessageNotFound
from ddmq_hpc.identity import Owner
from ddmq_hpc.ids import Wanted, inside, whole
from ddmq_hpc.messages import Message, body_text
from ddmq_hpc.names import Entry, any_divided, message_id, parse_message_id, published_ns
from ddmq_hpc.queue import Queue

#: So many ids are looked up one by one; more are found by one listing of everything.
_FEW = 8
_MOST_ERROR = 500
#: How often what moves meanwhile is looked for, at most, and the pause before (seconds).
_LOOKS, _PAUSE = 4, 0.05
#: For so long (seconds) somebody is awaited who divides an entry; a call at a time, that takes milliseconds, but his
#: host may be busy.
_DIVIDING = 5.0


class Chosen(NamedTuple):
    """Messages of one entry."""

    found: Found
    indexes: Sequence[int]

    @property
    def whole(self) -> bool:
        return len(self.indexes) == self.found.entry.stop - self.found.entry.first

    @property
    def ids(self) -> list[str]:
        return [message_id(self.found.entry.pack, index) for index in self.indexes]


class Failure(NamedTuple):
    """How the last failed attempt at a message ended; `at` is seconds since 1970."""

    at: float
    exit: int | None
    signal: int | None
    oom: bool
    error: str
    host: str
    job: str


@dataclass(frozen=True)
class Letter:
    """A dead letter: the message with the reason of its death, and how its last attempt ended, where that is known."""

    item: Item
    failure: Failure | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; `died` is seconds since 1970."""
        message, failure = self.item.message, self.failure
        found = self.item.to_dict()
        found.update(failed=message.failed, lost=message.lost, died=failure.at if failure else None)
        found.update({name: getattr(failure, name, None) for name in Failure._fields[1:]})
        return found


def select(queue: Queue, states: tuple[str, ...], criteria: Criteria) -> list[Chosen]:
    """The messages in one of `states` that are meant, each once, in the order of `admin.entries`, or of a few ids.

    Raises `MessageNotFound` for an id that is in none of the states, `UsageError` for one that several messages begin
    with, `StorageError`.
    """
    try:
        chosen = list(_standing(queue, states, criteria))
        if criteria.about_attempts:
            chosen = list(_with_attempt(queue, chosen, criteria))
        if criteria.group:
            chosen = list(_with(queue, states, chosen, lambda message: message.options.group == criteria.group))
        if pattern := criteria.match:
            found = pattern.search
            chosen = list(_with(queue, states, chosen, lambda message: bool(found(body_text(message.message)))))
    except OSError as error:
        raise queue.trouble(error, f"look into queue {queue.name!r}") from error
    return chosen


def select_again(queue: Queue, states: tuple[str, ...], wanted: Mapping[str, Collection[int]]) -> list[Chosen]:
    """Where messages, given by pack and index, stand now, those that are in one of `states`, each once. Raises
    OSError."""
    told: dict[str, set[int]] = {}
    return [
        Chosen(found, indexes)
        for found in _all_there_are(queue, states)
        if found.entry.pack in wanted
        and (indexes := _new(told, found.entry, inside(found.entry, wanted[found.entry.pack])))
    ]


def ids_of(chosen: Iterable[Chosen]) -> list[str]:
    """The ids of all that was chosen, in order."""
    return [ident for each in chosen for ident in each.ids]


def by_pack(chosen: Iterable[Chosen]) -> dict[str, set[int]]:
    """The indexes of all that was chosen, by pack."""
    found: dict[str, set[int]] = {}
    for each in chosen:
        found.setdefault(each.found.entry.pack, set()).update(each.indexes)
    return found


def read(queue: Queue, one: Chosen) -> Iterator[Item]:
    """The messages themselves; none when they do not stand there any more. Raises OSError."""
    wanted = set(one.indexes)
    yield from (item for item in items_of(queue, one.found) if item.message.index in wanted)


def letters(queue: Queue, criteria: Criteria) -> Iterator[Letter]:
    """The dead letters that are meant, by one pass over the journal. Raises what `select` raises."""
    chosen = select(queue, ("dead",), criteria)
    try:
        failures = last_failures(queue, chosen)
        for one in chosen:
            for item in read(queue, one):
                yield Letter(item, failures.get((one.found.entry.pack, item.message.index)))
    except OSError as error:
        raise queue.trouble(error, f"look into queue {queue.name!r}") from error


def last_failures(queue: Queue, chosen: Iterable[Chosen]) -> dict[tuple[str, int], Failure]:
    """By pack and index how the last failed attempt at each message ended, or the last one of those that are done, as
    far as the journal knows, in one pass. Raises OSError."""
    chosen = list(chosen)
    wanted, ends = by_pack(chosen), {FAILED, LOST}
    if any(each.found.state == "done" for each in chosen):
        ends.add(DONE)
    last: dict[tuple[str, int], Failure] = {}
    for attempt in attempts(queue) if wanted else ():
        if attempt.state not in ends or attempt.pack not in wanted:
            continue
        failure = _failure(attempt)
        for index in _common(attempt, wanted[attempt.pack]):
            known = last.get((attempt.pack, index))
            if known is None or known.at <= failure.at:
                last[attempt.pack, index] = failure
    return last


def _common(attempt: Attempt, wanted: set[int]) -> Iterable[int]:
    """The messages that an attempt tells of and that are `wanted`; the shorter of both is gone through."""
    if attempt.count <= len(wanted):
        return (index for index in range(attempt.first, attempt.stop) if index in wanted)
    return (index for index in wanted if attempt.first <= index < attempt.stop)


def _failure(attempt: Attempt) -> Failure:
    """Of a lost lease the record is written by whoever noticed; where it was is told by its owner."""
    owner = Owner.parse(attempt.owner) if attempt.state == LOST else None
    host, job = (owner.host, owner.job) if owner else (attempt.host, attempt.job)
    error = attempt.error[:_MOST_ERROR] or ("its worker died, or its lease ran out" if attempt.state == LOST else "")
    return Failure(attempt.ended, attempt.exit, attempt.signal, attempt.oom, error, host, job)


def _standing(queue: Queue, states: tuple[str, ...], criteria: Criteria) -> Iterator[Chosen]:
    """What names alone tell."""
    ids = Wanted(criteria.ids) if criteria.ids else None
    told: dict[str, set[int]] = {}
    for found in _places(queue, states, criteria.ids):
        if criteria.died_of and found.detail != criteria.died_of:
            if ids:
                ids.find(found.entry)
            continue
        indexes = ids.find(found.entry) if ids else range(found.entry.first, found.entry.stop)
        if indexes := _new(told, found.entry, indexes):
            yield Chosen(found, indexes)
    if ids:
        try:
            ids.demand_all(queue.name)
        except MessageNotFound as error:
            raise _elsewhere(queue, error, states) from None


def _elsewhere(queue: Queue, error: MessageNotFound, states: tuple[str, ...]) -> MessageNotFound:
    """The error about a message that is in none of the states: it may be in another one."""
    ident = whole(queue, error.message_id)
    found = locate(queue, ident)
    return MessageElsewhere(queue.name, ident, found.state, states) if found and found.state not in states else error


def _new(told: dict[str, set[int]], entry: Entry, indexes: Sequence[int]) -> Sequence[int]:
    """Those that were not told before: an entry may have moved between two listings."""
    before = told.setdefault(entry.pack, set())
    indexes = [index for index in indexes if index not in before] if before else indexes
    before.update(indexes)
    return indexes


def _places(queue: Queue, states: tuple[str, ...], ids: tuple[str, ...]) -> Iterator[Found]:
    """The entries among which those with the ids are."""
    if 0 < len(ids) <= _FEW and all(map(parse_message_id, ids)):
        found = [where for ident in ids if (where := locate(queue, ident))]
        if len(found) == len(ids):
            return (where for where in {where.path: where for where in found}.values() if where.state in states)
    return _all_there_are(queue, states)


def _all_there_are(queue: Queue, states: tuple[str, ...]) -> Iterator[Found]:
    """All entries, some twice: what somebody divides is in no state for a few calls, and in `leased`, marked. So while
    `leased` changes, or has such a one, what was missed is looked for again."""
    fs, leased = queue.fs, queue.paths.leased
    patience, looks = fs.monotonic() + _DIVIDING, 0
    while True:
        before = fs.lstat(leased).st_mtime_ns
        yield from entries(queue, states)
        looks += 1
        if any_divided(fs.names(leased)):
            if fs.monotonic() > patience:
                return
        elif fs.lstat(leased).st_mtime_ns == before or looks >= _LOOKS:
            return
        fs.sleep(_PAUSE)


def _with_attempt(queue: Queue, chosen: Sequence[Chosen], criteria: Criteria) -> Iterator[Chosen]:
    """Those whose last failed attempt, and age, are as they should be."""
    failures = last_failures(queue, chosen)
    now = queue.fs.now(queue.paths.tmp)
    for found, indexes in chosen:
        pack = found.entry.pack
        if kept := [index for index in indexes if _is_meant(found, failures.get((pack, index)), criteria, now)]:
            yield Chosen(found, kept)


def _is_meant(found: Found, failure: Failure | None, criteria: Criteria, now: float) -> bool:
    """Of what the journal does not know nothing is true."""
    if criteria.exit_codes and (failure is None or failure.exit not in criteria.exit_codes):
        return False
    if criteria.host and not _is_host(criteria.host, _host(found, failure)):
        return False
    if found.state == "dead":
        since = failure.at if failure else None
    elif found.state == "done":
        since = found.detail
    else:
        since = published_ns(found.entry.pack) / 1e9
    age = None if since is None else now - since
    if criteria.older_than is not None and (age is None or age <= criteria.older_than):
        return False
    return criteria.newer_than is None or (age is not None and age < criteria.newer_than)


def _index(message: Message) -> int:
    return message.index


def _host(found: Found, failure: Failure | None) -> str:
    owner = Owner.parse(found.owner) if found.state == "leased" else None
    return owner.host if owner else failure.host if failure else ""


def _is_host(wanted: str, host: str) -> bool:
    return wanted in (host, host.partition(".")[0])


def _with(
    queue: Queue, states: tuple[str, ...], chosen: Sequence[Chosen], is_meant: Callable[[Message], bool]
) -> Iterator[Chosen]:
    """Those of which that is true once they are read. What moves before it is read is looked for again."""
    for look in range(_LOOKS):
        if look:
            queue.fs.sleep(_PAUSE)
            chosen = select_again(queue, states, by_pack(chosen))
        moved = []
        for each in chosen:
            messages = messages_of(queue, each.found)
            if not messages:
                moved.append(each)
            matching = set(map(_index, filter(is_meant, messages)))
            if indexes := sorted(matching.intersection(each.indexes)):
                yield Chosen(each.found, indexes)
        if not moved:
            return
        chosen = moved
