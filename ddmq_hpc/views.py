"""What there is to see of a queue: computed from what two looks at it found. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ddmq_hpc.hour import HOUR, Hour
from ddmq_hpc.stats import Stats
from ddmq_hpc.worker_info import Running, WorkerInfo

#: A task is slow when it has run for so many times as long as is typical, and so many seconds longer.
_SLOW_TIMES, _SLOW_SECONDS = 3.0, 60.0
#: Between two looks from which a rate is told there are so many seconds at least, and so many messages.
_SPAN, _ENOUGH = 10.0, 3


@dataclass(frozen=True)
class Snapshot:
    """What one look at a queue found, at a time in seconds since 1970 in the file system's clock."""

    at: float
    stats: Stats
    workers: Sequence[WorkerInfo]
    hour: Hour


@dataclass(frozen=True)
class Slow:
    """A task that runs much longer than is typical: seconds so far, and where."""

    task: Running
    host: str
    seconds: float


@dataclass(frozen=True)
class View:
    """A queue to look at. Rates are messages done in a second: `rate` between the two looks (None when they are too
    close), `hour_rate` over the last hour. `eta` is in how many seconds nothing will be left at that pace; None when
    nobody can know, or nobody works. `slow` has the slowest first."""

    queue: str
    at: float
    stats: Stats
    hour: Hour
    workers: Sequence[WorkerInfo]
    rate: float | None
    hour_rate: float
    eta: float | None
    slow: Sequence[Slow]


@dataclass(frozen=True)
class Trouble:
    """A queue that could not be looked at, and why."""

    queue: str
    why: str


@dataclass(frozen=True)
class Place:
    """The workers of one job on one host, how many of their slots are `busy`, and the tasks that run there with the
    seconds that each has taken; of workers of older versions there are none."""

    host: str
    job: str
    workers: int
    silent: int
    slots: int
    busy: int
    tasks: Sequence[tuple[Running, float]]


def view(before: Snapshot | None, now: Snapshot) -> View:
    """What two looks at a queue tell, the first one at most some minutes older."""
    rate = None
    if before is not None and now.at - before.at >= _SPAN:
        rate = (now.hour.seen_done - before.hour.seen_done) / (now.at - before.at)
    return View(
        queue=now.stats.queue,
        at=now.at,
        stats=now.stats,
        hour=now.hour,
        workers=now.workers,
        rate=rate,
        hour_rate=now.hour.done / HOUR,
        eta=_eta(now, _pace(before, now)),
        slow=_slow(now),
    )


def _pace(before: Snapshot | None, now: Snapshot) -> float | None:
    """Messages that leave the queue in a second, as far as that can be told: since the look before, else since the
    first of the last hour ended. None from few, and as long as the slots that began together may end together: one
    whole task after the first end."""
    if now.hour.span < max(_SPAN, min(now.hour.typical or 0.0, HOUR)):
        return None
    if before is not None and now.at - before.at >= _SPAN:
        ended = now.hour.seen_ended - before.hour.seen_ended
        if ended >= _ENOUGH:
            return ended / (now.at - before.at)
    return now.hour.done / now.hour.span if now.hour.done >= _ENOUGH else None


def _eta(now: Snapshot, pace: float | None) -> float | None:
    left = now.stats.ready + now.stats.leased + now.stats.delayed + now.stats.dropped
    if not left:
        return 0.0
    goes_on = now.stats.leased or (now.stats.ready and any(info.alive == "yes" for info in now.workers))
    return left / pace if pace and goes_on and not now.stats.paused else None


def _slow(now: Snapshot) -> list[Slow]:
    typical = now.hour.typical
    if typical is None:
        return []
    limit = max(_SLOW_TIMES * typical, typical + _SLOW_SECONDS)
    found = [
        Slow(task, info.host, now.at - task.since)
        for info in now.workers
        for task in info.tasks
        if info.alive == "yes" and task.queue == now.stats.queue and now.at - task.since > limit
    ]
    return sorted(found, key=lambda slow: -slow.seconds)


def places(views: Iterable[View]) -> list[Place]:
    """Where the workers of these queues are, each counted once although it may work for several; those that are known
    to be dead are left out."""
    infos: dict[str, tuple[WorkerInfo, float]] = {}
    for one in views:
        for info in one.workers:
            if info.alive != "no" and (info.id not in infos or infos[info.id][0].seen < info.seen):
                infos[info.id] = (info, one.at)
    groups: dict[tuple[str, str], list[tuple[WorkerInfo, float]]] = {}
    for info, at in infos.values():
        groups.setdefault((info.host, info.job), []).append((info, at))
    return [
        Place(
            host=host,
            job=job,
            workers=len(group),
            silent=sum(info.alive == "silent" for info, _ in group),
            slots=sum(info.slots for info, _ in group),
            busy=sum(len(info.running) for info, _ in group),
            tasks=[(task, max(0.0, at - task.since)) for info, at in group for task in info.tasks],
        )
        for (host, job), group in sorted(groups.items())
    ]


def interval(wanted: float, took: float) -> float:
    """Seconds to wait between two looks, when the last one took so long: at most a twentieth of the time is spent
    looking."""
    return max(wanted, 19 * took)
