"""Texts that others wrote, and numbers, as a page shows them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from html import escape

from ddmq_hpc.units import LATEST, escaped, human, human_memory

_MOST = 200


def shown(text: str, most: int = _MOST) -> str:
    """A text on one line, what steers a terminal or the direction of writing made visible, and cut to `most` letters
    with the middle left out."""
    visible = escaped(text[: 4 * most])
    if len(visible) <= most and len(text) <= 4 * most:
        return visible
    tail = most // 4
    return f"{visible[: most - tail - 1]}…{visible[len(visible) - tail :]}"


def label(text: str, most: int = _MOST) -> str:
    """The same for the labels of charts, which plotly reads as if it were HTML."""
    return escape(shown(text, most))


def duration(seconds: float) -> str:
    """As `units.human` without what is zero, and in enough digits below a minute."""
    if seconds >= 60:
        return re.sub("00[smh]$", "", human(seconds))
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s"


def hours(seconds: float) -> str:
    """Of sums, which are no time of day: never days."""
    found = seconds / 3600
    if found < 1:
        return duration(seconds)
    return f"{number(found) if found >= 100 else f'{found:.3g}'} h"


def memory(size: float) -> str:
    text = human_memory(int(size))
    return f"{text[:-1]} {text[-1]}iB" if text[-1].isalpha() else f"{text} B"


def number(value: float) -> str:
    """With a thin space between thousands."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def percent(share: float) -> str:
    """Of something that is there, never 0; of something that is missing, never 100."""
    if 0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1:
        return ">99 %"
    return f"{share * 100:.0f} %"


class Clock:
    """The local time of where the report was made, with one offset all through."""

    def __init__(self, made: float) -> None:
        self.offset = datetime.fromtimestamp(made).astimezone().utcoffset() or timedelta()
        self._zone = timezone(self.offset)

    @property
    def zone(self) -> str:
        return self._zone.tzname(None) or "UTC"

    def text(self, moment: float) -> str:
        return datetime.fromtimestamp(min(moment, LATEST), self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def plotted(self, moment: float) -> int:
        """For axes of plotly, which know no time zones: milliseconds."""
        return round((moment + self.offset.total_seconds()) * 1000)
