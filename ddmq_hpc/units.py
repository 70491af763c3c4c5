"""Durations and amounts of memory as people on clusters write them, and texts as their terminals may show them."""

from __future__ import annotations

import math
import re
from typing import Any

from ddmq_hpc.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?[smhdw]\s*)+", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,9})-)?(\d{1,9}):(\d{1,2})(?::(\d{1,2}))?", re.ASCII)
#: Longer than any batch job or delay; keeps names and sums within fixed widths.
LONGEST = 10 * 365 * 86400


def seconds(text: str | float) -> float:
    """Seconds of `90`, `90s`, `10m`, `1h30m`, `HH:MM:SS`, `MM:SS`, `D-HH:MM:SS` or `D-HH:MM` (Slurm's forms).

    A bare number is seconds. Raises `UsageError` for anything else, also for negative or endless durations.
    """
    is_number = isinstance(text, (int, float)) and not isinstance(text, bool)
    value = _number(text) if is_number else _parse(str(text).strip())
    if not 0 <= value <= LONGEST:
        raise UsageError(f"bad duration {shown(text, 40)}: it must be between 0 and 10 years")
    return value


def _number(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def shown(value: object, most: int = 60) -> str:
    """A value for an error message, cut short."""
    try:
        return repr(value)[:most]
    except (ValueError, RecursionError):
        return "a number of thousands of digits, or deeply nested"  # which Python refuses to write


def _parse(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    if _PARTS.fullmatch(text):
        return sum(float(n) * _SECONDS[unit] for n, unit in re.findall(r"([\d.]+)([smhdw])", text))
    if clock := _CLOCK.fullmatch(text):
        days, first, second, third = clock.groups()
        hours, minutes, secs = (first, second, third or 0) if third or days else (0, first, second)
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + int(secs)
    raise UsageError(f"bad duration {text[:40]!r}: write it as 90, 90s, 10m, 1h30m, HH:MM:SS or D-HH:MM:SS")


_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
#: Bytes of no machine.
_MOST_MEMORY = 2**60


def memory_bytes(text: str | int) -> int:
    """Bytes of `4G`, `500M`, `1.5T`, `4GB`, `4GiB`; each unit is 1024 of the one below, as in Slurm and PBS.

    A bare number is bytes. Raises `UsageError` for anything else.
    """
    value: float = 0
    if isinstance(text, int):
        value = 0 if isinstance(text, bool) else text
    elif found := _MEMORY.fullmatch(str(text).strip()):
        value = float(found[1]) * 1024 ** _POWER[found[2].upper()]
    if not 1 <= value < _MOST_MEMORY:
        raise UsageError(f"bad amount of memory {shown(text, 40)}: write it as 500M or 4G")
    return int(value)


def human_memory(value: int) -> str:
    """In the largest unit of which there is one at least: `4G`, `1.5G`, `500M`."""
    for unit in "TGMK":
        if value >= 1024 ** _POWER[unit]:
            return f"{value / 1024 ** _POWER[unit]:.1f}".rstrip("0").rstrip(".") + unit
    return str(value)


def human(value: float) -> str:
    """The two largest units: `45s`, `3m20s`, `2h05m`, `4d03h`. Others may have written it: it has an end."""
    left = round(min(max(value, 0.0), LATEST))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m{left % 60:02d}s"
    if left < 86400:
        return f"{left // 3600}h{left % 3600 // 60:02d}m"
    return f"{left // 86400}d{left % 86400 // 3600:02d}h"


#: The last day of the year 9999 in any zone: later is what nobody can write down.
LATEST = 253402210800.0


def moment(at: float) -> str:
    """Seconds since 1970 as the clock on the wall here shows them. Others may have written them: what no clock can show
    becomes the first or the last that one can."""
    from time import localtime, strftime

    return strftime("%Y-%m-%d %H:%M:%S", localtime(min(max(at, 0.0), LATEST)))


def escaped(text: str, kept: str = "") -> str:
    """Text for a person's terminal: what could steer it is shown as Python would write it, but for letters that are
    `kept`."""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)
