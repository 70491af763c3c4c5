"""lock: run a command under a lock, list who holds it, break it."""

from __future__ import annotations

import click

from ddmq_hpc.cli.common import (
    DURATION,
    SCHEMA_VERSION,
    arguments,
    formats,
    out,
    out_json,
    places,
    printable,
    split_command,
)
from ddmq_hpc.errors import UsageError
from ddmq_hpc.holders import LEASE, Holder
from ddmq_hpc.semaphores import Overview, Semaphore, break_lock, overview
from ddmq_hpc.units import human, moment


@click.command("lock")
@click.option(
    "--slots", type=click.IntRange(min=1), default=1, show_default=True, help="How many may hold it at a time."
)
@click.option("--wait", type=DURATION, help="Wait at most so long; without it, for as long as it takes.")
@click.option(
    "--lease",
    type=DURATION,
    default=LEASE,
    show_default="2m",
    help="Who gives no sign of life for so long is replaced; CMD's lock gives them by itself.",
)
@formats("table", "json", default="table")
@arguments("[list|break] PATH [-- CMD [ARG]...]")
@click.pass_context
def lock_command(
    ctx: click.Context, given: tuple[str, ...], slots: int, wait: float | None, lease: float, shape: str
) -> None:
    """Run CMD while no other host holds the lock of PATH, or at most --slots do; exit as CMD did.

    PATH is any path in a directory that all hosts share, or ROOT/NAME: the lock is the directory PATH.lock. In CMD
    $DDMQ_HPC_LOCK_TOKEN is a number that is higher than that of all who held it before. `list` tells who holds it,
    `break` takes it away from them, whoever they are. Exit code 75: others held it for all of --wait; 5: it was lost
    and CMD was stopped.

    \b
      ddmq-hpc lock /shared/reference -- ./download-reference
      ddmq-hpc lock --slots 4 --wait 1h /shared/scratch -- cp results.tar /shared
      ddmq-hpc lock list /shared/scratch
    """
    before, command = split_command(given)
    if command:
        from ddmq_hpc.guarded import run_locked

        (path,) = places(before, "PATH")
        ctx.exit(run_locked(Semaphore(path, slots, wait=wait, lease=lease), command))
    if before[:1] not in (("list",), ("break",)):
        raise UsageError("write the command after `--`: ddmq-hpc lock PATH -- CMD ARG...")
    (path,) = places(before[1:], "PATH")
    if before[0] == "list":
        _list(overview(path), shape)
    else:
        _break(break_lock(path), shape)


def _row(holder: Holder) -> dict[str, object]:
    return {key: value for key, value in holder._asdict().items() if key != "owner"}


def _list(found: Overview, shape: str) -> None:
    if shape == "json":
        rows = [_row(holder) for holder in found.holders]
        out_json({"schema_version": SCHEMA_VERSION, "path": found.path, "holders": rows, "waiting": found.waiting})
        return
    for holder in found.holders:
        ages = [human(max(0.0, found.now - at)) for at in (holder.since, holder.seen)]
        out(printable(f"token {holder.token}: {holder}, held for {ages[0]}, last sign of life {ages[1]} ago"))
    if not found.holders:
        out("nobody holds it")
    if found.waiting:
        out(f"{found.waiting} waiting")


def _break(broken: list[Holder], shape: str) -> None:
    if shape == "json":
        out_json({"schema_version": SCHEMA_VERSION, "broken": [_row(holder) for holder in broken]})
        return
    for holder in broken:
        out(printable(f"broken: token {holder.token}, held by {holder} since {moment(holder.since)}"))
    if not broken:
        out("nobody held it")
