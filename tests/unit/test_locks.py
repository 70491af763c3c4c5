"""One holder at a time, whatever is killed, is late, or is lost on its way."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from ddmq_hpc import locks
from ddmq_hpc.broker import Broker
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.locks import acquire, locked, release
from ddmq_hpc.queue import Queue


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q")
    return broker.queue("q")


def test_who_comes_second_gets_nothing(queue: Queue) -> None:
    with locked(queue.fs, queue.paths, "x") as first:
        assert first
        assert acquire(queue.fs, queue.paths, "x") is None
        assert acquire(queue.fs, queue.paths, "y"), "another lock"
    second = acquire(queue.fs, queue.paths, "x")
    assert second
    assert second.generation == 2
    assert sorted(os.listdir(queue.paths.locks)) == ["x.0000000002", "y.0000000001"]
    assert not os.listdir(queue.paths.tmp)


def test_the_lock_of_a_process_that_is_gone_is_taken(queue: Queue) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if acquire(queue.fs, queue.paths, "x") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert acquire(queue.fs, queue.paths, "x")


def test_a_lock_that_is_held_for_long_is_taken(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    first = acquire(queue.fs, queue.paths, "x")
    assert first
    monkeypatch.setattr(locks, "LONGEST", -1.0)
    second = acquire(queue.fs, queue.paths, "x")
    assert second
    release(queue.fs, queue.paths, "x", first)
    monkeypatch.undo()
    assert acquire(queue.fs, queue.paths, "x") is None, "who was late lets go of nothing but its own"


class Late(Filesystem):
    """Lets others take and release the lock between the look and the link."""

    def link(self, source: str, target: str) -> None:
        if self.others:
            self.others, others = None, self.others
            others()
        super().link(source, target)

    others = None


def test_who_looked_long_ago_gets_nothing(queue: Queue) -> None:
    late = Late(queue.paths.root)

    def others() -> None:
        for _ in range(2):
            with locked(queue.fs, queue.paths, "x") as taken:
                assert taken
        assert acquire(queue.fs, queue.paths, "x")

    late.others = others  # type: ignore[assignment]
    assert acquire(late, queue.paths, "x") is None
    assert os.listdir(queue.paths.locks) == ["x.0000000003"]


class Lost(Filesystem):
    """Each link happens and says that the name was there."""

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))


def test_a_lost_reply_is_understood(queue: Queue) -> None:
    assert acquire(Lost(queue.paths.root, network=True), queue.paths, "x")


def _count(root: str, path: str, rounds: int) -> None:
    queue = Broker(root).queue("q")
    done = 0
    while done < rounds:
        with locked(queue.fs, queue.paths, "x") as taken:
            if taken:
                os.mkdir(path)
                time.sleep(0.001)
                os.rmdir(path)
                done += 1
        time.sleep(0.001)


def test_processes_exclude_each_other(queue: Queue, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    args = (queue.paths.root, str(tmp_path / "held"), 20)
    processes = [context.Process(target=_count, args=args) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 6
