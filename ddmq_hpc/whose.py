"""Which messages of a queue are a user's: those that he published, and those that his processes hold."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from ddmq_hpc.admin import Found, entries, publisher
from ddmq_hpc.identity import Owner, host, kernel, process_start, user_name
from ddmq_hpc.names import STATES
from ddmq_hpc.queue import Queue
from ddmq_hpc.workers import list_workers


@dataclass(frozen=True)
class OfUser:
    """Numbers of messages: published by a user, by state; held by processes of that user; and `unknown`, held by
    somebody of whom nothing here tells: no worker that is registered, and no process of this host."""

    queue: str
    user: str
    ready: int
    leased: int
    delayed: int
    dead: int
    damaged: int
    holds: int
    unknown: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def of_user(queue: Queue, uid: int) -> OfUser:
    """What is a user's in a queue, by a look at each file, so it takes longer than `stats`. What moves meanwhile may be
    missed or counted twice. Raises `StorageError`, `QueueNotFound`."""
    try:
        return _of_user(queue, uid)
    except OSError as error:
        raise queue.trouble(error, "look whose messages are where") from error


def _of_user(queue: Queue, uid: int) -> OfUser:
    published: Counter[str] = Counter()
    held: Counter[str | None] = Counter()
    workers = {(info.host, info.pid, info.start, info.kernel): info.user for info in list_workers(queue)}
    for found in entries(queue, (*STATES, "damaged")):
        count = found.entry.stop - found.entry.first
        if publisher(queue, found) == uid:
            published[found.state] += count
        if found.state == "leased":
            held[_holder(found, workers)] += count
    numbers = {state: published[state] for state in (*STATES, "damaged")}
    return OfUser(queue.name, user_name(uid), **numbers, holds=held[user_name(uid)], unknown=held[None])


def _holder(found: Found, workers: dict[tuple[str, int, int, str], str]) -> str | None:
    """The user whose process holds a lease, as far as registrations and this host tell."""
    owner = Owner.parse(found.owner)
    if owner is None or not owner.pid:
        return None  # a command of a script, which is over
    if user := workers.get((owner.host, owner.pid, owner.start, owner.kernel)):
        return user
    if (owner.host, owner.kernel) != (host(), kernel()) or process_start(owner.pid) != owner.start:
        return None
    try:
        return user_name(os.stat(f"/proc/{owner.pid}").st_uid)
    except OSError:
        return None
