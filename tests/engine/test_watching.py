"""What looking again and again costs the file server, and that it goes on past what is broken."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import Watched

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import RootNotFound
from ddmq_hpc.views import Trouble, View
from ddmq_hpc.watching import Watch
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    found = Broker(tmp_path / "root", create=True, filesystem=Watched)
    found.create_queue("q", durable=False)
    return found


@contextmanager
def counted(broker: Broker) -> Iterator[Counter[str]]:
    calls: Counter[str] = Counter()

    def around(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        calls[name] += 1
        return call()

    broker.fs.around = around  # type: ignore[attr-defined]
    yield calls
    broker.fs.around = None  # type: ignore[attr-defined]


def only(found: list[View | Trouble]) -> View:
    (one,) = found
    assert isinstance(one, View), one
    return one


def test_a_look_at_a_hundred_thousand_messages_is_a_few_listings(broker: Broker) -> None:
    broker.publish_many("q", range(100_000))
    for message in broker.consume("q", 300):
        broker.ack(message, wall=2.0)
    for number in range(50):
        queue = broker.queue("q")
        Registration(queue, WorkerInfo.of_this_process(queue, f"node{number}-1-a", ["q"])).start()
    watch = Watch(broker, ["q"])
    first = only(watch.look())
    assert (first.stats.ready, first.hour.done, len(first.workers)) == (99_700, 300, 50)
    broker.ack(broker.consume("q")[0])
    with counted(broker) as calls:
        broker.stats("q")
    with counted(broker) as more:
        second = only(watch.look())
    assert (second.hour.seen_done, second.stats.ready, len(second.workers)) == (1, 99_699, 50)
    assert 10 < sum(calls.values()) < 70, calls  # buckets are narrow where publishing is fast
    assert sum((more - calls).values()) <= 4, more - calls  # the journal is listed, and what grew is read


def test_of_a_long_journal_ends_are_read_alone(broker: Broker) -> None:
    queue = broker.queue("q")
    line = b'{"state":"acked","id":"1700000000000000000-0aaaaaaaa.0","attempt":1,"at":1700000000.0,"taken":1.0}\n'
    for number in range(40):
        Path(queue.paths.journal, f"node{number}.0.0.jsonl").write_bytes(line * 20_000)
    read: list[int] = []

    def around(name: str, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        found = call()
        if name == "read_some":
            read.append(len(found[1]))
        return found

    broker.fs.around = around  # type: ignore[attr-defined]
    watch = Watch(broker, ["q"])
    watch.look()
    assert 1 << 19 < sum(read) <= 16 << 16
    read.clear()
    watch.look()
    assert read == []


def test_queues_that_come_go_and_break(broker: Broker) -> None:
    watch = Watch(Broker(broker.root))
    assert only(watch.look()).queue == "q"
    broker.create_queue("broken")
    Path(broker.root, "broken", "ddmq.yaml").write_text("timeout: never\n")
    watch._listed = -1e9
    broken, well = watch.look()
    assert isinstance(broken, Trouble) and "timeout" in broken.why
    assert isinstance(well, View)
    broker.delete_queue("broken")
    broken, well = watch.look()
    assert isinstance(broken, Trouble) and isinstance(well, View)
    watch._listed = -1e9
    assert only(watch.look()).queue == "q"


def test_a_root_that_is_gone_is_told_of(broker: Broker, tmp_path: Path) -> None:
    watch = Watch(Broker(broker.root))
    watch.look()
    os.rename(broker.root, tmp_path / "elsewhere")
    watch._listed = -1e9
    with pytest.raises(RootNotFound):
        watch.look()
    os.rename(tmp_path / "elsewhere", broker.root)
    assert only(watch.look()).queue == "q"
