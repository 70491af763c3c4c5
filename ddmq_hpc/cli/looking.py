"""status, view, peek, list, show."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import (
    SCHEMA_VERSION,
    arguments,
    forced,
    formats,
    legacy_flags,
    one_shot,
    out,
    out_json,
    out_plain,
    out_yaml,
    places,
    printable,
    queues_of,
    root_and_queue,
)
from ddmq_hpc.errors import DdmqError
from ddmq_hpc.units import human

_STATES = ("ready", "leased", "delayed", "dead", "damaged")
_COLUMNS = ("queue", "ready", "leased", "delayed", "dead", "damaged", "oldest", "workers", "paused")


@click.command("status")
@formats("table", "json", "yaml", "csv", default="table")
@legacy_flags
@arguments("[ROOT [QUEUE...]]")
def status_command(given: tuple[str, ...], shape: str) -> None:
    """Numbers of messages by state, from directory listings alone."""
    root, queues = _root_and_queues(given)
    broker = one_shot(root)
    rows, failed = _rows(broker, queues)
    if shape in ("json", "yaml"):
        answer = {"schema_version": SCHEMA_VERSION, "root": broker.root, "queues": rows}
        out_json(answer) if shape == "json" else out_yaml(answer)
    elif shape == "csv":
        _csv(rows)
    elif rows or not (failed or broker.closed):
        _table(rows, broker.root)
    if failed:
        sys.stdout.flush()
        sys.exit(failed.exit_code)


def _rows(broker: Broker, queues: list[str]) -> tuple[list[dict[str, Any]], DdmqError | None]:
    """Of all queues the numbers, and what was wrong with the last of which there are none: others do not suffer."""
    if queues:
        return [broker.stats(name).to_dict() for name in queues], None
    rows, failed = [], None
    for name in queues_of(broker):
        try:
            rows.append(broker.stats(name).to_dict())
        except DdmqError as error:
            click.echo(f"ddmq-hpc: {printable(str(error))}", err=True)
            failed = error
    return rows, failed


def _root_and_queues(given: tuple[str, ...]) -> tuple[str, list[str]]:
    """With $DDMQ_HPC_ROOT set, a first word without a slash is a queue."""
    default = os.environ.get("DDMQ_HPC_ROOT")
    if default and (not given or "/" not in given[0]):
        return default, list(given)
    root = places(given[:1], "ROOT")[0]
    return root, list(given[1:])


def _csv(rows: list[dict[str, Any]]) -> None:
    import csv

    writer = csv.DictWriter(sys.stdout, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _table(rows: list[dict[str, Any]], root: str) -> None:
    if not rows:
        out(f"no queues in {root}; make one with `ddmq-hpc create {root} QUEUE`")
        return
    cells = [[*_COLUMNS[:-1]]]
    for row in rows:
        name = row["queue"] + (" (paused)" if row["paused"] else "")
        age = human(row["oldest"]) if row["oldest"] is not None else "-"
        cells.append([name, *(str(row[state]) for state in _STATES), age, str(row["workers"])])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))
        out("  ".join([line[0].ljust(widths[0]), *rest]).rstrip())
    for row in rows:
        if row["foreign"]:
            shown = ", ".join(printable(name) for name in row["foreign"][:3])
            click.echo(f"{row['queue']}: {len(row['foreign'])} foreign files, left alone: {shown}", err=True)


@click.command("view")
@click.option("-f", "--force", is_flag=True, hidden=True)
@click.option("-n", "--only-names", is_flag=True, help="Names of queues only.")
@formats("plain", "json", "yaml", default="plain")
@legacy_flags
@arguments("[ROOT] [QUEUE[,QUEUE...]]")
def view_command(given: tuple[str, ...], force: bool, only_names: bool, shape: str) -> None:
    """Numbers of messages, printed as ddmq did: waiting and at work."""
    root, *queues = root_and_queue(given)
    broker = forced(root, force)
    names = queues[0].split(",") if queues else queues_of(broker)
    if only_names:
        found: Any = [broker.queue(name).name for name in names]
    else:
        found = {row.queue: [row.ready + row.delayed, row.leased] for row in map(broker.stats, names)}
    if shape == "json":
        out_json(found)
    elif shape == "yaml":
        out_yaml(found)
    elif only_names:
        out("\n".join(found))
    else:
        out("| *queue* | *msg in queue* | *msg at work* |")
        for name, (waiting, working) in found.items():
            out(f"| {name} | {waiting} | {working} |")


@click.command("peek")
@click.option("-n", "--number", default=1, show_default=True, help="So many messages.")
@formats("json", "plain", "yaml", default="json")
@arguments("[ROOT] [QUEUE]")
def peek_command(given: tuple[str, ...], number: int, shape: str) -> None:
    """The next messages, in order, not taken. Exits 3 when there is none."""
    from ddmq_hpc import admin
    from ddmq_hpc.errors import NothingThere

    root, queue = places(given, "ROOT", "QUEUE")
    found = [item.to_dict() for item in admin.items(_broker(root).queue(queue), ("ready",), number)]
    if not found:
        raise NothingThere(f"nothing is ready in queue {queue!r}")
    _print(found, shape)


@click.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("-n", "--limit", type=int, help="At most so many.")
@formats("table", "json", "plain", "yaml", default="table")
@arguments("[ROOT] [QUEUE]")
def list_command(given: tuple[str, ...], state: str | None, limit: int | None, shape: str) -> None:
    """Messages and their states, in the order in which they will be taken."""
    from ddmq_hpc import admin

    root, queue = places(given, "ROOT", "QUEUE")
    states = (state,) if state else _STATES
    found = (item.to_dict() for item in admin.items(_broker(root).queue(queue), states, limit))
    if shape != "table":
        _print(found, shape)
        return
    for row in found:
        body = printable(row["message"])[:200]
        out(f"{row['id']}  {row['state']:<8} {row['priority']:>5} {row['attempt']:>3}  {body}")


@click.command("show")
@formats("json", "plain", "yaml", default="yaml")
@arguments("[ROOT] [QUEUE] ID")
def show_command(given: tuple[str, ...], shape: str) -> None:
    """One message: its state, its properties, and what happened to it."""
    from ddmq_hpc import admin

    root, queue, ident = places(given, "ROOT", "QUEUE", "ID")
    _print([admin.show(_broker(root).queue(queue), ident)], shape)


def _broker(root: str) -> Broker:
    return one_shot(root)


def _print(rows: Iterable[dict[str, Any]], shape: str) -> None:
    if shape == "json":
        for row in rows:
            out_json(row)
    elif shape == "yaml":
        out_yaml(list(rows))
    else:
        out_plain(rows)
