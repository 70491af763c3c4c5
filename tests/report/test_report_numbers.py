"""The figures of a report, against journals that are short enough to count by hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pasts import Past

from ddmq_hpc.report import numbers
from ddmq_hpc.report.collecting import Collected, Lane, collect
from ddmq_hpc.report.lanes import Bars, Heat, lanes
from ddmq_hpc.report.numbers import Bins, Period

OWNER = "node9:411:77:beef:tok.1"


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """It began 1,000 seconds ago."""
    return Past(tmp_path / "root", time.time() // 1 - 1000)


def seen(past: Past, last: float | None = None) -> Collected:
    return collect(past.finish(), last)


def ran(past: Past, ident: str, began: float, ended: float, state: str = "acked", **more: Any) -> None:
    """An attempt by a slot of worker w, on node1."""
    more = {"wall": ended - began, "worker": "w", "slot": 1, **more}
    past.attempt(state, ident, began, ended, "node1", **more)


def test_messages_are_counted_by_how_they_ended(past: Past) -> None:
    pack = past.pack(0)
    ran(past, f"{pack}.0", 10, 20, cpu=9.0, rss=5000)
    ran(past, f"{pack}.1", 20, 25, "nacked", cpu=1.5, rss=7000, exit=1, to="ready")
    ran(past, f"{pack}.1", 30, 34, attempt=2, rss=6000)
    ran(past, f"{pack}.2", 40, 42, "released", to="ready")
    past.attempt("lost", f"{pack}.3", -past.start, 60, "node1", to="ready", owner=OWNER)
    past.attempt("acked", f"{pack}.4-9", 50, 70, "node2")
    totals = numbers.totals(seen(past))
    assert (totals.done, totals.failed, totals.released, totals.lost) == (7, 1, 1, 1)
    assert totals.worked == pytest.approx(10 + 5 + 4 + 2 + 20)
    assert totals.cpu == pytest.approx(10.5) and totals.peak == 7000


def test_durations_and_waits(past: Past) -> None:
    pack = past.pack(5)
    ran(past, f"{pack}.0", 15, 20, taken=past.start + 7)  # it was fetched ahead of its time
    ran(past, f"{pack}.1", 20, 22, "nacked", exit=1, to="ready")
    ran(past, f"{pack}.1", 30, 34, attempt=2)
    past.attempt("acked", f"{pack}.4-9", 50, 70, "node2")
    found = seen(past)
    assert sorted(found.walls) == pytest.approx([2, 4, 5], abs=1e-3)
    assert sorted(found.waits) == pytest.approx([8, 10, 15, 45], abs=1e-3)
    assert [attempt.id for _, attempt in found.slowest] == [f"{pack}.0", f"{pack}.1", f"{pack}.1"]


def test_the_backlog_is_what_was_published_and_is_not_over(past: Past) -> None:
    pack, later, never = past.pack(0), past.pack(100), past.pack(200)
    ran(past, f"{pack}.0", 100, 300)
    ran(past, f"{pack}.1", 100, 400, "nacked", exit=1, to="ready")
    ran(past, f"{pack}.1", 400, 500, "nacked", exit=1, to="dead", attempt=2)
    past.attempt("cancelled", f"{later}.0", 0, 600, "node1")
    past.ready(never, 3)
    past.dead(pack, 1)
    found = seen(past)
    bins = Bins(past.start - 50, 100, 8)
    assert numbers.backlog(found, bins).depth == [0, 2, 3, 6, 5, 5, 4, 3, 3]


def test_what_stands_in_the_queue_was_not_over_for_good(past: Past) -> None:
    """A dead letter that somebody put back."""
    pack = past.pack(0)
    ran(past, f"{pack}.0", 10, 20, "nacked", exit=1, to="dead")
    past.ready(pack, 1)
    assert numbers.backlog(seen(past), Bins(past.start - 50, 100, 2)).depth == [0, 1, 1]


def test_throughput_is_by_bins_of_time(past: Past) -> None:
    pack = past.pack(0)
    for index, ended in enumerate((10, 90, 110, 350)):
        ran(past, f"{pack}.{index}", 5, ended, "acked" if index else "nacked")
    found = numbers.throughput(seen(past), Bins(past.start, 100, 4)).endings
    assert found == {"acked": [1, 1, 0, 1], "nacked": [1, 0, 0, 0], "released": [0] * 4, "lost": [0] * 4}


def test_failures_by_cause_host_and_error(past: Past) -> None:
    pack = past.pack(0)
    causes: list[dict[str, Any]] = [
        {"exit": 3, "error": "no licence on port 7"},
        {"exit": 3, "error": "no  licence\non port 8"},
        {"exit": 137, "signal": 9},
        {"exit": 137, "signal": 9, "oom": True},
        {"error": "refused"},
        {"exit": 4, "output": "reading\nbad header  in x.h5\n\n"},
        {},
    ]
    for index, more in enumerate(causes):
        ran(past, f"{pack}.{index}", 5, 10 + index, "nacked", to="dead", **more)
    past.attempt("lost", f"{pack}.8", -past.start, 60, "node1", to="ready", owner=OWNER)
    ran(past, f"{pack}.9", 5, 15)
    found = seen(past)
    assert found.failures.causes == {
        "exit code 3": 2,
        "signal SIGKILL": 1,
        "out of memory": 1,
        "error": 1,
        "exit code 4": 1,
        "nacked": 1,
        "worker lost": 1,
    }
    (licence,) = (trouble for trouble in found.failures.troubles.values() if "licence" in trouble.text)
    assert (licence.text, licence.attempts, licence.hosts) == ("no licence on port 8", 2, {"node1"})
    assert "bad header in x.h5" in {trouble.text for trouble in found.failures.troubles.values()}
    counted = {host: (row.attempts, row.failed, row.lost) for host, row in found.failures.hosts.items()}
    assert counted == {"node1": (8, 7, 0), "node9": (1, 0, 1)}  # the lost one is the dead worker's, not its finder's


def test_endless_kinds_of_errors_do_not_fill_the_memory(past: Past) -> None:
    pack = past.pack(0)
    letters = "abcdefghij"
    for index in range(3000):
        error = "".join(letters[int(digit)] for digit in str(index))
        ran(past, f"{pack}.{index}", 5, 10, "nacked", exit=1, error=error)
    found = seen(past)
    assert (
        len(found.failures.troubles) <= 1001
        and sum(trouble.attempts for trouble in found.failures.troubles.values()) == 3000
    )


def test_efficiency_compares_tasks_with_the_sessions_of_workers(past: Past) -> None:
    pack = past.pack(0)
    ran(past, f"{pack}.0", 100, 150)
    ran(past, f"{pack}.1", 100, 130, slot=2, slots=2)
    ran(past, f"{pack}.2", 150, 160, "nacked", exit=1)
    past.session("w", "node1", 90, 190, 4)
    found = seen(past)
    answer = numbers.efficiency(found, numbers.period(found))
    assert (answer.workers, answer.estimated, answer.live) == (1, 0, 0)
    assert answer.available == pytest.approx(400)
    assert answer.used == pytest.approx({"acked": 50 + 60, "nacked": 10, "released": 0})
    assert answer.idle == pytest.approx(280) and answer.share(answer.idle) == pytest.approx(0.7)


def test_workers_without_a_record_are_estimated(past: Past) -> None:
    pack = past.pack(0)
    ran(past, f"{pack}.0", 100, 150, slot=3)
    ran(past, f"{pack}.1", 160, 200)
    found = seen(past)
    answer = numbers.efficiency(found, numbers.period(found))
    assert (answer.workers, answer.estimated) == (1, 1)
    assert answer.available == pytest.approx(3 * 100)


def test_scripts_have_no_slots_to_use_well(past: Past) -> None:
    """Each of their commands is another process: they are no workers, and are shown by job, or by host."""
    pack = past.pack(0)
    for number in range(100):
        more = {"pid": 1000 + number, **({"job": "slurm-7_1=c"} if number % 2 else {})}
        past.attempt("acked", f"{pack}.{number}", 100 + number, 101 + number, "node1", **more)
    found = seen(past)
    answer = numbers.efficiency(found, numbers.period(found))
    assert (answer.workers, answer.available, sum(answer.used.values())) == (0, 0, 0)
    assert {lane.worker for lane in found.lanes} == {"node1", "slurm-7_1=c"}
    ran(past, f"{pack}.100", 100, 150)
    for slot in range(100):
        ran(past, f"{pack}.{200 + slot}", 150, 200, slot=slot)
    heat = lanes(seen(past), Period(past.start, past.start + 300))
    assert isinstance(heat, Heat) and set(heat.rows) == {"node1", "slurm-7_1=c", "w"}


def test_live_workers_count_until_now(past: Past) -> None:
    past.live("w-live", "node2", 400, 2)
    found = seen(past)
    answer = numbers.efficiency(found, numbers.period(found))
    assert (answer.workers, answer.live) == (1, 1)
    assert answer.available == pytest.approx(2 * (found.made - past.start - 400), abs=0.1) and answer.available > 1000


def test_a_worker_that_ended_counts_once(past: Past) -> None:
    """Even if its registration could not be removed."""
    past.live("w", "node2", 400, 2)
    past.session("w", "node2", 400, 500, 2)
    found = seen(past)
    assert numbers.efficiency(found, numbers.period(found)).available == pytest.approx(200)


def test_the_last_hours_alone(past: Past) -> None:
    pack = past.pack(0)
    ran(past, f"{pack}.0", 100, 300)
    ran(past, f"{pack}.1", 300, 900)
    past.session("w", "node1", 50, 950, 1)
    found = seen(past, last=500)
    period = numbers.period(found)
    assert numbers.totals(found).done == 1
    assert period.began == pytest.approx(found.made - 500) and period.ended == pytest.approx(past.start + 950)
    answer = numbers.efficiency(found, period)
    assert answer.available == pytest.approx(period.span)
    assert answer.used["acked"] == pytest.approx(past.start + 900 - period.began)
    assert numbers.backlog(found, numbers.bins(period)).depth[0] == 1  # what ended before is known to have


def test_publishing_long_ago_does_not_stretch_the_period(past: Past) -> None:
    pack = past.pack(-1e6)
    ran(past, f"{pack}.0", 100, 300)
    period = numbers.period(seen(past))
    assert period.began == pytest.approx(past.start - 100) and period.ended == pytest.approx(past.start + 300)


def test_what_cannot_be_true_is_left_out_and_counted(past: Past) -> None:
    pack = past.pack(0)
    ran(past, f"{pack}.0", 10, 20)
    ran(past, f"{pack}.1", 10, 1e9)
    ran(past, f"{pack}.0-999999999", 10, 20)  # more than a pack has: no record at all
    ran(past, f"{'9' * 19}-0aaaaaaaa.0", 10, 20)
    past.session("w-future", "node1", 10, 1e9, 2)
    found = seen(past)
    assert found.impossible == 3 and len(found.runs) == 1 and "w-future" not in found.sessions
    assert numbers.totals(found).done == 1


@pytest.mark.parametrize("wall", [1e9, 1e11])
def test_a_duration_that_cannot_be_is_no_beginning(past: Past, wall: float) -> None:
    ran(past, f"{past.pack(0)}.0", 10, 20, wall=wall)
    found = seen(past)
    assert numbers.totals(found).done == 1 and not found.walls and not found.waits
    assert numbers.period(found).began > past.start - 1000


def test_few_tasks_have_a_bar_each(past: Past) -> None:
    pack = past.pack(0)
    ran(past, f"{pack}.0", 10, 20, slot=2, task="second")
    ran(past, f"{pack}.1", 10, 30, slot=1, task="first")
    past.attempt("acked", f"{pack}.2", 15, 40, "node2")  # by a script
    past.attempt("lost", f"{pack}.3", -past.start, 60, "node1", to="ready", owner=OWNER)
    found = seen(past)
    bars = lanes(found, numbers.period(found))
    assert isinstance(bars, Bars)
    assert bars.rows == [Lane("node2", 0), Lane("w", 1), Lane("w", 2)]
    shown = [(run.lane, round(run.ended - run.began), ident[-1], task) for run, ident, task in bars.runs]
    assert shown == [(2, 10, "0", "second"), (1, 20, "1", "first"), (0, 25, "2", "")]


def test_many_slots_are_shown_by_how_busy_their_workers_were(past: Past) -> None:
    pack = past.pack(0)
    for slot in range(100):
        ran(past, f"{pack}.{slot}", 100, 200, slot=slot + 1)
    past.session("w", "node1", 100, 300, 200)
    found = seen(past)
    heat = lanes(found, numbers.period(found))
    assert isinstance(heat, Heat)
    assert (heat.of, heat.rows, heat.left_out) == ("worker", ["w"], 0)
    (shares,) = heat.shares
    begin, end = heat.bins.at(past.start + 110), heat.bins.at(past.start + 190)
    assert shares[begin : end + 1] == pytest.approx([0.5] * (end - begin + 1))
    assert shares[heat.bins.at(past.start + 250)] == 0


def test_many_workers_are_shown_by_host(past: Past) -> None:
    pack = past.pack(0)
    for number in range(200):
        more = {"wall": 100.0 + number % 100, "worker": f"w{number:03}", "slot": 1}
        past.attempt("acked", f"{pack}.{number}", 0, 100 + number % 100, f"node{number % 100:02}", **more)
    found = seen(past)
    heat = lanes(found, numbers.period(found))
    assert isinstance(heat, Heat)
    assert (heat.of, len(heat.rows), heat.left_out) == ("host", 60, 40)
    assert set(heat.rows) == {f"node{number:02}" for number in range(40, 100)}  # the busiest


@pytest.mark.parametrize("span", [0.3, 7, 100, 5000, 86400, 4e6, 4e8])
def test_bins_of_time_cover_the_period_and_are_few(span: float) -> None:
    period = Period(1.7e9 + 123.4, 1.7e9 + 123.4 + span)
    bins = numbers.bins(period)
    edges = bins.edges
    assert 1 <= bins.count <= 101 and edges[0] <= period.began and edges[-1] >= period.ended - 1e-6
    assert bins.at(period.began) == 0 and bins.at(period.ended) == bins.count - 1


def test_histograms_grow_by_ratios_when_values_spread() -> None:
    narrow = numbers.histogram([float(value) for value in range(10, 101)], 0.001)
    assert narrow and not narrow.ratios and sum(narrow.counts) == 91
    assert (narrow.median, narrow.p95, narrow.largest) == (55, 96, 100)
    wide = numbers.histogram([0.0, 0.01, 1, 100], 0.001)
    assert wide and wide.ratios and sum(wide.counts) == 4
    assert wide.edges[0] == pytest.approx(0.001) and wide.edges[-1] == pytest.approx(100)
    one = numbers.histogram([5.0, 5.0], 0.001)
    assert one and sum(one.counts) == 2 and one.edges[0] < 5 < one.edges[-1]
    assert numbers.histogram([], 0.001) is None


def test_an_empty_queue_has_nothing_to_tell(past: Past) -> None:
    found = seen(past)
    assert numbers.totals(found).done == 0 and numbers.totals(found).peak is None
    assert numbers.period(found).span > 0
    assert numbers.efficiency(found, numbers.period(found)).share(0.0) == 0
