"""Groups of messages as people see them: how far each is, and what waits for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from ddmq_hpc import groups
from ddmq_hpc.admin import entries
from ddmq_hpc.names import STATES
from ddmq_hpc.queue import Queue


@dataclass(frozen=True)
class Group:
    """A group: `state` is one of those in `groups`; numbers of its messages by state, those that are done left out.
    `waiting` counts the messages that come after it."""

    name: str
    state: str
    ready: int = 0
    leased: int = 0
    delayed: int = 0
    dead: int = 0
    waiting: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def overview(queue: Queue) -> list[Group]:
    """All groups that were published to, and those that something waits for, by name. Costs listings as `stats` does.
    While clients move messages about one may be missed or counted twice. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    known = groups.groups(fs, paths)
    group_of = {pack: name for name in known for pack in groups.packs(fs, paths, name)}
    counts: dict[str, Counter[str]] = {name: Counter() for name in known}
    for found in entries(queue, STATES):
        size = found.entry.stop - found.entry.first
        if name := group_of.get(found.entry.pack):
            counts[name][found.state] += size
        for name in found.after:
            counts.setdefault(name, Counter())["waiting"] += size
    return [Group(name, groups.state(fs, paths, name), **counts[name]) for name in sorted(counts)]
