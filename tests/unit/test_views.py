"""What there is to see of a queue, from two looks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddmq_hpc.advance import Progress
from ddmq_hpc.hour import Hour
from ddmq_hpc.stats import Stats
from ddmq_hpc.views import Snapshot, interval, places, view
from ddmq_hpc.worker_info import Running, WorkerInfo

EMPTY = Stats("q", 0, 0, 0, 0, 0, None, 0, False)
NOW = 1_000_000.0


def snapshot(at: float = NOW, seen: int = 0, **more: object) -> Snapshot:
    hour = Hour({"acked": 360.0}, seen_done=seen, seen_ended=seen, typical=10.0)
    return replace(Snapshot(at, replace(EMPTY, ready=90, leased=10), (), hour), **more)  # type: ignore[arg-type]


def test_a_first_look_knows_the_last_hour_alone() -> None:
    found = view(None, snapshot())
    assert (found.rate, found.hour_rate, found.eta) == (None, 0.1, 1000.0)


def test_who_just_began_is_not_judged_by_a_whole_hour() -> None:
    begun = Hour({"acked": 30.0}, span=60.0)
    assert (view(None, snapshot(hour=begun)).eta, view(None, snapshot(hour=begun)).hour_rate) == (200.0, 30 / 3600)


def test_there_is_no_eta_before_it_means_something() -> None:
    """Two tasks are no pace, nor are those that began together and end together."""
    assert view(None, snapshot(hour=Hour({"acked": 2.0}, span=60.0))).eta is None
    assert view(None, snapshot(hour=Hour({"acked": 2.0}))).eta is None
    assert view(None, snapshot(hour=Hour({"acked": 4.0}, span=2.0))).eta is None
    long = Hour({"acked": 4.0}, span=59.0, typical=60.0, seen_ended=4)
    assert view(snapshot(NOW - 20), snapshot(hour=long)).eta is None
    assert view(snapshot(NOW - 20), snapshot(hour=replace(long, span=60.0))).eta == 500.0
    assert view(None, snapshot(hour=Hour({"acked": 360.0}, typical=9000.0))).eta == 1000.0


def test_two_looks_tell_the_rate_now() -> None:
    found = view(snapshot(NOW - 50, seen=100), snapshot(seen=200))
    assert (found.rate, found.eta) == (2.0, 50.0)


@pytest.mark.parametrize("before, rate", [(snapshot(NOW - 1, seen=0), None), (snapshot(NOW - 60, seen=199), 1 / 60)])
def test_what_says_too_little_gives_no_eta(before: Snapshot, rate: float | None) -> None:
    found = view(before, snapshot(seen=200))
    assert (found.rate, found.eta) == (rate, 1000.0)


def test_tasks_that_end_as_dead_letters_are_on_the_way_to_the_end_but_not_done() -> None:
    now = snapshot(hour=Hour({}, seen_done=0, seen_ended=100))
    assert (view(snapshot(NOW - 50), now).rate, view(snapshot(NOW - 50), now).eta) == (0.0, 50.0)


def test_when_nobody_can_know_the_end() -> None:
    assert view(None, snapshot(hour=Hour({}))).eta is None
    assert view(None, snapshot(stats=replace(EMPTY, ready=5, paused=True))).eta is None
    assert view(None, snapshot(stats=EMPTY)).eta == 0.0


def test_what_nobody_works_on_has_no_eta() -> None:
    waiting, ready = replace(EMPTY, delayed=2), replace(EMPTY, ready=5, delayed=2)
    assert view(None, snapshot(stats=ready)).eta is None
    assert view(None, snapshot(stats=ready, workers=[worker("w")])).eta == 70.0
    assert view(None, snapshot(stats=ready, workers=[worker("w", alive="no")])).eta is None
    assert view(None, snapshot(stats=waiting, workers=[worker("w")])).eta is None


def worker(ident: str, host: str = "node1", **more: object) -> WorkerInfo:
    return replace(WorkerInfo(ident, host=host, slots=2, seen=NOW), **more)  # type: ignore[arg-type]


def test_slow_tasks_are_much_longer_than_typical() -> None:
    tasks = tuple(Running(f"m{age}", "q", since=NOW - age) for age in (5, 69, 71, 500))
    other = Running("other", "p", since=NOW - 5000)
    infos = [worker("w1", tasks=(*tasks, other)), worker("w2", tasks=tasks, alive="no")]
    assert [slow.task.id for slow in view(None, snapshot(workers=infos)).slow] == ["m500", "m71"]
    assert not view(None, snapshot(workers=infos, hour=Hour({}))).slow


def test_workers_are_told_once_by_host_and_job() -> None:
    told = Running("m1", "q", since=NOW - 5, progress=Progress(1, 2))
    both, later = worker("w1", job="slurm-1", seen=NOW - 9), worker("w1", job="slurm-1", tasks=(told,), running=("m1",))
    others = [worker("w2", job="slurm-1", alive="silent"), worker("w3", "node0"), worker("w4", "node0", alive="no")]
    views = [view(None, snapshot(workers=[both])), view(None, snapshot(workers=[later, *others]))]
    first, second = places(views)
    assert (first.host, first.job, first.workers, first.silent, first.slots, first.tasks) == ("node0", "", 1, 0, 2, [])
    assert (second.host, second.job, second.workers, second.silent, second.slots) == ("node1", "slurm-1", 2, 1, 4)
    assert (second.tasks, second.busy) == ([(told, 5.0)], 1)


def test_looking_takes_a_twentieth_of_the_time_at_most() -> None:
    assert interval(2.0, 0.01) == 2.0
    for took in (0.5, 3.0, 60.0):
        assert took / (took + interval(2.0, took)) <= 0.05 + 1e-9
