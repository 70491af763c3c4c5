"""Attempts as tables, for pandas, R and spreadsheets: a row for each attempt at each message, streamed."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import IO, Any

from ddmq_hpc.attempts import Attempt, attempts
from ddmq_hpc.names import message_id, published_ns
from ddmq_hpc.queue import Queue

#: Columns and what they are; new ones are added at the end.
COLUMNS = {
    "id": "of the message",
    "attempt": "1 for the first",
    "state": "how it ended: acked, nacked, released, lost, cancelled, deleted, purged, damaged",
    "to": "the state of the message afterwards: ready, delayed, dead, done, or nothing when it was gone",
    "published": "seconds since 1970",
    "began": "seconds since 1970, empty where it is not known",
    "ended": "seconds since 1970",
    "ended_utc": "the same as ISO 8601",
    "wall": "seconds that the task ran",
    "cpu": "seconds of CPU",
    "rss": "bytes of memory, the most that was seen",
    "exit": "exit code, 128 + signal when one ended it",
    "signal": "that ended it",
    "oom": "whether the kernel killed it for want of memory",
    "host": "where it ran, or who wrote the record",
    "pid": "of the worker",
    "job": "batch job",
    "worker": "its name",
    "slot": "of the worker",
    "slots": "that the task took",
    "owner": "whose lease was lost",
    "reason": "why it was removed or set aside",
    "error": "of a failed task",
    "output": "the end of it, of a failed task",
    "task": "the beginning of the message",
}
FORMATS = ("csv", "jsonl")
_CONTROL = re.compile(r"[\x01-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
#: What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def rows(queue: Queue) -> Iterator[dict[str, Any]]:
    """A row for each attempt at each message, by `COLUMNS`, file by file of the journal. Raises `StorageError`."""
    try:
        for attempt in attempts(queue):
            yield from rows_of(attempt, range(attempt.first, attempt.stop))
    except OSError as error:
        raise queue.trouble(error, "read the journal") from error


def rows_of(attempt: Attempt, indexes: Iterable[int]) -> Iterator[dict[str, Any]]:
    """The rows of an attempt at some of its messages."""
    row = _row(attempt)
    for index in indexes:
        yield {**row, "id": message_id(attempt.pack, index)}


def write(rows: Iterable[dict[str, Any]], shape: str, to: IO[str]) -> None:
    """Write rows in one of `FORMATS`. Text in csv that spreadsheets would take for a formula gets an apostrophe in
    front; JSON has it as it is. Raises `StorageError`, OSError."""
    if shape == "csv":
        table = csv.writer(to, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(map(harmless, row.values()) for row in rows)
    else:
        to.writelines(json.dumps(row) + "\n" for row in rows)


def _row(attempt: Attempt) -> dict[str, Any]:
    found = {name: getattr(attempt, name, None) for name in COLUMNS}
    found["attempt"] = attempt.number
    # Cut as leases, and so `began`, are: nothing is taken before it is published.
    found["published"] = published_ns(attempt.pack) // 1_000_000 / 1000
    found["began"] = attempt.began or None
    found["ended_utc"] = _utc(attempt.ended)
    return found


def _utc(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return ""  # after the year 9999


def harmless(value: Any) -> Any:
    """A value for a cell of csv: text that spreadsheets would take for a formula gets an apostrophe in front, and what
    would steer a terminal, or cannot be written as UTF-8, is escaped."""
    if isinstance(value, str):
        clean = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value.replace("\0", ""))
        return f"'{clean}" if clean.startswith(_FORMULA) else clean
    return value
