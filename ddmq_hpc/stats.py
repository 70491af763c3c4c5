"""Counts of a queue, from directory listings alone: no message is opened, no file is looked at one by one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ddmq_hpc.names import (
    Entry,
    is_bucket,
    is_delay_directory,
    is_pack,
    is_priority,
    parse_dead,
    parse_delayed,
    parse_entry,
    parse_lease,
    published_ns,
)
from ddmq_hpc.queue import Queue


@dataclass(frozen=True)
class Stats:
    """Numbers of messages by state. `oldest` is the age in seconds of the oldest ready message, None when there is
    none; `holders` counts the processes and hosts that hold leases, which are not all the workers that are alive;
    `foreign` names files that are none of this product's. `dropped` were published by users who may do nothing else,
    and wait to be brought in: by the next take, worker or `clean` of the queue's owner."""

    queue: str
    ready: int
    leased: int
    delayed: int
    dead: int
    damaged: int
    oldest: float | None
    holders: int
    paused: bool
    draining: bool = False
    paused_reason: str | None = None
    paused_by: str | None = None
    priorities: dict[int, int] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    dropped: int = 0

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        found["priorities"] = {str(priority): count for priority, count in sorted(self.priorities.items())}
        return found


def stats(queue: Queue) -> Stats:
    """What is in a queue. While clients move messages about, one may be missed or counted twice."""
    fs, paths, settings = queue.fs, queue.paths, queue.settings
    foreign: list[str] = []
    priorities: dict[int, int] = {}
    oldest = ""
    for priority in fs.directories(paths.ready):
        if not is_priority(priority):
            foreign.append(f"ready/{priority}")
            continue
        count = 0
        for bucket in filter(is_bucket, fs.directories(f"{paths.ready}/{priority}")):
            names = fs.names(f"{paths.ready}/{priority}/{bucket}")
            found, strange = _sizes(names)
            count += found
            foreign += [f"ready/{priority}/{bucket}/{name}" for name in strange]
            first = min((name for name in names if name not in strange), default="")
            oldest = min(oldest, first) if oldest and first else oldest or first
        priorities[int(priority)] = count
    leased, holders = _leased(queue, foreign)
    dropped, strange = queue.fetcher.waiting() if queue.fetcher else (0, [])
    foreign += [f"drop/{name}" for name in strange if not is_pack(name)]
    age = max(0.0, fs.now(paths.tmp) - published_ns(oldest) / 1e9) if oldest else None
    return Stats(
        queue=queue.name,
        ready=sum(priorities.values()),
        leased=leased,
        delayed=count_delayed(queue, foreign),
        dead=_dead(queue, paths.dead, "dead", foreign),
        damaged=_dead(queue, paths.damaged, "damaged", foreign),
        oldest=age,
        holders=holders,
        paused=settings.paused,
        draining=settings.draining,
        paused_reason=settings.paused_reason,
        paused_by=settings.paused_by,
        priorities={priority: count for priority, count in priorities.items() if count},
        foreign=foreign,
        dropped=dropped,
    )


def _size(entry: Entry) -> int:
    return entry.stop - entry.first


def _sizes(names: list[str]) -> tuple[int, list[str]]:
    count, strange = 0, []
    for name in names:
        entry = parse_entry(name)
        if entry:
            count += _size(entry)
        else:
            strange.append(name)
    return count, strange


def _leased(queue: Queue, foreign: list[str]) -> tuple[int, int]:
    count, owners = 0, set()
    leases = []
    for name in queue.fs.names(queue.paths.leased):
        if lease := parse_lease(name):
            leases.append(lease)
        else:
            foreign.append(f"leased/{name}")
    dividing = [lease for lease in leases if lease.split]
    for lease in leases:
        if any(other is not lease and other.entry.contains(lease.entry) for other in dividing):
            continue  # half of a division: counted with the whole
        count += _size(lease.entry)
        owners.add(lease.owner.rpartition(".")[0])
    return count, len(owners)


def count_delayed(queue: Queue, foreign: list[str]) -> int:
    """Messages that are not ready yet; names of other files are added to `foreign`. Raises OSError."""
    count = 0
    for window in filter(is_delay_directory, queue.fs.directories(queue.paths.delayed)):
        for name in queue.fs.names(f"{queue.paths.delayed}/{window}"):
            if found := parse_delayed(name):
                count += _size(found.entry)
            else:
                foreign.append(f"delayed/{window}/{name}")
    return count


def _dead(queue: Queue, directory: str, label: str, foreign: list[str]) -> int:
    count = 0
    for name in queue.fs.names(directory):
        if found := parse_dead(name):
            count += _size(found.entry)
        else:
            foreign.append(f"{label}/{name}")
    return count
