"""Why attempts failed, and where: counted by cause, by what the tasks said, and by host."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from ddmq_hpc.attempts import FAILED, LOST, Attempt

#: Different texts of errors that are told apart.
_MOST_ERRORS = 1000
_DIGITS = re.compile(r"\d+")


@dataclass
class Trouble:
    """Attempts that failed in the same way, numbers in the `text` aside; it is that of the last one."""

    cause: str
    text: str
    attempts: int = 0
    hosts: set[str] = field(default_factory=set)
    last: float = 0.0


@dataclass
class HostCount:
    """Attempts on a host, and how many of them ended badly."""

    attempts: int = 0
    failed: int = 0
    lost: int = 0


class Failures:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.causes: Counter[str] = Counter()
        self.troubles: dict[tuple[str, str], Trouble] = {}
        self.hosts: dict[str, HostCount] = {}

    def count(self, attempt: Attempt, host: str) -> None:
        """Any attempt, and the host that had it."""
        counted = self.hosts.setdefault(host, HostCount())
        counted.attempts += 1
        if attempt.state not in (FAILED, LOST):
            return
        counted.failed += attempt.state == FAILED
        counted.lost += attempt.state == LOST
        cause, text = cause_of(attempt), _said(attempt)
        self.causes[cause] += 1
        kind = (cause, _DIGITS.sub("0", text))
        if len(self.troubles) >= _MOST_ERRORS and kind not in self.troubles:
            kind, text = (cause, ""), ""
        trouble = self.troubles.setdefault(kind, Trouble(cause, text))
        trouble.attempts += 1
        trouble.hosts.add(host)
        if attempt.ended >= trouble.last:
            trouble.text, trouble.last = text, attempt.ended


def cause_of(attempt: Attempt) -> str:
    """Why an attempt failed, in two or three words."""
    if attempt.state == LOST:
        return "worker lost"
    if attempt.oom:
        return "out of memory"
    if attempt.signal:
        return f"signal {_signal_name(attempt.signal)}"
    if attempt.exit:
        return f"exit code {attempt.exit}"
    return "error" if attempt.error else "nacked"


def _said(attempt: Attempt) -> str:
    """What a failed task said of it: its error file, else the last line of its output."""
    lines = attempt.output.strip().splitlines()
    return " ".join((attempt.error or (lines[-1] if lines else "")).split())[:200]


def _signal_name(number: int) -> str:
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:
        return str(number)
