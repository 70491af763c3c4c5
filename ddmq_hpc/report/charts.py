"""Figures as plotly draws them: its own data and layout, as plain values. Colours are names that the page gives their
meaning, since that differs by light and dark; texts in them are harmless as plotly reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddmq_hpc.attempts import DONE
from ddmq_hpc.report.collecting import ENDINGS, Collected
from ddmq_hpc.report.lanes import Bars, Heat
from ddmq_hpc.report.numbers import Backlog, Efficiency, Histogram, Throughput
from ddmq_hpc.report.texts import Clock, duration, hours, label, memory, number, percent

#: What endings are called.
NAMES = dict(zip(ENDINGS, ("done", "failed", "given back", "lost")))
#: Names of colours, which report.js looks up.
_COLOURS = dict(zip(ENDINGS, ("@done", "@failed", "@released", "@lost")))
_LABEL = 26
_SECONDS = (1e-3, 1e-2, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400)
_STEPS = (1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
_BYTES = tuple(1024**power * step for power in range(5) for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
#: Of the width of a histogram, the least from one text of its axis to the next.
_APART = 0.16


@dataclass(frozen=True)
class Chart:
    """What plotly draws, how high in pixels, and what one reads who does not see it."""

    name: str
    text: str
    height: int
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"height": self.height, "data": self.data, "layout": self.layout}


def timeline(found: Bars | Heat, clock: Clock) -> Chart:
    return _bars(found, clock) if isinstance(found, Bars) else _heat(found, clock)


def _bars(found: Bars, clock: Clock) -> Chart:
    data = []
    for number_, ending in enumerate(ENDINGS):
        shown = [one for one in found.runs if one[0].ending == number_]
        runs = [run for run, _, _ in shown]
        if not runs:
            continue
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": NAMES[ending],
                "y": [run.lane for run in runs],
                "base": [clock.plotted(run.began) for run in runs],
                "x": [max(1, round((run.ended - run.began) * 1000)) for run in runs],
                "width": 0.8,
                # Done tasks that follow each other are told apart by their borders; others are seen however short.
                "marker": {
                    "color": _COLOURS[ending],
                    "line": {"width": 0.5, "color": "@paper" if ending == DONE else _COLOURS[ending]},
                },
                "hovertext": [
                    f"{label(task, 80)}<br>{NAMES[ending]}, {duration(run.ended - run.began)} from "
                    f"{clock.text(run.began)}<br>{label(ident)}"
                    for run, ident, task in shown
                ],
                "hoverinfo": "text",
                "textposition": "none",
            }
        )
    rows = [f"{lane.worker} #{lane.slot}" if lane.slot else lane.worker for lane in found.rows]
    layout = {
        "barmode": "overlay",
        "xaxis": {"type": "date", "range": _range((found.period.began, found.period.ended), clock)},
        "yaxis": _rows(rows),
    }
    return Chart("timeline", "Bars of tasks, a row for each slot of each worker", _height(len(rows)), data, layout)


def _heat(found: Heat, clock: Clock) -> Chart:
    trace = {
        "type": "heatmap",
        "x": [clock.plotted(edge) for edge in found.bins.edges],
        "y": list(range(len(found.rows))),
        "z": [[None if share is None else round(share, 3) for share in row] for row in found.shares],
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "@idle"], [1, "@done"]],
        "xgap": 0,
        "ygap": 1,
        "hoverongaps": False,
        "text": [[label(row, 60)] * found.bins.count for row in found.rows],
        "hovertemplate": "%{text}<br>%{x}: busy %{z:.0%}<extra></extra>",
        "colorbar": {
            "thickness": 10,
            "lenmode": "pixels",
            "len": 130,
            "y": 1,
            "yanchor": "top",
            "tickformat": ".0%",
            "tickvals": [0, 0.5, 1],
            "outlinewidth": 0,
        },
    }
    text = f"How busy each {found.of} was over time, a row each"
    layout = {"xaxis": {"type": "date", "showgrid": False}, "yaxis": _rows(found.rows)}
    return Chart("timeline", text, _height(len(found.rows)), [trace], layout)


def _rows(texts: Sequence[str]) -> dict[str, Any]:
    """An axis with a text for each row, the first one on top."""
    return {
        "tickvals": list(range(len(texts))),
        "ticktext": [label(text, _LABEL) for text in texts],
        "range": [len(texts) - 0.4, -0.6],
        "showgrid": False,
        "zeroline": False,
    }


def _height(rows: int) -> int:
    return 90 + max(2, rows) * (26 if rows <= 20 else 16)


def throughput(found: Throughput, clock: Clock) -> Chart:
    bins = found.bins
    middles = [clock.plotted(edge + bins.width / 2) for edge in bins.edges[:-1]]
    data = [
        {
            "type": "bar",
            "name": NAMES[ending],
            "x": middles,
            "y": counts,
            "width": round(bins.width * 1000),
            "marker": {"color": _COLOURS[ending], "line": {"width": 0}},
            "hovertemplate": f"%{{x}}: %{{y}} {NAMES[ending]}<extra></extra>",
        }
        for ending, counts in found.endings.items()
        if any(counts)
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0,
        "xaxis": {"type": "date", "range": _range(bins.edges, clock)},
        "yaxis": {"title": {"text": f"messages in {duration(bins.width)}"}, "rangemode": "tozero"},
    }
    return Chart("throughput", "Messages by how they ended, over time", 260, data, layout)


def backlog(found: Backlog, clock: Clock) -> Chart:
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [clock.plotted(edge) for edge in found.bins.edges],
            "y": found.depth,
            "fill": "tozeroy",
            "line": {"color": "@line", "width": 2},
            "fillcolor": "@fill",
            "hovertemplate": "%{x}: %{y} in the queue<extra></extra>",
        }
    ]
    layout = {
        "showlegend": False,
        "xaxis": {"type": "date", "range": _range(found.bins.edges, clock)},
        "yaxis": {"title": {"text": "messages"}, "rangemode": "tozero"},
    }
    return Chart("backlog", "Messages in the queue, over time", 260, data, layout)


def _range(edges: Sequence[float], clock: Clock) -> list[int]:
    return [clock.plotted(edges[0]), clock.plotted(edges[-1])]


def durations(name: str, text: str, found: Histogram) -> Chart:
    """A histogram of seconds."""
    ticks = _SECONDS if found.ratios else _multiples(found.edges, _STEPS)
    return _histogram(name, text, found, ticks, duration)


def sizes(name: str, text: str, found: Histogram) -> Chart:
    """A histogram of bytes."""
    ticks = _BYTES if found.ratios else _multiples(found.edges, _BYTES)
    return _histogram(name, text, found, ticks, memory)


def _histogram(name: str, text: str, found: Histogram, ticks: Sequence[float], say: Callable[[float], str]) -> Chart:
    """Bins of equal ratios are drawn by the logarithms of their edges."""
    scale: Callable[[float], float] = math.log10 if found.ratios else float
    edges = [scale(edge) for edge in found.edges]
    within = _apart([tick for tick in ticks if found.edges[0] <= tick <= found.edges[-1]], edges, scale)
    pairs = list(zip(found.edges, found.edges[1:]))
    median = scale(found.median)
    data = [
        {
            "type": "bar",
            "x": [(low + high) / 2 for low, high in zip(edges, edges[1:])],
            "y": found.counts,
            "width": edges[1] - edges[0],
            "marker": {"color": "@line", "line": {"width": 1, "color": "@paper"}},
            "hovertext": [
                f"{say(low)} to {say(high)}: {number(count)}" for (low, high), count in zip(pairs, found.counts)
            ],
            "hoverinfo": "text",
            "textposition": "none",
        }
    ]
    line = {"color": "@text", "width": 1, "dash": "dot"}
    layout = {
        "showlegend": False,
        "bargap": 0,
        "xaxis": {
            "tickvals": [scale(tick) for tick in within],
            "ticktext": [say(tick) for tick in within],
        },
        "yaxis": {"rangemode": "tozero"},
        "shapes": [{"type": "line", "x0": median, "x1": median, "yref": "paper", "y0": 0, "y1": 1, "line": line}],
    }
    return Chart(name, text, 240, data, layout)


def _apart(ticks: Sequence[float], edges: Sequence[float], scale: Callable[[float], float]) -> list[float]:
    """Those of the ticks whose texts have room beside each other."""
    found: list[float] = []
    for tick in ticks:
        if not found or scale(tick) - scale(found[-1]) >= _APART * (edges[-1] - edges[0]):
            found.append(tick)
    return found


def _multiples(edges: Sequence[float], steps: Sequence[float]) -> list[float]:
    """Four or so round values between the edges."""
    span = edges[-1] - edges[0]
    step = next((step for step in steps if step >= span / 4.5), steps[-1])
    return [step * number for number in range(math.ceil(edges[0] / step), math.floor(edges[-1] / step) + 1)]


def causes(found: Collected, most: int) -> Chart:
    rows = found.failures.causes.most_common(most)
    data = [_across([count for _, count in rows], "@failed", "failed attempts")]
    layout = {"showlegend": False, "yaxis": _rows([cause for cause, _ in rows]), "xaxis": {"rangemode": "tozero"}}
    return Chart("causes", "Failed attempts by cause", _height(len(rows)), data, layout)


def hosts(found: Collected, most: int) -> Chart:
    """The hosts with the most attempts that failed or were lost."""
    rows = sorted(found.failures.hosts.items(), key=lambda one: (-one[1].failed - one[1].lost, one[0]))[:most]
    rows = [row for row in rows if row[1].failed + row[1].lost]
    columns = {"failed": [row.failed for _, row in rows], "lost": [row.lost for _, row in rows]}
    data = [_across(values, f"@{name}", name) for name, values in columns.items() if any(values)]
    names = [host or "unknown" for host, _ in rows]
    layout = {"barmode": "stack", "yaxis": _rows(names), "xaxis": {"rangemode": "tozero"}}
    return Chart("hosts", "Failed and lost attempts by host", _height(len(rows)), data, layout)


def _across(values: list[int], colour: str, name: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(range(len(values))),
        "x": values,
        "width": 0.7,
        "marker": {"color": colour},
        "hovertemplate": f"%{{x}} {name}<extra></extra>",
    }


def efficiency(found: Efficiency) -> Chart:
    """One bar of all time that slots had."""
    parts = [(NAMES[ending], _COLOURS[ending], seconds) for ending, seconds in found.used.items()]
    parts.append(("idle", "@idle", found.idle))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [0],
            "x": [found.share(seconds)],
            "width": 0.9,
            "marker": {"color": colour},
            "text": [percent(found.share(seconds)) if found.share(seconds) > 0.1 else ""],
            "textposition": "inside",
            "insidetextanchor": "middle",
            "textangle": 0,
            "hovertext": [f"{name}: {hours(seconds)}, {percent(found.share(seconds))}"],
            "hoverinfo": "text",
        }
        for name, colour, seconds in parts
        if seconds > 0
    ]
    layout = {
        "barmode": "stack",
        "xaxis": {"tickformat": ".0%", "range": [0, 1], "fixedrange": True},
        "yaxis": {"visible": False},
    }
    return Chart("efficiency", "What became of the time of all slots", 150, data, layout)
