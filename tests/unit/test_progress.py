"""How far a task is: what may be said, what foreign files can do, how often it is heard, what registrations tell."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

import ddmq_hpc
from ddmq_hpc import telling
from ddmq_hpc.advance import MAX_TEXT, Progress
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import LeaseLost, UsageError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import Detached
from ddmq_hpc.worker_info import Running, WorkerInfo
from ddmq_hpc.workers import Registration, list_workers


@pytest.mark.parametrize(
    "written, done, total, shown, part",
    [
        ("3/10", 3, 10, "3/10", 0.3),
        ("30%", 30, 100, "30%", 0.3),
        ("2.5/5", 2.5, 5, "2.5/5", 0.5),
        ("7", 7, None, "7", None),
        ("1234567/2000000", 1234567, 2000000, "1234567/2000000", 0.6172835),
    ],
)
def test_what_may_be_written(written: str, done: float, total: float | None, shown: str, part: float | None) -> None:
    found = Progress.parse(written, "epoch")
    assert (found.done, found.total, str(found), found.part) == (done, total, f"{shown} epoch", part)
    assert Progress.decode(found.encode()) == found


@pytest.mark.parametrize("written", ["5/3", "150%", "100.1%", "1/0.5"])
def test_more_than_all_is_refused_where_it_is_written(written: str) -> None:
    with pytest.raises(UsageError, match="more than all of it"):
        Progress.parse(written)


def test_a_program_that_counts_too_far_is_not_stopped_by_that() -> None:
    assert Progress.checked(12, 10).part == 1.0


@pytest.mark.parametrize("written", ["", "x", "-1/3", "3/0", "1/2/3", "1e3", "nan", "\u0663/4", "3/10%", "9" * 40])
def test_what_may_not(written: str) -> None:
    with pytest.raises(UsageError):
        Progress.parse(written)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"done": "3"}',
        b'{"done": NaN}',
        b'{"text": 3}',
        b'{"total": 3}',
        b'{"done": true}',
        b"[" * 4000,
    ],
)
def test_foreign_files_are_no_progress(data: bytes) -> None:
    assert Progress.decode(data) is None


def test_numbers_of_other_libraries() -> None:
    assert Progress.checked(Decimal("2.5"), Fraction(5)) == Progress(2.5, 5.0)
    for bad in (True, "3", b"3", float("nan"), float("inf"), 10**400, -1, [3]):
        with pytest.raises(UsageError):
            Progress.checked(bad)


def test_texts_are_cut() -> None:
    assert len(Progress.checked(text="x" * 10**6).text) == MAX_TEXT


def test_a_program_is_heard_at_once_and_then_ten_times_a_second() -> None:
    now = 0.0
    voice = telling._Voice(lambda: now)
    assert sum(voice.may_speak(10, 20) for _ in range(1000)) == 20
    heard = 0
    for _ in range(10_000):
        now += 0.001
        heard += voice.may_speak(10, 20)
    assert 95 <= heard <= 101


def test_a_loop_costs_little_and_tells_its_last_steps_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "1.some-id.0"
    place.mkdir()
    monkeypatch.setenv("DDMQ_HPC_TASK_DIR", str(place))
    monkeypatch.setenv("DDMQ_HPC_ID", "some-id.0")
    monkeypatch.setenv("DDMQ_HPC_RECEIPT", "none that is looked at")
    monkeypatch.setattr(telling, "_voice", telling._Voice())
    written = 0
    monkeypatch.setattr(telling, "tell", lambda progress, real=telling.tell: real(progress) or count(progress))

    def count(progress: Progress) -> None:
        nonlocal written
        written += 1

    for step in range(50_000):
        ddmq_hpc.progress(step, 50_000, "at it")
    found = Progress.decode((place / "progress").read_bytes())
    assert found and found.total == 50_000 and 20 <= written < 1000
    assert os.listdir(place) == ["progress"]


def test_outside_of_tasks_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DDMQ_HPC_"):
            monkeypatch.delenv(name)
    ddmq_hpc.progress(1, 2)
    with pytest.raises(UsageError, match="not inside a task"):
        telling.tell(Progress(1, 2))


def pulled(tmp_path: Path, lease: float) -> tuple[Broker, dict[str, str]]:
    broker = Broker(tmp_path / "root", create=True, identity=Detached())
    broker.create_queue("q")
    broker.publish("q", "text")
    (message,) = broker.consume("q", lease=lease)
    return broker, {"DDMQ_HPC_ROOT": broker.root, "DDMQ_HPC_QUEUE": "q", "DDMQ_HPC_RECEIPT": message.receipt or ""}


def extended(broker: Broker, environ: dict[str, str]) -> list[str]:
    """The names of leases when a task told something a while after it was taken: deadlines are whole milliseconds."""
    directory = broker.queue("q").paths.leased
    before = os.listdir(directory)
    for _ in range(100):
        telling.tell(Progress(1, 2), environ)
        if os.listdir(directory) != before:
            break
    return os.listdir(directory)


def test_after_pull_it_extends_the_lease(tmp_path: Path) -> None:
    broker, environ = pulled(tmp_path, 60)
    before = os.listdir(broker.queue("q").paths.leased)
    assert extended(broker, environ) != before
    broker.ack(environ["DDMQ_HPC_RECEIPT"], "q")
    with pytest.raises(LeaseLost):
        telling.tell(Progress(2, 2), environ)


def test_the_directory_of_a_task_around_this_one_is_not_written(tmp_path: Path) -> None:
    broker, environ = pulled(tmp_path, 60)
    around = tmp_path / "1.other-message.0"
    around.mkdir()
    before = os.listdir(broker.queue("q").paths.leased)
    environ.update(DDMQ_HPC_TASK_DIR=str(around), DDMQ_HPC_ID="this-one.0")
    assert extended(broker, environ) != before and os.listdir(around) == []


class Clocked(Filesystem):
    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def test_each_step_rides_on_a_sign_of_life_and_only_the_first_one_is_news(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True, filesystem=Clocked)
    broker.create_queue("q")
    queue = broker.queue("q")
    task = Running("m1", "q", "simulate 1", 1000.0)
    info = replace(WorkerInfo.of_this_process(queue, "node1-1-a", ["q"]), running=("m1",), tasks=(task,))
    registration = Registration(queue, info)
    registration.start()

    def shown(seconds: float, done: float) -> Progress | None:
        queue.fs.ahead += seconds  # type: ignore[attr-defined]
        told = replace(task, told=1000.0 + done, progress=Progress(done, 10, "epoch"))
        registration.beat(replace(info, tasks=(told,)))
        (found,) = list_workers(queue)
        assert found.tasks[0].task == "simulate 1" and found.tasks[0].since == 1000.0
        return found.tasks[0].progress

    assert shown(11, 1) == Progress(1, 10, "epoch")
    assert shown(11, 2) == Progress(1, 10, "epoch")
    assert shown(50, 3) == Progress(3, 10, "epoch")


def test_what_an_earlier_attempt_told_is_not_shown_as_the_progress_of_the_next(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True, filesystem=Clocked)
    broker.create_queue("q")
    queue = broker.queue("q")
    first = Running("m1", "q", "simulate 1", 1000.0, 1001.0, Progress(9, 10))
    info = replace(WorkerInfo.of_this_process(queue, "node1-1-a", ["q"]), running=("m1",), tasks=(first,))
    registration = Registration(queue, info)
    registration.start()
    again = Running("m1", "q", "simulate 1", 1002.0)
    registration.beat(replace(info, tasks=(again,)))
    assert list_workers(queue)[0].tasks == (again,)
    told = replace(again, told=1003.0, progress=Progress(1, 10))
    registration.beat(replace(info, tasks=(told,)))
    assert list_workers(queue)[0].tasks == (again,), "the first progress can wait"


def test_a_task_is_that_of_the_worker_that_began_it_last(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q")
    queue = broker.queue("q")
    for host, since in (("node1", 1000.0), ("node2", 1100.0)):
        task = Running("m1", "q", "simulate 1", since, since + 1, Progress(since, 2000))
        info = WorkerInfo(f"{host}-1-a", host, 1, since=queue.fs.time() - 2000 + since, tasks=(task,), running=("m1",))
        Registration(queue, info).start()
    gone, here = list_workers(queue)
    assert (gone.host, gone.tasks) == ("node1", ()) and [task.since for task in here.tasks] == [1100.0]


def test_registrations_of_before_are_read(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q")
    queue = broker.queue("q")
    info = WorkerInfo("node1-1-a", "elsewhere", 1, since=queue.fs.time(), running=("m1",))
    found = json.loads(info.line())
    del found["tasks"]
    Path(queue.paths.in_workers("node1-1-a")).write_text(json.dumps(found))
    (read,) = list_workers(queue)
    assert read.tasks == () and list(read.running) == ["m1"]


def test_a_registration_with_many_long_tasks_can_be_read(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q")
    queue = broker.queue("q")
    tasks = tuple(Running(f"m{n}", "q", "ä" * 120, 1.0, 1.0, Progress(1, 2, "\x1b" * 200)) for n in range(200))
    info = replace(WorkerInfo.of_this_process(queue, "node1-1-a", ["q"]), tasks=tasks, running=("m0",))
    Registration(queue, info).start()
    (found,) = list_workers(queue)
    assert found.tasks and found.tasks[0].task == "ä" * 120
