"""The options by which messages are chosen, the same for every command that is about several."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable

import click

from ddmq_hpc.cli.common import arguments, out
from ddmq_hpc.cli.offering import groups, reasons

if TYPE_CHECKING:
    from ddmq_hpc.criteria import Criteria
    from ddmq_hpc.queue import Queue

_OPTIONS = (
    click.option("--exit-code", metavar="N[,N...]", help="The last attempt ended with one of these."),
    click.option("--host", help="The last attempt was on this host; of leased ones: who works on them is."),
    click.option("--older-than", metavar="DURATION", help="They died longer ago; others: were published."),
    click.option("--newer-than", metavar="DURATION", help="They died less long ago; others: were published."),
    click.option("--group", metavar="NAME", shell_complete=groups, help="They are of this group."),
    click.option("--match", metavar="REGEX", help="Their text has this in it (a regular expression of Python)."),
)
died_of = click.option(
    "--died-of", metavar="REASON", shell_complete=reasons, help="Why they died: the word that `dead list` has for it."
)
everything = click.option("--all", "all_of_them", is_flag=True, help="Every one: must be said when nothing else is.")
dry_run = click.option("--dry-run", is_flag=True, help="Only print the ids.")
ids = arguments("[ROOT] [QUEUE] [ID...]")


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that narrow down what is meant; `criteria` takes them as keywords."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def criteria(wanted: list[str], all_of_them: bool, died_of: str | None = None, **options: Any) -> Criteria:
    """What the ids and options say."""
    from ddmq_hpc.criteria import Criteria

    return Criteria.of(ids=wanted or None, all=all_of_them, died_of=died_of, **options)


def none_of(queue: Queue) -> str:
    """What to say where no dead letter is as it was asked for."""
    from ddmq_hpc.steering import how_many_dead

    number = how_many_dead(queue)
    if not number:
        return "there are no dead letters"
    return f"0 of {number} dead letter{'s' * (number != 1)} match"


def tell(idents: Iterable[str], did: str, would: str, dry: bool, none: Callable[[], str] = str) -> None:
    """The ids of a dry run on stdout and their number on stderr; else what was done. With `none` more is said when
    nothing was."""
    found = list(idents)
    count = f"{len(found)} message{'s' * (len(found) != 1)}"
    if not found and (more := none()):
        count += f": {more}"
    if not dry:
        out(f"{did} {count}")
        return
    for ident in found:
        out(ident)
    sys.stdout.flush()
    click.echo(f"would {would} {count}", err=True)
