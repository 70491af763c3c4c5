"""report: what happened in a queue, as a page."""

from __future__ import annotations

import click

from ddmq_hpc.cli.common import DURATION, arguments, one_shot, places, printable, writing


@click.command("report")
@click.option("-o", "--output", default="report.html", show_default=True, help="The file to write, - for stdout.")
@click.option("--last", type=DURATION, help="Only what ended in the time before now: 24h, 7d, ...")
@arguments("[ROOT] [QUEUE]")
def report_command(given: tuple[str, ...], output: str, last: float | None) -> None:
    """A page about what happened in a queue, to open in a browser.

    What ran when, throughput, backlog, durations, memory, waiting, failures by cause and host, the slowest tasks, how
    well slots were used. One file, which needs no network. It takes what the extra `report` installs.

    \b
      ddmq-hpc report ROOT tasks -o tasks.html
      ddmq-hpc report ROOT tasks --last 24h -o - | ssh desk 'cat > tasks.html'
    """
    from ddmq_hpc.report.page import report

    root, queue = places(given, "ROOT", "QUEUE")
    page = report(one_shot(root).queue(queue), last)
    with writing(output) as file:
        file.write(page)
    if output != "-":
        click.echo(f"wrote {printable(output)}", err=True)
