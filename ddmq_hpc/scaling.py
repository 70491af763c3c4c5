"""As many workers as a queue takes: what is missing is submitted, nothing that works is cancelled. Made for cron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

from ddmq_hpc import recovery, schedulers, submission, submitted
from ddmq_hpc.errors import SchedulerBusy, storage_error
from ddmq_hpc.locks import locked
from ddmq_hpc.names import is_chain_of
from ddmq_hpc.queue import Queue
from ddmq_hpc.sizing import Sizing
from ddmq_hpc.submitted import Record, Request

#: Seconds for which the record of a job that is over is kept at least: a new job may not be in every answer at once.
_KEPT = 600.0
_LOCK = "scale"


class Scaled(NamedTuple):
    """What was found and what was done."""

    sizing: Sizing
    wanted: int  # workers
    live: int  # of them there were, waiting or running
    submitted: list[Record]


def last_request(queue: Queue) -> Request | None:
    """What was asked for by this user's last submission for a queue."""
    try:
        found = [record.request for record in submitted.records(queue) if record.request]
    except OSError as error:
        raise storage_error(error, "look for earlier submissions") from error
    return found[-1] if found else None


def scale(
    queues: Sequence[Queue], request: Request, least: int, submit: Callable[..., list[Record]] | None = None
) -> Scaled:
    """Have at least `least` and at most `request.most` workers, as many as the backlog takes; none for none.

    One question to the scheduler counts those that there are (another, once a minute, finds what jobs that have ended
    still hold). Raises `SchedulerBusy`, with nothing submitted, when its answer is not clear or another `scale` of this
    queue is at work. Records of jobs that are over are removed.
    """
    queue = queues[0]
    try:
        with locked(queue.fs, queue.paths, _LOCK) as lock:
            if lock is None:
                raise SchedulerBusy("another `ddmq-hpc scale` is at work on this queue: nothing submitted")
            for each in queues:
                recovery.maybe(each)  # there may be no worker whose business it is
            known = submitted.records(queue)
            tasks = _live(known)
            live = sum(tasks.values())
            _forget(queue, known, tasks)
            sizing = submission.sizing(list(queues), request)
            needed = sizing.workers if sizing.backlog else 0
            wanted = max(least, min(needed, request.most))
            missing = wanted - live
            done = (submit or submission.submit)(list(queues), request, missing) if missing > 0 else []
            return Scaled(sizing, wanted, live, done)
    except OSError as error:
        raise storage_error(error, "scale the workers") from error


def _live(known: Sequence[Record]) -> dict[str, int]:
    """Tasks that wait or run, by label; asks each scheduler once. Raises `SchedulerBusy` for no clear answer."""
    live: dict[str, int] = {}
    for name in {record.scheduler for record in known}:
        jobs = {record.label: record.job for record in known if record.scheduler == name}
        found = schedulers.get(name).live_tasks(list(jobs.values()))
        if found is None:
            raise SchedulerBusy(f"{name} does not say which workers there are: nothing submitted, try again")
        live.update((label, found.get(job, 0)) for label, job in jobs.items())
    return live


def _forget(queue: Queue, known: Sequence[Record], tasks: Mapping[str, int]) -> None:
    """Remove the records of this user's jobs that are over, but for the newest, whose options are the default."""
    fs, paths = queue.fs, queue.paths
    now = fs.now(paths.tmp)
    mine = [record for record in known if record.request]
    for record in mine[:-1]:
        if tasks.get(record.label) == 0 and now - record.at > _KEPT:
            for name in fs.names(paths.locks):
                if is_chain_of(name, record.label):
                    fs.drop(f"{paths.locks}/{name}")
            submitted.remove(queue, record)
