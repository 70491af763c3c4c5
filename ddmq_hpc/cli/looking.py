"""status, view, peek, list, show."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import (
    DURATION,
    arguments,
    coloured,
    forced,
    formats,
    legacy_flags,
    one_shot,
    out,
    out_answer,
    out_json,
    out_rows,
    out_yaml,
    places,
    printable,
    root_and_maybe_list,
    root_and_queues,
)
from ddmq_hpc.cli.several import Failures, queues_of
from ddmq_hpc.cli.tables import out_csv, out_table
from ddmq_hpc.errors import UsageError
from ddmq_hpc.identity import user_id
from ddmq_hpc.names import LISTED, STANDING
from ddmq_hpc.settings import steered
from ddmq_hpc.units import human, seconds

#: How often --watch looks unless told otherwise, and at most (seconds).
_WATCH_EVERY, _WATCH_LEAST = "2s", 0.5
_COLUMNS = ("queue", *STANDING, "oldest", "holders", "draining", "paused")
_CSV = (*_COLUMNS, "dropped")
_OF_USER = ("queue", "user", *STANDING, "holds", "unknown")
#: What a narrow terminal does not show, the first one first. What wants to be looked at is shown all the same.
_SPARE = ("holders", "damaged", "delayed", "oldest")


class _Status(click.Command):
    """`--watch` may stand alone, with a place after it that is no duration."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, once `--watch` has its value."""
        return super().parse_args(ctx, list(_spelt_out(args)))


def _spelt_out(args: list[str]) -> Iterator[str]:
    for word, after in zip(args, [*args[1:], ""]):
        if word != "--watch" or _is_duration(after):
            yield word
        else:
            yield f"--watch={_WATCH_EVERY}"


def _is_duration(text: str) -> bool:
    try:
        return seconds(text) >= 0
    except UsageError:
        return False


@click.command("status", cls=_Status)
@formats("table", "json", "yaml", "csv", default="table")
@click.option(
    "--watch", type=DURATION, metavar="[SECONDS]", help=f"Show it on the terminal, anew every {_WATCH_EVERY} or so."
)
@click.option("--user", metavar="NAME", help="What a user published, and what his processes hold.")
@legacy_flags
@arguments("[ROOT [QUEUE...]]")
def status_command(given: tuple[str, ...], shape: str, watch: float | None, user: str | None) -> None:
    """Numbers of messages by state, from directory listings alone.

    Holders are the processes and hosts that have leases: workers that wait are none, `ddmq-hpc workers` tells of those.

    With --watch also how fast it goes, when it will be done, what failed and who works on what, until you press q. It
    looks more seldom where the file system is slow.

    With --user each file is looked at: whose it is who published it. Who holds a message is known of workers, and of
    processes of this host; the rest is counted as unknown.

    \b
      ddmq-hpc status ROOT
      ddmq-hpc status ROOT tasks --watch
      ddmq-hpc status ROOT tasks --format json
      ddmq-hpc status ROOT --user ann
    """
    root, queues = root_and_queues(given)
    broker = one_shot(root)
    if user is not None:
        _of_user(broker, queues, shape, watch, user)
        return
    if watch is not None:
        _watch(broker, queues, shape, watch)
        return
    failures = Failures()
    rows = _rows(broker, queues, failures)
    if shape in ("json", "yaml"):
        out_answer(shape, root=broker.root, queues=rows)
    elif shape == "csv":
        out_csv(_CSV, rows)
    elif rows or not failures.last:
        _table(rows, broker.root)
    failures.end()


def _watch(broker: Broker, queues: list[str], shape: str, every: float) -> None:
    if shape != "table":
        raise UsageError(f"--watch is for people: leave it out for --format {shape}, or leave that out")
    for name in queues:
        broker.queue(name)  # which raises when there is no such queue
    from ddmq_hpc.cli.watching import run

    run(broker, queues, max(every, _WATCH_LEAST))


def _of_user(broker: Broker, queues: list[str], shape: str, watch: float | None, user: str) -> None:
    from ddmq_hpc.whose import of_user

    if watch is not None:
        raise UsageError("--user looks once: leave out --watch")
    uid, failures, rows = user_id(user), Failures(), []
    for name in queues or queues_of(broker, failures):
        with failures.going_on():
            rows.append(of_user(broker.queue(name), uid).to_dict())
    if shape in ("json", "yaml"):
        out_answer(shape, root=broker.root, queues=rows)
    elif shape == "csv":
        out_csv(_OF_USER, rows)
    elif rows:
        out_table(_OF_USER, [[row[name] for name in _OF_USER] for row in rows], len(_OF_USER) - 2)
    failures.end()


def _rows(broker: Broker, queues: list[str], failures: Failures) -> list[dict[str, Any]]:
    """The numbers of all queues that can be looked at. Raises `DdmqError` when the only one asked for cannot."""
    if len(queues) == 1:
        return [broker.stats(queues[0]).to_dict()]
    rows = []
    for name in queues or queues_of(broker, failures):
        with failures.going_on():
            rows.append(broker.stats(name).to_dict())
    return rows


def _table(rows: list[dict[str, Any]], root: str) -> None:
    if not rows:
        out(f"no queues in {root}; make one with `ddmq-hpc create {root} QUEUE`")
        return
    cells = []
    for row in rows:
        name = row["queue"] + "".join(f" ({word})" for word in ("paused", "draining") if row[word])
        age = human(row["oldest"]) if row["oldest"] is not None else "-"
        cells.append([name, *(row[state] for state in STANDING), age, row["holders"]])
    paint = _painted if coloured(sys.stdout) else _unpainted
    spare = [name for name in _SPARE if name not in STANDING or not any(row[name] for row in rows)]
    out_table(_COLUMNS[:-2], cells, len(_COLUMNS) - 3, paint, spare)
    for row in rows:
        if (row["paused"] or row["draining"]) and (told := steered(row["paused_by"], row["paused_reason"])):
            out(f"{row['queue']} was {'paused' if row['paused'] else 'told to drain'}{printable(told)}")
        if row["dropped"]:
            when = "after `ddmq-hpc resume`" if row["draining"] else "with the next pull, worker or clean"
            out(f"{row['queue']} has {row['dropped']} dropped that are brought in {when}")
        if row["foreign"]:
            shown = ", ".join([*map(printable, row["foreign"][:3]), *["..."] * (len(row["foreign"]) > 3)])
            click.echo(f"{row['queue']}: {len(row['foreign'])} foreign files, left alone: {shown}", err=True)


def _unpainted(line: int, cells: list[str]) -> list[str]:
    return cells


def _painted(line: int, cells: list[str]) -> list[str]:
    """Cells of a line of the table in colours: its head, and what wants somebody to look at it."""
    if line == 0:
        return [click.style(cell, bold=True) for cell in cells]
    colours = {"queue": "yellow" if cells[0].rstrip().endswith(")") else None, "dead": "red", "damaged": "red"}
    return [
        click.style(cell, fg=colour) if (colour := colours.get(name)) and cell.strip() != "0" else cell
        for name, cell in zip(_COLUMNS, cells)
    ]


@click.command("view")
@click.option("-f", "--force", is_flag=True, hidden=True)
@click.option("-n", "--only-names", is_flag=True, help="Names of queues only.")
@formats("plain", "json", "yaml", default="plain")
@legacy_flags
@arguments("[ROOT] [QUEUE[,QUEUE...]]")
def view_command(given: tuple[str, ...], force: bool, only_names: bool, shape: str) -> None:
    """Numbers of messages, printed as ddmq did: waiting and at work.

    \b
      ddmq-hpc view ROOT tasks
    """
    root, queues = root_and_maybe_list(given)
    broker, failures = forced(root, force), Failures()
    names = queues or queues_of(broker, failures)
    if only_names:
        found: Any = [broker.queue(name).name for name in names]
    else:
        found = {row.queue: [row.ready + row.delayed + row.dropped, row.leased] for row in map(broker.stats, names)}
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
    failures.end()


@click.command("peek")
@click.option("-n", "--number", type=click.IntRange(1), default=1, show_default=True, help="So many messages.")
@formats("json", "plain", "yaml", default="json")
@arguments("[ROOT] [QUEUE]")
def peek_command(given: tuple[str, ...], number: int, shape: str) -> None:
    """The next messages, in order, not taken. Exits 3 when there is none.

    \b
      ddmq-hpc peek ROOT tasks -n 5
    """
    from ddmq_hpc import admin
    from ddmq_hpc.errors import NothingThere

    root, queue = places(given, "ROOT", "QUEUE")
    found = [item.to_dict() for item in admin.items(one_shot(root).queue(queue), ("ready",), number)]
    if not found:
        raise NothingThere(f"nothing is ready in queue {queue!r}")
    out_rows(found, shape)


@click.command("list")
@click.option("--state", type=click.Choice(LISTED), help="Only those in this state.")
@click.option("-n", "--limit", type=click.IntRange(0), help="At most so many.")
@formats("table", "json", "plain", "yaml", default="table")
@arguments("[ROOT] [QUEUE]")
def list_command(given: tuple[str, ...], state: str | None, limit: int | None, shape: str) -> None:
    """Messages and their states: id, state, priority, attempt, who published it, text.

    Ready and dead ones are in the order in which they will be, or would be, taken; leased ones by when they were taken,
    or last held on to, delayed ones by when they are due, done ones by when they were done.

    The attempt of a message that waits is its next one, of a dead letter its last one. `dead list` tells more of those.

    \b
      ddmq-hpc list ROOT tasks --state ready -n 20
      ddmq-hpc list ROOT tasks --state done -n 100 --format json
    """
    from ddmq_hpc import admin

    root, queue = places(given, "ROOT", "QUEUE")
    states = (state,) if state else STANDING
    found = (item.to_dict() for item in admin.items(one_shot(root).queue(queue), states, limit))
    if shape != "table":
        out_rows(found, shape)
        return
    for row in found:
        body = printable(row["message"])[:200]
        state = row["state"] + (f" ({row['reason']})" if "reason" in row else "")
        user = printable(row["user"] or "-")
        out(f"{row['id']}  {state:<8} {row['priority']:>5} {row['attempt']:>3}  {user:<8}  {body}")


@click.command("show")
@formats("json", "plain", "yaml", default="yaml")
@arguments("[ROOT] [QUEUE] ID")
def show_command(given: tuple[str, ...], shape: str) -> None:
    """One message: its state, its properties, and what happened to it.

    An ID may be cut short as long as it is unique.

    \b
      ddmq-hpc show ROOT tasks 1718000000000000000-0abcdefgh.0
    """
    from ddmq_hpc import admin
    from ddmq_hpc.ids import whole

    root, name, text = places(given, "ROOT", "QUEUE", "ID")
    queue = one_shot(root).queue(name)
    out_rows([admin.show(queue, whole(queue, text))], shape)
