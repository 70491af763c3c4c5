"""What queues are like, for Prometheus: its text format, as node_exporter's textfile collector reads it.

All of it are gauges. Totals that only ever grow would take reading the whole journal each time, or a memory of what was
read; instead there are the attempts of the last hour, from the ends of the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ddmq_hpc.attempts import DONE, FAILED, LOST, RELEASED
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import DdmqError
from ddmq_hpc.hour import Follow
from ddmq_hpc.names import STANDING, Lease, parse_leases
from ddmq_hpc.queue import Queue
from ddmq_hpc.stats import stats
from ddmq_hpc.workers import list_workers

#: Name -> what it means. The same for all queues and roots: a collector refuses files that say different things of one.
_HELP = {
    "ddmq_hpc_queue_readable": "Whether the queue could be looked at; if not, nothing else is told of it.",
    "ddmq_hpc_messages": "Messages by state.",
    "ddmq_hpc_oldest_ready_age_seconds": "Age of the oldest ready message; 0 when there is none.",
    "ddmq_hpc_paused": "Whether the queue hands out nothing.",
    "ddmq_hpc_lease_age_seconds": "For how long the lease that was renewed least recently has not been; 0 without any.",
    "ddmq_hpc_leases_overdue": "Messages whose lease is past its deadline and was not taken back yet.",
    "ddmq_hpc_workers": "Registered workers: alive, silent for 5 minutes, or known to be dead.",
    "ddmq_hpc_worker_slots": "Slots of the workers that are alive.",
    "ddmq_hpc_running_tasks": "Tasks that the workers that are alive work on.",
    "ddmq_hpc_attempts_last_hour": "Messages by how an attempt at them ended in the last hour.",
    "ddmq_hpc_attempts_last_hour_estimated": "Whether these are estimates: more was written than was read.",
    "ddmq_hpc_task_duration_median_seconds": "Median time of the last tasks that were done.",
    "ddmq_hpc_filesystem_available_bytes": "What users may still write to the file system of the root.",
}
_STATES = (*STANDING, "dropped")
_OUTCOMES = {DONE: "done", FAILED: "failed", LOST: "lost", RELEASED: "released"}
_LIVES = {"yes": "alive", "silent": "silent", "no": "dead"}
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass
class Metrics:
    """Samples by the names of what they measure."""

    samples: dict[str, list[tuple[Mapping[str, str], float]]] = field(
        default_factory=lambda: {name: [] for name in _HELP}
    )

    def add(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.samples[name].append((labels, value))

    def text(self) -> str:
        """The whole page; metrics of which there are no samples are left out."""
        return "".join(
            line + "\n" for name, samples in self.samples.items() if samples for line in _page(name, samples)
        )


def _page(name: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterable[str]:
    yield f"# HELP {name} {_HELP[name]}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{shown}}} {float(value):.15g}"


def _escaped(text: str) -> str:
    """A label's value; bytes of a path that are no UTF-8 would have the whole file refused."""
    return text.encode("utf-8", "replace").decode().translate(_ESCAPES)


def collect(broker: Broker, queues: Sequence[str] = ()) -> tuple[Metrics, list[DdmqError]]:
    """Measure queues, all that there are when none are given; and what was wrong with those that could not be looked
    at. Costs a few listings a queue, a file a worker, and the ends of the journal. Raises OSError when the file system
    of the root does not answer."""
    found, failed = Metrics(), []
    for name in queues or sorted(broker.list_queues() + broker.closed):
        labels = {"root": broker.root, "queue": name}
        measured = Metrics()
        try:
            _measure(measured, broker.queue(name), labels)
        except DdmqError as error:
            failed.append(error)
            found.add("ddmq_hpc_queue_readable", False, labels)
            continue
        found.add("ddmq_hpc_queue_readable", True, labels)
        for metric, samples in measured.samples.items():
            found.samples[metric] += samples
    disk = broker.fs.statvfs(broker.root)
    found.add("ddmq_hpc_filesystem_available_bytes", disk.f_bavail * disk.f_frsize, {"root": broker.root})
    return found, failed


def _measure(metrics: Metrics, queue: Queue, labels: Mapping[str, str]) -> None:
    """Raises `DdmqError`."""
    try:
        now = queue.fs.now(queue.paths.tmp)
        _add_messages(metrics, queue, labels, now)
        _add_workers(metrics, queue, labels)
        _add_attempts(metrics, queue, labels, now)
    except OSError as error:
        raise queue.trouble(error, f"look at queue {queue.name!r}") from error


def _add_messages(metrics: Metrics, queue: Queue, labels: Mapping[str, str], now: float) -> None:
    found = stats(queue)
    for state in _STATES:
        metrics.add("ddmq_hpc_messages", getattr(found, state), {**labels, "state": state})
    metrics.add("ddmq_hpc_oldest_ready_age_seconds", found.oldest or 0, labels)
    metrics.add("ddmq_hpc_paused", found.paused, labels)
    leases = [lease for lease in parse_leases(queue.fs.names(queue.paths.leased)) if not lease.split]
    metrics.add("ddmq_hpc_lease_age_seconds", max((_age(lease, now) for lease in leases), default=0.0), labels)
    overdue = [lease.entry for lease in leases if lease.deadline < now * 1000]
    metrics.add("ddmq_hpc_leases_overdue", sum(entry.stop - entry.first for entry in overdue), labels)


def _age(lease: Lease, now: float) -> float:
    return max(0.0, now - (lease.deadline - lease.duration) / 1000)


def _add_workers(metrics: Metrics, queue: Queue, labels: Mapping[str, str]) -> None:
    found = list_workers(queue)
    for life, state in _LIVES.items():
        metrics.add("ddmq_hpc_workers", sum(info.alive == life for info in found), {**labels, "state": state})
    alive = [info for info in found if info.alive == "yes"]
    metrics.add("ddmq_hpc_worker_slots", sum(info.slots for info in alive), labels)
    running = sum(task.queue == queue.name for info in alive for task in info.tasks)
    metrics.add("ddmq_hpc_running_tasks", running, labels)


def _add_attempts(metrics: Metrics, queue: Queue, labels: Mapping[str, str], now: float) -> None:
    hour = Follow(queue).look(now)
    for state, outcome in _OUTCOMES.items():
        count = round(hour.outcomes.get(state, 0))
        metrics.add("ddmq_hpc_attempts_last_hour", count, {**labels, "outcome": outcome})
    metrics.add("ddmq_hpc_attempts_last_hour_estimated", hour.about, labels)
    if hour.typical is not None:
        metrics.add("ddmq_hpc_task_duration_median_seconds", hour.typical, labels)
