"""journal export, journal compact."""

from __future__ import annotations

import click

from ddmq_hpc.cli.common import Group, arguments, one_shot, out, places, writing
from ddmq_hpc.units import human_memory


@click.group("journal", cls=Group)
def journal_command() -> None:
    """Outcomes as a table, and old ones made small.

    \b
      ddmq-hpc journal export ROOT tasks -o attempts.csv
      ddmq-hpc journal compact ROOT tasks
    """


@journal_command.command("export", short_help="A row for each attempt, as csv or JSON lines.")
@click.option("--format", "shape", type=click.Choice(("csv", "jsonl")), default="csv", show_default=True)
@click.option("-o", "--output", default="-", help="The file to write; the default is stdout.")
@arguments("[ROOT] [QUEUE]")
def export_command(given: tuple[str, ...], shape: str, output: str) -> None:
    """A row for each attempt at each message, for pandas, R and spreadsheets.

    \b
      ddmq-hpc journal export ROOT tasks -o attempts.csv
      ddmq-hpc journal export ROOT tasks --format jsonl | jq -r 'select(.exit == 137).task'
    """
    from ddmq_hpc.exporting import rows, write

    root, name = places(given, "ROOT", "QUEUE")
    queue = one_shot(root).queue(name)
    with writing(output) as file:
        write(rows(queue), shape, file)


@journal_command.command("compact", short_help="Compress old files, forget what is too old.")
@arguments("[ROOT] [QUEUE]")
def compact_command(given: tuple[str, ...]) -> None:
    """Make compressed files of those that are two days old, and forget what is too old.

    How old and how large: the settings journal_keep and journal_size. Workers that end do this now and then. The file
    that was written last stays as it is.

    \b
      ddmq-hpc journal compact ROOT tasks
    """
    root, name = places(given, "ROOT", "QUEUE")
    done = one_shot(root).compact(name)
    sizes = f", {human_memory(done.before)} now {human_memory(done.after)}" if done.files else ""
    forgotten = f"; forgot {done.forgotten} ({human_memory(done.forgotten_bytes)})" if done.forgotten else ""
    out(f"compacted {done.files} files{sizes}{forgotten}")
