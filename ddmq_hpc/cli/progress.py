"""A progress bar on a terminal for what takes more than a second: rich's when it is installed, else one line."""

from __future__ import annotations

import sys
import time
from typing import Any

from ddmq_hpc.units import human

_SHOW_AFTER, _EVERY = 1.0, 0.2


class Progress:
    """Tell it numbers with `update`; it prints to stderr, and nothing where that is no terminal."""

    def __init__(self, what: str, total: int | None, quiet: bool) -> None:
        self._what = what
        self._total = total
        self._quiet = quiet or not sys.stderr.isatty()
        self._started = time.monotonic()
        self._printed = self._started + _SHOW_AFTER - _EVERY
        self._bar: Any = None
        self._shown = False

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def update(self, done: int) -> None:
        """Show that so many are done, unless something was shown a moment ago."""
        now = time.monotonic()
        if self._quiet or now - self._printed < _EVERY:
            return
        self._printed = now
        if not self._shown:
            self._bar = _rich_bar(self._what, self._total)
            self._shown = True
        if self._bar is not None:
            self._bar[0].update(self._bar[1], completed=done)
            return
        rate = done / self.elapsed
        left = f", {human((self._total - done) / rate)} left" if self._total and rate and done <= self._total else ""
        of = f" of {self._total}" if self._total else ""
        sys.stderr.write(f"\r{self._what} {done}{of}, {rate:.0f}/s{left}\033[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the terminal at the beginning of a line."""
        if self._bar is not None:
            self._bar[0].stop()
        elif self._shown:
            sys.stderr.write("\n")


def _rich_bar(what: str, total: int | None) -> Any:
    try:
        from rich import progress
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return None

    class _Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(f"{task.speed:.0f}/s" if task.speed else "")

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        _Rate(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.start()
    return bar, bar.add_task(what, total=total)
