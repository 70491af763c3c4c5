"""Queues drawn for a terminal: lines of text that fit it, with or without letters beyond ASCII.

What queues, messages and hosts are called is shown as it is, never obeyed: no control character and no markup of it
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from ddmq_hpc.cli.common import printable
from ddmq_hpc.settings import steered
from ddmq_hpc.units import human
from ddmq_hpc.views import Place, Trouble, View, places

#: The parts of a bar: what they stand for, how they look, in ASCII, and their colour.
_PARTS = (
    ("done", "█", "#", "green"),
    ("leased", "▒", ">", "yellow"),
    ("ready", "░", ".", "dim"),
    ("dead", "▞", "x", "red"),
)
_MOST_SLOW = 3
_NARROWEST = 20


class Drawing:
    """Draws for a terminal of some width, with letters that it can show."""

    def __init__(self, width: int, ascii_only: bool) -> None:
        self._cropped = width
        self._width = max(width, _NARROWEST)
        self._ascii = ascii_only

    def lines(self, looked: Sequence[View | Trouble] | None, title: tuple[str, str], height: int) -> list[Text]:
        """At most `height` lines: all queues in full when there is room, else a line each, idle ones last; then the
        workers; nothing before anybody has `looked`. The two parts of the title are at either side."""
        views = looked or ()
        head, foot = self._ends(*title), self._text("q quits", "dim")
        blocks = [self._block(view) for view in views]
        workers = self._workers([view for view in views if isinstance(view, View)])
        room = height - 2
        body = [line for block in blocks for line in [Text(), *block]]
        least = min(len(workers), room // 3)
        if len(body) + least > room and len(views) > 1:
            body = [Text(), *map(self._line, sorted(views, key=_idles))]
        if looked is not None and not views:
            body = [Text(), self._text("no queues yet")]
        body = self._cut(body, room - least)
        body += self._cut(workers, room - len(body))
        found = [head, *body, *[Text()] * (room - len(body)), foot][:height]
        for line in found:
            line.truncate(self._cropped, overflow="crop")
        return found

    def _text(self, text: str, style: str = "") -> Text:
        shown = printable(text)
        if self._ascii:
            shown = shown.encode("ascii", "backslashreplace").decode()
        return Text(shown, style, no_wrap=True, end="")

    def _ends(self, left: str, right: str) -> Text:
        shown, end = self._text(left, "bold"), self._text(f"  {right}", "dim")
        shown.truncate(max(self._width - end.cell_len, 0), overflow="crop")
        return Text.assemble(shown, " " * (self._width - shown.cell_len - end.cell_len), end)

    def _cut(self, lines: list[Text], most: int) -> list[Text]:
        if len(lines) <= most:
            return lines
        more = self._text(f"  and {len(lines) - most + 1} more lines", "dim")
        return [*lines[: most - 1], more] if most > 0 else []

    def _flow(self, parts: Iterable[Text], indent: str = "  ") -> list[Text]:
        """Parts side by side, as many on a line as fit."""
        lines: list[Text] = []
        for part in parts:
            if lines and lines[-1].cell_len + 2 + part.cell_len <= self._width:
                lines[-1] = Text.assemble(lines[-1], "  ", part)
            else:
                lines.append(Text.assemble(indent, part))
        return lines

    # -- queues

    def _block(self, view: View | Trouble) -> list[Text]:
        if isinstance(view, Trouble):
            return [self._text(view.queue, "bold"), *self._flow([self._text(view.why, "red")])]
        return [
            *self._flow([self._text(view.queue, "bold"), *self._steered(view)], ""),
            self._bar(view, self._width - 2),
            *self._flow(self._counts(view)),
            *self._flow(self._pace(view)),
            *self._failures(view),
            *self._slow(view),
        ]

    def _steered(self, view: View) -> list[Text]:
        """That it hands out nothing, or takes nothing in, who said so and why."""
        found = view.stats
        words = [word for word, holds in (("paused", found.paused), ("draining", found.draining)) if holds]
        told = steered(found.paused_by, found.paused_reason) if words else ""
        return [self._text(f"({' and '.join(words)}{told})", "yellow")] if words else []

    def _line(self, view: View | Trouble) -> Text:
        if isinstance(view, Trouble):
            return Text.assemble(self._text(f"{view.queue}  "), self._text(view.why, "red"))
        name = self._text(view.queue, "bold")
        name.truncate(self._width // 4, overflow="crop", pad=True)
        numbers = [f"ready {view.stats.ready:,}", f"leased {view.stats.leased:,}", f"dead {view.stats.dead:,}"]
        if view.stats.delayed:
            numbers.insert(2, f"delayed {view.stats.delayed:,}")
        if view.eta:
            numbers.append(f"ETA {human(view.eta)}")
        rest = self._text("  ".join(["", *numbers]))
        room = self._width - name.cell_len - rest.cell_len - 2
        return Text.assemble(name, self._bar(view, room) if room > 8 else "", rest)

    def _bar(self, view: View, width: int) -> Text:
        sizes = {
            "done": view.hour.ever,
            "leased": view.stats.leased,
            "ready": view.stats.ready + view.stats.delayed + view.stats.dropped,
            "dead": view.stats.dead,
        }
        total = sum(sizes.values())
        about = "about " * view.hour.ever_about
        label = f" {about}{int(100 * sizes['done'] / total)}% done" if total else " empty"
        room = max(width - len(label) - 2, 1)
        bar = Text("  [")
        for (_, letter, plain, colour), cells in zip(_PARTS, shares(list(sizes.values()), room)):
            bar.append((plain if self._ascii else letter) * cells, colour)
        return bar.append(" " * (room + 3 - bar.cell_len)).append("]").append(label)

    def _counts(self, view: View) -> list[Text]:
        found = view.stats
        counts = [
            (f"done {'about ' * view.hour.ever_about}{view.hour.ever:,.0f}", "green"),
            (f"ready {found.ready:,}", ""),
            (f"leased {found.leased:,}", "yellow"),
            *[(f"delayed {found.delayed:,}", "")] * (found.delayed > 0),
            *[(f"dropped {found.dropped:,}", "")] * (found.dropped > 0),
            (f"dead {found.dead:,}", "red" if found.dead else ""),
            *[(f"damaged {found.damaged:,}", "red")] * (found.damaged > 0),
        ]
        return [self._text(text, style) for text, style in counts]

    def _pace(self, view: View) -> list[Text]:
        about = "about " * view.hour.about
        parts = [f"now {pace(view.rate)}"] if view.rate is not None else []
        parts.append(f"last hour {about}{pace(view.hour_rate)}")
        if view.eta:
            parts.append(f"ETA {'about ' * view.hour.about}{human(view.eta)}")
        if view.stats.oldest is not None:
            parts.append(f"oldest {human(view.stats.oldest)}")
        if view.hour.typical is not None:
            parts.append(f"a task takes {brief(view.hour.typical)}")
        return [self._text(part) for part in parts]

    def _failures(self, view: View) -> list[Text]:
        hour = view.hour
        if not hour.failed:
            return []
        about = "about " * hour.about
        parts = [f"{about}{hour.failed:,.0f} failed in the last hour"]
        if hour.cause:
            parts.append(f"{hour.cause_part:.0%} of them: {hour.cause}")
        return self._flow(self._text(part, "red") for part in parts)

    def _slow(self, view: View) -> list[Text]:
        found = [
            self._text(f"  slow: {human(slow.seconds)} on {slow.host}: {slow.task.task or slow.task.id}", "yellow")
            for slow in view.slow[:_MOST_SLOW]
        ]
        more = len(view.slow) - _MOST_SLOW
        return [*found, *[self._text(f"  slow: {more} more", "yellow")] * (more > 0)]

    # -- workers

    def _workers(self, views: Sequence[View]) -> list[Text]:
        found = places(views)
        if not found:
            return [Text(), self._text("no workers", "dim")]
        workers, hosts = sum(place.workers for place in found), len({place.host for place in found})
        title = f"{workers} worker{'s' * (workers != 1)} on {hosts} host{'s' * (hosts != 1)}"
        return [Text(), self._text(title, "bold"), *(line for place in found for line in self._place(place))]

    def _place(self, place: Place) -> list[Text]:
        parts = [
            self._text(place.host, "bold"),
            *[self._text(place.job)] * bool(place.job),
            *[self._text(f"{place.workers} workers")] * (place.workers > 1),
            self._text(f"{place.busy} of {place.slots} slots", "dim"),
            *[self._text(f"{place.silent} silent", "red")] * (place.silent > 0),
        ]
        tasks = []
        for task, seconds in place.tasks:
            shown, took = self._text(f"    {task.task or task.id}"), self._text(human(seconds).rjust(8), "dim")
            said = self._text(f"  {task.progress}" if task.progress else "", "green")
            said.truncate(self._width // 2, overflow="crop")
            shown.truncate(self._width - said.cell_len - took.cell_len, overflow="crop")
            gap = self._width - shown.cell_len - said.cell_len - took.cell_len
            tasks.append(Text.assemble(shown, said, " " * gap, took))
        return [*self._flow(parts), *tasks]


def _idles(view: View | Trouble) -> bool:
    if not isinstance(view, View):
        return False
    found = view.stats
    return not (found.leased or found.ready or found.delayed or found.dropped)


def shares(sizes: Sequence[float], cells: int) -> list[int]:
    """Cells of a bar for each size: in proportion, and one at least for what is not nothing."""
    total = sum(sizes)
    if total <= 0:
        return [0 for _ in sizes]
    found = [max(int(size / total * cells), size > 0) for size in sizes]
    largest = max(range(len(sizes)), key=lambda at: sizes[at])
    found[largest] = max(0, found[largest] + cells - sum(found))
    return found


def pace(rate: float) -> str:
    """Messages in the largest unit of time that says something: `3.2/s`, `12/min`, `5/h`."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            return f"{rate * seconds:.3g}/{unit}" if rate * seconds < 1000 else f"{rate * seconds:,.0f}/{unit}"
    return f"{rate * 3600:.3g}/h"


def brief(seconds: float) -> str:
    """A duration, also of less than a second."""
    return human(seconds) if seconds >= 10 else f"{seconds:.2g}s"
