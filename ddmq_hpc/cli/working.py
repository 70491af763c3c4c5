"""work: the loop that batch jobs run."""

from __future__ import annotations

from typing import Any

import click

from ddmq_hpc.cli.common import DURATION, MEMORY, arguments, printable, root_and_list, split_command, staying, work_kind
from ddmq_hpc.errors import UsageError


class _End(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "auto|duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Seconds; None for `auto`."""
        return None if value == "auto" else DURATION.convert(value, param, ctx)


class _Ahead(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "auto|number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """A number; None for `auto`."""
        return None if value == "auto" else int(click.IntRange(0).convert(value, param, ctx))


@click.command("work", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": True})
@click.option("-j", "--slots", type=click.IntRange(1), default=1, show_default=True, help="So many tasks at a time.")
@click.option("--memory", type=MEMORY, help="Memory for all of them together; the default is what its job was given.")
@click.option("--max-tasks", type=click.IntRange(1), help="End after so many.")
@click.option(
    "--until",
    type=click.Choice(("empty", "drained", "forever")),
    help="End when nothing is ready (the default), when nothing is leased or delayed either, or never.",
)
@click.option("--idle-exit", type=DURATION, help="Wait for messages, and end when none came for so long.")
@click.option(
    "--walltime", type=_End(), default="auto", metavar="auto|DURATION", help="Time left; auto: as the scheduler says."
)
@click.option(
    "--margin",
    type=DURATION,
    help="Begin no task that would end less than this before its end.  [5m, or a tenth of it]",
)
@click.option("--prefetch", type=_Ahead(), default="auto", metavar="auto|N", help="Messages taken ahead of need.")
@click.option("--timeout", type=DURATION, help="A task that takes longer has failed.")
@click.option("--lease", type=DURATION, help="Length of leases, renewed meanwhile; the default is the queue's timeout.")
@click.option("--grace", type=DURATION, default=20, show_default="20s", help="Between a signal to a task and its kill.")
@click.option("--on-lost", type=click.Choice(("kill", "finish")), help="With a task whose lease was lost.")
@click.option(
    "--output",
    type=click.Choice(("none", "tail", "segment", "files")),
    default="tail",
    show_default=True,
    help="Keep the end of failed tasks' output, or all of it in one log a worker, or a file a task.",
)
@click.option("--stdin", "feed_stdin", is_flag=True, help="Give the message to CMD on stdin.")
@click.option(
    "--breaker",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="After so many quick failures in a row go slowly, and end if others finish them; 0: never.",
)
@click.option("--trust", "trusted", multiple=True, metavar="USER", help="Run messages of this user, too.")
@click.option("--chain", is_flag=True, help="Near the end of a job from `submit`, have one successor submitted.")
@click.option("--shell", is_flag=True, help="The message is the command line, run by bash.")
@click.option("--snakemake", is_flag=True, help="The message is a job of Snakemake's executor; --idle-exit is 10m.")
@arguments("[ROOT] [QUEUE[,QUEUE2...]] [-- CMD [ARG]...]")
def work_command(
    given: tuple[str, ...],
    slots: int,
    memory: int | None,
    max_tasks: int | None,
    until: str | None,
    idle_exit: float | None,
    walltime: float | None,
    margin: float | None,
    prefetch: int | None,
    timeout: float | None,
    lease: float | None,
    grace: float,
    on_lost: str | None,
    output: str,
    feed_stdin: bool,
    breaker: int,
    trusted: tuple[str, ...],
    chain: bool,
    shell: bool,
    snakemake: bool,
) -> None:
    """Take messages and run CMD for each: {} in CMD is the message, {field} a field of a JSON message.

    Acks when CMD exits 0, else nacks, or does what the queue's setting `exit_codes` says. On SIGTERM, SIGINT, SIGHUP,
    SIGUSR1 and SIGUSR2 the tasks get the signal and --grace, what they do not finish is released, no attempt counted,
    and the worker exits 0. It starts no task that would not be done before its batch job ends.

    \b
      ddmq-hpc work ROOT tasks -j 4 -- ./simulate --seed {}
      ddmq-hpc work ROOT tasks --shell --idle-exit 5m
      ddmq-hpc work ROOT jobs --snakemake -j 4

    CMD finds in its environment DDMQ_HPC_ROOT, _QUEUE, _MESSAGE, _ID, _RECEIPT, _ATTEMPT, _WORKER, _SLOT, _DEADLINE,
    _PAYLOAD_FILE (the message), _TASK_DIR (removed afterwards), _STATE_DIR (yours to make; kept from attempt to
    attempt until the message is done) and _ERROR_FILE (what is written there is kept with the attempt).
    """
    from ddmq_hpc.batch import PILOT_IDLE, Job, work
    from ddmq_hpc.feed import Appetite
    from ddmq_hpc.terms import WorkerOptions

    before, command = split_command(given)
    root, queues = root_and_list(before)
    work_kind(command, shell, snakemake)
    if timeout == 0:
        raise UsageError("--timeout 0 would end every task at once; leave it out for no limit")
    if snakemake and until is None and idle_exit is None:
        idle_exit = PILOT_IDLE
    waiting = until or ("forever" if idle_exit is not None else "empty")
    appetite = Appetite(waiting, max_tasks, idle_exit, lease, prefetch)
    options = WorkerOptions(
        slots, memory, appetite, walltime=walltime, margin=margin, timeout=timeout, grace=grace, on_lost=on_lost
    )
    job = Job(command, shell, snakemake, feed_stdin, output, chain, trusted, breaker)
    broker = staying(root)
    try:
        work(broker, queues, job, options, lambda text: click.echo(printable(text), err=True))
    finally:
        broker.close()
