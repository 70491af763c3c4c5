"""Figures of a report, computed from what was collected: plain values, nothing of how they are drawn. Times are seconds
since 1970, durations seconds, memory bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ddmq_hpc.attempts import DONE, FAILED, LOST, RELEASED
from ddmq_hpc.report.collecting import ENDINGS, Collected, Run, Span

#: Widths of bins of time, in seconds; longer ones are whole days.
_WIDTHS = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_MOST_BINS = 100
_HISTOGRAM_BINS = 30
#: From this ratio of the largest to the smallest on, a histogram has bins of equal ratios.
_WIDE = 50.0


@dataclass(frozen=True)
class Period:
    """What is shown: from the first that happened, or from when it was asked for, to the last or to now."""

    began: float
    ended: float

    @property
    def span(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Totals:
    """Messages by how they ended within the period, and what their attempts took; `peak` is None where it was not
    measured."""

    done: int
    failed: int
    released: int
    lost: int
    worked: float
    cpu: float
    peak: int | None


@dataclass(frozen=True)
class Bins:
    """Equal bins of time: the first begins at `start`."""

    start: float
    width: float
    count: int

    def at(self, moment: float) -> int:
        """The bin of a moment; the first or last one for what lies outside."""
        return min(max(int((moment - self.start) / self.width), 0), self.count - 1)

    @property
    def edges(self) -> list[float]:
        return [self.start + number * self.width for number in range(self.count + 1)]


@dataclass(frozen=True)
class Throughput:
    """Messages that ended in each bin, by ending."""

    bins: Bins
    endings: dict[str, list[int]]


@dataclass(frozen=True)
class Backlog:
    """Messages that were ready, leased or delayed, at the edges of the bins."""

    bins: Bins
    depth: list[int]


@dataclass(frozen=True)
class Histogram:
    """How many values lie between each two `edges`; `ratios` when the bins grow by equal ratios."""

    edges: list[float]
    counts: list[int]
    ratios: bool
    values: int
    median: float
    p95: float
    largest: float


@dataclass(frozen=True)
class Efficiency:
    """What became of the time of all slots of all workers, in slot-seconds; scripts have no slots. `estimated` workers
    left no record of when they worked, so that it was taken from the first to the last of what they did."""

    workers: int
    estimated: int
    live: int
    available: float
    used: dict[str, float]

    @property
    def idle(self) -> float:
        return max(0.0, self.available - sum(self.used.values()))

    def share(self, seconds: float) -> float:
        """Of what was available, between 0 and 1."""
        whole = max(self.available, sum(self.used.values()))
        return seconds / whole if whole else 0.0


def period(found: Collected) -> Period:
    """Publishing long before anybody worked is no reason to show hours of nothing: it counts for as long as the work
    took at most."""
    began = [run.began or run.ended for run in found.runs]
    ended = [run.ended for run in found.runs]
    for span in found.sessions.values():
        began.append(span.began)
        ended.append(span.ended)
    first, last = min(began, default=found.made), max(ended, default=found.made)
    if found.live or found.now.leased or not ended:
        last = max(last, found.made)
    if published := [when for when, _ in found.published]:
        lead = last - first if ended else math.inf
        first = min(first, max(min(published), first - lead))
    first = max(first, found.since)
    return Period(first, max(last, first + 1.0))


def totals(found: Collected) -> Totals:
    messages = dict.fromkeys(ENDINGS, 0)
    for run in found.runs:
        messages[ENDINGS[run.ending]] += run.messages
    return Totals(
        messages[DONE],
        messages[FAILED],
        messages[RELEASED],
        messages[LOST],
        sum(run.ended - run.began for run in found.runs if run.began),
        found.cpu,
        int(max(found.memory)) if found.memory else None,
    )


def bins(period: Period, most: int = _MOST_BINS) -> Bins:
    """At most `most` bins of a width that people use, which begin at multiples of it."""
    least = period.span / most
    width = next((width for width in _WIDTHS if width >= least), math.ceil(least / 86400) * 86400.0)
    start = math.floor(period.began / width) * width
    return Bins(start, width, max(1, math.ceil((period.ended - start) / width)))


def throughput(found: Collected, bins: Bins) -> Throughput:
    endings = {ending: [0] * bins.count for ending in ENDINGS}
    columns = list(endings.values())
    for run in found.runs:
        columns[run.ending][bins.at(run.ended)] += run.messages
    return Throughput(bins, endings)


def backlog(found: Collected, bins: Bins) -> Backlog:
    """What was published by then less what was gone by then."""
    changes = [0] * (bins.count + 1)
    for events, sign in ((found.published, 1), (found.gone, -1)):
        for when, messages in events:
            changes[_edge_after(bins, when)] += sign * messages
    return Backlog(bins, [max(0, depth) for depth in accumulate(changes)])


def _edge_after(bins: Bins, moment: float) -> int:
    return min(max(math.ceil((moment - bins.start) / bins.width), 0), bins.count)


def histogram(values: Sequence[float], least: float) -> Histogram | None:
    """None of nothing. What is smaller than `least` counts as that."""
    ordered = sorted(max(value, least) for value in values)
    if not ordered:
        return None
    low, high = ordered[0], ordered[-1]
    ratios = high / low > _WIDE
    edges = _equal_ratios(low, high) if ratios else _equal_steps(low, high)
    counts = [0] * (len(edges) - 1)
    at = 0
    for value in ordered:
        while at < len(counts) - 1 and value >= edges[at + 1]:
            at += 1
        counts[at] += 1
    return Histogram(edges, counts, ratios, len(ordered), quantile(ordered, 0.5), quantile(ordered, 0.95), high)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of sorted values that is not smaller than this share of them."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _equal_ratios(low: float, high: float) -> list[float]:
    begin, end = math.log10(low), math.log10(high)
    step = (end - begin) / _HISTOGRAM_BINS
    return [10 ** (begin + step * number) for number in range(_HISTOGRAM_BINS + 1)]


def _equal_steps(low: float, high: float) -> list[float]:
    """Of one value alone: a bin around it."""
    low, high = (low * 0.5, low * 1.5) if low == high else (low, high)
    step = (high - low) / _HISTOGRAM_BINS
    return [low + step * number for number in range(_HISTOGRAM_BINS + 1)]


def efficiency(found: Collected, period: Period) -> Efficiency:
    used = dict.fromkeys((DONE, FAILED, RELEASED), 0.0)
    for run in found.runs:
        if ENDINGS[run.ending] in used and run.lane >= 0 and found.lanes[run.lane].worker in found.sessions:
            used[ENDINGS[run.ending]] += run.slots * overlap(run, period)
    spans = [span for span in found.sessions.values() if overlap(span, period) > 0]
    return Efficiency(
        len(spans),
        sum(not span.known for span in spans),
        found.live,
        sum(span.slots * overlap(span, period) for span in spans),
        used,
    )


def overlap(one: Run | Span, period: Period) -> float:
    """Seconds of it that lie within the period."""
    return max(0.0, min(one.ended, period.ended) - max(one.began, period.began))
