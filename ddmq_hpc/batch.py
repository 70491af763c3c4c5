"""A worker as batch jobs run it: a command for each task, its processes guarded, its end known from the scheduler."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from signal import SIGTERM
from tempfile import mkdtemp
from threading import Lock
from typing import Callable
from zlib import crc32

from ddmq_hpc import archive
from ddmq_hpc.breaker import Breaker
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import DdmqError, StorageBusy
from ddmq_hpc.guardian import Guardian
from ddmq_hpc.hook import Hook
from ddmq_hpc.identity import batch_job, host
from ddmq_hpc.messages import Message
from ddmq_hpc.outcomes import Settled
from ddmq_hpc.output import Output, choose
from ddmq_hpc.queue import Queue
from ddmq_hpc.runner import CommandRunner, ShellRunner
from ddmq_hpc.tasks import Result, Task
from ddmq_hpc.terms import Report, WorkerOptions
from ddmq_hpc.trust import Trust
from ddmq_hpc.worker import Worker, new_name
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration

#: Seconds between two looks of a worker under suspicion at what became of its failures elsewhere.
_RETHINK = 5.0
#: Seconds for which a worker of Snakemake's jobs waits for more unless told otherwise: between two steps of a workflow
#: there may be none.
PILOT_IDLE = 600.0
#: The workers of an array begin spread over so many seconds for each of them, and over this many at most. Small arrays
#: begin at once.
_SPREAD_EACH, _SPREAD_MOST, _SPREAD_FROM = 0.05, 30.0, 8


@dataclass(frozen=True)
class Job:
    """What a worker does: `command` is filled in for each message; with `shell` the message is the command line, with
    `snakemake` a job of Snakemake's executor `ddmq`. `output` is one of `output.KINDS`. With `chain` it has a successor
    submitted when there is more to do than time. `trusted` are the users besides this one whose messages it runs. After
    `breaker` failures in a row it asks itself whether its host is to blame; 0: never.
    """

    command: Sequence[str] = ()
    shell: bool = False
    snakemake: bool = False
    feed_stdin: bool = False
    output: str = "tail"
    chain: bool = False
    trusted: Sequence[str] = ()
    breaker: int = 5

    @property
    def shown(self) -> Sequence[str]:
        """What a worker runs, for those who look."""
        return ["--snakemake"] if self.snakemake else ["--shell"] if self.shell else self.command


def work(
    broker: Broker, queues: Sequence[str], job: Job, options: WorkerOptions, tell: Callable[[str], None]
) -> Report:
    """Run a worker of this process until it ends. `tell` is told in lines what a person wants to know, at last what was
    done. Raises `DdmqError` for what is no task's fault."""
    name = new_name()
    options = replace(options, delay=start_delay(os.environ), memory=options.memory or _given_memory())
    output = choose(job.output, broker.queue(queues[0]).fs, broker.queue(queues[0]).paths, name)
    directory = mkdtemp(prefix=f"ddmq-hpc-{name}-")
    guardian = Guardian(directory, name)
    try:
        hook = Hook([broker.queue(of) for of in queues], job.trusted, guardian, tell)
        approve = _wary(broker, queues, job, hook)
        runner = _runner(broker, job, output, guardian, name)
        worker = Worker(broker, queues, runner, options, name=name, directory=directory, approve=approve)
        worker.conclude = runner.conclude
        worker.watchers.append(lambda: None if worker.running else hook.look(time.monotonic()))
        if job.breaker:
            worker.observers.append(_Doubts(worker, job.breaker))
        with closing(runner), _registered(worker, job) as watcher:
            worker.watchers.append(watcher)
            worker.tell = tell
            try:
                worker.run()
                hook.close()
            except DdmqError:
                if worker.report.done or worker.report.failed:
                    tell(str(worker.report))
                raise
    finally:
        guardian.close()  # which kills what is left, and what the runner started for itself
    _compact(worker.queues)
    if job.chain and worker.report.out_of_time:
        worker.report.reason += _successor(broker, queues)
    tell(str(worker.report))
    return worker.report


def _compact(queues: Sequence[Queue]) -> None:
    """Now and then a worker that ends makes what others wrote long ago small."""
    for queue in queues:
        with suppress(OSError):
            archive.maybe(queue.fs, queue.paths, queue.settings)


def _runner(broker: Broker, job: Job, output: Output, guardian: Guardian, mark: str) -> CommandRunner:
    if job.snakemake:
        from ddmq_hpc.snakemake.runner import JobRunner

        return JobRunner(broker, output, guardian, mark)
    if job.shell:
        return ShellRunner(output, guardian, job.feed_stdin)
    return CommandRunner(job.command, output, guardian, job.feed_stdin)


def _successor(broker: Broker, queues: Sequence[str]) -> str:
    """What came of submitting the worker's successor, as the end of a sentence."""
    from ddmq_hpc.submission import successor

    try:
        found = successor(broker, ",".join(queues), os.environ)
    except DdmqError as error:
        return f"; no successor was submitted: {error}"
    return f"; submitted {found} to go on" if found else ""


def _wary(broker: Broker, queues: Sequence[str], job: Job, hook: Hook) -> Callable[[Queue, Message], None]:
    """What refuses messages that somebody could have written who is not trusted, and notes those that are worked on.
    Raises `Untrusted` for queues."""
    trust = {name: Trust(broker.queue(name), job.shell or job.snakemake, job.trusted) for name in queues}
    for each in trust.values():
        each.check_place()

    def approve(queue: Queue, message: Message) -> None:
        """Raises `Untrusted` for a message that others could have written."""
        trust[queue.name].check_pack(message)
        hook.handed_out(queue)

    return approve


class _Doubts:
    """Whether it is this host that makes tasks fail. Slots share it."""

    def __init__(self, worker: Worker, limit: int) -> None:
        self._worker = worker
        self._limit = limit
        self._told = False
        self._lock = Lock()
        self._breakers = {queue.name: Breaker(queue, (host(), os.getpid()), limit) for queue in worker.queues}

    def __call__(self, task: Task, result: Result, settled: Settled) -> None:
        breaker, feed = self._breakers[task.message.queue], self._worker.feed
        with self._lock:
            if settled.how == "done":
                breaker.succeeded()
                return
            if settled.how == "failed":
                breaker.failed(task.message.id, result.wall)
            if verdict := breaker.verdict():
                feed.end(verdict)
            pause = breaker.pause()
            if pause > 0 and not self._told:
                self._told = True
                self._worker.tell(
                    f"{self._limit} tasks in a row failed at once, the last with {result.words()}; going on more slowly"
                )
        while pause > 0 and not feed.reason:
            feed.rest(min(pause, _RETHINK))
            pause -= _RETHINK
            with self._lock:
                if verdict := breaker.verdict():
                    feed.end(verdict)
                if not breaker.pause():
                    return


@contextmanager
def _registered(worker: Worker, job: Job) -> Iterator[Callable[[], None]]:
    """The worker is listed at its queues; what is yielded tells them how it is doing, and heeds requests to stop."""
    names = [queue.name for queue in worker.queues]
    info = WorkerInfo.of_this_process(worker.queues[0], worker.name, names, worker.options.slots, job.shown)
    ahead = info.since - time.time()  # the file system's clock, of this host's
    info = replace(info, memory=worker.options.memory, ends=worker.ends)
    registrations = [Registration(queue, info) for queue in worker.queues]

    def beat() -> None:
        """A sign of life at each queue, with the news; what somebody asked this worker there is heeded."""
        tasks = tuple(
            replace(task, since=round(task.since + ahead, 3), told=task.told and round(task.told + ahead, 3))
            for task in worker.running
        )
        running = tuple(task.id for task in tasks)
        report = worker.report
        now = replace(info, done=report.done, failed=report.failed, running=running, ends=worker.ends, tasks=tasks)
        for registration in registrations:
            asked = registration.beat(now)
            if asked == "stop":
                worker.feed.end("was asked to stop")
            elif asked == "now":
                worker.stop(SIGTERM)

    for registration in registrations:
        with suppress(StorageBusy):  # a full disk, say: its next sign of life registers it
            registration.start()
    try:
        yield beat
    finally:
        for registration in registrations:
            registration.end()


def _given_memory() -> int | None:
    """Bytes that the job of this process was given on this node; None where there is no limit."""
    from ddmq_hpc import schedulers, usage

    limits = (schedulers.memory(os.environ), usage.memory_limit())
    return min((limit for limit in limits if limit), default=None)


def start_delay(environ: Mapping[str, str]) -> float:
    """Seconds that this worker of an array waits before it begins: always the same, and unlike those of the others."""
    from ddmq_hpc.schedulers import array_size

    size = array_size(environ)
    if size < _SPREAD_FROM:
        return 0.0
    place = f"{host()} {batch_job(environ)}"
    return min(size * _SPREAD_EACH, _SPREAD_MOST) * crc32(place.encode()) / 2**32
