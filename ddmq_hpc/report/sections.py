"""What stands on the page, part by part: a title, what it says in words, a chart, a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ddmq_hpc.attempts import DONE
from ddmq_hpc.report import charts, numbers
from ddmq_hpc.report.charts import NAMES, Chart
from ddmq_hpc.report.collecting import Collected
from ddmq_hpc.report.failures import cause_of
from ddmq_hpc.report.lanes import Bars, Heat, lanes
from ddmq_hpc.report.numbers import Efficiency, Histogram, Period, Totals
from ddmq_hpc.report.texts import Clock, duration, hours, memory, number, percent, shown

#: Rows of tables and of charts of causes and hosts.
_MOST_ROWS = 15
#: What is shorter, or smaller, than this is not told apart.
_LEAST_SECONDS, _LEAST_BYTES = 0.001, 1024.0


@dataclass(frozen=True)
class Tile:
    """One of the numbers at the top; `kind` is "bad" or "gone" for those that are to be seen."""

    name: str
    value: str
    kind: str = ""


@dataclass(frozen=True)
class Column:
    """`kind`: "number", "text" that may be long, "id", or nothing."""

    title: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    columns: list[Column]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    note: str
    chart: Chart | None = None
    table: Table | None = None


@dataclass(frozen=True)
class Row:
    """Sections side by side where there is room."""

    sections: list[Section]


def tiles(found: Collected, totals: Totals, period: Period) -> Iterator[Tile]:
    now = found.now
    yield Tile("done", number(totals.done))
    yield Tile("failed attempts", number(totals.failed), "bad" * bool(totals.failed))
    yield Tile("given back", number(totals.released))
    yield Tile("lost", number(totals.lost), "gone" * bool(totals.lost))
    yield Tile("dead letters now", number(now.dead), "bad" * bool(now.dead))
    yield Tile("ready now", number(now.ready))
    yield Tile("leased now", number(now.leased))
    yield Tile("delayed now", number(now.delayed))
    yield Tile("wall span", duration(period.span))
    yield Tile("task time", hours(totals.worked))
    yield Tile("CPU time", hours(totals.cpu) if totals.cpu else "-")
    yield Tile("peak memory", "-" if totals.peak is None else memory(totals.peak))


def sections(found: Collected, period: Period, clock: Clock) -> Iterator[Row]:
    """All that there is something to tell of, a row each."""
    parts = [[_timeline(found, period, clock)] if found.runs or found.sessions else []]
    parts.append([*_over_time(found, period, clock)])
    parts.append([_efficiency(numbers.efficiency(found, period))])
    parts.append([*_distributions(found)])
    parts.append([*_failures(found)])
    parts.append([_troubles(found, clock)] if found.failures.troubles else [])
    parts.append([_slowest(found)] if found.slowest else [])
    return (Row(row) for row in parts if row)


def _timeline(found: Collected, period: Period, clock: Clock) -> Section:
    shown_as = lanes(found, period)
    note = _bars_note(shown_as) if isinstance(shown_as, Bars) else _heat_note(shown_as)
    return Section("timeline", "What ran when", note, charts.timeline(shown_as, clock))


def _bars_note(found: Bars) -> str:
    return f"{number(len(found.runs))} attempts, a bar each, in a row for each slot of each worker."


def _heat_note(found: Heat) -> str:
    left_out = f" The {number(found.left_out)} idlest are left out." * bool(found.left_out)
    return (
        f"How busy the slots of each {found.of} were, in steps of {duration(found.bins.width)}; "
        f"blank where it was not there.{left_out}"
    )


def _over_time(found: Collected, period: Period, clock: Clock) -> Iterator[Section]:
    bins = numbers.bins(period)
    done = numbers.throughput(found, bins)
    most = max(done.endings[DONE], default=0)
    average = sum(done.endings[DONE]) / period.span * 3600
    note = f"At most {number(most)} done in {duration(bins.width)}, {number(average)} an hour on average."
    if found.runs:
        yield Section("throughput", "Throughput", note, charts.throughput(done, clock))
    depth = numbers.backlog(found, bins)
    if any(depth.depth):
        note = (
            f"At most {number(max(depth.depth))} messages were ready, leased or delayed; {number(depth.depth[-1])} now."
        )
        yield Section("backlog", "In the queue", note, charts.backlog(depth, clock))


def _efficiency(found: Efficiency) -> Section:
    done = percent(found.share(found.used[DONE]))
    note = (
        f"{number(found.workers)} workers had {hours(found.available)} of slots; "
        f"tasks that were done took {done} of that."
    )
    if found.live:
        note += f" Still at work, and counted until now: {number(found.live)}."
    if found.estimated:
        note += (
            " Without a record of when they worked, and counted from their first attempt to their last: "
            f"{number(found.estimated)}."
        )
    parts = [(NAMES[ending], seconds) for ending, seconds in found.used.items()] + [("idle", found.idle)]
    rows = [[name, hours(seconds), percent(found.share(seconds))] for name, seconds in parts if seconds]
    table = Table([Column("slots were"), Column("time", "number"), Column("share", "number")], rows)
    if not found.workers:
        return Section("efficiency", "Efficiency", "No worker is known of.")
    return Section("efficiency", "Efficiency", note, charts.efficiency(found), table)


def _distributions(found: Collected) -> Iterator[Section]:
    if walls := numbers.histogram(found.walls, _LEAST_SECONDS):
        chart = charts.durations("durations", "Tasks by how long they took", walls)
        yield Section("durations", "Task durations", _spread(walls, duration), chart)
    if waits := numbers.histogram(found.waits, _LEAST_SECONDS):
        chart = charts.durations("waits", "Attempts by how long their messages had waited", waits)
        yield Section("waits", "Waiting time", _spread(waits, duration), chart)
    if sizes := numbers.histogram(found.memory, _LEAST_BYTES):
        chart = charts.sizes("memory", "Tasks by the most memory that they had", sizes)
        yield Section("memory", "Memory of tasks", _spread(sizes, memory), chart)


def _spread(found: Histogram, say: Callable[[float], str]) -> str:
    return (
        f"Median {say(found.median)} (dotted), 95 % up to {say(found.p95)}, at most {say(found.largest)}; "
        f"of {number(found.values)} attempts."
    )


def _failures(found: Collected) -> Iterator[Section]:
    if not found.failures.causes:
        return
    attempts = sum(found.failures.causes.values())
    share = percent(attempts / len(found.runs))
    note = f"{number(attempts)} attempts, {share} of all."
    yield Section("causes", "Failures by cause", note, charts.causes(found, _MOST_ROWS))
    rows = [(host, counted) for host, counted in found.failures.hosts.items() if counted.failed + counted.lost]
    worst, counted = max(rows, key=lambda row: (row[1].failed + row[1].lost) / row[1].attempts)
    share = percent((counted.failed + counted.lost) / counted.attempts)
    name = shown(worst or "unknown", 60)
    on = f"On {number(len(rows))} of {number(len(found.failures.hosts))} hosts"
    note = f"{on}; the largest share on {name}: {share} of its attempts."
    yield Section("hosts", "Failures by host", note, charts.hosts(found, _MOST_ROWS))


def _troubles(found: Collected, clock: Clock) -> Section:
    rows = sorted(
        found.failures.troubles.values(), key=lambda trouble: (-trouble.attempts, trouble.cause, trouble.text)
    )
    note = "Those that differ in numbers alone are counted together; shown is the last one."
    if len(rows) > _MOST_ROWS:
        note += f" The {number(_MOST_ROWS)} most frequent of {number(len(rows))}."
    columns = [
        Column("cause"),
        Column("error", "text"),
        Column("attempts", "number"),
        Column("hosts", "number"),
        Column("last"),
    ]
    cells = [
        [row.cause, shown(row.text) or "-", number(row.attempts), number(len(row.hosts)), clock.text(row.last)]
        for row in rows[:_MOST_ROWS]
    ]
    return Section("errors", "Errors", note, table=Table(columns, cells))


def _slowest(found: Collected) -> Section:
    columns = [
        Column("task", "text"),
        Column("duration", "number"),
        Column("memory", "number"),
        Column("host"),
        Column("ended"),
        Column("message", "id"),
    ]
    rows = [
        [
            shown(attempt.task) or "-",
            duration(wall),
            "-" if attempt.rss is None else memory(attempt.rss),
            shown(attempt.host, 60) or "-",
            NAMES[DONE] if attempt.state == DONE else cause_of(attempt),
            attempt.id,
        ]
        for wall, attempt in found.slowest
    ]
    return Section(
        "slowest", "Slowest tasks", "Given an id, ddmq-hpc show tells all of one.", table=Table(columns, rows)
    )


def notes(found: Collected) -> Iterator[str]:
    """How to look closer, what is approximate, and what was left out."""
    yield "Drag over a chart with the mouse to look closer, and double-click to see the whole again."
    yield (
        "An attempt is one try at a message; failed and lost ones are counted each time. Given back: not counted as a "
        "try. Lost: the worker died, or the lease ran out."
    )
    yield (
        "In the queue is what had been published less what was done, dead or removed. Messages that were never "
        "attempted are known from listings of the queue as it is now; those that were removed by delete or "
        "before this journal began may be missing, and what came back from the dead letters counts as if it had never "
        "left."
    )
    yield (
        "Waiting time is from publishing, or from the attempt before, to the beginning, delays included. A beginning "
        "is the end less the measured duration; of what no worker ran, when the message was taken."
    )
    yield (
        "A worker of several queues has its whole time counted in each of them. Scripts that pull and ack are no "
        "workers: they have a row for each job, or each host outside of jobs, and no part in the efficiency."
    )
    if found.impossible:
        yield f"{number(found.impossible)} records of the journal were left out: what they say cannot be."
