"""publish: one message, or many from a file."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import DURATION, MEMORY, arguments, forced, legacy_flags, out_done, places
from ddmq_hpc.cli.offering import files, groups
from ddmq_hpc.errors import DdmqError, UsageError
from ddmq_hpc.messages import parse_json

_COUNT = click.IntRange(0)


@click.command("publish")
@click.option("-f", "--force", is_flag=True, help="Make root and queue when they are missing.")
@click.option("-p", "--priority", type=int, help="Lower is taken first; the default is the queue's, 999.")
@click.option("-t", "--timeout", type=DURATION, help="How long it may be held before it is requeued.")
@click.option("-r/-R", "--requeue/--no-requeue", default=None, help="Requeue when it fails or times out.")
@click.option("-l", "--requeue-limit", "--requeue_limit", type=_COUNT, help="Requeues before it is a dead letter.")
@click.option("--requeue-prio", "--requeue_prio", type=int, help="Priority once requeued.")
@click.option("--loss-limit", type=_COUNT, help="Requeues after its worker died, counted apart from failures.")
@click.option("--time-request", type=DURATION, help="Time it needs: workers that end sooner leave it to others.")
@click.option("--slots", type=click.IntRange(1), help="Slots of a worker that it takes, by default 1: its threads.")
@click.option("--memory", type=MEMORY, help="Memory it needs, such as 4G: workers with less left do not begin it.")
@click.option("--delay", type=DURATION, help="Not ready before this long from now.")
@click.option(
    "--group", metavar="NAME", shell_complete=groups, help="The group that it is one of, for --after, wait and retry."
)
@click.option(
    "--after",
    metavar="GROUP",
    multiple=True,
    shell_complete=groups,
    help="Not ready before all messages of that group are done.",
)
@click.option("--key", help="Publish once: what has this key already is not published again.")
@click.option("--if-exists", type=click.Choice(("skip", "replace", "error")), default="skip", show_default=True)
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Travels with the message.")
@click.option("--durable/--no-durable", default=None, help="fsync before this returns; the default is the queue's.")
@click.option("--json", "as_json", is_flag=True, help="TEXT is a JSON value.")
@click.option("--each-line", metavar="FILE|-", shell_complete=files, help="A message for each line.")
@click.option("--from-jsonl", metavar="FILE|-", shell_complete=files, help="A message for each line of JSON.")
@click.option("--from-csv", metavar="FILE|-", shell_complete=files, help="A message for each row.")
@click.option("--template", metavar="TEXT", help="With --from-csv: text with {column}s; else a row is a JSON object.")
@click.option("--glob", "pattern", metavar="PATTERN", help="A message for each path that matches.")
@click.option("--skip", type=_COUNT, metavar="N", help="Leave out the first N messages of the file.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@legacy_flags
@arguments("[ROOT] [QUEUE] [TEXT]")
def publish_command(
    given: tuple[str, ...],
    force: bool,
    key: str | None,
    if_exists: str,
    headers: tuple[str, ...],
    as_json: bool,
    each_line: str | None,
    from_jsonl: str | None,
    from_csv: str | None,
    template: str | None,
    pattern: str | None,
    skip: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Put messages into a queue. Prints the id of a single one, unless it is dropped (docs/shared.md): it has none yet.

    TEXT - is what comes on standard input, as one message, without its last line end. An empty TEXT is refused, since
    most are variables of a script that were never set; one that is meant is --json '""', and a dash --json '"-"'.

    \b
      ddmq-hpc publish ROOT tasks 'simulate --seed 7'
      ddmq-hpc publish ROOT tasks --each-line tasks.txt
      ./parameters | ddmq-hpc publish ROOT tasks --json -
      ddmq-hpc publish ROOT tasks --from-csv runs.csv --template 'run {seed}'
      ddmq-hpc publish ROOT tasks --glob 'data/*.gz' --group unpack
      ddmq-hpc publish ROOT tasks 'summarise all' --after unpack
    """
    options["headers"] = _headers(headers) or None
    options["after"] = options["after"] or None
    sources = [(each_line, "lines"), (from_jsonl, "jsonl"), (from_csv, "csv"), (pattern, "glob")]
    chosen = [(value, kind) for value, kind in sources if value is not None]
    if len(chosen) > 1:
        raise UsageError("give one of --each-line, --from-jsonl, --from-csv and --glob")
    if template is not None and from_csv is None:
        raise UsageError("--template goes with --from-csv")
    if skip is not None and not chosen:
        raise UsageError("--skip goes with --each-line, --from-jsonl, --from-csv and --glob")
    if not chosen:
        root, queue, text = places(given, "ROOT", "QUEUE", "TEXT")
        body = _body(text, as_json)
        broker = forced(root, force)
        message = broker.publish(queue, body, key=key, if_exists=if_exists, **options)
        if not quiet and message.id:
            out_done(message.id, f"message {message.id} is published")
        elif not quiet:
            click.echo(f"ddmq-hpc: dropped into {queue}: its owner's clients give it an id", err=True)
        _tell_of_groups(broker, queue, options, quiet)
        return
    if key is not None:
        raise UsageError("--key goes with a single message")
    if len(given) > 2:
        raise UsageError("the messages are those of the file, or the paths: leave out TEXT")
    root, queue = places(given, "ROOT", "QUEUE")
    _publish_source(root, queue, force, *chosen[0], template, skip or 0, quiet, options)


def _body(text: str, as_json: bool) -> Any:
    """The one message that the argument TEXT means."""
    given = text
    if text == "-":
        from ddmq_hpc import sources

        given = sources.text("-")
    if not given:
        what = "nothing came on standard input" if text == "-" else "TEXT is empty"
        raise UsageError(f"{what}; an empty message that is meant is --json '\"\"'")
    return parse_json(given) if as_json else given


def _publish_source(
    root: str,
    queue: str,
    force: bool,
    value: str,
    kind: str,
    template: str | None,
    skip: int,
    quiet: bool,
    options: dict[str, Any],
) -> None:
    from itertools import islice

    from ddmq_hpc import sources
    from ddmq_hpc.cli.progress import Progress

    records = {
        "lines": lambda: sources.lines(value),
        "jsonl": lambda: sources.jsonl(value),
        "csv": lambda: sources.csv_rows(value, template),
        "glob": lambda: sources.paths(value),
    }[kind]()
    broker = forced(root, force)
    total = sources.count_of(value) if kind != "glob" else None
    progress = Progress("publishing", None if total is None else max(0, total - skip), quiet)
    try:
        count = broker.publish_records(queue, islice(records, skip, None), progress=progress.update, **options)
    finally:
        progress.close()
    if not quiet:
        out_done(
            f"published {count} messages to {queue} in {progress.elapsed:.1f} s", f"{count} messages are published"
        )
    _tell_of_groups(broker, queue, options, quiet)


def _tell_of_groups(broker: Broker, queue: str, options: dict[str, Any], quiet: bool) -> None:
    """A group to come after that nobody knows yet may be published next, or misspelt. The messages are published: that
    it cannot be looked up is no failure."""
    if not quiet and options["after"]:
        unknown: list[str] = []
        with suppress(DdmqError):
            unknown = broker.unpublished_groups(queue, options["after"])
        for name in unknown:
            text = f"nothing was published with group {name!r} so far; what comes after it waits until that is done"
            click.echo(f"ddmq-hpc: {text}", err=True)


def _headers(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"bad header {pair[:60]!r}: write it as NAME=VALUE")
        found[name] = value
    return found
