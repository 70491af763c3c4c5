"""The worker as a Python class, its heartbeats under faults, and what waiting costs."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from contextlib import closing
from typing import Any, Callable

import pytest
from worker_tools import Bench, of_journal, wait_for

from ddmq_hpc import Worker, WorkerOptions
from ddmq_hpc.batch import start_delay
from ddmq_hpc.beats import LOOK_EVERY, Beats, how_lost
from ddmq_hpc.broker import Broker
from ddmq_hpc.feed import Appetite, Feed
from ddmq_hpc.fs import Calls, Filesystem
from ddmq_hpc.guardian import Guardian
from ddmq_hpc.handlers import handler_of
from ddmq_hpc.idle import Watch
from ddmq_hpc.messages import Message
from ddmq_hpc.output import TailOutput
from ddmq_hpc.room import Room
from ddmq_hpc.runner import CommandRunner
from ddmq_hpc.usage import OomCounter
from ddmq_hpc.window import Pace, Window


def test_a_function_works_on_messages(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(20))
    seen: list[Any] = []

    def handler(message: Message) -> None:
        seen.append(message.message)
        if message.message == 7 and message.attempt == 1:
            raise ValueError("not at first")

    report = Worker(bench.broker, "tasks", handler, WorkerOptions(slots=2)).run()
    assert sorted(seen) == sorted([*range(20), 7])
    assert (report.done, report.failed, report.reason) == (20, 1, "nothing is ready")
    [failure] = of_journal(bench.records(), "nacked")
    assert failure["error"] == "ValueError: not at first"
    assert bench.counts() == {}


def test_stop_from_another_thread_waits_for_the_grace_and_gives_back(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(3))
    begun, go_on = threading.Event(), threading.Event()
    threads = threading.active_count()

    def handler(message: Message) -> None:
        begun.set()
        go_on.wait(30)

    worker = Worker(bench.broker, "tasks", handler, WorkerOptions(grace=0.2))
    running = threading.Thread(target=worker.run)
    running.start()
    begun.wait(10)
    worker.stop(signal.SIGTERM)
    running.join(15)
    assert not running.is_alive()
    go_on.set()
    assert worker.report.released == 1
    assert bench.counts() == {"ready": 3}
    wait_for(lambda: threading.active_count() <= threads, "the function that was left to itself to return")
    assert not of_journal(bench.records(), "acked")  # it came too late: the message was given back


class Sluggish(CommandRunner):
    """Nothing is known of a process for some seconds after its start, as on a node that is busy."""

    def _launch(self, *arguments: Any) -> Any:
        process = super()._launch(*arguments)
        time.sleep(2.5)
        return process


@pytest.mark.parametrize(("by", "timeout"), [(signal.SIGUSR1, None), (signal.SIGTERM, 0.1)])
def test_a_task_that_is_just_about_to_begin_is_told_to_stop_as_well(
    bench: Bench, by: signal.Signals, timeout: float | None
) -> None:
    """By the worker that was told to stop itself, or since its time is over."""
    bench.broker.publish("tasks", "x")
    script = (
        f"trap 'echo heard >> {bench.place}/log; exit 0' {by.value}; echo > {bench.place}/up; sleep 30 & wait; wait"
    )
    directory = str(bench.place / "node" / "own")
    os.makedirs(directory)
    with closing(Guardian(directory, "w")) as guardian:
        runner = Sluggish(["sh", "-c", script], TailOutput(), guardian)
        worker = Worker(
            bench.broker, "tasks", runner, WorkerOptions(grace=20, timeout=timeout), name="w", directory=directory
        )
        running = threading.Thread(target=worker.run)
        running.start()
        wait_for(lambda: bench.file("up"), "the task")
        if timeout is None:
            worker.stop(by)
        running.join(15)
    assert (bench.file("log"), worker.report.done) == ("heard\n", 1)


class Faulty(Filesystem):
    """Renames fail while `fault` is set, before or after they are executed."""

    fault: int | None = None
    executed = False

    def rename(self, source: str, target: str) -> None:
        if self.fault is not None and "/leased/" in target:
            if self.executed:
                os.rename(source, target)
            raise OSError(self.fault, os.strerror(self.fault), source)
        os.rename(source, target)


@pytest.mark.parametrize("executed", [False, True], ids=["not executed", "executed"])
@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE], ids=["EIO", "ESTALE"])
def test_heartbeats_survive_faults_of_the_file_system(bench: Bench, fault: int, executed: bool) -> None:
    broker = Broker(bench.root, filesystem=lambda root: Faulty(root, network=True))
    broker.publish("tasks", "x")
    queue = broker.queue("tasks")
    [message] = queue.take(duration=0.3)
    assert isinstance(broker.fs, Faulty)
    broker.fs.fault, broker.fs.executed = fault, executed
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert Beats(queue).renew([message]) == []
        time.sleep(0.02)
    broker.fs.fault = None
    assert Beats(queue).renew([message]) == []
    assert (message.deadline or 0) > queue.fs.now(queue.paths.tmp)
    queue.ack([message])


def test_a_heartbeat_touches_no_file_until_a_third_of_the_lease_is_over(bench: Bench) -> None:
    calls = _counting(bench)
    calls.broker.publish("tasks", "x")
    queue = calls.broker.queue("tasks")
    [message] = queue.take(duration=600)
    calls.count.clear()
    for _ in range(1000):
        assert Beats(queue).renew([message]) == []
    assert not calls.count


def test_whether_leases_are_still_there_is_looked_by_one_listing_in_a_while(bench: Bench) -> None:
    calls = _counting(bench)
    calls.broker.publish_many("tasks", range(200))
    queue = calls.broker.queue("tasks")
    held = [message for _ in range(20) for message in queue.take(5, duration=36000)]
    beats = Beats(queue)
    calls.count.clear()
    calls.advance(LOOK_EVERY - 1)
    assert beats.renew(held) == [] and not calls.count
    calls.advance(2)
    for _ in range(100):
        assert beats.renew(held) == []
    assert calls.count == {"listdir": 1}
    other = Broker(bench.root)
    other.cancel("tasks", held[7].id)
    assert beats.renew(held) == [], "until it is time to look again"
    calls.advance(LOOK_EVERY + 1)
    assert {message.id for message in beats.renew(held)} == {message.id for message in held[5:10]}
    assert [how_lost(queue, message) for message in held[6:9]] == ["lost", "cancelled", "lost"]


@pytest.mark.parametrize("network", [False, True])
def test_a_lease_that_a_listing_leaves_out_is_not_lost(bench: Bench, network: bool) -> None:
    """On NFS a listing may be incomplete; and a task may extend its own lease, which gives it another name."""

    class Incomplete(Filesystem):
        hide = False

        def listdir(self, path: str) -> list[str]:
            return [] if self.hide and path.endswith("/leased") else super().listdir(path)

    broker = Broker(bench.root, filesystem=lambda root: Incomplete(root, network))
    broker.publish_many("tasks", range(2))
    queue = broker.queue("tasks")
    hidden, extended = (queue.take(duration=36000)[0] for _ in range(2))
    Broker(bench.root).extend([extended.receipt or ""])
    ahead = time.monotonic() + LOOK_EVERY + 1
    beats = Beats(queue)
    assert isinstance(broker.fs, Incomplete)
    broker.fs.monotonic = lambda: ahead  # type: ignore[method-assign]
    broker.fs.now = lambda directory: time.time() + LOOK_EVERY + 1  # type: ignore[method-assign]
    broker.fs.hide = True
    assert beats.renew([hidden]) == []
    broker.fs.hide = False
    beats = Beats(queue)
    broker.fs.monotonic = lambda: ahead + LOOK_EVERY + 1  # type: ignore[method-assign]
    assert beats.renew([hidden, extended]) == []
    queue.ack([hidden, extended])


def test_a_task_that_is_cancelled_is_ended_and_told_of_as_that(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmq_hpc.beats.LOOK_EVERY", 0.2)
    ids = [bench.broker.publish("tasks", number).id for number in range(2)]
    begun = threading.Event()

    def handler(message: Message) -> None:
        begun.set()
        if message.id == ids[0]:
            wait_for(lambda: worker.report.cancelled or stopped.is_set(), "the end")

    stopped = threading.Event()
    handled = handler_of(handler)
    handled.signal = lambda task, number: stopped.set()  # type: ignore[method-assign]
    worker = Worker(bench.broker, "tasks", handled, WorkerOptions(appetite=Appetite(lease=36000)))
    running = threading.Thread(target=worker.run)
    running.start()
    begun.wait(10)
    Broker(bench.root).cancel("tasks", ids[0])
    running.join(20)
    assert not running.is_alive()
    assert stopped.is_set()
    assert (worker.report.done, worker.report.lost, worker.report.cancelled) == (1, 0, 1)
    assert "1 done, 1 cancelled in " in str(worker.report)


class _Counting:
    def __init__(self, broker: Broker, count: dict[str, int], clock: Callable[[float], None]) -> None:
        self.broker = broker
        self.count = count
        self.advance = clock


def _counting(bench: Bench) -> _Counting:
    """A broker whose calls are counted, with a clock that is moved by hand."""
    count: dict[str, int] = {}
    ahead = [0.0]

    class Counted(Filesystem):
        def time(self) -> float:
            return time.time() + ahead[0]

        def monotonic(self) -> float:
            return time.monotonic() + ahead[0]

    def counted(name: str) -> Callable[..., Any]:
        def call(self: Counted, *args: Any) -> Any:
            count[name] = count.get(name, 0) + 1
            return getattr(super(Counted, self), name)(*args)

        return call

    for name in vars(Calls):
        if not name.startswith("_") and name not in ("time", "monotonic", "sleep"):
            setattr(Counted, name, counted(name))

    def advance(seconds: float) -> None:
        ahead[0] += seconds

    return _Counting(Broker(bench.root, filesystem=lambda root: Counted(root, network=False)), count, advance)


def test_a_worker_idle_for_an_hour_lists_less_than_once_in_30_seconds(bench: Bench) -> None:
    """One that others keep busy as well: there are leases of theirs, and a message that is due in two hours."""
    counted = _counting(bench)
    broker = counted.broker
    broker.publish_many("tasks", range(3))
    broker.publish("tasks", "later", delay="2h")
    others = broker.consume("tasks", 3, lease="3h")
    queue = broker.queue("tasks")
    watch = Watch(queue)
    assert queue.take() == []
    counted.count.clear()
    watch.remember()
    looks = 0
    for _ in range(120):  # an hour, at the longest pause of 30 s
        counted.advance(30)
        if watch.calls_for_a_look():
            looks += 1
            assert queue.take() == []
            watch.remember()
    listings = counted.count.get("listdir", 0) + counted.count.get("subdirectories", 0)
    assert looks >= 3600 / 600 - 1  # missed changes are found in time
    assert listings <= 120, counted.count
    broker.ack(others)


@pytest.mark.parametrize("how", ["published", "published to a new priority", "delayed", "nacked", "expired"])
def test_an_idle_worker_notices(bench: Bench, how: str) -> None:
    counted = _counting(bench)
    broker = counted.broker
    queue = broker.queue("tasks")
    if how in ("nacked", "expired"):
        broker.publish("tasks", "x")
        [held] = broker.consume("tasks", lease="100s")
    watch = Watch(queue)
    time.sleep(0.1)
    assert queue.take() == []
    watch.remember()
    assert not watch.calls_for_a_look()
    if how == "published":
        bench.broker.publish("tasks", "x")
    elif how == "published to a new priority":
        bench.broker.publish("tasks", "x", priority=5)
    elif how == "delayed":
        bench.broker.publish("tasks", "x", delay="100s")
        assert watch.calls_for_a_look()
        assert queue.take() == []
        watch.remember()
        counted.advance(101)
    elif how == "nacked":
        broker.nack(held)
    else:
        counted.advance(103)
    assert watch.calls_for_a_look()
    broker.clean("tasks")
    assert len(queue.take()) == 1


def _feed(bench: Bench, **wants: Any) -> Feed:
    return Feed([bench.broker.queue("tasks")], Appetite(**wants), Window(), Pace(), Room(100))


def test_messages_are_taken_ahead_by_the_pace_of_tasks(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(1000))
    pace = Pace()
    feed = Feed([bench.broker.queue("tasks")], Appetite(), Window(), pace, Room(100))
    assert feed.next()
    assert feed.ahead() == []  # nothing is known yet
    for _ in range(3):
        pace.add(0.1)
    assert feed.next()
    assert len(feed.ahead()) == 9  # a second's worth
    assert feed.release_ahead() == 9
    assert bench.broker.stats("tasks").leased == 2


def test_prefetch_can_be_chosen(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(100))
    feed = _feed(bench, prefetch=0)
    assert feed.next()
    assert feed.ahead() == []
    feed = _feed(bench, prefetch=5)
    assert feed.next()
    assert len(feed.ahead()) == 5


def test_a_message_taken_ahead_and_lost_is_not_handed_out(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(2))
    feed = _feed(bench, prefetch=1)
    first = feed.next()
    assert first
    [(queue, waiting)] = feed.ahead()
    queue.release([waiting])
    found = feed.next()
    assert found
    assert found[1].id == waiting.id
    assert found[1] is not waiting


@pytest.mark.parametrize("until", ["empty", "drained"])
def test_a_worker_waits_while_a_queue_is_paused_and_goes_on_when_it_is_not(bench: Bench, until: str) -> None:
    bench.broker.publish("tasks", "x")
    bench.broker.pause("tasks", "the licence server is down")
    told: list[str] = []
    client = Broker(bench.root)
    worker = Worker(client, "tasks", lambda message: None, WorkerOptions(appetite=Appetite(until=until)))
    worker.tell = told.append
    running = threading.Thread(target=worker.run)
    running.start()
    wait_for(lambda: bool(told), "the worker to see that the queue is paused")
    assert "the licence server is down" in told[0]
    assert bench.counts() == {"ready": 1}
    client.resume("tasks")
    running.join(30)
    assert (worker.report.done, len(told)) == (1, 1)


def test_a_worker_does_not_wait_for_a_paused_queue_that_is_empty(bench: Bench) -> None:
    bench.broker.pause("tasks")
    assert Worker(Broker(bench.root), "tasks", print).run().reason == "nothing is ready"


def test_a_worker_that_is_soon_done_does_not_ask_when_its_job_ends() -> None:
    asked: list[int] = []

    def ask() -> float:
        asked.append(1)
        return time.time() + 3600

    window = Window(ask)
    assert window.has(5)
    assert window.known_end() is None
    assert not asked
    assert window.has(1800)
    assert not window.has(3400)  # five minutes are left free
    assert window.known_end()
    assert len(asked) == 1


def test_death_for_want_of_memory_is_recognised_by_the_kernels_own_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cgroups(7): memory.events of version 2, memory.oom_control of version 1, both with a line `oom_kill N`."""
    count = bench.place / "memory.events"
    count.write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n")
    monkeypatch.setattr("ddmq_hpc.usage._counters", lambda: [str(count)])
    counter = OomCounter()
    assert not counter.happened()
    count.write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\n")
    assert counter.happened()
    assert not counter.happened()  # told once
    count.unlink()
    assert not counter.happened()


def test_workers_of_a_large_array_begin_spread_out_and_always_at_the_same_moment() -> None:
    def delays(size: int) -> list[float]:
        found = []
        for task in range(1, size + 1):
            job = {"SLURM_JOB_ID": str(100 + task), "SLURM_ARRAY_JOB_ID": "100", "SLURM_ARRAY_TASK_ID": str(task)}
            found.append(start_delay({**job, "SLURM_ARRAY_TASK_COUNT": str(size)}))
        return found

    assert start_delay({}) == 0
    assert set(delays(4)) == {0}
    assert delays(200) == delays(200)
    assert max(delays(200)) <= 10
    assert all(any(low <= delay < low + 2 for delay in delays(200)) for low in range(0, 10, 2))
    assert 25 < max(delays(3000)) <= 30
