"""What the journal tells of attempts at messages: when, where and how each ended. Read as a stream, and checked.

A record tells of one message, or of a range of a pack whose messages were taken and settled together. What a client
wrote again, since the disk may not have the first time, is told once; an outcome that it took back (`late`) is not told
at all. Either follows in the same file, few records later, so that memory does not grow with the journal.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Union

from ddmq_hpc import journal
from ddmq_hpc.errors import MessageNotFound
from ddmq_hpc.names import parse_message_id, parse_message_range, published_ns
from ddmq_hpc.queue import Queue

#: How attempts end.
DONE, FAILED, RELEASED, LOST = "acked", "nacked", "released", "lost"
#: What operators do to messages, and what befalls those that cannot be read.
REMOVED = ("cancelled", "deleted", "purged", "damaged")
#: A dead letter was made ready again, its attempts counted anew from 1.
RETRIED = "retried"
_STATES = frozenset((DONE, FAILED, RELEASED, LOST, RETRIED, *REMOVED))
_LATE = "late"
#: Records of a file after which none is written again or taken back any more.
_WINDOW = 4096
_MOST_TEXT = 8192


@dataclass(frozen=True)
class Attempt:
    """One attempt at the messages `first` to `stop` (exclusive) of a pack, and its end.

    `began` and `ended` are seconds since 1970 in the file system's clock; `began` is 0 where nobody knows (a lease that
    ran out). `wall` and `cpu` are seconds, `rss` bytes; None where they were not measured. `task` is the beginning of
    the message, for people. `to` is the state that the messages got then, empty when they were gone.
    """

    pack: str
    first: int
    stop: int
    number: int
    state: str
    began: float
    ended: float
    host: str = ""
    pid: int = 0
    job: str = ""
    worker: str = ""
    slot: int = 0
    slots: int = 1
    exit: int | None = None
    signal: int | None = None
    wall: float | None = None
    cpu: float | None = None
    rss: int | None = None
    oom: bool = False
    error: str = ""
    output: str = ""
    reason: str = ""
    owner: str = ""
    to: str = ""
    task: str = ""

    @property
    def count(self) -> int:
        """Messages that it tells of."""
        return self.stop - self.first

    @property
    def is_attempt(self) -> bool:
        """False of what a person did to messages that nobody was trying, or did to them afterwards."""
        return self.state not in (*REMOVED, RETRIED)

    @property
    def id(self) -> str:
        """Of its message, or `<pack>.<first>-<stop>` of several."""
        return f"{self.pack}.{self.first}" + (f"-{self.stop}" if self.count > 1 else "")

    @property
    def published(self) -> float:
        """Seconds since 1970 when the messages were published."""
        return published_ns(self.pack) / 1e9

    def covers(self, pack: str, index: int) -> bool:
        """Whether it tells of that message."""
        return self.pack == pack and self.first <= index < self.stop


@dataclass(frozen=True)
class Session:
    """A worker that ended: when it worked, in seconds since 1970, and with how many slots."""

    worker: str
    began: float
    ended: float
    slots: int
    host: str
    job: str


#: What else a file says: the range of an outcome that is taken back, its attempt and when that began.
_Late = tuple[str, int, int, int, float]
_Record = Union[Attempt, Session, _Late]


def read(queue: Queue, pack: str | None = None) -> Iterator[Attempt | Session]:
    """Everything that the journal tells, file by file, those of one client in order. With `pack` only what it tells of
    messages of that pack. Raises OSError when the journal cannot be listed; files that cannot be read are left out."""
    for records in journal.read_each(queue.fs, queue.paths, pack):
        yield from of(records)


def of(records: Iterable[dict[str, Any]]) -> Iterator[Attempt | Session]:
    """What the records of one file tell, in order; what they take back or tell twice among themselves is left out."""
    return _true(filter(None, map(_record, records)))


def attempts(queue: Queue, pack: str | None = None) -> Iterator[Attempt]:
    """The attempts alone; see `read`."""
    return (found for found in read(queue, pack) if isinstance(found, Attempt))


def recent(queue: Queue) -> list[Attempt]:
    """The latest attempts at any messages, in no order, at a cost that does not grow with the journal; see
    `journal.recent`."""
    found = _true(filter(None, map(_record, journal.recent(queue.fs, queue.paths))))
    return [attempt for attempt in found if isinstance(attempt, Attempt)]


def history(queue: Queue, ident: str) -> list[Attempt]:
    """The attempts at one message, the first one first. Raises `MessageNotFound` for what is no id, OSError."""
    parsed = parse_message_id(ident)
    if parsed is None:
        raise MessageNotFound(queue.name, ident)
    found = [attempt for attempt in attempts(queue, parsed[0]) if attempt.covers(*parsed)]
    return sorted(found, key=lambda attempt: attempt.ended)


def _true(records: Iterable[_Record]) -> Iterator[Attempt | Session]:
    """Of what a file says that which holds."""
    waiting: deque[tuple[tuple[Any, ...], Attempt]] = deque()
    known: set[tuple[Any, ...]] = set()
    for record in records:
        if isinstance(record, Session):
            yield record
        elif isinstance(record, tuple):
            waiting = deque((key, rest) for key, attempt in waiting for rest in _without(attempt, record))
            known = {key for key, _ in waiting}
        else:
            key = (record.pack, record.first, record.stop, record.number, record.state, record.began, record.ended)
            if key not in known:
                known.add(key)
                waiting.append((key, record))
        if len(waiting) > _WINDOW:
            key, first = waiting.popleft()
            known.discard(key)
            yield first
    yield from (attempt for _, attempt in waiting)


def _without(attempt: Attempt, late: _Late) -> Iterator[Attempt]:
    """What is left of an attempt without the messages whose outcome was taken back."""
    pack, first, stop, *of = late
    # Since attempts at what was retried are counted anew, their number alone does not tell them apart.
    if attempt.pack != pack or [attempt.number, attempt.began] != of or stop <= attempt.first or attempt.stop <= first:
        yield attempt
        return
    for begin, end in ((attempt.first, first), (stop, attempt.stop)):
        if begin < end:
            yield replace(attempt, first=begin, stop=end)


def _record(found: dict[str, Any]) -> _Record | None:
    """What a record means; None when it is none of ours."""
    state = found.get("state")
    if state == journal.WORKER:
        return _session(found)
    of = parse_message_range(found["id"])
    number = _count(found.get("attempt"))
    if of is None or number is None:
        return None
    began, ended = _seconds(found.get("taken")), _seconds(found.get("at"))
    if state == _LATE and began is not None:
        return (*of, number, began)
    if state not in _STATES or began is None or ended is None:
        return None
    extra: dict[str, Any] = {
        name: value for name, check in _EXTRA.items() if (value := check(found.get(name))) is not None
    }
    return Attempt(*of, number, state, began, ended, **extra)


def _session(found: dict[str, Any]) -> Session | None:
    began, ended, slots = _seconds(found.get("taken")), _seconds(found.get("at")), _count(found.get("slots"))
    if began is None or ended is None or not slots:
        return None
    host, job = (_text(found.get(name)) or "" for name in ("host", "job"))
    return Session(found["id"][:_MOST_TEXT], began, ended, slots, host, job)


def _text(value: Any) -> str | None:
    return value[:_MOST_TEXT] if isinstance(value, str) else None


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        return None
    return float(value) if math.isfinite(value) else None


_CHECKS = {"str": _text, "bool": _truth, "int": _count, "int | None": _count, "float | None": _seconds}
#: What a record may have besides that which each has.
_EXTRA = {field.name: _CHECKS[str(field.type)] for field in fields(Attempt)[7:]}
