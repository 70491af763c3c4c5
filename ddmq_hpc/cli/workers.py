"""workers: who works on what, and asking them to stop."""

from __future__ import annotations

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import (
    arguments,
    formats,
    one_shot,
    out,
    out_answer,
    places,
    root_and_maybe_list,
)
from ddmq_hpc.cli.several import Failures, queues_of
from ddmq_hpc.cli.tables import out_csv, out_table
from ddmq_hpc.errors import UsageError
from ddmq_hpc.units import human
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import list_workers, request_stop

_COLUMNS = "id user host pid job queues slots since seen alive done failed running command".split()
#: What a narrow terminal does not show, the first one first.
_SPARE = ("user", "queue", "since", "job", "failed", "done", "seen", "progress")


@click.command("workers")
@formats("table", "json", "yaml", "csv", default="table")
@click.option("--now", is_flag=True, help="With stop: give back what they work on.")
@arguments("[stop] [ROOT] [QUEUE[,QUEUE...]] [ID[,ID...]|all]")
def workers_command(given: tuple[str, ...], shape: str, now: bool) -> None:
    """Who works where, since when, on what, and when it last gave a sign of life.

    `stop` asks workers to end: when their tasks are done, or with --now at once. They notice within half a minute. An
    ID may be cut short as long as it is unique.

    \b
      ddmq-hpc workers ROOT
      ddmq-hpc workers stop ROOT tasks node7-4711
      ddmq-hpc workers stop ROOT tasks all --now
    """
    if given[:1] == ("stop",):
        root, queue, wanted = places(given[1:], "ROOT", "QUEUE", "ID")
        target = one_shot(root).queue(queue)
        asked = request_stop(target, None if wanted == "all" else wanted.split(","), now)
        for ident in asked:
            out(f"asked {ident} to stop{' now' * now}")
        if not asked:
            out("no workers")
        return
    if now:
        raise UsageError("--now goes with stop: ddmq-hpc workers stop ROOT QUEUE all --now")
    root, queues = root_and_maybe_list(given)
    broker, failures = one_shot(root), Failures()
    found, clock = _workers(broker, queues or queues_of(broker, failures))
    rows = [info.to_dict() for info in found]
    if shape in ("json", "yaml"):
        out_answer(shape, root=broker.root, workers=rows)
    elif shape == "csv":
        texts = ("queues", "running", "command")
        out_csv(_COLUMNS, ({**row, **{name: " ".join(row[name]) for name in texts}} for row in rows))
    else:
        _table(found, clock)
    failures.end()


def _workers(broker: Broker, queues: list[str]) -> tuple[list[WorkerInfo], float]:
    """Each worker once, although it registers at each of its queues; and the file system's time."""
    found: dict[str, WorkerInfo] = {}
    now = 0.0
    for name in queues:
        queue = broker.queue(name)
        now = queue.fs.now(queue.paths.tmp)
        for info in list_workers(queue):
            found[info.id] = max(found.get(info.id, info), info, key=lambda one: one.seen)
    return sorted(found.values(), key=lambda info: (info.since, info.id)), now


def _table(workers: list[WorkerInfo], now: float) -> None:
    if not workers:
        out("no workers")
        return
    cells = []
    for info in workers:
        more = f" +{len(info.running) - 1}" if len(info.running) > 1 else ""
        ages = [f"{human(max(0.0, now - at))} ago" for at in (info.since, info.seen)]
        texts = [info.id, info.user, info.job or "-", ",".join(info.queues), *ages, info.alive]
        texts += [str(info.done), str(info.failed), f"{info.running[0]}{more}" if info.running else "-"]
        texts.append(", ".join(str(task.progress) for task in info.tasks if task.progress)[:80] or "-")
        cells.append(texts)
    head = ("worker", "user", "job", "queue", "since", "seen", "alive", "done", "failed", "running", "progress")
    out_table(head, cells, spare=_SPARE)
