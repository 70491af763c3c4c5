"""What ran when: a bar a task while a person can tell them apart, else how busy each worker was over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ddmq_hpc.report.collecting import MOST_SHOWN, Collected, Lane, Run
from ddmq_hpc.report.numbers import Bins, Period, bins

#: The most rows of slots, for single tasks, and of workers or hosts.
MOST_LANES, MOST_ROWS = 60, 60
_HEAT_BINS = 120


@dataclass(frozen=True)
class Bars:
    """Each task, as (run, message id, text), in the row of the slot that ran it. Left out is what nobody is known to
    have run."""

    period: Period
    rows: list[Lane]
    runs: list[tuple[Run, str, str]]


@dataclass(frozen=True)
class Heat:
    """The share of its slots' time that each row was busy in each bin, None where it was not there. Rows are workers,
    or hosts when there are too many of those; `left_out` says how many are not shown, the idlest."""

    bins: Bins
    of: str
    rows: list[str]
    shares: list[list[float | None]]
    left_out: int


def lanes(found: Collected, period: Period) -> Bars | Heat:
    """The form that fits, from when somebody worked."""
    began = [run.began for run in found.runs if run.lane >= 0] + [span.began for span in found.sessions.values()]
    working = Period(max(period.began, min(began, default=period.began)), period.ended)
    if len(found.runs) <= MOST_SHOWN and len(found.lanes) <= MOST_LANES:
        return _bars(found, working)
    return _heat(found, bins(working, _HEAT_BINS))


def _bars(found: Collected, working: Period) -> Bars:
    order = sorted(range(len(found.lanes)), key=lambda number: found.lanes[number])
    place = {number: row for row, number in enumerate(order)}
    runs = [(run._replace(lane=place[run.lane]), *task) for run, task in zip(found.runs, found.tasks) if run.lane >= 0]
    return Bars(working, [found.lanes[number] for number in order], runs)


def _heat(found: Collected, bins: Bins) -> Heat:
    spans = {**found.scripts, **found.sessions}
    workers = sorted(spans, key=lambda worker: (spans[worker].began, worker))
    of = "worker" if len(workers) <= MOST_ROWS else "host"
    row_of = {worker: worker if of == "worker" else spans[worker].host for worker in workers}
    rows = list(dict.fromkeys(row_of.values()))
    place = {row: number for number, row in enumerate(rows)}
    there = [[0.0] * bins.count for _ in rows]
    busy = [[0.0] * bins.count for _ in rows]
    for worker in workers:
        span = spans[worker]
        _spread(there[place[row_of[worker]]], bins, span.began, span.ended, span.slots)
    at = [place[row_of[lane.worker]] for lane in found.lanes]
    for run in found.runs:
        if run.lane >= 0:
            _spread(busy[at[run.lane]], bins, run.began, run.ended, run.slots)
    shown = sorted(sorted(range(len(rows)), key=lambda row: -sum(busy[row]))[:MOST_ROWS])
    shares = [[min(1.0, b / t) if t > 0 else None for b, t in zip(busy[row], there[row])] for row in shown]
    return Heat(bins, of, [rows[row] for row in shown], shares, len(rows) - len(shown))


def _spread(row: list[float], bins: Bins, began: float, ended: float, slots: int) -> None:
    """Add the slots' seconds from `began` to `ended` to the bins that they lie in."""
    for number, seconds in _pieces(bins, began, ended):
        row[number] += slots * seconds


def _pieces(bins: Bins, began: float, ended: float) -> Iterator[tuple[int, float]]:
    end = bins.start + bins.count * bins.width
    began, ended = max(began, bins.start), min(ended, end)
    if ended <= began:
        return
    first, last = bins.at(began), bins.at(ended)
    for number in range(first, last + 1):
        start = bins.start + number * bins.width
        yield number, min(ended, start + bins.width) - max(began, start)
