"""Locks handed on, to the next process of a node and to the next node: either side killed at each call, and each call's
reply lost. Nobody has to wait for a lease, and every token is higher than those before."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any, Callable

import pytest
from engine_tools import Watched, die, forked
from test_lock_faults import FAULTS

from ddmq_hpc import Lock, StorageError

FORK = multiprocessing.get_context("fork")
Around = Callable[[str, Callable[[], Any], tuple[Any, ...]], Any]


class Pair:
    """A lock, the node of one who lets go of it and that of one who waits."""

    def __init__(self, place: Path, same_node: bool) -> None:
        self.path = str(place / "it")
        self.nodes = [place / "one", place / ("one" if same_node else "other")]
        self.same_node = same_node
        for node in self.nodes:
            node.mkdir(exist_ok=True)

    def on(self, which: int) -> None:
        """This process is on that node from now on."""
        os.environ["TMPDIR"] = str(self.nodes[which])

    def lock(self, around: Around | None = None, **options: Any) -> Lock:
        lock = Lock(self.path, filesystem=lambda root: Watched(root, True), **options)
        fs = lock._place.fs
        assert isinstance(fs, Watched)
        fs.around = around
        return lock

    def somebody_waits(self) -> bool:
        if self.same_node:
            return any(file.stat().st_size for file in self.nodes[1].glob("ddmq-hpc-*/*.turn"))
        return any(name.startswith("want.") for name in os.listdir(f"{self.path}.lock"))

    def until_waited_for(self, over: Callable[[], bool] = lambda: False) -> None:
        until = time.monotonic() + 20
        while not self.somebody_waits() and not over():
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(0.02)  # for the second look


@pytest.fixture(params=["to the next of the node", "to the next node"])
def pairs(request: pytest.FixtureRequest, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iterator[Pair]]:
    monkeypatch.setenv("TMPDIR", str(place))

    def make() -> Iterator[Pair]:
        for number in range(1, 60):
            (place / str(number)).mkdir()
            yield Pair(place / str(number), request.param == "to the next of the node")
        raise AssertionError("calls without end")

    yield make()


def _wait_for(pair: Pair, begin: Path, lease: float = 120.0) -> None:
    """Another process that takes the lock once it is held."""
    pair.on(1)
    while not begin.exists():
        time.sleep(0.002)
    with Lock(pair.path, wait=20, lease=lease) as lock:
        Path(f"{pair.path}.token").write_text(str(lock.token))


def _token(pair: Pair) -> int:
    return int(Path(f"{pair.path}.token").read_text())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_who_lets_go_is_killed_at_each_call(pairs: Iterator[Pair], moment: str) -> None:
    for at, pair in enumerate(pairs, 1):
        held = Path(f"{pair.path}.held")

        def act(pair: Pair = pair, held: Path = held, at: int = at) -> None:
            count, armed = 0, False

            def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
                nonlocal count
                count += armed
                if count != at or not armed:
                    return call()
                if moment == "after":
                    call()
                return die()

            pair.on(0)
            lock = pair.lock(around)
            lock.acquire()
            held.touch()
            pair.until_waited_for()
            armed = True
            lock.release()

        waiter = FORK.Process(target=_wait_for, args=(pair, held))
        waiter.start()
        _, status = os.waitpid(forked(act), 0)
        waiter.join(15)
        assert waiter.exitcode == 0, f"call {at}"
        assert _token(pair) > 1
        with Lock(pair.path, wait=5) as lock:
            assert lock.token > _token(pair)
        if not os.WIFSIGNALED(status):
            assert at > (1 if pair.same_node else 5)
            return


@pytest.mark.parametrize("fault", FAULTS)
def test_who_lets_go_gets_no_reply(pairs: Iterator[Pair], fault: str) -> None:
    kinds = FAULTS[fault]
    for at, pair in enumerate(pairs, 1):
        armed: list[bool] = []
        trap = Trap(kinds, at)
        pair.on(0)
        lock = pair.lock(lambda name, call, args, t=trap, a=armed: t(name, call, args) if a else call(), lease=1)
        lock.acquire()
        held = Path(f"{pair.path}.held")
        held.touch()
        waiter = FORK.Process(target=_wait_for, args=(pair, held, 1.0))
        waiter.start()
        pair.until_waited_for()
        armed.append(True)
        try:
            lock.release()
        except StorageError:
            assert "executed" in fault, trap.hit
        waiter.join(15)
        assert waiter.exitcode == 0, f"{fault} {trap.hit}"
        assert _token(pair) > 1
        with Lock(pair.path, wait=5) as other:
            assert other.token > _token(pair)
        if not trap.hit:
            assert at > 1
            return


class Trap:
    """Falsifies the `at`-th of the calls of these kinds, once."""

    def __init__(self, kinds: dict[str, tuple[bool, int]], at: int) -> None:
        self._kinds, self._left, self.hit = kinds, at, ""

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name not in self._kinds or self.hit:
            return call()
        self._left -= 1
        if self._left:
            return call()
        self.hit = name
        executed, code = self._kinds[name]
        if executed:
            call()
        raise OSError(code, os.strerror(code), args[0])


def _is_poll(name: str, args: tuple[Any, ...]) -> bool:
    """A look at the own ticket: how many there are is a matter of time."""
    return name in ("touch", "lstat") and "/want." in args[0]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_who_waits_is_killed_at_each_call(pairs: Iterator[Pair], moment: str) -> None:
    for at, pair in enumerate(pairs, 1):
        let_go = Path(f"{pair.path}.let-go")
        pair.on(0)
        holder = Lock(pair.path)
        holder.acquire()

        def act(pair: Pair = pair, let_go: Path = let_go, at: int = at) -> None:
            count = 0

            def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
                nonlocal count
                count += not _is_poll(name, args) or let_go.exists()
                if count != at:
                    return call()
                if moment == "after":
                    call()
                return die()

            pair.on(1)
            with pair.lock(around, wait=20):
                pass

        pid = forked(act)
        pair.until_waited_for(
            lambda pid=pid: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        )
        let_go.touch()
        holder.release()
        _, status = os.waitpid(pid, 0)
        began = time.monotonic()
        with Lock(pair.path, wait=8) as lock:
            assert lock.token > 1
        assert time.monotonic() - began < 5, f"call {at}"
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            assert at > (1 if pair.same_node else 12)
            return


@pytest.mark.parametrize("fault", FAULTS)
def test_who_waits_gets_no_reply(pairs: Iterator[Pair], fault: str) -> None:
    for at, pair in enumerate(pairs, 1):
        trap = Trap(FAULTS[fault], at)
        pair.on(0)
        holder = Lock(pair.path, lease=1)
        holder.acquire()
        pair.on(1)
        lock = pair.lock(trap, lease=1, wait=10)
        failures: list[StorageError] = []

        def wait(lock: Lock = lock, failures: list[StorageError] = failures) -> None:
            try:
                lock.acquire()
            except StorageError as error:
                failures.append(error)

        waiter = Thread(target=wait)
        waiter.start()
        pair.until_waited_for(lambda waiter=waiter: not waiter.is_alive())
        assert not lock.token
        holder.release()
        waiter.join(15)
        assert not waiter.is_alive()
        assert bool(lock.token) != bool(failures), trap.hit
        assert not failures or "not executed" in fault or trap.hit == "create", trap.hit
        if lock.token:
            assert lock.token > 1
            with pytest.raises(Exception, match="is held"):
                Lock(pair.path, wait=0).acquire()
            try:
                lock.release()
            except StorageError:
                assert "executed" in fault, trap.hit
        with Lock(pair.path, wait=8) as other:
            assert other.token > 1
        if not trap.hit:
            assert at > (1 if pair.same_node else 3)
            return
