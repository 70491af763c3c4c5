"""Who works where: registrations of workers, their signs of life, and requests to them to stop.

A registration is `workers/<id>.json`, written aside and renamed; the file's time of change is the worker's last sign of
life. A request to stop is `<id>.stop` beside it. Others may have written either, so that nothing of them is believed
unchecked, and what is no registration is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from stat import S_ISREG
from typing import Optional

from ddmq_hpc.errors import UsageError, WorkerNotFound
from ddmq_hpc.fs import GONE
from ddmq_hpc.identity import is_gone, token, user_name
from ddmq_hpc.journal import WORKER
from ddmq_hpc.names import parse_worker_file
from ddmq_hpc.queue import Queue
from ddmq_hpc.worker_info import MOST_BYTES, WorkerInfo, decode

#: Seconds after its last sign of life from which a worker counts as silent, and is forgotten.
SILENT_SECONDS, FORGET_SECONDS = 300.0, 3600.0
#: Seconds between two signs of life: when something changed that is worth telling, and in any case.
_NEWS_SECONDS, _BEAT_SECONDS = 10.0, 60.0
#: Seconds between two looks for a request to stop, of a worker that works and of one that waits.
_LOOK_SECONDS, _IDLE_LOOK_SECONDS = 5.0, 30.0
#: What a worker was asked: "stop" once its tasks are done, or "now".
Stop = Optional[str]


class Registration:
    """The entry of one worker in the list of a queue's workers. Its calls are made by one thread."""

    def __init__(self, queue: Queue, info: WorkerInfo) -> None:
        self._queue = queue
        self._info = info
        self._line = b""
        self._told = info
        self._written = self._seen = self._looked = -1e9
        self._asked: Stop = None

    def start(self) -> None:
        """Be listed from here on. Raises `StorageError`, `QueueNotFound`."""
        try:
            self._write(self._info)
        except OSError as error:
            raise self._queue.trouble(error, "register a worker") from error

    def beat(self, info: WorkerInfo) -> Stop:
        """Give a sign of life, and learn whether this worker was asked to stop. May be called as often as one likes.

        A failure of the file system is nothing to stop for: the next call tries again.
        """
        self._info = info
        fs = self._queue.fs
        clock = fs.monotonic()
        try:
            self._tell(info, clock)
            if clock - self._looked > (_LOOK_SECONDS if info.running else _IDLE_LOOK_SECONDS):
                self._looked = clock
                self._asked = asked_to_stop(self._queue, info.id) or self._asked
        except OSError:
            pass
        return self._asked

    def end(self) -> None:
        """Be listed no more; the journal tells that it was there. What cannot be removed now `clean` will."""
        info, paths = self._info, self._queue.paths
        try:
            now = self._queue.fs.now(paths.tmp)
            record = self._queue.journal.record(WORKER, info.id, 0, now, info.since, {"slots": info.slots})
            self._queue.journal.write([record], False)
            self._queue.fs.drop(paths.in_workers(info.id, "stop"))
            self._queue.fs.drop(paths.in_workers(info.id))
        except OSError:
            pass

    def _tell(self, info: WorkerInfo, clock: float) -> None:
        is_news = info.news != self._told.news and clock - self._written > _NEWS_SECONDS
        if is_news or _is_outdated(self._told, info):
            self._write(info)
        elif clock - self._seen > _BEAT_SECONDS:
            if info.line() != self._line:
                self._write(info)
                return
            try:
                self._queue.fs.touch(self._queue.paths.in_workers(self._info.id))
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self._write(info)  # somebody took this worker for dead
            self._seen = clock

    def _write(self, info: WorkerInfo) -> None:
        line = info.line()
        _place(self._queue, self._queue.paths.in_workers(info.id), line)
        self._line, self._told = line, info
        self._written = self._seen = self._queue.fs.monotonic()


def _is_outdated(told: WorkerInfo, info: WorkerInfo) -> bool:
    """Whether what was told of a task's progress is of an earlier attempt at what runs now: that would be believed."""
    began = {task.id: task.since for task in told.tasks if task.progress}
    return any(began.get(task.id, task.since) != task.since for task in info.tasks)


def _place(queue: Queue, path: str, data: bytes) -> None:
    """Put a file in place whole, over what is there."""
    aside = queue.paths.in_tmp(f"workers-{token()}")
    queue.fs.create(aside, data, False)
    try:
        queue.fs.claim(aside, path)
    except OSError:
        queue.fs.drop(aside)
        raise


def asked_to_stop(queue: Queue, ident: str) -> Stop:
    """What the worker was asked, None when nothing. Raises OSError."""
    path = queue.paths.in_workers(ident, "stop")
    if not queue.fs.is_there(path):  # asks the server: a name that was missing a minute ago may be remembered
        return None
    try:
        return "now" if queue.fs.read_some(path, 16)[1].strip() == b"now" else "stop"
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def list_workers(queue: Queue) -> list[WorkerInfo]:
    """The registered workers, oldest first, but those that are dead or silent for more than an hour. What one that is
    gone told of its task is left out once another works on that. Raises OSError."""
    now = queue.fs.now(queue.paths.tmp)
    found = [info for _, info in _registered(queue, queue.paths.workers) if info and not _is_past(info, now)]
    return sorted(_without_earlier_attempts(found), key=lambda info: (info.since, info.id))


def _without_earlier_attempts(found: Sequence[WorkerInfo]) -> Iterable[WorkerInfo]:
    """A message is in one hand: of two workers that name it the one that began later has it."""
    newest: dict[tuple[str, str], float] = {}
    for info in found:
        for task in info.tasks:
            newest[task.queue, task.id] = max(newest.get((task.queue, task.id), task.since), task.since)
    for info in found:
        tasks = tuple(task for task in info.tasks if task.since == newest[task.queue, task.id])
        yield info if len(tasks) == len(info.tasks) else replace(info, tasks=tasks)


def _registered(queue: Queue, place: str) -> Iterable[tuple[str, WorkerInfo | None]]:
    """(id, registration) of all files in `place` that are named as one; None for the registration where it is none."""
    fs = queue.fs
    now = fs.now(queue.paths.tmp)
    for name in fs.names(place):
        parsed = parse_worker_file(name)
        if parsed is None or parsed[1] != "json":
            continue
        try:
            found, data = fs.read_some(f"{place}/{name}", MOST_BYTES)
        except OSError:
            continue  # gone meanwhile, or a link, a directory, not for us to read
        info = decode(parsed[0], data)
        yield parsed[0], info and _judged(replace(info, seen=found.st_mtime, user=user_name(found.st_uid)), now)


def _judged(info: WorkerInfo, now: float) -> WorkerInfo:
    if is_gone(info.host, info.pid, info.start, info.kernel):
        return replace(info, alive="no")
    return replace(info, alive="silent" if now - info.seen > SILENT_SECONDS else "yes")


def _is_past(info: WorkerInfo, now: float) -> bool:
    return info.alive != "yes" and now - info.seen > FORGET_SECONDS


def request_stop(queue: Queue, ids: Iterable[str] | None, now: bool = False) -> list[str]:
    """Ask workers to stop: those whose ids begin as `ids` say, or all; once their tasks are done, or `now`.

    They notice within seconds, those that wait for messages within half a minute. The ids of those asked. Raises
    `WorkerNotFound`, `UsageError` when a beginning is not unique (then nobody was asked), `StorageError`.
    """
    try:
        known = [info.id for info in list_workers(queue) if info.alive != "no"]
        asked = known if ids is None else [_the_one(queue, known, text) for text in ids]
        for ident in asked:
            if now or asked_to_stop(queue, ident) != "now":
                _place(queue, queue.paths.in_workers(ident, "stop"), b"now\n" if now else b"stop\n")
    except OSError as error:
        raise queue.trouble(error, "ask workers to stop") from error
    return asked


def _the_one(queue: Queue, known: list[str], text: str) -> str:
    found = [text] if text in known else [ident for ident in known if text and ident.startswith(text)]
    if not found:
        raise WorkerNotFound(queue.name, text)
    if len(found) > 1:
        raise UsageError(f"{text[:60]!r} is the beginning of {len(found)} workers: {', '.join(sorted(found)[:3])}")
    return found[0]


def forget(queue: Queue) -> int:
    """Remove the registrations of workers that are dead, or silent for an hour, and requests to nobody. How many files.

    A worker that is alive all the same registers anew with its next sign of life.
    """
    with queue.fs.held(queue.paths.workers) as place:  # a link to elsewhere could take its name
        return _forget(queue, place, queue.fs.now(queue.paths.tmp))


def _forget(queue: Queue, place: str, now: float) -> int:
    kept, removed = set(), 0
    for ident, info in _registered(queue, place):
        path = f"{place}/{ident}.json"
        if info is None and _age(queue, path, now) < FORGET_SECONDS:
            continue  # perhaps of a newer version
        if info is None or info.alive == "no" or _is_past(info, now):
            removed += queue.fs.drop(path)
        else:
            kept.add(ident)
    for name in queue.fs.names(place):
        parsed = parse_worker_file(name)
        if parsed and parsed[1] == "stop" and parsed[0] not in kept:
            path = f"{place}/{name}"
            removed += _age(queue, path, now) > FORGET_SECONDS and queue.fs.drop(path)
    return removed


def _age(queue: Queue, path: str, now: float) -> float:
    """Seconds since a file changed; 0 for what is none."""
    try:
        found = queue.fs.lstat(path)
    except OSError:
        return 0.0
    return now - found.st_mtime if S_ISREG(found.st_mode) else 0.0
