"""import: take over a root of ddmq."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ddmq_hpc.cli.common import arguments, formats, out, out_json, places, printable

if TYPE_CHECKING:
    from ddmq_hpc.legacy import Report


@click.command("import")
@formats("plain", "json", default="plain")
@arguments("OLD_ROOT NEW_ROOT")
def import_command(given: tuple[str, ...], shape: str) -> None:
    """Take over the queues and messages of a ddmq root. OLD_ROOT is not changed; stop its clients first.

    May be repeated: no message is taken twice. What cannot be read is copied to the new queue's damaged/ and reported.
    Exits 1 when something stayed behind: that, or a queue whose name is not allowed here.

    \b
      ddmq-hpc import /scratch/me/ddmq /scratch/me/queues
    """
    from ddmq_hpc.legacy import import_root

    old, new = places(given, "OLD_ROOT", "NEW_ROOT")
    report = import_root(old, new)
    if shape == "json":
        out_json(report.to_dict())
    else:
        _print(report)
    sys.stdout.flush()
    sys.exit(not report.complete)


def _print(report: Report) -> None:
    out(f"queues: {', '.join(report.queues) or 'none'}")
    out(f"messages: {report.waiting} waiting, {report.at_work} consumed but not acknowledged, now ready again")
    for what, names in (
        ("taken over before", report.already and [str(report.already)]),
        ("unreadable, copied to damaged/", report.unreadable),
        ("foreign files, left alone", report.foreign),
        ("left alone, a queue needs another name here: rename its directory, then import again", report.skipped_queues),
    ):
        for name in names or ():
            out(f"{what}: {printable(name)}")
