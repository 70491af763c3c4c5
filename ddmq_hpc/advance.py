"""How far a task is: what it said itself, as text, as JSON, as a part of the whole. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ddmq_hpc.errors import UsageError

#: The file in the directory of a task where it tells that.
FILE = "progress"
#: Letters of its text, and bytes of its JSON.
MAX_TEXT, MAX_BYTES = 200, 4096
_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)(?:/(\d+(?:\.\d+)?)|(%))?", re.ASCII)
_MOST = 1e15


@dataclass(frozen=True)
class Progress:
    """`done` of `total`, in whatever the task counts; either is None where it did not say. `text` is for people."""

    done: float | None = None
    total: float | None = None
    text: str = ""

    @classmethod
    def checked(cls, done: Any = None, total: Any = None, text: Any = "") -> Progress:
        """Raises `UsageError` for what is no progress."""
        done, total = _number(done), _number(total)
        if total == 0 or (total is not None and done is None):
            raise UsageError("progress is DONE of TOTAL, and TOTAL is more than 0")
        if not isinstance(text, str):
            raise UsageError(f"the text of a progress is text, not {text!r:.60}")
        return cls(done, total, text[:MAX_TEXT])

    @classmethod
    def parse(cls, written: str, text: str = "") -> Progress:
        """The progress of `3/10`, `30%` or `3`. Raises `UsageError` for anything else, and for more than all of it:
        that is a script that counts wrongly."""
        found = _WRITTEN.fullmatch(written.strip())
        if not found:
            raise UsageError(f"bad progress {written[:40]!r}: write it as 3/10, 30% or 3")
        done, total = float(found[1]), 100.0 if found[3] else found[2] and float(found[2])
        if total and done > total:
            raise UsageError(f"bad progress {written[:40]!r}: that is more than all of it")
        return cls.checked(done, total, text)

    @property
    def part(self) -> float | None:
        """From 0 to 1; None when the total is not known."""
        return min(1.0, self.done / self.total) if self.done is not None and self.total else None

    def __str__(self) -> str:
        if self.done is None:
            return self.text
        if self.total == 100:
            count = f"{self.done:.4g}%"
        else:
            count = f"{self.done:.12g}" + (f"/{self.total:.12g}" if self.total else "")
        return f"{count} {self.text}".rstrip()

    def encode(self) -> bytes:
        """One line of JSON, for a file."""
        return json.dumps({"done": self.done, "total": self.total, "text": self.text}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Progress | None:
        """What `encode` made; None for anything else."""
        try:
            return cls.of(json.loads(data))
        except (ValueError, RecursionError):
            return None

    @classmethod
    def of(cls, found: Any) -> Progress | None:
        """The progress of a mapping that others may have written; None when it is none."""
        try:
            return cls.checked(found.get("done"), found.get("total"), found.get("text", ""))
        except (UsageError, AttributeError):
            return None


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        found = -1.0 if isinstance(value, (bool, str, bytes)) else float(value)  # of whatever library
    except (TypeError, ValueError, OverflowError):
        found = -1.0
    if not 0 <= found < _MOST:
        raise UsageError(f"bad progress {value!r:.60}: it is a number from 0 on")
    return found
