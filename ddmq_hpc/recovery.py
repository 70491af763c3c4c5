"""Leases of batch jobs that have ended, brought back before they run out, because their scheduler says so.

Whose lease it is stands in its name, with the job and the run of that job. A run counts as ended only when a complete
answer of its scheduler says so; an error, a timeout, silence or anything strange leaves its leases to their deadlines.
Even a job that has ended can leave a process behind (a node's daemon was killed and the job requeued elsewhere): what
such a process settles later fails, its lease being lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from random import uniform
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ddmq_hpc import schedulers
from ddmq_hpc.expiry import NodeFiles
from ddmq_hpc.identity import Owner, batch_job
from ddmq_hpc.locks import first_in_minute
from ddmq_hpc.names import parse_lease
from ddmq_hpc.queue import Queue
from ddmq_hpc.schedulers import ENDED, UNKNOWN, Job
from ddmq_hpc.sweeping import Swept

#: Seconds that a scheduler has to answer while a client has other things to do.
MAYBE_SECONDS = 5.0
_MINUTE = 60
_STAMP = "recover"
_SPREAD = 3.0  # seconds over which the clients of a cluster come for a minute's query

#: The steady clock's time before which a client need not look into its queue again.
_next_look: WeakKeyDictionary[Queue, float] = WeakKeyDictionary()


@dataclass(frozen=True)
class Recovered:
    """What a scheduler said of the jobs that hold leases of a queue, and what was done."""

    checked: int  # jobs
    ended: tuple[str, ...]  # labels of the jobs that have ended
    unknown: tuple[str, ...]  # labels of those of which nothing clear was said
    held: int  # messages that jobs held that have ended
    requeued: int
    dead: int


class _Holdings(NamedTuple):
    """What one run of a job holds of one queue."""

    label: str
    owners: set[str]
    messages: int


def recover(queue: Queue, dry_run: bool = False) -> Recovered:
    """Reclaim now the leases of jobs that have ended; with `dry_run` only tell. Raises `StorageError`."""
    return recover_all([queue], dry_run)[queue.name]


def recover_all(queues: Iterable[Queue], dry_run: bool = False) -> dict[str, Recovered]:
    """The same for several queues, by one query to each scheduler."""
    found = {}
    for queue in queues:
        try:
            found[queue] = _holdings(queue)
        except OSError as error:
            raise queue.trouble(error, f"list the leases of queue {queue.name!r}") from error
    shared = any(_is_shared(queue) for queue in found)
    states = ask({job for held in found.values() for job in held}, shared, schedulers.ANSWER_SECONDS)
    recovered = {}
    for queue, held in found.items():
        ended = [held[job] for job in held if states[job] == ENDED]
        try:
            swept = Swept() if dry_run else _reclaim(queue, ended)
        except OSError as error:
            raise queue.trouble(error, f"reclaim leases of queue {queue.name!r}") from error
        recovered[queue.name] = Recovered(
            len(held),
            tuple(sorted(holding.label for holding in ended)),
            tuple(sorted(held[job].label for job in held if states[job] == UNKNOWN)),
            sum(holding.messages for holding in ended),
            swept.requeued,
            swept.dead,
        )
    return recovered


def maybe(queue: Queue) -> Swept | None:
    """The same when it is due: one query a minute over the cluster, by one client, and only when other jobs hold
    leases. None when nothing was asked. Cheap to call often; raises nothing that the file system says."""
    clock = queue.fs.monotonic()
    if clock < _next_look.get(queue, clock):
        return None
    try:
        return _recover_in_turn(queue, clock)
    except OSError:
        return None  # the storage is in trouble: whatever the caller does next says so


def _recover_in_turn(queue: Queue, clock: float) -> Swept | None:
    now = queue.fs.now(queue.paths.tmp)
    minute = int(now // _MINUTE)
    _next_look[queue] = clock + (minute + 1) * _MINUTE - now + uniform(0, _SPREAD)
    # Of the clients on this node one looks.
    node = NodeFiles(queue.paths.locks)
    if node.stamp_age(now) <= now - minute * _MINUTE:
        return None
    node.stamp(now)
    held = _holdings(queue)
    askable = {name for name in {job.scheduler for job in held} if schedulers.get(name).available()}
    if not any(job.scheduler in askable for job in held) or not first_in_minute(queue.fs, queue.paths, _STAMP, minute):
        return None
    states = ask(held, _is_shared(queue), MAYBE_SECONDS)
    return _reclaim(queue, [held[job] for job in held if states[job] == ENDED])


def _holdings(queue: Queue) -> dict[Job, _Holdings]:
    """What jobs hold, but for the job that this process is part of."""
    own = batch_job()
    queue.fs.refresh(queue.paths.leased)
    found: dict[Job, _Holdings] = {}
    for lease in map(parse_lease, queue.fs.names(queue.paths.leased)):
        owner = Owner.parse(lease.owner) if lease else None
        job = schedulers.parse_label(owner.job) if owner and owner.job != own else None
        if lease and owner and job:
            label, owners, messages = found.get(job) or _Holdings(owner.job, set(), 0)
            owners.add(lease.owner)
            found[job] = _Holdings(label, owners, messages + lease.entry.stop - lease.entry.first)
    return found


def ask(jobs: Iterable[Job], shared: bool, timeout: float) -> dict[Job, str]:
    """The state of each job, by one query to each scheduler. `shared`: they may be other users' jobs."""
    states = dict.fromkeys(jobs, UNKNOWN)
    mine = schedulers.parse_label(batch_job())
    for job in states:
        # An earlier run of this very job is over, since this one runs.
        if mine and job._replace(restart=mine.restart) == mine and job.restart < mine.restart:
            states[job] = ENDED
    for name in schedulers.NAMES:
        asked = [job for job in states if job.scheduler == name and states[job] == UNKNOWN]
        if asked:
            scheduler = schedulers.get(name)
            if scheduler.available() and not (shared and scheduler.hides_jobs()):
                states.update(scheduler.states(asked, timeout))
    return states


def _is_shared(queue: Queue) -> bool:
    """Whether others than this user can hold leases."""
    found = queue.fs.lstat(queue.paths.leased)
    return found.st_uid != os.geteuid() or bool(found.st_mode & 0o022)


def _reclaim(queue: Queue, ended: list[_Holdings]) -> Swept:
    """Treat what the ended runs held as lost. Listed anew: the query took its time. Who held a lease before the query
    is known by its owner, which no other take has, also where a later run of the job has the same label."""
    owners = {owner for holding in ended for owner in holding.owners}
    if not owners:
        return Swept()
    queue.fs.refresh(queue.paths.leased)
    names = queue.fs.names(queue.paths.leased)
    swept = queue.sweeper.reclaim(names, queue.settings, lambda lease: lease.owner in owners)
    queue.taker.forget()
    return swept
