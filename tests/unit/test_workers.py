"""Registrations of workers: what is listed, who is told to stop, and what foreign files can do: nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import QueueNotFound, UsageError, WorkerNotFound
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import host, kernel
from ddmq_hpc.queue import Queue
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration, forget, list_workers, request_stop


class Clocked(Filesystem):
    """A file system whose steady clock the test turns."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    broker = Broker(tmp_path / "root", create=True, filesystem=Clocked)
    broker.create_queue("q")
    return broker.queue("q")


def registered(queue: Queue, ident: str = "node1-1-aaa", **values: object) -> tuple[Registration, WorkerInfo]:
    info = replace(WorkerInfo.of_this_process(queue, ident, ["q"], 2, ["run", "{}"]), **values)  # type: ignore[arg-type]
    registration = Registration(queue, info)
    registration.start()
    return registration, info


def file(queue: Queue, name: str) -> Path:
    return Path(queue.paths.workers) / name


def later(queue: Queue, seconds: float) -> None:
    queue.fs.ahead += seconds  # type: ignore[attr-defined]


def age(path: Path, seconds: float) -> None:
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


def test_a_worker_is_listed_from_start_to_end(queue: Queue) -> None:
    registration, info = registered(queue)
    (found,) = list_workers(queue)
    assert replace(found, seen=0.0, user="", command=info.command, queues=info.queues) == info
    assert (found.alive, found.pid, found.host, found.kernel) == ("yes", os.getpid(), host(), kernel())
    assert abs(found.seen - queue.fs.time()) < 5 and list(found.command) == ["run", "{}"]
    registration.end()
    assert list_workers(queue) == [] and os.listdir(queue.paths.workers) == []
    assert os.listdir(queue.paths.tmp) == []


def test_signs_of_life_are_few_and_tell_what_changed(queue: Queue) -> None:
    registration, info = registered(queue)
    path = file(queue, "node1-1-aaa.json")
    age(path, 1000)
    old = path.stat()
    for _ in range(100):
        registration.beat(replace(info, done=1))
    assert path.stat() == old
    later(queue, 11)
    registration.beat(replace(info, done=2, running=("m1", "m2")))
    (found,) = list_workers(queue)
    assert (found.done, list(found.running)) == (2, ["m1", "m2"])
    age(path, 1000)
    before = path.stat()
    later(queue, 61)
    registration.beat(replace(info, done=2, running=("m1", "m2")))
    assert path.stat().st_ino == before.st_ino and path.stat().st_mtime > before.st_mtime + 900


def test_a_worker_taken_for_dead_registers_anew(queue: Queue) -> None:
    registration, info = registered(queue)
    file(queue, "node1-1-aaa.json").unlink()
    later(queue, 61)
    assert registration.beat(info) is None
    assert len(list_workers(queue)) == 1


def test_a_queue_that_is_gone(queue: Queue, tmp_path: Path) -> None:
    registration, info = registered(queue)
    Broker(tmp_path / "root").delete_queue("q")
    later(queue, 61)
    assert registration.beat(replace(info, done=5)) is None
    registration.end()
    with pytest.raises(QueueNotFound):
        registration.start()


@pytest.mark.parametrize(
    ("values", "silent_for", "alive"),
    [
        ({}, 0, "yes"),
        ({}, 299, "yes"),
        ({}, 310, "silent"),
        ({"start": 1}, 0, "no"),
        ({"start": 1, "kernel": "00000000"}, 0, "yes"),  # another PID namespace: nothing is known
        ({"start": 1, "host": "elsewhere"}, 0, "yes"),
        ({"start": 1, "host": "elsewhere"}, 310, "silent"),
        ({"start": 1}, 3000, "no"),
        ({"start": 1}, 3700, None),
        ({"host": "elsewhere"}, 3700, None),
        ({}, 3700, None),
    ],
)
def test_who_is_alive(queue: Queue, values: dict[str, object], silent_for: float, alive: str | None) -> None:
    registered(queue, **values)
    age(file(queue, "node1-1-aaa.json"), silent_for)
    assert [info.alive for info in list_workers(queue)] == ([alive] if alive else [])


def test_a_process_that_ended_is_dead(queue: Queue, tmp_path: Path) -> None:
    code = "import sys; from ddmq_hpc.broker import Broker; from ddmq_hpc.workers import *\n"
    code += "queue = Broker(sys.argv[1]).queue('q')\n"
    code += "Registration(queue, WorkerInfo.of_this_process(queue, 'w', ['q'])).start()"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "root")], check=True)
    assert [info.alive for info in list_workers(queue)] == ["no"]
    assert request_stop(queue, None) == []
    assert forget(queue) == 1


@pytest.mark.parametrize("now", [False, True])
def test_a_request_to_stop_arrives(queue: Queue, now: bool) -> None:
    registration, info = registered(queue)
    assert registration.beat(info) is None
    assert request_stop(queue, ["node1"], now) == [info.id]
    assert registration.beat(info) is None  # it does not look all the time
    later(queue, 6)
    assert registration.beat(info) is None  # nor soon while it waits
    assert registration.beat(replace(info, running=("m",))) == ("now" if now else "stop")
    file(queue, "node1-1-aaa.stop").unlink()
    later(queue, 60)
    assert registration.beat(info) == ("now" if now else "stop")


def test_a_request_can_become_urgent_but_not_less_so(queue: Queue) -> None:
    registration, info = registered(queue)
    for now, told in ((False, "stop"), (True, "now"), (False, "now")):
        request_stop(queue, None, now)
        later(queue, 60)
        assert registration.beat(info) == told


def test_whom_a_request_means(queue: Queue) -> None:
    for ident in ("node1-1-aaa", "node1-1-aaabbb", "node1-2-ccc", "node2-1-ddd"):
        registered(queue, ident)
    assert request_stop(queue, ["node2", "node1-1-aaa"]) == ["node2-1-ddd", "node1-1-aaa"]
    for wanted, error in ((["node2", "node1-1"], UsageError), (["node3"], WorkerNotFound), ([""], WorkerNotFound)):
        for path in Path(queue.paths.workers).glob("*.stop"):
            path.unlink()
        with pytest.raises(error):
            request_stop(queue, wanted)
        assert not list(Path(queue.paths.workers).glob("*.stop"))
    assert len(request_stop(queue, None)) == 4


GOOD = json.loads(WorkerInfo("w", host="elsewhere").line())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({**GOOD, "command": ["x" * 70_000]}).encode(),
        json.dumps({**GOOD, "pid": "1"}).encode(),
        json.dumps({**GOOD, "pid": -1}).encode(),
        json.dumps({**GOOD, "pid": True}).encode(),
        json.dumps({**GOOD, "done": 10**30}).encode(),
        json.dumps({**GOOD, "since": float("nan")}).encode(),
        json.dumps({**GOOD, "queues": "q"}).encode(),
        json.dumps({**GOOD, "running": [1]}).encode(),
        json.dumps({"host": "x"}).encode(),
    ],
)
def test_what_is_no_registration_is_passed_over(queue: Queue, content: bytes) -> None:
    registered(queue)
    file(queue, "w.json").write_bytes(content)
    assert [info.id for info in list_workers(queue)] == ["node1-1-aaa"]
    assert forget(queue) == 0 and file(queue, "w.json").exists()


def test_foreign_files_hurt_nobody(queue: Queue, tmp_path: Path) -> None:
    registration, info = registered(queue)
    secret = tmp_path / "secret"
    secret.write_text(json.dumps(GOOD))
    file(queue, "link.json").symlink_to(secret)
    file(queue, "directory.json").mkdir()
    file(queue, "old.stop").mkdir()
    os.mkfifo(file(queue, "fifo.json"))
    for name in (".hidden.json", "README", "a b.json", "x.json.tmp"):
        file(queue, name).write_text(json.dumps(GOOD))
    file(queue, f"{info.id}.stop").symlink_to(secret)
    later(queue, 60)
    assert registration.beat(info) is None
    assert [found.id for found in list_workers(queue)] == [info.id]
    before = sorted(os.listdir(queue.paths.workers))
    assert forget(queue) == 0 and sorted(os.listdir(queue.paths.workers)) == before
    assert secret.read_text() == json.dumps(GOOD)


def test_whatever_a_worker_tells_can_be_listed(queue: Queue) -> None:
    registered(queue, running=[f"m{n}" for n in range(1000)], command=["x" * 10**6] * 1000)
    (found,) = list_workers(queue)
    assert len(found.running) > 0
    assert file(queue, "node1-1-aaa.json").stat().st_size < 1 << 16


def test_clean_removes_what_is_dead(queue: Queue, tmp_path: Path) -> None:
    registered(queue, "alive")
    registered(queue, "dead", start=1)
    registered(queue, "silent", host="elsewhere")
    registered(queue, "long-silent", host="elsewhere")
    age(file(queue, "silent.json"), 400)
    age(file(queue, "long-silent.json"), 4000)
    for ident, old in (("alive", 4000), ("gone", 4000), ("just-gone", 0)):
        file(queue, f"{ident}.stop").write_text("stop\n")
        age(file(queue, f"{ident}.stop"), old)
    leftover = Path(queue.paths.tmp) / "workers-abc"
    leftover.write_text("{}")
    age(leftover, 4000)
    assert Broker(tmp_path / "root").clean("q")["q"]["registrations"] == 3
    left = ["alive.json", "alive.stop", "just-gone.stop", "silent.json"]
    assert sorted(os.listdir(queue.paths.workers)) == left
    assert not leftover.exists()
