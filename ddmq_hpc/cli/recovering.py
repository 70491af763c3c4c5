"""recover."""

from __future__ import annotations

from dataclasses import asdict

import click

from ddmq_hpc.cli.common import SCHEMA_VERSION, arguments, formats, one_shot, out, out_json, root_and_maybe_list
from ddmq_hpc.cli.several import Failures, queues_of
from ddmq_hpc.recovery import Recovered, recover_all


@click.command("recover")
@click.option("--dry-run", is_flag=True, help="Tell which jobs have ended; reclaim nothing.")
@formats("table", "json", default="table")
@arguments("[ROOT] [QUEUE[,QUEUE...]]")
def recover_command(given: tuple[str, ...], dry_run: bool, shape: str) -> None:
    """Requeue what batch jobs hold that have ended, now.

    Asks the scheduler once about all jobs that hold leases. A job of which it says nothing clear is left alone. Clients
    do this as they work, at most once a minute over the cluster.

    \b
      ddmq-hpc recover ROOT --dry-run
      ddmq-hpc recover ROOT tasks
    """
    root, queues = root_and_maybe_list(given)
    broker, failures = one_shot(root), Failures()
    found = recover_all([broker.queue(name) for name in queues or queues_of(broker, failures)], dry_run)
    if shape == "json":
        rows = [{"queue": name, **asdict(one)} for name, one in found.items()]
        out_json({"schema_version": SCHEMA_VERSION, "root": broker.root, "queues": rows})
    else:
        _text(found, dry_run)
    failures.end()


def _text(found: dict[str, Recovered], dry_run: bool) -> None:
    for name, one in found.items():
        done = f"{one.held} messages held by them" if dry_run else f"{one.requeued} messages requeued, {one.dead} dead"
        out(f"{name}: {one.checked} jobs hold leases, {len(one.ended)} have ended: {done}")
        for label in one.ended:
            out(f"  {label}  ended")
        for label in one.unknown:
            out(f"  {label}  unknown: no clear answer from its scheduler")
