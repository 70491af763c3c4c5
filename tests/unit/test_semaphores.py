"""Locks for users: exclusion, counting, takeover, fencing, and what is told of them. Holders are real processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from scheduler_commands import Commands, squeue_row

from ddmq_hpc import Lock, LockBusy, LockLost, NotFound, Semaphore, UsageError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.holders import record
from ddmq_hpc.identity import Identity
from ddmq_hpc.lockdir import LockDirectory
from ddmq_hpc.semaphores import break_lock, overview

FORK = multiprocessing.get_context("fork")


def _start(act: Callable[..., None], *args: Any) -> Any:
    process = FORK.Process(target=act, args=args)
    process.start()
    return process


def _hold_for_ever(path: str, slots: int = 1, lease: float = 120.0) -> None:
    with Semaphore(path, slots, lease=lease):
        Path(f"{path}.held").touch()
        time.sleep(600)


def _holder(path: str, lease: float = 120.0) -> Any:
    """A process that holds the lock."""
    process = _start(_hold_for_ever, path, 1, lease)
    until = time.monotonic() + 20
    while not os.path.exists(f"{path}.held"):
        assert time.monotonic() < until
        time.sleep(0.01)
    return process


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "it")


def test_who_comes_second_is_told_who_was_first(path: str) -> None:
    with Lock(path) as first:
        assert first.token == 1
        with pytest.raises(LockBusy, match=f"PID {os.getpid()}") as busy:
            Lock(path, wait=0).acquire()
        assert busy.value.exit_code == 75
        with pytest.raises(UsageError):
            first.acquire()
    assert os.listdir(f"{path}.lock") == ["lock.0000000001.free"]
    with Lock(path, wait=0) as second:
        assert second.token == 2
    assert os.listdir(f"{path}.lock") == ["lock.0000000002.free"]


def test_so_many_and_no_more(path: str) -> None:
    held = [Semaphore(path, 3, wait=0) for _ in range(3)]
    assert [one.acquire() for one in held] == [1, 2, 3]
    with pytest.raises(LockBusy):
        Semaphore(path, 3, wait=0.05).acquire()
    held[1].release()
    assert held[1].acquire() == 4
    assert [one.token for one in overview(path).holders] == [1, 3, 4]
    for one in held:
        one.release()


def test_there_must_be_a_place_for_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="make it first"):
        Lock(tmp_path / "no" / "lock").acquire()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.lock").symlink_to("elsewhere")
    with pytest.raises(Exception, match="Not a directory"):
        Lock(tmp_path / "link", wait=0).acquire()
    assert not os.listdir(tmp_path / "elsewhere")


def _contend(path: str, log: str, slots: int, seconds: float, name: int) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with Semaphore(path, slots) as held:
            os.write(handle, b"begin %d %d\n" % (held.token, name))
            time.sleep(0.001)
            os.write(handle, b"end %d %d\n" % (held.token, name))


@pytest.mark.parametrize("slots", [1, 3])
def test_processes_exclude_each_other(path: str, tmp_path: Path, slots: int) -> None:
    log = tmp_path / "log"
    log.touch()
    for process in [_start(_contend, path, str(log), slots, 2.0, name) for name in range(8)]:
        process.join(60)
        assert process.exitcode == 0
    inside: set[int] = set()
    tokens = []
    most = 0
    for line in log.read_text().splitlines():
        what, number, _ = line.split()
        if what == "begin":
            inside.add(int(number))
            tokens.append(int(number))
            most = max(most, len(inside))
        else:
            inside.remove(int(number))
        assert len(inside) <= slots
    assert most == slots
    assert len(tokens) > 50
    assert len(set(tokens)) == len(tokens)
    if slots == 1:
        assert tokens == sorted(tokens)
    assert len(os.listdir(f"{path}.lock")) <= slots + 2, "old generations are removed"


def test_a_killed_holder_is_replaced_at_once(path: str) -> None:
    process = _holder(path)
    with pytest.raises(LockBusy):
        Lock(path, wait=1.5).acquire()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    began = time.monotonic()
    with Lock(path, wait=10) as lock:
        assert lock.token == 2
    assert time.monotonic() - began < 2
    assert os.listdir(f"{path}.lock") == ["lock.0000000002.free"]


class Skewed(Filesystem):
    """A client whose clock is ahead, of a file system that stamps files by its own."""

    ahead = 0.0

    def __init__(self, root: str) -> None:
        super().__init__(root, network=True)

    def time(self) -> float:
        return time.time() + self.ahead


class Observing(Skewed):
    """The same where clients stamp files themselves."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.mount = self.mount._replace(type="lustre")


class SkewedAhead(Skewed):
    ahead = 7200.0


class SkewedBehind(Skewed):
    ahead = -7200.0


class ObservingAhead(Observing):
    ahead = 7200.0


@pytest.mark.parametrize("filesystem", [SkewedAhead, SkewedBehind, ObservingAhead])
def test_silence_for_a_lease_is_the_end_whatever_the_clock(path: str, filesystem: type[Skewed]) -> None:
    """The holder is stopped, not killed: only its silence tells."""
    process = _holder(path, 2.0)
    try:
        with pytest.raises(LockBusy):
            Lock(path, wait=5, filesystem=filesystem).acquire()  # it gives signs of life
        os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with Lock(path, wait=20, filesystem=filesystem) as lock:
            assert lock.token == 2
        assert 1 < time.monotonic() - began < 9
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()


def test_who_lost_it_is_told(path: str) -> None:
    lock = Lock(path, lease=1)
    lock.acquire()
    (holder,) = break_lock(path)
    assert (holder.pid, holder.token) == (os.getpid(), 1)
    assert abs(holder.since - time.time()) < 5
    with Lock(path, wait=0) as second:
        assert second.token == 3
        until = time.monotonic() + 5
        while not lock.lost:
            assert time.monotonic() < until
            time.sleep(0.05)
        with pytest.raises(LockLost, match="token 1"):
            lock.release()
        assert [one.token for one in overview(path).holders] == [3]
    assert break_lock(path) == []


def test_a_childs_copy_lets_go_of_nothing(path: str) -> None:
    with Lock(path) as lock:
        process = _start(lock.release)
        process.join()
        assert process.exitcode == 0
        assert overview(path).holders


def test_waiters_are_counted_and_leave_no_ticket(path: str) -> None:
    with Lock(path):
        process = _start(_hold_for_ever, path)
        until = time.monotonic() + 10
        while overview(path).waiting != 1:
            assert time.monotonic() < until
            time.sleep(0.01)
    try:
        while not os.path.exists(f"{path}.held"):
            assert time.monotonic() < until
            time.sleep(0.01)
        found = overview(path)
        assert (found.waiting, [one.pid for one in found.holders]) == (0, [process.pid])
    finally:
        process.kill()
        process.join()


def _hold_in_job(path: str, job: str) -> None:
    os.environ.update(SLURM_JOB_ID=job, SLURM_CLUSTER_NAME="testbed")
    _hold_for_ever(path)


@pytest.mark.parametrize("state, is_over", [("COMPLETED", True), ("PENDING", True), ("RUNNING", False), ("NEW", False)])
def test_a_holder_whose_batch_job_has_ended_is_replaced_at_once(
    path: str, commands: Commands, state: str, is_over: bool
) -> None:
    """Its process is there still, as far as this host can tell, and gave a sign of life just now."""
    commands.say("squeue", squeue_row("12", state))
    process = _start(_hold_in_job, path, "12")
    try:
        until = time.monotonic() + 20
        while not os.path.exists(f"{path}.held"):
            assert time.monotonic() < until
            time.sleep(0.01)
        (holder,) = overview(path).holders
        assert holder.job == "slurm-12=testbed"
        lock = Lock(path, wait=5)
        if is_over:
            assert lock.acquire() == 2
            lock.release()
        else:
            with pytest.raises(LockBusy, match="job slurm-12=testbed"):
                lock.acquire()
        # Once a minute, however many wait.
        assert 1 <= len(commands.calls("squeue")) <= 2
    finally:
        process.kill()
        process.join()


def test_what_this_very_job_holds_is_no_business_of_the_scheduler(
    path: str, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "testbed")
    commands.say("squeue", squeue_row("12", "COMPLETED"))
    with Lock(path), pytest.raises(LockBusy):
        Lock(path, wait=0.2).acquire()
    assert commands.calls("squeue") == []


def _ticket_of_another_host(path: str, lease: float) -> Path:
    """What a waiter left that is gone with its host."""
    directory = LockDirectory(path)
    owner = ":".join(["elsewhere", *Identity().owner().split(":")[1:]])
    return Path(directory.file(directory.enter(directory.open(), record(owner, lease))))


def test_a_waiter_that_is_gone_when_it_is_called_is_replaced_after_its_lease(path: str) -> None:
    with Lock(path):
        _ticket_of_another_host(path, 1.0)
    (holder,) = overview(path).holders
    assert (holder.token, holder.host) == (2, "elsewhere")
    began = time.monotonic()
    with Lock(path, wait=20) as lock:
        assert lock.token == 3
    assert 1 < time.monotonic() - began < 8


def test_a_waiter_without_a_sign_of_life_is_passed_over(path: str) -> None:
    with Lock(path):
        silent, other = sorted(_ticket_of_another_host(path, 1.0) for _ in range(2))
        os.utime(silent, (time.time() - 60, time.time() - 60))
    assert (silent.stat().st_nlink, other.stat().st_nlink) == (1, 2)


def test_links_that_come_late_leave_nothing_locked(path: str) -> None:
    """Somebody slept since it saw a waiter, who holds the lock by now."""
    lock = Lock(path)
    lock.acquire()
    held = Path(f"{path}.lock", "lock.0000000001")
    os.link(held, held.with_name("lock.0000000002"))
    lock.release()
    with Lock(path, wait=0) as other:
        assert other.token == 3


def test_a_node_passes_it_on_by_a_rename_and_then_calls_the_next_node(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait on one node, the processes of the other have their turns."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    log = tmp_path / "log"
    log.touch()
    nodes = {"one": 4, "other": 2}
    running = []
    for node, processes in nodes.items():
        (tmp_path / node).mkdir()
        with monkeypatch.context() as patch:
            patch.setenv("TMPDIR", str(tmp_path / node))
            running += [_start(_contend, path, str(log), 1, 3.0, len(running) + number) for number in range(processes)]
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[1:] for line in lines[::2]] == [line[1:] for line in lines[1::2]]
    tokens = [int(token) for _, token, _ in lines[::2]]
    assert tokens == sorted(set(tokens))
    turns = [sum(int(who) == number for _, _, who in lines[::2]) for number in range(len(running))]
    assert max(turns) <= 3 * min(turns), turns
