"""What the journal tells of attempts: once, only what holds, whatever the files say."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ddmq_hpc import Broker, MessageNotFound, ledger, logs
from ddmq_hpc.attempts import Attempt, Session, attempts, history, read
from ddmq_hpc.queue import Queue

PACK = "1795721983896420864-0g3qndtxg"


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Broker(tmp_path / "root", create=True).queue("q")


def tell(queue: Queue, *lines: Any, file: str = "host.jsonl") -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    Path(queue.paths.journal, file).write_text("".join(text + "\n" for text in texts))


def record(state: str = "acked", ident: str = f"{PACK}.0", attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"state": state, "id": ident, "attempt": attempt, "at": 20.0, "taken": 10.0, **more}


def test_what_clients_did(queue: Queue) -> None:
    broker = Broker(queue.paths.root)
    broker.publish("q", "m", requeue_limit=0)
    (message,) = broker.consume("q")
    broker.nack(message, exit=3, wall=1.5, error="no licence", worker="w-1", slot=2, task="m")
    (found,) = history(broker.queue("q"), message.id)
    assert (found.id, found.state, found.to, found.number, found.count) == (message.id, "nacked", "dead", 1, 1)
    assert (found.exit, found.wall, found.error, found.worker, found.slot) == (3, 1.5, "no licence", "w-1", 2)
    assert found.published - 0.001 <= found.began <= found.ended and found.host and found.pid  # to the millisecond
    assert found.published == message.published


def test_a_range_is_one_attempt(queue: Queue) -> None:
    tell(queue, record(ident=f"{PACK}.3-7"))
    (found,) = attempts(queue)
    assert (found.count, found.id, found.covers(PACK, 6), found.covers(PACK, 7)) == (4, f"{PACK}.3-7", True, False)
    assert history(queue, f"{PACK}.2") == []
    with pytest.raises(MessageNotFound):
        history(queue, "nonsense")


def test_what_was_written_again_is_told_once(queue: Queue) -> None:
    tell(queue, record(), record(ident=f"{PACK}.1"), record(), record(taken=15.0))
    assert [found.id for found in attempts(queue)] == [f"{PACK}.0", f"{PACK}.1", f"{PACK}.0"]


def test_what_was_taken_back_is_not_told(queue: Queue) -> None:
    late = record("late", f"{PACK}.3-5")
    tell(queue, record(ident=f"{PACK}.0-8"), record(ident=f"{PACK}.4", attempt=2), late, record(ident=f"{PACK}.3"))
    assert [(found.id, found.number) for found in attempts(queue)] == [
        (f"{PACK}.0-3", 1),
        (f"{PACK}.5-8", 1),
        (f"{PACK}.4", 2),
        (f"{PACK}.3", 1),
    ]


def test_many_are_a_stream(queue: Queue) -> None:
    tell(queue, *(record(ident=f"{PACK}.{number}") for number in range(10_000)))
    assert [found.first for found in attempts(queue)] == list(range(10_000))


def test_failures_of_whole_packs_take_little_memory(queue: Queue) -> None:
    """A line of a hundred bytes may tell of a thousand messages."""
    tell(queue, *(record("nacked", f"17957219838964{number:05}-0g3qndtxg.0-1024") for number in range(200)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in logs._failed(queue)) == 200 * 1024
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_files_that_are_not_there_are_not_remembered(queue: Queue) -> None:
    """A compressed file says which others it contains; somebody else may have written it."""
    name = "packed-000000000000001-999999999999999-aaaaaaaa.jsonl.gz"
    told = ledger.first_line(["there.jsonl", *(f"{number}.jsonl" for number in range(1000))])
    Path(queue.paths.journal, name).write_bytes(gzip.compress(told))
    assert ledger.contained(queue.fs, queue.paths, [name], {"there.jsonl", "another.jsonl"}) == {"there.jsonl"}


def test_workers_that_ended(queue: Queue) -> None:
    tell(queue, {"state": "worker", "id": "w-1", "attempt": 0, "at": 9, "taken": 2, "slots": 4, "host": "n1"})
    assert list(read(queue)) == [Session("w-1", 2.0, 9.0, 4, "n1", "")]
    assert list(attempts(queue)) == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[1]",
        '{"id": 1}',
        record("exploded"),
        record(ident="x"),
        record(ident=f"{PACK}.5-3"),
        record(attempt=-1),
        record(attempt=True),
        {**record(), "at": "now"},
        {**record(), "taken": None},
        json.dumps(record()).replace("20.0", "NaN"),
        json.dumps(record()).replace("20.0", "1e999"),
        {**record("worker"), "slots": "many"},
    ],
)
def test_what_is_no_record_is_passed_over(queue: Queue, line: Any) -> None:
    tell(queue, line, record(ident=f"{PACK}.9"))
    assert [found.id for found in attempts(queue)] == [f"{PACK}.9"]


def test_fields_of_other_kinds_are_unknown(queue: Queue) -> None:
    tell(queue, record(exit="1", wall=-2, rss=1.5, oom="yes", host=["n"], error="e" * 100_000))
    (found,) = attempts(queue)
    assert (found.exit, found.wall, found.rss, found.oom, found.host) == (None, None, None, False, "")
    assert len(found.error) == 8192


def test_a_line_without_end_takes_no_memory(queue: Queue) -> None:
    Path(queue.paths.journal, "host.jsonl").write_bytes(b"x" * (20 << 20) + b"\n" + json.dumps(record()).encode())
    assert [type(found) for found in attempts(queue)] == [Attempt]
