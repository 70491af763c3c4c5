"""dead list, show, retry and purge: what to do with dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from ddmq_hpc.cli.choosing import choosing, criteria, died_of, dry_run, everything, ids, none_of, tell
from ddmq_hpc.cli.common import (
    Group,
    formats,
    make_sure,
    one_shot,
    out,
    out_rows,
    printable,
    queue_and_ids,
)
from ddmq_hpc.units import human

if TYPE_CHECKING:
    from ddmq_hpc.queue import Queue
    from ddmq_hpc.selection import Letter

_COLUMNS = ("id", "reason", "attempts", "died", "ended", "host", "message")
#: Of the first columns, in letters: rows come one by one, since there may be many.
_WIDTHS = (31, 13, 8, 10, 8)


@click.group("dead", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def dead_command() -> None:
    """Dead letters: messages that failed too often, or for good. Look at them, retry them, purge them.

    An ID may be cut short, to ten characters or more, as long as it is unique.

    \b
      ddmq-hpc dead list ROOT tasks
      ddmq-hpc dead retry ROOT tasks --exit-code 1,137 --host n042
      ddmq-hpc dead purge ROOT tasks --older-than 30d --dry-run
    """


@dead_command.command("list", short_help="Why they died, and how the last attempt at each ended.")
@choosing
@died_of
@click.option("-n", "--limit", type=click.IntRange(min=0), help="At most so many.")
@formats("table", "json", "plain", "yaml", default="table")
@ids
def list_command(given: tuple[str, ...], shape: str, limit: int | None, **options: Any) -> None:
    """Dead letters, why they died, and how the last attempt at each ended, as far as the journal tells.

    \b
      ddmq-hpc dead list ROOT tasks --died-of requeue-limit --newer-than 1h
      ddmq-hpc dead list ROOT tasks --exit-code 137 --format json
    """
    from itertools import islice

    rows, now = _letters(given, options)
    shown = islice(rows, limit)
    if shape == "table":
        _table(shown, now)
    else:
        out_rows(shown, shape)


@dead_command.command("show", short_help="All that is known of some.")
@choosing
@died_of
@formats("json", "plain", "yaml", default="yaml")
@ids
def show_command(given: tuple[str, ...], shape: str, **options: Any) -> None:
    """Dead letters with all that is known of them but their earlier attempts, which `ddmq-hpc show` tells.

    \b
      ddmq-hpc dead show ROOT tasks 1786000000123456789-0abcdefgh.0
      ddmq-hpc dead show ROOT tasks --match sample7
    """
    rows, _ = _letters(given, options)
    out_rows(rows, shape)


@click.command("retry", short_help="Make them ready again.")
@choosing
@died_of
@everything
@click.option("--priority", type=int, help="Ready at this priority, instead of in their place.")
@click.option("--state", type=click.Choice(("dead", "done", "damaged")), default="dead", show_default=True)
@dry_run
@ids
def retry_command(
    given: tuple[str, ...], priority: int | None, state: str, dry_run: bool, all_of_them: bool, **options: Any
) -> None:
    """Make dead letters ready again, as if they had never been tried: limits count anew, the journal knows it all.

    With --state done finished messages, of which there are some where the queue's `keep_done` says so; with --state
    damaged what was set aside, say since it was not signed.

    The queue keeps its order: they are ready in the place that they had. What somebody else retries or purges
    meanwhile is left to them.

    \b
      ddmq-hpc retry ROOT tasks --all
      ddmq-hpc retry ROOT tasks --exit-code 137 --priority 5
      ddmq-hpc retry ROOT tasks --match 'sample(7|9)' --dry-run
      ddmq-hpc retry ROOT tasks --state done --host node7 --newer-than 2h
    """
    root, name, wanted = queue_and_ids(given)
    which = criteria(wanted, all_of_them, **options)
    broker = one_shot(root)
    found = broker.retry(name, which, priority, dry_run, state)
    tell(found, "retried", "retry", dry_run, lambda: none_of(broker.queue(name)) if state == "dead" else "")


@dead_command.command("purge", short_help="Remove them for good.")
@choosing
@died_of
@everything
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@dry_run
@ids
def purge_command(given: tuple[str, ...], yes: bool, dry_run: bool, all_of_them: bool, **options: Any) -> None:
    """Remove dead letters for good. Asks before, on a terminal.

    \b
      ddmq-hpc dead purge ROOT tasks --all --yes
      ddmq-hpc dead purge ROOT tasks --older-than 30d --dry-run
    """
    from ddmq_hpc.selection import ids_of
    from ddmq_hpc.steering import purge, purgeable

    root, name, wanted = queue_and_ids(given)
    queue = one_shot(root).queue(name)
    chosen = purgeable(queue, criteria(wanted, all_of_them, **options))
    count = sum(len(one.indexes) for one in chosen)
    if count:
        make_sure(f"Remove {count} dead letter{'s' * (count != 1)} of {name} for good?", yes or dry_run)
    tell(ids_of(chosen) if dry_run else purge(queue, chosen), "purged", "purge", dry_run, lambda: none_of(queue))


dead_command.add_command(retry_command)


def _letters(given: tuple[str, ...], options: dict[str, Any]) -> tuple[Any, float]:
    """The rows, and the file system's time."""
    from ddmq_hpc.selection import letters

    root, name, wanted = queue_and_ids(given)
    queue = one_shot(root).queue(name)
    which = criteria(wanted, all_of_them=False, **options)
    return _told(queue, letters(queue, which)), queue.fs.now(queue.paths.tmp)


def _told(queue: Queue, found: Iterable[Letter]) -> Iterator[dict[str, Any]]:
    """As rows; where there are none it is said of how many."""
    none = True
    for letter in found:
        none = False
        yield letter.to_dict()
    if none:
        click.echo(f"ddmq-hpc: {none_of(queue)}", err=True)


def _table(rows: Iterator[dict[str, Any]], now: float) -> None:
    """Line by line, since there may be many: only the columns before the host have a width."""
    first = next(rows, None)
    if first is None:
        return
    heads = (f"{head:<{width}}" for head, width in zip(_COLUMNS, _WIDTHS))
    out("  ".join((*heads, *_COLUMNS[len(_WIDTHS) :])))
    for row in chain([first], rows):
        died = f"{human(max(0.0, now - row['died']))} ago" if row["died"] else "-"
        attempts = f"{row['failed']}+{row['lost']}" if row["lost"] else str(row["failed"])
        body = printable(row["message"])[:100] + (f"  ({printable(row['error'])[:100]})" if row["error"] else "")
        cells = (row["id"], row["reason"], attempts.rjust(_WIDTHS[2]), died, _ended(row))
        shown = (f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS))
        out("  ".join((*shown, printable(row["host"] or "-"), body)))


def _ended(row: dict[str, Any]) -> str:
    """Exit code or signal, in a word."""
    if row["oom"]:
        return "memory"
    if row["signal"]:
        return f"signal {row['signal']}"
    return "-" if row["exit"] is None else f"exit {row['exit']}"
