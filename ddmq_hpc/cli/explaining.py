"""explain."""

from __future__ import annotations

import textwrap

import click

from ddmq_hpc.cli.common import (
    SCHEMA_VERSION,
    arguments,
    formats,
    one_shot,
    out,
    out_json,
    places,
    printable,
    terminal_width,
)
from ddmq_hpc.explaining import Explanation, Reason, explain, explain_message

_WIDEST = 80


@click.command("explain")
@click.option("--ask-scheduler", is_flag=True, help="Ask the scheduler about workers that were submitted, once.")
@formats("text", "json", default="text")
@arguments("[ROOT] [QUEUE] [ID]")
def explain_command(given: tuple[str, ...], ask_scheduler: bool, shape: str) -> None:
    """Why nothing is running, or what became of one message; each reason with the command that helps.

    The most important reason comes first. Looks at listings and at the first messages, asks no scheduler unless told
    to, and changes nothing. An ID may be cut short as long as it is unique. Exits 4 when there is no such message.

    \b
      ddmq-hpc explain ROOT tasks
      ddmq-hpc explain ROOT tasks 1718000000000000000-0abcdefgh.0
      ddmq-hpc explain ROOT tasks --ask-scheduler --format json
    """
    root, queue, *ident = places(given, *_names(given))
    broker = one_shot(root)
    if ident:
        found = explain_message(broker, queue, ident[0], ask_scheduler)
    else:
        found = explain(broker, queue, ask_scheduler)
    if shape == "json":
        out_json({"schema_version": SCHEMA_VERSION, **found.to_dict()})
    else:
        _text(found)


def _names(given: tuple[str, ...]) -> tuple[str, ...]:
    """What the arguments are. An id, also one cut short, begins with ten digits, which no queue should."""
    has_id = len(given) > 2 or bool(given and given[-1][9:10] and given[-1][:10].isdigit())
    return ("ROOT", "QUEUE", "ID") if has_id else ("ROOT", "QUEUE")


def _text(found: Explanation) -> None:
    width = min(_WIDEST, terminal_width() or _WIDEST)
    for number, reason in enumerate(found.reasons):
        if number:
            out("")
        out("\n".join(_lines(reason, width)))


def _lines(reason: Reason, width: int) -> list[str]:
    """Wrapped for people, but for the command, which is there to be pasted."""
    lines = textwrap.wrap(printable(reason.text), width, break_long_words=False, break_on_hyphens=False)
    lines += [f"  | {printable(line)}"[:width] for line in reason.lines]
    return [*lines, f"    {printable(reason.fix)}"] if reason.fix else lines
