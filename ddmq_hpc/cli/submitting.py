"""submit, scale: workers as batch jobs."""

from __future__ import annotations

import os
import shlex
from typing import Any, Callable

import click

from ddmq_hpc.cli.common import DURATION, arguments, out, root_and_list, split_command, staying, work_kind
from ddmq_hpc.errors import UsageError
from ddmq_hpc.submission import find_scheduler, queues_of, scripts, show, sizing, submit
from ddmq_hpc.submitted import Record, Request

_SCHEDULERS = ("auto", "slurm", "pbs", "sge")
#: What holds for a submission that says nothing, and of which there was none before.
_DEFAULTS = {"time": 3600.0, "most": 100, "slots": 1}


class _Workers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "n|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """A number; None for `auto`."""
        if value == "auto" or value is None:
            return None
        try:
            return int(click.IntRange(1).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither a number of workers nor `auto`", param, ctx)


_OPTIONS = (
    click.option(
        "--throttle", "-t", type=click.IntRange(1), help="Let so many jobs run at a time (Slurm, SGE, Torque)."
    ),
    click.option("--slots", "-j", type=click.IntRange(1), help="Tasks at a time of each worker, and its CPUs.  [1]"),
    click.option("--time", type=DURATION, help="Wall time of each job.  [1h]"),
    click.option("--margin", type=DURATION, help="As of `work`: how long before its end no task is left."),
    click.option("--scheduler", type=click.Choice(_SCHEDULERS), help="Which one; auto: the one that is there.  [auto]"),
    click.option("--chain", is_flag=True, default=None, help="A worker near its end submits the next ones."),
    click.option("-O", "extra", multiple=True, metavar="OPTION", help="Option for sbatch or qsub, verbatim."),
    click.option("--shell", is_flag=True, help="The messages are the command lines."),
    click.option("--snakemake", is_flag=True, help="The messages are jobs of Snakemake's executor ddmq."),
    click.option("--output", type=click.Choice(("none", "tail", "segment", "files")), help="As of `work`."),
    click.option("--until", type=click.Choice(("empty", "drained", "forever")), help="As of `work`."),
    click.option("--timeout", type=DURATION, help="As of `work`."),
    click.option("--lease", type=DURATION, help="As of `work`."),
    click.option(
        "-W", "work", multiple=True, metavar="OPTION", help="Any other option of `work`, e.g. -W --grace=30s."
    ),
    arguments("[ROOT] [QUEUE[,QUEUE...]] [-- CMD [ARG]...]"),
)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("submit")
@click.option("--workers", "-n", type=_Workers(), help="So many, or `auto`: as the backlog takes.  [auto]")
@click.option("--max-workers", "most", type=click.IntRange(1), help="At most so many.  [100]")
@click.option("--dry-run", is_flag=True, help="Show the job scripts and submit nothing.")
@_options
def submit_command(
    given: tuple[str, ...], workers: int | None, dry_run: bool, most: int | None, **options: Any
) -> None:
    """Put workers on the cluster: an array of batch jobs, each of which runs `ddmq-hpc work`.

    Their number comes from what is waiting, from how long tasks took so far, and from --time. Prints the job ids.

    \b
      ddmq-hpc submit ROOT tasks --time 4h -O --partition=short -- ./simulate {}
      ddmq-hpc submit ROOT tasks --workers 20 --slots 4 --shell
      ddmq-hpc submit ROOT tasks -O '-l h_vmem=2G' --dry-run -- ./simulate {}
    """
    before, command = split_command(given)
    root, names = root_and_list(before)
    broker = staying(root)
    queues = queues_of(broker, tuple(names))
    if workers is not None and most is None:
        most = workers  # what follows in a chain is not to be larger than what was asked for
    request = _request(None, names, most, command, options)
    if workers is None:
        size = sizing(queues, request)
        _note(f"{size}: {_count(size.workers)}")
        workers = size.workers
    if dry_run:
        out("\n".join(show(script) for script in scripts(broker.root, request, workers)).rstrip("\n"))
        return
    _report(submit(queues, request, workers))


@click.command("scale")
@click.option("--min", "least", type=click.IntRange(0), default=0, show_default=True, help="Have so many in any case.")
@click.option("--max", "most", type=click.IntRange(1), required=True, help="Have at most so many.")
@click.option("--dry-run", is_flag=True, help="Show the job scripts and submit nothing.")
@_options
def scale_command(given: tuple[str, ...], least: int, most: int, dry_run: bool, **options: Any) -> None:
    """Submit the workers that are missing: as many as the backlog takes, less those that wait or run. For cron.

    Cancels nothing. With an empty queue and --min 0 there is nothing to submit. CMD and options that are not given are
    those of your last submission for the queue. Exits with 75, with nothing submitted, when the scheduler does not
    answer.

    \b
      ddmq-hpc scale ROOT tasks --max 50 --dry-run
      */5 * * * * ddmq-hpc scale /scratch/me/queues tasks --max 50
    """
    from ddmq_hpc.scaling import last_request, scale

    if least > most:
        raise UsageError(f"--min {least} is more than --max {most}")
    before, command = split_command(given)
    root, names = root_and_list(before)
    broker = staying(root)
    queues = queues_of(broker, tuple(names))
    request = _request(last_request(queues[0]), names, most, command, options)
    shown: list[str] = []

    def show_only(_: Any, request: Request, workers: int) -> list[Record]:
        shown.extend(show(script) for script in scripts(broker.root, request, workers))
        return []

    done = scale(queues, request, least, show_only if dry_run else submit)
    _note(f"{done.sizing}: {_count(done.wanted)} wanted, {done.live} there")
    if shown:
        out("\n".join(shown).rstrip("\n"))
    _report(done.submitted)


def _request(
    last: Request | None, names: list[str], most: int | None, command: list[str], given: dict[str, Any]
) -> Request:
    """What the options ask for; what they leave open is as in `last`, or the default."""

    def chosen(name: str, value: Any) -> Any:
        if value is None or value == ():
            return getattr(last, name) if last else _DEFAULTS.get(name, value)
        return value

    work = tuple(
        word
        for name in ("output", "timeout", "until", "lease")
        if given[name] is not None
        for word in (f"--{name}", _text(given[name]))
    )
    work += tuple(word for text in given["work"] for word in shlex.split(text))
    _check_work_options(work)
    work_kind(command, given["shell"], given["snakemake"], last is not None)
    no_command = given["shell"] or given["snakemake"]
    return Request(
        queues=tuple(names),
        scheduler=_scheduler(last, given["scheduler"]),
        time=chosen("time", given["time"]),
        margin=chosen("margin", given["margin"]),
        most=chosen("most", most),
        slots=chosen("slots", given["slots"]),
        throttle=chosen("throttle", given["throttle"]),
        chain=bool(chosen("chain", given["chain"])),
        extra=chosen("extra", tuple(given["extra"])),
        work=chosen("work", work),
        command=() if no_command else chosen("command", tuple(command)),
        snakemake=given["snakemake"] or bool(last and last.snakemake and not (command or given["shell"])),
        directory=chosen("directory", None) or os.getcwd(),
    )


def _check_work_options(options: tuple[str, ...]) -> None:
    """What a worker would refuse is refused before an array of them is submitted. Raises `click.UsageError`."""
    from ddmq_hpc.cli.working import work_command

    work_command.make_context("work", [*options, "ROOT", "QUEUE"])


def _text(value: float | str) -> str:
    return f"{value:f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _scheduler(last: Request | None, given: str | None) -> str:
    if given is None and last:
        return last.scheduler
    return find_scheduler(given or "auto", os.environ)


def _count(workers: int) -> str:
    return f"{workers} worker{'s' * (workers != 1)}"


def _report(done: list[Record]) -> None:
    for record in done:
        out(f"{record.job}\t{_count(record.tasks)}")


def _note(text: str) -> None:
    click.echo(f"ddmq-hpc: {text}", err=True)
