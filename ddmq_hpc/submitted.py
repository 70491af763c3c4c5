"""What was submitted for a queue: one file a batch job in workers/, with all it takes to submit the same again.

Anybody who may write to a queue may put such files there, so nobody's commands are repeated but one's own: of files
that others own, or could have written to, only the job's id is believed, and it is counted, nothing else.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from ddmq_hpc.errors import SchedulerError
from ddmq_hpc.fs import GONE, NO_FILE
from ddmq_hpc.identity import token
from ddmq_hpc.names import parse_submission, submission_name
from ddmq_hpc.queue import Queue
from ddmq_hpc.schedulers import NAMES

#: Never to be written by anybody else, not even while it is being made: its owner's commands stand in it.
_MODE = 0o644
#: Bytes of a record that are read.
_MOST = 1 << 20
_JOB_ID = re.compile(r"\d{1,18}(?:\[\])?(?:[.;][A-Za-z0-9_.-]{1,100})?", re.ASCII)


@dataclass(frozen=True)
class Request:
    """Workers as they were asked for."""

    queues: tuple[str, ...]
    scheduler: str
    time: float  # seconds of wall time of each job
    margin: float | None  # seconds of that in which no task may be left, None: as `work` has it
    most: int  # workers
    slots: int  # tasks at a time of each worker
    throttle: int | None  # jobs at a time
    chain: bool  # a worker near its end has more submitted
    extra: tuple[str, ...]  # options for the scheduler, verbatim
    work: tuple[str, ...]  # options of `ddmq-hpc work`
    command: tuple[str, ...]  # nothing when the messages are the commands, or jobs of Snakemake
    snakemake: bool
    directory: str  # that the workers run in


@dataclass(frozen=True)
class Record:
    """One batch job, as a rule an array, that was submitted."""

    job: str  # the scheduler's id for it
    scheduler: str
    tasks: int
    at: float  # seconds since 1970, the file system's clock
    by: str
    group: str  # the label of the first array of the same submission
    request: Request | None  # None: not one's own, or of another version

    @property
    def label(self) -> str:
        return label_of(self.scheduler, self.job)


def label_of(scheduler: str, job: str) -> str:
    """What a batch job is called here: without what differs between its tasks, and without its server."""
    return f"{scheduler}-{number_of(job)}"


def number_of(job: str) -> str:
    """The number that all tasks of an array have in common: 7 of `7[2].server`, `7_2`, `7.2`."""
    found = re.match(r"\d+", job)
    if not found:
        raise SchedulerError(f"not a job id: {job[:60]!r}")
    return found[0]


def write(queue: Queue, record: Record) -> None:
    """Keep a record, put in place at once. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    source = f"{paths.tmp}/job-{token()}"
    text = json.dumps({**asdict(record), "place": _place_of(queue)})
    fs.create(source, text.encode() + b"\n", False, _MODE)
    fs.claim(source, f"{paths.workers}/{submission_name(record.label)}")


def records(queue: Queue) -> list[Record]:
    """All records of a queue, the oldest first; files that are none are passed over. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    fs.refresh(paths.workers)
    found: list[Record] = []
    place = _place_of(queue)
    for name in fs.names(paths.workers):
        label = parse_submission(name)
        if label is None:
            continue
        path = f"{paths.workers}/{name}"
        try:
            status, data = fs.read_some(path, _MOST)  # of the very file: another may stand there a moment later
        except OSError as error:
            if error.errno in GONE | NO_FILE:
                continue
            raise
        mine = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        record = _parse(data, place if mine else None)
        if record and record.label == label:
            found.append(record)
    return sorted(found, key=lambda record: (record.at, record.label))


def _place_of(queue: Queue) -> int:
    """What tells a queue from all others of its file system, of the same name, too: on every host the same number."""
    return queue.fs.lstat(queue.paths.top).st_ino


def remove(queue: Queue, record: Record) -> None:
    queue.fs.drop(f"{queue.paths.workers}/{submission_name(record.label)}")


def _parse(data: bytes, place: int | None) -> Record | None:
    """What was asked for counts where that was written for the queue at `place`: somebody may have moved the record."""
    try:
        found = json.loads(data)
        record = Record(
            job=str(found["job"]),
            scheduler=str(found["scheduler"]),
            tasks=int(found["tasks"]),
            at=float(found["at"]),
            by=str(found["by"]),
            group=str(found["group"]),
            request=_request(found.get("request")) if place and found.get("place") == place else None,
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return record if math.isfinite(record.at) and record.scheduler in NAMES and _JOB_ID.fullmatch(record.job) else None


def _request(values: Any) -> Request | None:
    """None for what another version asked for: such workers are counted all the same."""
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Request)}:
        return None
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Request(**given)
