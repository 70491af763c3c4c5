"""Durations as people on clusters write them."""

from __future__ import annotations

import re

from ddmq_hpc.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?[smhdw]\s*)+", re.ASCII)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d{1,2})(?::(\d{1,2}))?", re.ASCII)
#: Longer than any batch job or delay; keeps names and sums within fixed widths.
LONGEST = 10 * 365 * 86400


def seconds(text: str | float) -> float:
    """Seconds of `90`, `90s`, `10m`, `1h30m`, `HH:MM:SS`, `MM:SS`, `D-HH:MM:SS` or `D-HH:MM` (Slurm's forms).

    A bare number is seconds. Raises `UsageError` for anything else, also for negative or endless durations.
    """
    value = float(text) if isinstance(text, (int, float)) and not isinstance(text, bool) else _parse(str(text).strip())
    if not 0 <= value <= LONGEST:
        raise UsageError(f"bad duration {text!r}: it must be between 0 and 10 years")
    return value


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


def human(value: float) -> str:
    """The two largest units: `45s`, `3m20s`, `2h05m`, `4d03h`."""
    left = max(0, round(value))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m{left % 60:02d}s"
    if left < 86400:
        return f"{left // 3600}h{left % 3600 // 60:02d}m"
    return f"{left // 86400}d{left % 86400 // 3600:02d}h"
