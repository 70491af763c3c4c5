"""What a report is made of, gathered in one reading of the journal and one listing of the queue.

Of each attempt a few numbers are kept, in columns, so that a million of them take about 0.2 GB. Whatever says
nothing that can be true (a time to come, an end before the message was published) is counted and left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from itertools import count
from typing import Any, Callable, Generic, NamedTuple, TypeVar

from ddmq_hpc import admin, workers
from ddmq_hpc.attempts import DONE, FAILED, LOST, RELEASED, Attempt, Session, read
from ddmq_hpc.identity import Owner
from ddmq_hpc.names import published_ns
from ddmq_hpc.queue import Queue
from ddmq_hpc.report.failures import Failures
from ddmq_hpc.stats import Stats, stats
from ddmq_hpc.worker_info import WorkerInfo

#: How attempts end, in the order in which charts show it.
ENDINGS = (DONE, FAILED, RELEASED, LOST)
#: Seconds that clocks may differ by.
_SKEW = 86400.0
#: A pack has no such index.
_MOST_IN_PACK = 1 << 16
_MOST_SLOWEST = 20
#: The attempts, at most, whose ids and texts are kept: more are not shown one by one.
MOST_SHOWN = 2000

_Row = TypeVar("_Row", bound="tuple[Any, ...]")


class Run(NamedTuple):
    """One attempt: `ending` is an index of `ENDINGS`, `lane` one of `Collected.lanes`, -1 when nobody knows whose."""

    began: float
    ended: float
    ending: int
    lane: int
    messages: int
    slots: int


class Event(NamedTuple):
    """Some messages came, or went."""

    when: float
    messages: int


class Columns(Generic[_Row]):
    """A list of rows that keeps each field as an array of its kind: less than half of what the rows would take."""

    def __init__(self, kinds: str, make: Callable[[Iterable[Any]], _Row]) -> None:
        self._columns: list[array[Any]] = [array(kind) for kind in kinds]
        self._make = make

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[_Row]:
        return map(self._make, zip(*self._columns))

    def append(self, row: _Row) -> None:
        for column, value in zip(self._columns, row):
            column.append(value)


class Lane(NamedTuple):
    """Where one task at a time runs: a slot of a worker, 0 where it has none."""

    worker: str
    slot: int


@dataclass
class Span:
    """When somebody worked, with how many slots; `known` from its own record, else from what it did."""

    host: str
    began: float
    ended: float
    slots: int
    known: bool


@dataclass
class Collected:
    """Everything that is told. Times are seconds since 1970 in the file system's clock; `since` is the beginning of
    the period that was asked for, 0 when that is all there was."""

    queue: str
    root: str
    made: float
    since: float
    now: Stats
    runs: Columns[Run] = field(default_factory=lambda: Columns("ddbqqq", Run._make))
    #: Of the first `MOST_SHOWN` runs (message id, its text).
    tasks: list[tuple[str, str]] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    #: Of workers, by their names; of scripts that pulled and acked, by their jobs, or their hosts outside of jobs.
    sessions: dict[str, Span] = field(default_factory=dict)
    scripts: dict[str, Span] = field(default_factory=dict)
    walls: array[float] = field(default_factory=lambda: array("d"))
    waits: array[float] = field(default_factory=lambda: array("d"))
    memory: array[float] = field(default_factory=lambda: array("d"))
    cpu: float = 0.0
    failures: Failures = field(default_factory=Failures)
    #: (duration, attempt), the slowest first.
    slowest: list[tuple[float, Attempt]] = field(default_factory=list)
    #: When messages were published, and when they were gone for good or dead.
    published: Columns[Event] = field(default_factory=lambda: Columns("dq", Event._make))
    gone: Columns[Event] = field(default_factory=lambda: Columns("dq", Event._make))
    live: int = 0
    impossible: int = 0


def collect(queue: Queue, last: float | None = None) -> Collected:
    """What happened in a queue, in the `last` seconds when given. Raises OSError."""
    made = queue.fs.now(queue.paths.tmp)
    found = Collected(queue.name, queue.paths.root, made, 0.0 if last is None else made - last, stats(queue))
    collector = Collector(found)
    for standing in admin.entries(queue, ("ready", "leased", "delayed")):
        collector.stands(*standing.entry[:3])
    for record in read(queue):
        if isinstance(record, Session):
            collector.session(record)
        else:
            collector.attempt(record)
    for info in workers.list_workers(queue):
        collector.works(info)
    return collector.finish()


class Collector:
    """Adds up what it is told, in any order but for what stands in the queue, which comes first."""

    def __init__(self, found: Collected) -> None:
        self._found = found
        self._packs = _Packs(found)
        self._lanes: dict[Lane, int] = {}
        self._seen: dict[str, Span] = {}
        self._serial = count()
        self._slowest: list[tuple[float, int, Attempt]] = []
        self._back: dict[tuple[str, int], float] = {}
        self._again: dict[tuple[str, int], float] = {}

    def stands(self, pack: str, first: int, stop: int) -> None:
        """Messages that are in the queue now."""
        if stop <= _MOST_IN_PACK:
            self._packs.stand(pack, first, stop)

    def session(self, session: Session) -> None:
        """A worker that ended."""
        if session.began <= session.ended <= self._found.made + _SKEW:
            span = Span(session.host, session.began, session.ended, session.slots, True)
            self._found.sessions[session.worker] = span
        else:
            self._found.impossible += 1

    def works(self, info: WorkerInfo) -> None:
        """A worker that is registered: at work until now, or until its last sign of life when it is gone."""
        alive = info.alive == "yes"
        self._found.live += alive
        ended = self._found.made if alive else min(info.seen, self._found.made)
        if 0 < info.since <= ended and info.slots > 0:
            self._found.sessions.setdefault(info.id, Span(info.host, info.since, ended, info.slots, True))

    def attempt(self, attempt: Attempt) -> None:
        """One attempt, or what an operator did to messages."""
        found = self._found
        if not _is_possible(attempt, found.made):
            found.impossible += 1
            return
        self._packs.attempt(attempt)
        if attempt.state not in ENDINGS or attempt.ended < found.since:
            return
        host, worker = _who(attempt)
        began = attempt.began if attempt.wall is None else attempt.ended - attempt.wall
        began = began if attempt.published - _SKEW <= began <= attempt.ended else 0.0
        ending = ENDINGS.index(attempt.state)
        lane = self._lane(Lane(worker, attempt.slot)) if began and worker else -1
        slots = max(1, min(attempt.slots, 1 << 16))
        found.runs.append(Run(began, attempt.ended, ending, lane, attempt.count, slots))
        if len(found.tasks) < MOST_SHOWN:
            found.tasks.append((attempt.id, attempt.task))
        found.failures.count(attempt, host)
        if lane >= 0:
            self._see(worker, host, began, attempt, slots)
        self._measure(attempt, began)

    def finish(self) -> Collected:
        """All that it was told."""
        found = self._found
        found.lanes = list(self._lanes)
        found.slowest = [
            (wall, attempt) for wall, _, attempt in sorted(self._slowest, key=lambda one: (-one[0], -one[1]))
        ]
        for ident, number in self._again:
            back = self._back.get((ident, number - 1))
            if back is not None and back <= self._again[ident, number]:
                found.waits.append(self._again[ident, number] - back)
        within = {worker: span for worker, span in found.sessions.items() if span.ended > found.since}
        found.sessions = {**self._seen, **within}
        return found

    def _lane(self, lane: Lane) -> int:
        return self._lanes.setdefault(lane, len(self._lanes))

    def _see(self, worker: str, host: str, began: float, attempt: Attempt, slots: int) -> None:
        most = max(slots, min(attempt.slot, 1 << 16))
        seen = self._seen if attempt.worker else self._found.scripts
        span = seen.setdefault(worker, Span(host, began, attempt.ended, most, False))
        span.began, span.ended = min(span.began, began), max(span.ended, attempt.ended)
        span.slots = max(span.slots, most)

    def _measure(self, attempt: Attempt, began: float) -> None:
        found = self._found
        found.cpu += attempt.cpu or 0.0
        if attempt.rss:
            found.memory.append(attempt.rss)
        if attempt.state in (FAILED, LOST) and attempt.to in ("ready", "delayed"):
            self._back[attempt.id, attempt.number] = attempt.ended
        if not began:
            return
        if attempt.number <= 1:
            found.waits.append(max(0.0, began - attempt.published))
        else:
            key = (attempt.id, attempt.number)
            self._again[key] = min(began, self._again.get(key, began))
        if attempt.state in (DONE, FAILED) and attempt.count == 1:
            wall = attempt.ended - began
            found.walls.append(wall)
            entry = (wall, -next(self._serial), attempt)
            if len(self._slowest) < _MOST_SLOWEST:
                heappush(self._slowest, entry)
            else:
                heappushpop(self._slowest, entry)


class _Packs:
    """When messages came and went, each once: a bit a message of each pack."""

    def __init__(self, found: Collected) -> None:
        self._found = found
        self._known: dict[str, int] = {}
        self._over: dict[str, int] = {}  # gone, or here to stay: not to be subtracted any more

    def stand(self, pack: str, first: int, stop: int) -> None:
        bits = _bits(first, stop)
        self._publish(pack, bits)
        self._over[pack] = self._over.get(pack, 0) | bits

    def attempt(self, attempt: Attempt) -> None:
        bits = _bits(attempt.first, attempt.stop)
        self._publish(attempt.pack, bits)
        if attempt.to in ("ready", "delayed") or attempt.state == RELEASED:
            return
        over = self._over.get(attempt.pack, 0)
        if new := bits & ~over:
            self._over[attempt.pack] = over | new
            self._found.gone.append(Event(attempt.ended, _ones(new)))

    def _publish(self, pack: str, bits: int) -> None:
        known = self._known.get(pack, 0)
        if new := bits & ~known:
            self._known[pack] = known | new
            self._found.published.append(Event(published_ns(pack) / 1e9, _ones(new)))


def _bits(first: int, stop: int) -> int:
    return (1 << stop) - (1 << first)


def _ones(bits: int) -> int:
    return bin(bits).count("1")


def _is_possible(attempt: Attempt, now: float) -> bool:
    return attempt.stop <= _MOST_IN_PACK and attempt.published - _SKEW <= attempt.ended <= now + _SKEW


def _who(attempt: Attempt) -> tuple[str, str]:
    """The host of an attempt and who made it. Each command of a script is a process of its own: nothing but the job, or
    the host, holds them together. A lost one was written down by somebody else."""
    if attempt.state == LOST:
        owner = Owner.parse(attempt.owner)
        return (owner.host if owner else ""), attempt.worker
    return attempt.host, attempt.worker or attempt.job or attempt.host
