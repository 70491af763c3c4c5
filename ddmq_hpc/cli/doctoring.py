"""doctor."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections import Counter
from shutil import get_terminal_size
from typing import Any

import click

from ddmq_hpc.cli.common import DURATION, SCHEMA_VERSION, formats, out, out_json, printable
from ddmq_hpc.cli.offering import directories
from ddmq_hpc.doctor import FAILURE, OK, PATIENCE, VERDICTS, Report, company, examine, examine_together

_WIDEST = 100


@click.command("doctor")
@click.option("--peers", type=click.IntRange(2, 64), metavar="N", help="Check together with N-1 others, started alike.")
@click.option("--wait", type=DURATION, default=PATIENCE, metavar="DURATION", help="How long to wait for them. [1m]")
@click.option("--rank", type=click.IntRange(0), default=0, hidden=True)
@formats("table", "json", default="table")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.argument("path", required=False, metavar="[PATH]", shell_complete=directories)
def doctor_command(path: str | None, peers: int | None, wait: float, rank: int, shape: str, as_json: bool) -> None:
    """Check a directory, $DDMQ_HPC_ROOT or the current one by default, before trusting it with queues.

    Each line is ok, a warning or a failure, and says what was measured, what it means and what to set. Exit code 1 when
    there is a failure. All files are made in one directory of its own, which is removed at the end.

    What takes a second host is measured with --peers N, by N processes that are started within a minute; one of them
    prints. In a Slurm job of several nodes the second one is started by itself.

    \b
      ddmq-hpc doctor /scratch/me
      srun -N2 -n2 ddmq-hpc doctor --peers 2 /scratch/me
    """
    signal.signal(signal.SIGTERM, _end)  # as Ctrl-C does: the directory is removed
    where = path or os.environ.get("DDMQ_HPC_ROOT") or "."
    report = _report(where, peers, wait, rank)
    if report is None:
        click.echo("ddmq-hpc: done; the report is printed by the doctor on another host", err=True)
        return
    if as_json or shape == "json":
        out_json({"schema_version": SCHEMA_VERSION, **report.to_dict()})
    else:
        _table(report)
    sys.stdout.flush()
    sys.exit(report.verdict == FAILURE)


def _report(path: str, peers: int | None, wait: float, rank: int) -> Report | None:
    if peers:
        return examine_together(path, peers, wait, rank=rank)
    if company.has_second_host():
        with company.second_host(path):
            return examine_together(path, 2, wait)
    return examine(path)


def _end(*_: Any) -> None:
    sys.exit(128 + signal.SIGTERM)


def _table(report: Report) -> None:
    """One line of each check, below it what it means and, after an arrow, what to do."""
    out(printable(f"{report.path} ({report.filesystem}), seen from {report.host}"))
    first = max(map(len, VERDICTS)) + 2
    second = max(len(finding.check) for finding in report.findings) + 2
    width = max(60, min(get_terminal_size((_WIDEST, 24)).columns, _WIDEST))
    for finding in report.findings:
        head = finding.verdict.ljust(first) + finding.check.ljust(second)
        for text, lead in ((finding.measured, head), (finding.meaning, ""), (finding.advice, "")):
            arrow = "-> " if text is finding.advice else ""
            margin = lead.ljust(first + second) + arrow
            for line in textwrap.wrap(
                printable(text), width, initial_indent=margin, subsequent_indent=" " * len(margin)
            ):
                out(line)
    counted = Counter(finding.verdict for finding in report.findings)
    out(", ".join(_counted(verdict, counted[verdict]) for verdict in VERDICTS))


def _counted(verdict: str, count: int) -> str:
    return f"{count} {verdict}{'s' * (verdict != OK and count != 1)}"
