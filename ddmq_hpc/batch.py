"""A worker as batch jobs run it: a command for each task, its processes guarded, its end known from the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import mkdtemp

from ddmq_hpc.broker import Broker
from ddmq_hpc.guardian import Guardian
from ddmq_hpc.output import choose
from ddmq_hpc.runner import CommandRunner, ShellRunner
from ddmq_hpc.worker import Report, Worker, WorkerOptions, new_name


@dataclass(frozen=True)
class Job:
    """What a worker does: `command` is filled in for each message; with `shell` the message is the command line.
    `output` is one of `output.KINDS`."""

    command: Sequence[str] = ()
    shell: bool = False
    feed_stdin: bool = False
    output: str = "tail"


def work(broker: Broker, queues: Sequence[str], job: Job, options: WorkerOptions) -> Report:
    """Run a worker of this process until it ends. Raises `DdmqError` for what is no task's fault."""
    name = new_name()
    output = choose(job.output, broker.fs, broker.queue(queues[0]).paths, name)
    directory = mkdtemp(prefix=f"ddmq-hpc-{name}-")
    guardian = Guardian(directory)
    try:
        if job.shell:
            runner: CommandRunner = ShellRunner(output, guardian, job.feed_stdin)
        else:
            runner = CommandRunner(job.command, output, guardian, job.feed_stdin)
        return Worker(broker, queues, runner, options, name=name, directory=directory).run()
    finally:
        guardian.close()
