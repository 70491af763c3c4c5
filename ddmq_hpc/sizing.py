"""How many workers a backlog takes: the time that its tasks need, divided by the time that a worker has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from statistics import median

from ddmq_hpc import journal
from ddmq_hpc.errors import UsageError
from ddmq_hpc.queue import Queue
from ddmq_hpc.units import human

#: Seconds that a task is taken to need while none has run and the queue's settings say nothing.
ASSUMED = 60.0
#: The newest so many outcomes tell how long a task takes: what a queue is for may change.
_RECENT = 500


@dataclass(frozen=True)
class Sizing:
    """A number of workers, and what it comes from."""

    workers: int
    backlog: int  # messages that wait to be taken
    wall: float  # seconds a task
    measured: int  # the outcomes that `wall` is the median of; 0: it is assumed

    def __str__(self) -> str:
        tasks = f"{self.backlog} task{'s' * (self.backlog != 1)} waiting"
        if self.measured:
            return f"{tasks}, {_short(self.wall)} each (the median of {self.measured})"
        return f"{tasks}; no task has run yet: sized for {_short(self.wall)} each"


def _short(seconds: float) -> str:
    return human(seconds) if seconds >= 10 else f"{seconds:.2g}s"


def workers_for(backlog: int, wall: float, time: float, slots: int, most: int) -> int:
    """Workers of `slots` tasks at a time, each with `time` seconds, for `backlog` tasks of `wall` seconds.

    At least 1, at most `most`, and never so many that some would have nothing to do.
    """
    needed = ceil(backlog * wall / time / slots)
    return max(1, min(needed, most, ceil(backlog / slots)))


def usable(walltime: float, margin: float | None) -> float:
    """The seconds in which a worker can begin and end tasks. Raises `UsageError` when there are none.

    The margin is that of `work`: 5 minutes, or a tenth of the time there is if that is less.
    """
    found = walltime - (min(300.0, walltime / 10) if margin is None else margin)
    if found <= 0:
        raise UsageError(f"a job of {human(walltime)} leaves no time beside its margin: give it a longer --time")
    return found


def typical_wall(queues: Iterable[Queue]) -> tuple[float, int]:
    """The median duration in seconds of the tasks that were done lately, and of how many it is.

    Of 0 where nothing is known: the longest `time_request` of the queues' settings then, or a minute.
    """
    queues = list(queues)
    found: list[tuple[float, float]] = []
    for queue in queues:
        for record in journal.recent(queue.fs, queue.paths):
            at, wall = _number(record.get("at")), _number(record.get("wall"))
            if record.get("state") == "acked" and at is not None and wall is not None:
                found.append((at, wall))
    walls = [wall for _, wall in sorted(found)[-_RECENT:]]
    if walls:
        return median(walls), len(walls)
    return max((queue.settings.time_request or 0.0 for queue in queues), default=0.0) or ASSUMED, 0


def _number(value: object) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
    return float(value) if good else None  # type: ignore[arg-type]


def size(queues: Iterable[Queue], backlog: int, time: float, slots: int, most: int) -> Sizing:
    """The workers that `queues` take with `backlog` messages waiting in them."""
    wall, measured = typical_wall(queues)
    return Sizing(workers_for(backlog, wall, time, slots, most), backlog, wall, measured)
