"""The output of tasks, wherever their worker put it: a file of their own, the worker's log, or the journal.

See `output` for how it gets there. What is read here was written by tasks, and names in logs/ by whoever can write
there: links are not followed, an index is believed only as far as its log goes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from stat import S_ISDIR
from typing import Any, Callable

from ddmq_hpc import attempts
from ddmq_hpc.admin import Item, find
from ddmq_hpc.attempts import FAILED, LOST, Attempt
from ddmq_hpc.errors import MessageNotFound, NoOutputKept, NoOutputYet
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import Owner
from ddmq_hpc.ledger import lines
from ddmq_hpc.names import is_worker_id, message_id, parse_leases
from ddmq_hpc.queue import Queue
from ddmq_hpc.units import human
from ddmq_hpc.workers import list_workers

_BLOCK = 1 << 20
_FAILURES = (FAILED, LOST)
#: Seconds between two looks at what a running task prints, the first ones and later.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
#: Looks in a row that do not see the lease of a task that is over: a listing may miss what is renamed meanwhile.
_MISSES = 2


@dataclass(frozen=True)
class Log:
    """The output of one attempt: the bytes `start` to `stop` of a file; or `text`, all that was kept, the end of it.
    Where a later attempt goes on, of which nothing is kept yet, `later` says so in words."""

    id: str
    attempt: int
    path: str = ""
    start: int = 0
    stop: int = 1 << 62
    text: str = ""
    later: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it is all that the task printed."""
        return bool(self.path)

    def blocks(self, fs: Filesystem) -> Iterator[bytes]:
        """What it says, as it is, in pieces. Raises OSError."""
        if not self.path:
            return iter([self.text.encode("utf-8", "backslashreplace")])  # lone surrogates have no bytes
        return fs.blocks(self.path, _BLOCK, self.start, self.stop)


def of_message(queue: Queue, ident: str, number: int | None = None) -> Log:
    """The output of the newest attempt of which some was kept, or of that `number`. Raises `MessageNotFound`,
    `NoOutputYet` of one that runs, `NoOutputKept`, `StorageError`."""
    try:
        made = [attempt for attempt in attempts.history(queue, ident) if number in (None, attempt.number)]
        item = find(queue, ident)
        goes_on = item if item and item.state == "leased" and number in (None, item.message.attempt) else None
        numbers = {attempt.number for attempt in made} | ({goes_on.message.attempt} if goes_on else set())
        for which in sorted(numbers, reverse=True):
            found = _of_attempt(queue, ident, which, [attempt for attempt in made if attempt.number == which])
            if found is not None and goes_on and which < goes_on.message.attempt:
                return replace(found, later=f"attempt {goes_on.message.attempt} {_where(queue, ident, goes_on)}")
            if found is not None:
                return found
        if goes_on:
            raise NoOutputYet(ident, _where(queue, ident, goes_on))
    except OSError as error:
        raise queue.trouble(error, "look for the output of a task") from error
    if not numbers and item is None:
        raise MessageNotFound(queue.name, ident)
    raise NoOutputKept(ident)


def _where(queue: Queue, ident: str, item: Item) -> str:
    """Who runs a task, on which host since when, and how its output can be seen."""
    owner = Owner.parse(item.owner)
    host = owner.host if owner else "a host"
    worker = next((info for info in list_workers(queue) if owner and info.is_process_of(owner)), None)
    if worker is None:
        return f"is held on {host}, by no worker that is listed: it prints to where it was started"
    since = [task.since for task in worker.tasks if (task.queue, task.id) == (queue.name, ident)]
    ago = f" for {human(max(0.0, queue.fs.now(queue.paths.tmp) - since[0]))}" if since else ""
    return (
        f"runs on {host}{ago}, and its output is there until it ends: `logs -f` waits for that, "
        "`work --output files` shows it at once"
    )


def of_failed(queue: Queue, most: int | None = None) -> Iterator[tuple[str, Attempt, Log | None]]:
    """The messages, at `most` so many, whose last attempt failed or was lost, the last one last, with that attempt and
    its output as far as some was kept. Raises `StorageError`."""
    try:
        for ident, attempt in deque(_failed(queue), most) if most else _failed(queue):
            yield ident, attempt, _of_attempt(queue, ident, attempt.number, [attempt])
    except OSError as error:
        raise queue.trouble(error, "look for the output of tasks") from error


def _failed(queue: Queue) -> Iterator[tuple[str, Attempt]]:
    """(message id, its last attempt) where that failed. Two readings, so that those that did not take no memory; of the
    others a pack is a list by index."""
    last: dict[str, list[Attempt | None]] = {}
    for attempt in attempts.attempts(queue):
        if attempt.state in _FAILURES:
            known = last.setdefault(attempt.pack, [])
            known += [None] * (attempt.stop - len(known))
            for index in range(attempt.first, attempt.stop):
                known[index] = max(known[index] or attempt, attempt, key=_order)
    for attempt in attempts.attempts(queue):
        known = last.get(attempt.pack, [])
        for index in range(attempt.first, min(attempt.stop, len(known))):
            before = known[index]
            if before is not None and _order(attempt) > _order(before):
                known[index] = None
    runs = ((pack, *run) for pack, known in last.items() for run in _runs(known))
    for pack, first, attempt, count in sorted(runs, key=lambda run: run[2].ended):
        for index in range(first, first + count):
            yield message_id(pack, index), attempt


def _runs(known: list[Attempt | None]) -> Iterator[tuple[int, Attempt, int]]:
    """Where a pack has one attempt for several messages in a row: the first of them, the attempt, how many."""
    at = 0
    for attempt, group in groupby(known):
        count = len(list(group))
        if attempt is not None:
            yield at, attempt, count
        at += count


def _order(attempt: Attempt) -> tuple[float, int]:
    return attempt.ended, attempt.number


def follow(queue: Queue, ident: str, waiting: Callable[[str], None]) -> Iterator[bytes]:
    """What a task prints as it prints it, until its attempt is over. What is not in a file of its own is seen when the
    task is over: `waiting` is told so. Of a message that nobody works on it is what `of_message` finds. Raises as that
    does."""
    item = find(queue, ident)
    if item is None or item.state != "leased":
        yield from of_message(queue, ident).blocks(queue.fs)
        return
    number = item.message.attempt
    path = queue.paths.in_logs(f"{ident}.{number}")
    at, told = 0, False
    for over in _until_over(queue, ident, number):
        data = _from(queue, path, at)
        if data is None and not told and not over:
            told = True
            waiting("its output is on the node of its worker until it ends (`work --output files` shows it at once)")
        while data:
            at += len(data)
            yield data
            data = _from(queue, path, at)
    if not at:
        yield from of_message(queue, ident, number).blocks(queue.fs)


def _until_over(queue: Queue, ident: str, number: int) -> Iterator[bool]:
    """False now and then as long as that attempt goes on, then True, once."""
    pause, missed = _FIRST_PAUSE, 0
    while missed < _MISSES:
        yield False
        queue.fs.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
        missed = 0 if _goes_on(queue, ident, number) else missed + 1
    yield True


def _goes_on(queue: Queue, ident: str, number: int) -> bool:
    pack, _, index = ident.rpartition(".")
    try:
        found = [lease.entry for lease in parse_leases(queue.fs.names(queue.paths.leased))]
    except OSError as error:
        raise queue.trouble(error, "look for the output of a task") from error
    return any(
        entry.pack == pack and entry.first <= int(index) < entry.stop and entry.failed + entry.lost + 1 == number
        for entry in found
    )


def _is_there(queue: Queue, path: str) -> bool:
    return _from(queue, path, 0, 1) is not None


def _from(queue: Queue, path: str, at: int, most: int = _BLOCK) -> bytes | None:
    """What a file has from there on, a piece of it; None when it is not there. Nothing is looked for behind a link."""
    fs = queue.fs
    try:
        return fs.read_some(path, most, at)[1] if S_ISDIR(fs.lstat(queue.paths.logs).st_mode) else None
    except OSError as error:
        if error.errno in GONE:
            return None
        raise queue.trouble(error, "read the output of a task") from error


def _of_attempt(queue: Queue, ident: str, number: int, made: list[Attempt]) -> Log | None:
    path = queue.paths.in_logs(f"{ident}.{number}")
    if _is_there(queue, path):
        return Log(ident, number, path)
    for attempt in reversed(made):  # one may have been released before, and has the same number
        if is_worker_id(attempt.worker) and (found := _in_segment(queue, ident, number, attempt.worker)):
            return found
        if attempt.output:
            return Log(ident, number, text=attempt.output)
    return None


def _in_segment(queue: Queue, ident: str, number: int, worker: str) -> Log | None:
    fs, paths = queue.fs, queue.paths
    wanted, found = ident.encode(), None
    if not (_is_there(queue, paths.in_logs(worker)) and _is_there(queue, paths.in_logs(worker, "index"))):
        return None
    size = fs.read_some(paths.in_logs(worker), 1)[0].st_size
    for line in lines(fs, paths.in_logs(worker, "index")):
        place = _place(line) if wanted in line else None
        if place and place[:2] == (ident, number) and place[2] + place[3] <= size:
            found = Log(ident, number, paths.in_logs(worker), place[2], place[2] + place[3])
    return found


def _place(line: bytes) -> tuple[str, int, int, int] | None:
    try:
        found: dict[str, Any] = json.loads(line)
        place = (found["id"], found["attempt"], found["offset"], found["length"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    good = isinstance(place[0], str) and all(isinstance(number, int) and number >= 0 for number in place[1:])
    return place if good else None
