"""How many workers a backlog takes, and what is known of its tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import UsageError
from ddmq_hpc.sizing import ASSUMED, typical_wall, usable, workers_for


@pytest.mark.parametrize(
    "backlog, wall, time, slots, most, expected",
    [
        (1000, 60, 3300, 1, 100, 19),
        (1000, 60, 3300, 4, 100, 5),
        (1000, 60, 3300, 1, 10, 10),
        (10, 7200, 3300, 1, 100, 10),  # a task takes longer than a worker has: one each is all that makes sense
        (10, 7200, 3300, 4, 100, 3),
        (5, 0.001, 3300, 1, 100, 1),
        (0, 60, 3300, 1, 100, 1),
        (1, 60, 3300, 8, 100, 1),
    ],
)
def test_workers(backlog: int, wall: float, time: float, slots: int, most: int, expected: int) -> None:
    assert workers_for(backlog, wall, time, slots, most) == expected


def test_the_time_of_a_job_less_its_margin() -> None:
    assert usable(3600, None) == 3300
    assert usable(600, None) == 540
    assert usable(600, 60) == 540
    with pytest.raises(UsageError, match="no time"):
        usable(600, 600)


def test_the_median_is_that_of_what_was_done_lately(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q")
    queue = broker.queue("q")
    assert typical_wall([queue]) == (ASSUMED, 0)

    def add(host: str, *records: object) -> None:
        with open(f"{queue.paths.journal}/{host}.jsonl", "a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(record)}\n" for record in records)

    def done(at: float, wall: object, state: str = "acked") -> dict[str, object]:
        return {"state": state, "id": "x.0", "at": at, "wall": wall}

    add("a", done(1, 9.0), done(2, 1.0), done(3, 1e6, "nacked"), done(4, "x"), done(5, True), {"id": 1}, [])
    add("b", done(3, 2.0))
    assert typical_wall([queue]) == (2.0, 3)
    add("b", *(done(1000 + n, 5.0) for n in range(600)))
    assert typical_wall([queue]) == (5.0, 500)
    add("b", *(done(100000 + n, 7.0) for n in range(100000)))
    assert typical_wall([queue])[0] == 7.0


def test_the_settings_of_the_queue_stand_in_for_what_is_not_known(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q", time_request="20m")
    assert typical_wall([broker.queue("q")]) == (1200.0, 0)
