"""Workers as batch jobs: a script from the template, submitted as one array or several, and kept on record."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from ddmq_hpc import schedulers, submitted
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import SchedulerBusy, SchedulerError, StorageError, SubmissionUnknown, storage_error
from ddmq_hpc.identity import batch_job, host, user_name
from ddmq_hpc.locks import first_to_make
from ddmq_hpc.names import chain_failed_name, chain_name
from ddmq_hpc.queue import Queue
from ddmq_hpc.rendering import render, template
from ddmq_hpc.schedulers import Scheduler, Wanted, commands
from ddmq_hpc.settings import ENVIRONMENT
from ddmq_hpc.sizing import Sizing, size, usable
from ddmq_hpc.stats import stats
from ddmq_hpc.submitted import Record, Request, label_of

#: Seconds that a scheduler is given to take a job: with its controller down, Slurm's commands give up after 18 s.
SUBMIT_SECONDS = 60.0
JOB_NAME = "ddmq-hpc"
#: How often the workers of one submission try to have a successor submitted, when nothing was submitted before.
_CHAIN_ATTEMPTS = 3
_BUSY = re.compile(
    r"unable to contact|connection refused|timed out|connection failure|cannot connect|zero bytes|temporarily|"
    r"unable to send message|commlib|no route to host|communication failure|server busy",
    re.IGNORECASE,
)
#: Of the environment of a job: what would make the job of another one out of it. Slurm even reads options there.
_OF_A_JOB = re.compile(
    r"SLURM(D)?_(?!CONF)\w+|PBS_(?!CONF_FILE|DEFAULT|SERVER|HOME|EXEC)\w+|SGE_(TASK|STDIN|STDOUT|STDERR|O|JOB|CWD|BINARY)\w*|"
    r"JOB_ID|JOB_NAME|JOB_SCRIPT|RESTARTED|NSLOTS|NHOSTS|NQUEUES|PE_HOSTFILE|"
    rf"DDMQ_HPC_(?!(?:{'|'.join(('ROOT', 'QUEUE', *(name[9:] for name in ENVIRONMENT)))})$)\w+"
)


class Script(NamedTuple):
    """One array, ready to be submitted."""

    wanted: Wanted
    text: str
    command: list[str]  # reads the text on its standard input


def queues_of(broker: Broker, names: tuple[str, ...]) -> list[Queue]:
    """The queues, each looked up. Raises `QueueNotFound`."""
    return [broker.queue(name) for name in names]


def find_scheduler(name: str, environ: Mapping[str, str]) -> str:
    """`name`, or for `auto` the scheduler that there is. Raises `SchedulerError`."""
    found = schedulers.detect(environ) if name == "auto" else name
    if found is None:
        raise SchedulerError(
            "no scheduler here: neither sbatch nor qsub is on the PATH; say --scheduler, or log in elsewhere"
        )
    return found


def backlog(queues: list[Queue]) -> int:
    """Messages that wait to be taken, after the housekeeping that no worker may be there to do."""
    for queue in queues:
        queue.sweep()
    try:
        return sum(stats(queue).ready for queue in queues if not queue.settings.paused)
    except OSError as error:
        raise storage_error(error, "look into the queue") from error


def sizing(queues: list[Queue], request: Request) -> Sizing:
    """How many workers the queues take now."""
    return size(queues, backlog(queues), usable(request.time, request.margin), request.slots, request.most)


def scripts(root: str, request: Request, workers: int) -> list[Script]:
    """The arrays that make up `workers` workers: several where one would be larger than the scheduler allows."""
    scheduler = schedulers.get(request.scheduler)
    text = template(request.scheduler)
    counts = split(workers, scheduler.array_limit())
    throttles: list[int | None] = [None] * len(counts)
    if request.throttle:
        throttles[:] = shares(request.throttle, len(counts))
    # PBS and SGE give a job nothing of the environment that it was submitted from.
    demands = {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}
    found = []
    for tasks, throttle in zip(counts, throttles):
        wanted = Wanted(
            name=JOB_NAME,
            tasks=tasks,
            throttle=throttle,
            seconds=request.time,
            slots=request.slots,
            extra=request.extra,
        )
        command = worker_command(root, request)
        options = scheduler.directives(wanted)
        script = render(text, scheduler.directive, options, request.directory, command, demands)
        found.append(Script(wanted, script, scheduler.submit_command()))
    return found


def split(total: int, most: int) -> list[int]:
    """`total` as the fewest numbers up to `most`, as equal as can be."""
    return shares(total, -(-total // max(1, most)))


def shares(total: int, parts: int) -> list[int]:
    """`total` in `parts` numbers as equal as can be, each 1 at least."""
    return [max(1, total // parts + (number < total % parts)) for number in range(parts)]


def worker_command(root: str, request: Request) -> list[str]:
    """What a job runs."""
    command = ["ddmq-hpc", "work", root, ",".join(request.queues)]
    if request.slots > 1:
        command += ["-j", str(request.slots)]
    # Told, not asked for: an array of a thousand workers would ask its scheduler a thousand times.
    command += ["--walltime", f"{request.time:.0f}"]
    if request.margin is not None:
        command += ["--margin", f"{request.margin}"]
    command += request.work
    if request.chain:
        command.append("--chain")
    if request.command:
        return [*command, "--", *request.command]
    return [*command, "--snakemake" if request.snakemake else "--shell"]


def submit(queues: list[Queue], request: Request, workers: int) -> list[Record]:
    """Submit `workers` workers, one record each array. Raises `SchedulerError`; what was submitted before stays so."""
    queue = queues[0]
    scheduler = schedulers.get(request.scheduler)
    done: list[Record] = []
    for script in scripts(queue.paths.root, request, workers):
        try:
            job = _submit(scheduler, script, request.directory)
        except SchedulerError as error:
            error.submitted = [record.job for record in done]
            raise
        record = Record(
            job=job,
            scheduler=scheduler.submits_to(),
            tasks=script.wanted.tasks,
            at=queue.fs.now(queue.paths.tmp),
            by=f"{user_name(os.geteuid())}@{host()}",
            group=done[0].group if done else label_of(scheduler.submits_to(), job),
            request=request,
        )
        try:
            submitted.write(queue, record)
        except OSError as error:
            raise StorageError(error, f"keep a record of job {job}, which was submitted") from error
        done.append(record)
    return done


def _submit(scheduler: Scheduler, script: Script, directory: str) -> str:
    """The id of a new job."""
    environ = dict(os.environ)
    if schedulers.running_under(environ):
        environ = {name: value for name, value in environ.items() if not _OF_A_JOB.fullmatch(name)}
    answer = commands.run(script.command, SUBMIT_SECONDS, script.text, environ, directory)
    if answer.code == 0:
        return scheduler.job_id(answer.out)
    name = script.command[0]
    said = " ".join((answer.err.strip() or answer.out.strip() or f"exit code {answer.code}").split())[:500]
    if answer.code == commands.TIMED_OUT:
        raise SubmissionUnknown(f"{said}: the job may be there or not; look before you submit again")
    if answer.code == commands.NOT_RUN:
        raise SchedulerError(f"cannot run {name}: {said}")
    if _BUSY.search(said):
        raise SchedulerBusy(f"{name} has no connection to the scheduler, try again: {said}")
    raise SchedulerError(f"{name} refused the job: {said}")


def show(script: Script) -> str:
    """A script as `--dry-run` prints it, and the command that would read it."""
    return f"{script.text}\n# submitted with: {shlex.join(script.command)} < this script\n"


# -- chains


def successor(broker: Broker, queue_name: str, environ: Mapping[str, str]) -> str | None:
    """Submit again what this worker was submitted with, as many workers as the backlog takes now; the new job's id.

    Of all workers of a submission exactly one submits, whichever comes first, and only with messages waiting. None when
    there is nothing to do: no backlog, somebody else did it, or this job is not on record as one's own submission. When
    the scheduler refuses, it raises `SchedulerError`, and the next worker that asks tries again, three times in all;
    when it cannot be told whether a job was submitted, nobody tries again. `queue_name` may be several, as in `work`.
    """
    queue = broker.queue(queue_name.split(",")[0])
    try:
        record = _record_of_this_job(queue, environ)
        if record is None or record.request is None:
            return None
        attempt = _next_attempt(queue, record.group)
        if attempt is None:
            return None
        queues = queues_of(broker, record.request.queues)
        wanted = sizing(queues, record.request)
        if not wanted.backlog or not first_to_make(queue.fs, queue.paths, chain_name(record.group, attempt)):
            return None
        try:
            return submit(queues, record.request, wanted.workers)[0].job
        except SchedulerError as error:
            if not error.submitted and not isinstance(error, SubmissionUnknown):
                first_to_make(queue.fs, queue.paths, chain_failed_name(record.group, attempt))
            raise
    except OSError as error:
        raise storage_error(error, "submit a successor") from error


def _record_of_this_job(queue: Queue, environ: Mapping[str, str]) -> Record | None:
    job = schedulers.parse_label(batch_job(environ))
    if job is None:
        return None
    label = label_of(job.scheduler, job.id)
    return next((record for record in submitted.records(queue) if record.label == label), None)


def _next_attempt(queue: Queue, group: str) -> int | None:
    """The number of the attempt that may be made now; None when one was made that did not fail, or too many did."""
    queue.fs.refresh(queue.paths.locks)
    names = set(queue.fs.names(queue.paths.locks))
    for attempt in range(1, _CHAIN_ATTEMPTS + 1):
        if chain_name(group, attempt) not in names:
            return attempt
        if chain_failed_name(group, attempt) not in names:
            return None
    return None
