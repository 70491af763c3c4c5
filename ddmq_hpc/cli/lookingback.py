"""history, logs."""

from __future__ import annotations

import sys
from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from ddmq_hpc.cli.common import (
    arguments,
    cut,
    formats,
    one_shot,
    out,
    out_answer,
    places,
    printable,
    terminal_width,
)
from ddmq_hpc.errors import UsageError
from ddmq_hpc.identity import Owner
from ddmq_hpc.units import escaped, human, human_memory, moment

if TYPE_CHECKING:
    from ddmq_hpc.attempts import Attempt
    from ddmq_hpc.lookback import History
    from ddmq_hpc.queue import Queue


@click.command("history")
@formats("table", "json", "yaml", "csv", default="table")
@arguments("[ROOT] [QUEUE] ID")
def history_command(given: tuple[str, ...], shape: str) -> None:
    """Every attempt at a message: when and where it ran, for how long, and how it ended; and how it is now.

    csv has the attempts alone, in the columns of `journal export`. An ID may be cut short as long as it is unique.

    \b
      ddmq-hpc history ROOT tasks 1795721983896420864-0g3qndtxg.79
    """
    from ddmq_hpc.ids import whole
    from ddmq_hpc.lookback import look_back

    root, name, text = places(given, "ROOT", "QUEUE", "ID")
    queue = one_shot(root).queue(name)
    found = look_back(queue, whole(queue, text))
    if shape in ("json", "yaml"):
        out_answer(shape, queue=name, **found.to_dict())
    elif shape == "csv":
        _csv(found)
    else:
        _table(found)


def _csv(found: History) -> None:
    from ddmq_hpc.exporting import rows_of, write

    index = int(found.id.rpartition(".")[2])
    rows = (row for attempt in found.attempts for row in rows_of(attempt, [index]))
    with click.open_file("-", "w", "utf-8", "backslashreplace") as stdout:
        write(rows, "csv", stdout)


def _table(found: History) -> None:
    _line(f"{found.id}  {_now(found)}")
    owner = Owner.parse(found.owner)
    if owner:
        _line(f"  by {_where(owner.host, owner.job)}" + f", process {owner.pid}" * bool(owner.pid))
    if found.task:
        _line(f"  {found.task}")
    if not found.attempts:
        _line("  tried for the first time" if found.state == "leased" else "  never tried")
        return
    _line(_COLUMNS.format("#", "began", "waited", "ran", "memory", "ended"))
    for attempt, waited in zip(found.attempts, found.waits):
        began = moment(attempt.began) if attempt.began else "-"
        memory = human_memory(attempt.rss) if attempt.rss else "-"
        number = attempt.number if attempt.is_attempt else "-"
        _line(_COLUMNS.format(number, began, _span(waited), _span(_ran(attempt)), memory, _how(attempt)))
        for more in (_where(attempt.host, attempt.job, attempt.worker), _said(attempt)):
            if more:
                _line(f"     {more}")


_COLUMNS = "{:>3}  {:<19}  {:>6}  {:>6}  {:>6}  {}"


def _line(text: str) -> None:
    """On one line of a terminal, cut short if need be; all of it elsewhere."""
    out(cut(printable(text).rstrip(), terminal_width()))


def _now(found: History) -> str:
    if found.state == "leased":
        return f"leased until {moment(found.detail)}"
    if found.state == "delayed":
        after = f"until {', '.join(found.after)} are done" if found.after else f"until {moment(found.detail)}"
        return f"delayed {after}"
    return f"{found.state}: {found.detail}" if found.state in ("dead", "damaged") else found.state


def _ran(attempt: Attempt) -> float | None:
    if attempt.wall is not None:
        return attempt.wall
    return attempt.ended - attempt.began if attempt.began else None


def _span(seconds: float | None) -> str:
    return "-" if seconds is None else human(seconds)


def _where(host: str, job: str, worker: str = "") -> str:
    return ", ".join(filter(None, (host, job, worker and f"worker {worker}")))


def _how(attempt: Attempt) -> str:
    """How an attempt ended, in a few words."""
    how = attempt.state
    if attempt.signal:
        how += f", signal {attempt.signal}"
    elif attempt.exit:
        how += f", exit code {attempt.exit}"
    return how + ", oom" * attempt.oom


def _said(attempt: Attempt) -> str:
    """What a failed task said, its last line."""
    return attempt.error or attempt.output.strip().rpartition("\n")[2] or attempt.reason


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task ends.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of that attempt; the default is the newest.")
@click.option("--failed", is_flag=True, help="Of all messages whose last attempt failed.")
@click.option("-n", "--limit", type=click.IntRange(1), help="With --failed: of the last so many.")
@arguments("[ROOT] [QUEUE] [ID]")
def logs_command(given: tuple[str, ...], follow: bool, attempt: int | None, failed: bool, limit: int | None) -> None:
    """What a task printed, from wherever its worker put it.

    Of failed tasks workers keep the last 4 KiB, in the journal, as text: bytes that are no UTF-8 are replaced; with
    `work --output segment` all of every task in a log for each worker, with `files` in a file for each attempt. A file
    or pipe gets the bytes as they are; on a terminal what could steer it is shown escaped. An ID may be cut short as
    long as it is unique.

    \b
      ddmq-hpc logs ROOT tasks 1795721983896420864-0g3qndtxg.79 -f
      ddmq-hpc logs ROOT tasks --failed -n 5
    """
    from ddmq_hpc import logs
    from ddmq_hpc.ids import whole

    if failed:
        if follow or attempt:
            other = "-f" if follow else "--attempt"
            raise UsageError(f"--failed is of last attempts that are over: leave out {other}")
        root, name = places(given, "ROOT", "QUEUE")
        _failed(one_shot(root).queue(name), limit)
        return
    if limit:
        raise UsageError("-n goes with --failed")
    root, name, text = places(given, "ROOT", "QUEUE", "ID")
    queue = one_shot(root).queue(name)
    ident = whole(queue, text)
    if follow:
        if attempt:
            raise UsageError("-f follows the attempt that runs: leave out --attempt")
        _print(logs.follow(queue, ident, _tell))
        return
    log = logs.of_message(queue, ident, attempt)
    _print(log.blocks(queue.fs))
    if log.later:
        sys.stdout.flush()
        _tell(f"that was attempt {log.attempt}; {log.later}")


def _tell(text: str) -> None:
    click.echo(f"ddmq-hpc: {text}", err=True)


def _failed(queue: Queue, limit: int | None) -> None:
    from ddmq_hpc import logs

    none = True
    for ident, attempt, log in logs.of_failed(queue, limit):
        none = False
        _line(f"==> {ident} attempt {attempt.number}, {': '.join(filter(None, (_how(attempt), _said(attempt))))}")
        sys.stdout.flush()
        if log is not None:
            _print(log.blocks(queue.fs), end="\n")
    if none:
        _tell("there is no message whose last attempt failed")


def _print(blocks: Iterable[bytes], end: str = "") -> None:
    """To a pipe as it is, to a terminal without what could steer it."""
    to, last = sys.stdout.buffer, b"\n"
    decoder = getincrementaldecoder("utf-8")("replace") if sys.stdout.isatty() else None
    for block in blocks:
        if block:
            last = block
            to.write(escaped(decoder.decode(block), "\n\t").encode() if decoder else block)
            to.flush()
    if decoder:
        to.write(decoder.decode(b"", True).encode())
    if end and not last.endswith(b"\n"):
        to.write(end.encode())
