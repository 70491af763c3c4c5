"""What a worker tells of itself, and how that stands in its file.

Others may have written that: what is too large, no JSON or none of a registration's is none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Callable

from ddmq_hpc.advance import Progress
from ddmq_hpc.identity import Owner, batch_job, host, kernel, process_start
from ddmq_hpc.queue import Queue

#: Bytes of such a file, at most.
MOST_BYTES = 1 << 16
_MOST_TEXT, _MOST_LISTED, _MOST_SECONDS = 1000, 64, 1e12


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError("not a list of texts")
    return tuple(text[:_MOST_TEXT] for text in value[:_MOST_LISTED])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value[:_MOST_TEXT]


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError("not a count")
    return int(value)


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _MOST_SECONDS:
        raise ValueError("not a time")
    return float(value)


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


@dataclass(frozen=True)
class Running:
    """A task that runs: its queue, the beginning of its message, since when, and how far it is, told when it was
    `told`. Times are seconds since 1970; `told` is 0 and `progress` None as long as it said nothing."""

    id: str
    queue: str = ""
    task: str = ""
    since: float = 0.0
    told: float = 0.0
    progress: Progress | None = None


def _tasks(value: Any) -> tuple[Running, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list of tasks")
    return tuple(
        Running(
            _text(found["id"]),
            _text(found["queue"]),
            _text(found["task"]),
            _moment(found["since"]),
            _moment(found["told"]),
            Progress.of(found["progress"]) if found["progress"] else None,
        )
        for found in value[:_MOST_LISTED]
    )


def _kept(check: Callable[[Any], Any], default: Any) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class WorkerInfo:
    """A worker, as it tells of itself. Times are seconds since 1970 in the file system's clock.

    `start` and `kernel` tell its process from others of the same `pid`, see `identity`. `memory`, in bytes, is what its
    tasks have together, and `ends` when the last of them has to be done; None where nobody said.

    What is not in the file but is found out by whoever lists: `seen`, the last sign of life; `user`, whose file it is;
    `alive`: "no" when its process is known to be gone, "silent" when it gave no sign of life for 5 minutes, else "yes".
    """

    id: str
    host: str = _kept(_text, "")
    pid: int = _kept(_count, 0)
    start: int = _kept(_count, 0)
    kernel: str = _kept(_text, "")
    job: str = _kept(_text, "")
    queues: Sequence[str] = _kept(_texts, ())
    slots: int = _kept(_count, 1)
    since: float = _kept(_moment, 0.0)
    done: int = _kept(_count, 0)
    failed: int = _kept(_count, 0)
    running: Sequence[str] = _kept(_texts, ())
    command: Sequence[str] = _kept(_texts, ())
    memory: int | None = _kept(_optional(_count), None)
    ends: float | None = _kept(_optional(_moment), None)
    tasks: Sequence[Running] = _kept(_tasks, ())
    seen: float = 0.0
    user: str = ""
    alive: str = "yes"

    @classmethod
    def of_this_process(
        cls, queue: Queue, ident: str, queues: Sequence[str], slots: int = 1, command: Sequence[str] = ()
    ) -> WorkerInfo:
        """What this process has to tell when it begins to work."""
        pid = os.getpid()
        return cls(
            ident,
            host(),
            pid,
            process_start(pid) or 0,
            kernel(),
            batch_job(),
            tuple(queues),
            slots,
            queue.fs.now(queue.paths.tmp),
            command=tuple(command),
        )

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    def line(self) -> bytes:
        """The content of its file."""
        found: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if name == "tasks":
                value = [asdict(task) for task in value[:_MOST_LISTED]]
            elif value is not None and not isinstance(value, (str, int, float)):
                value = [str(text)[:_MOST_TEXT] for text in value[:_MOST_LISTED]]
            found[name] = value
        text = json.dumps(found, separators=(",", ":"))
        if len(text) >= MOST_BYTES:  # a command line as long as that is not worth more
            text = json.dumps({**found, "command": [], "running": found["running"][:1], "tasks": found["tasks"][:1]})
        return text.encode() + b"\n"

    def is_process_of(self, owner: Owner) -> bool:
        """Whether what is leased under that name is in the hands of this worker."""
        return bool(owner.pid) and (self.host, self.pid, self.start) == (owner.host, owner.pid, owner.start)

    @property
    def news(self) -> tuple[object, ...]:
        """What changes when there is something that is worth telling soon: not each step that a task makes."""
        return (
            self.done,
            self.failed,
            self.running,
            self.ends,
            [(task.since, task.progress is None) for task in self.tasks],
        )


_FIELDS = {f.name: f.metadata["check"] for f in fields(WorkerInfo) if "check" in f.metadata}
#: What registrations of the first version do not have.
_LATER = {"memory", "ends", "tasks"}


def decode(ident: str, data: bytes) -> WorkerInfo | None:
    """What the file of a worker tells; None where that is no registration."""
    try:
        found = json.loads(data)
        known = {name: check for name, check in _FIELDS.items() if name in found or name not in _LATER}
        return WorkerInfo(ident, **{name: check(found[name]) for name, check in known.items()})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
