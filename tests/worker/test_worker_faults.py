"""Workers on a file system that refuses for a while. Guarantee: they wait it out, do no task again that was done, and
never say that nothing is ready because they could not look."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from engine_tools import Watched
from worker_tools import Bench, of_journal, wait_for

from ddmq_hpc import Worker, WorkerOptions, batch, idle, workers
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import StorageError
from ddmq_hpc.feed import Appetite
from ddmq_hpc.messages import Message

EVERYTHING = ("listdir", "lstat", "subdirectories", "open_directory", "rename", "read")
FAULTS = {errno.EROFS: ("rename", "link", "append", "unlink", "touch"), errno.EACCES: EVERYTHING, errno.EIO: EVERYTHING}


class Switch:
    """While it is on, calls of these names are refused."""

    def __init__(self, code: int) -> None:
        self.code, self.calls = code, FAULTS[code]
        self.on = False
        self.met = 0

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if self.on and name in self.calls:
            self.met += 1
            raise OSError(self.code, os.strerror(self.code), args[0] if isinstance(args[0], str) else None)
        return call()


@pytest.fixture(params=FAULTS, ids=errno.errorcode.get)
def switched(request: pytest.FixtureRequest, bench: Bench) -> Iterator[tuple[Broker, Switch]]:
    switch = Switch(request.param)
    with Broker(bench.root, filesystem=lambda top: Watched(top, True)) as broker:
        broker.queue("tasks")
        assert isinstance(broker.fs, Watched)
        broker.fs.around = switch  # a worker that cannot even begin says so at once
        yield broker, switch


def test_a_worker_that_cannot_look_does_not_say_that_nothing_is_ready(
    bench: Bench, switched: tuple[Broker, Switch]
) -> None:
    broker, switch = switched
    bench.broker.publish_many("tasks", range(5))
    seen: list[Any] = []
    told: list[str] = []
    worker = Worker(broker, "tasks", lambda message: seen.append(message.message))
    switch.on = True
    worker.tell = told.append
    running = threading.Thread(target=worker.run)
    running.start()
    wait_for(lambda: told and switch.met > 3, "the worker meets the fault")
    switch.on = False
    running.join(30)
    assert (sorted(seen), worker.report.reason) == ([*range(5)], "nothing is ready")
    assert len(told) == 1 and "trying on for up to 10m" in told[0]


def test_a_worker_that_waits_for_messages_outlasts_a_fault(bench: Bench, switched: tuple[Broker, Switch]) -> None:
    broker, switch = switched
    seen: list[Any] = []
    appetite = Appetite("forever", max_tasks=1)
    worker = Worker(broker, "tasks", lambda message: seen.append(message.message), WorkerOptions(appetite=appetite))
    running = threading.Thread(target=worker.run)
    running.start()
    threading.Event().wait(0.3)
    switch.on = True
    bench.broker.publish("tasks", "late")
    wait_for(lambda: switch.met > 3, "the worker meets the fault")
    switch.on = False
    running.join(30)
    assert seen == ["late"]


def test_what_was_done_is_settled_once_that_is_possible(bench: Bench, switched: tuple[Broker, Switch]) -> None:
    """Heartbeats are refused, too, and the lease runs out: it is this worker's for as long as nobody took it over."""
    broker, switch = switched
    bench.broker.publish_many("tasks", range(2))
    seen: list[Any] = []

    def handler(message: Message) -> None:
        seen.append(message.message)
        switch.on = len(seen) == 1

    worker = Worker(broker, "tasks", handler, WorkerOptions(appetite=Appetite(lease=0.3)))
    running = threading.Thread(target=worker.run)
    running.start()
    wait_for(lambda: switch.on, "the first task is done")
    threading.Event().wait(1.0)
    switch.on = False
    running.join(30)
    assert (sorted(seen), worker.report.done, worker.report.lost) == ([0, 1], 2, 0)
    assert len(of_journal(bench.records(), "lost")) == 0
    assert bench.counts() == {}


def test_a_fault_that_lasts_ends_the_worker(
    bench: Bench, switched: tuple[Broker, Switch], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, switch = switched
    monkeypatch.setattr(idle, "PATIENCE", 0.5)
    bench.broker.publish("tasks", "m")
    worker = Worker(broker, "tasks", lambda message: None)
    switch.on = True
    with pytest.raises(StorageError) as raised:
        worker.run()
    assert raised.value.errno == switch.code
    assert worker.report.reason == "had to stop"


def test_a_worker_that_waits_for_a_fault_to_pass_can_be_stopped(bench: Bench, switched: tuple[Broker, Switch]) -> None:
    broker, switch = switched
    bench.broker.publish("tasks", "m")
    worker = Worker(broker, "tasks", lambda message: None)
    switch.on = True
    running = threading.Thread(target=worker.run)
    running.start()
    wait_for(lambda: switch.met > 3, "the worker meets the fault")
    worker.stop()
    running.join(10)
    assert not running.is_alive()
    assert bench.counts() == {"ready": 1}


def test_a_worker_that_cannot_be_listed_yet_works_all_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    place, refused = workers._place, []

    def full_at_first(*arguments: Any) -> None:
        if not refused:
            refused.append(arguments)
            raise OSError(errno.ENOSPC, "full")
        place(*arguments)

    monkeypatch.setattr(workers, "_place", full_at_first)
    bench.broker.publish("tasks", 1)
    report = batch.work(bench.broker, ["tasks"], batch.Job(["true"]), WorkerOptions(), lambda text: None)
    assert refused and report.done == 1
