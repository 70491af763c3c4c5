"""Runs jobs of Snakemake for a worker, and reports how they ended to whoever waits for them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from shlex import quote

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import storage_error
from ddmq_hpc.guardian import Guardian
from ddmq_hpc.output import Output
from ddmq_hpc.processes import Process, Spawned
from ddmq_hpc.queue import Queue
from ddmq_hpc.runner import CannotStart, CommandRunner
from ddmq_hpc.snakemake import files, jobs, reports
from ddmq_hpc.snakemake.forks import ForkServer
from ddmq_hpc.snakemake.internals import require_installed
from ddmq_hpc.tasks import Result, Task

#: A lease that has so many seconds left when a job is reported is nobody else's.
_SAFE = 15.0
#: Inputs of a bare command are waited for so long at most (seconds).
_MOST_LATENCY = 600.0


class JobRunner(CommandRunner):
    """Each message is a job: see `jobs`. How often a job is tried is Snakemake's to decide, so that one that fails is a
    dead letter at once. Raises `SnakemakeUnfit` where there is no snakemake."""

    def __init__(self, broker: Broker, output: Output, guardian: Guardian, mark: str) -> None:
        require_installed()
        super().__init__([sys.executable], output, guardian)
        self._broker = broker
        self._server = ForkServer(mark)
        self.environment.pop("SNAKEMAKE_PROFILE", None)  # a job is not to ask for workers itself

    def run(self, task: Task) -> Result:
        if task.message.attempt > 1 and self._is_reported(task):
            return Result(code=0)  # only its ack was missing
        result = super().run(task)
        return replace(result, hopeless=result.code != 0 and result.seen)

    def close(self) -> None:
        self._server.close()

    def _argv(self, task: Task) -> list[str]:
        job = jobs.parse(task.message.message)
        if job.shell:
            return ["bash", "-c", f"cd -- {quote(job.directory)} || exit\n{job.shell}"]
        command = [job.python, "-m", "snakemake", *job.arguments]
        return ["sh", "-c", f'cd -- {quote(job.directory)} && exec "$@"', "sh", *command]

    def _launch(self, task: Task, argv: list[str], stdin: str, output: int) -> Process:
        job = jobs.parse(task.message.message)
        environment = {**self.environment, **task.environment(), **job.environment}
        if job.inputs:
            files.wait_for(job.directory, job.inputs, min(job.latency, _MOST_LATENCY))
        if not (job.fork and _is_own(job.python)):
            return Spawned(argv, environment, stdin, output)
        request = {"directory": job.directory, "arguments": list(job.arguments), "environment": environment}
        try:
            return self._server.fork(request, stdin, output)
        except OSError:  # it was killed just now: there is another one when it is asked again
            pass
        try:
            return self._server.fork(request, stdin, output)
        except OSError as error:
            raise CannotStart(f"cannot fork a process that has snakemake loaded: {error.strerror}") from None

    def _is_reported(self, task: Task) -> bool:
        job = jobs.parse(task.message.message)
        done = reports.Report(task.message.id, 0)
        try:
            return done in reports.listed(self._broker.queue(task.message.queue), job.reports)
        except OSError:
            return False

    def conclude(self, queue: Queue, task: Task, result: Result) -> None:
        """Tell whoever waits for the job, before its message is gone, and only while its lease is this worker's: else
        somebody else is at it. Raises `LeaseLost`, `StorageError`."""
        message = task.message
        deadline = message.deadline
        if deadline is None or deadline - queue.fs.now(queue.paths.tmp) < _SAFE:
            queue.extend([message])
        job = jobs.parse(message.message)
        told = reports.Report(message.id, result.code, _words(result))
        try:
            if result.code == 0:
                files.make_visible(job.directory, job.outputs)
            reports.write(queue, job.reports, told)
        except OSError as error:
            raise storage_error(error, "report how a job ended") from error


def _words(result: Result) -> str:
    """What there is to say of a job that failed, the way it ended last; nothing of one that went well."""
    if result.code == 0:
        return ""
    how = f"ended by signal {result.signal}" if result.signal else f"exit code {result.code}"
    if result.oom:
        how += ", killed for want of memory"
    return "\n".join(filter(None, (result.output, result.error, how)))


def _is_own(python: str) -> bool:
    """Whether an interpreter has the packages that this one has: `bin/python3` is `bin/python3.11`, and that of another
    environment is not, although both may be links to one file."""

    def place(path: str) -> tuple[str, str]:
        return os.path.realpath(os.path.dirname(path)), os.path.realpath(path)

    return place(python) == place(sys.executable)
