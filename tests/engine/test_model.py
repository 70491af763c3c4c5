"""The engine itself under a scheduler: clients take turns at every single file-system call, in thousands of orders.

Two takers take one message at a time of one pack and ack it, two sweepers sweep, and clients die between any two calls.
What the design's protocol model shows for its steps is shown here for the calls that the code really makes.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import RAW

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import LeaseLost
from ddmq_hpc.fs import Calls, Filesystem
from ddmq_hpc.identity import Identity
from ddmq_hpc.names import LEASED, READY, parse_entry, parse_lease

MESSAGES, SCHEDULES, MOST_STEPS = 3, 700, 3000


class Killed(BaseException):
    """Raised inside a client at the call that it does not live to make."""


class Client(Identity):
    """A thread that makes one file-system call when told to. Whether others see it as dead is up to the scheduler."""

    def __init__(self, world: World, name: str, work: Callable[[Broker], None]) -> None:
        super().__init__()
        self.world, self.name = world, name
        self._prefix, self._suffix, self._forks = f"model:1:1:{name}:{'a' * 8}", "", 0
        self.go, self.stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.dead = self.finished = False
        self.failure: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def owner(self) -> str:
        self._count += 1
        return f"{self._prefix}.{self._count}"

    def is_dead(self, text: str) -> bool:
        return any(client.dead and f":{client.name}:" in text for client in self.world.clients)

    def _run(self) -> None:
        self.go.acquire()
        try:
            if not self.dead:
                self._work(Broker(self.world.root, identity=self, filesystem=lambda top: Turns(top, self)))
        except Killed:
            pass
        except BaseException as error:
            self.failure = error
        self.finished = True
        self.stopped.release()

    def turn(self) -> None:
        """Called before each call: wait until it may be made."""
        self.stopped.release()
        self.go.acquire()
        if self.dead:
            raise Killed

    def step(self) -> None:
        self.go.release()
        self.stopped.acquire()


class Turns(Filesystem):
    def __init__(self, root: str, client: Client) -> None:
        self._client = client
        super().__init__(root, network=False)

    def time(self) -> float:
        return self._client.world.now

    def monotonic(self) -> float:
        return self._client.world.now

    def sleep(self, seconds: float) -> None:
        self._client.world.now += seconds
        self._client.turn()


def _in_turn(name: str) -> Callable[..., Any]:
    raw = getattr(Calls, name)

    def call(self: Turns, *args: Any) -> Any:
        self._client.turn()
        return raw(self, *args)

    return call


for _name in RAW:
    setattr(Turns, _name, _in_turn(_name))


class World:
    """One queue, its clients and one order of their calls."""

    def __init__(self, root: Path, chance: random.Random, slow: bool) -> None:
        self.root, self.chance, self.slow = str(root), chance, slow
        self.now = 1_795_000_000.0
        setup = Broker(self.root, create=True)
        setup.create_queue("q", durable=False, grace=0, requeue_limit=1000)
        setup.fs.time = lambda: self.now  # type: ignore[method-assign]
        setup.publish_many("q", range(MESSAGES))
        self.acked: Counter[int] = Counter()
        self.begun: set[int] = set()
        self.clients: list[Client] = []
        works = [self._take, self._take, self._sweep, self._sweep]
        self.clients += [Client(self, f"c{number}", work) for number, work in enumerate(works)]

    def _take(self, broker: Broker) -> None:
        for _ in range(3):
            for message in broker.consume("q"):
                self.begun.add(message.message)
                try:
                    broker.ack(message)
                except LeaseLost:
                    assert self.slow, "a live client's lease was taken away"
                    continue
                self.acked[message.message] += 1

    def _sweep(self, broker: Broker) -> None:
        for _ in range(3):
            broker.queue("q").sweep()

    def run(self, crashes: int) -> None:
        for _ in range(MOST_STEPS):
            alive = [client for client in self.clients if not client.finished and not client.dead]
            if not alive:
                return
            client = self.chance.choice(alive)
            if crashes and self.chance.random() < 0.03:
                crashes -= 1
                client.dead = True
            client.step()
            if self.slow and self.chance.random() < 0.02:
                self.now += 700  # every lease is over, also those of clients that are merely slow
            self.check()
        raise AssertionError("the clients do not come to an end")

    def check(self) -> None:
        """Every message that nobody began to ack is named by some entry."""
        named: set[int] = set()
        for path in (Path(self.root) / "q" / READY).glob("*/*/*"):
            entry = parse_entry(path.name)
            named.update(range(entry.first, entry.stop) if entry else ())
        for path in (Path(self.root) / "q" / LEASED).iterdir():
            lease = parse_lease(path.name)
            named.update(range(lease.entry.first, lease.entry.stop) if lease else ())
        assert set(range(MESSAGES)) - self.begun <= named, "LOST"

    def finish(self) -> None:
        """Another client gets what is left, and then everything was delivered."""
        for client in self.clients:
            if client.dead and not client.finished:
                client.step()
            assert client.failure is None, repr(client.failure)
        last = Broker(self.root)
        last.fs.time = lambda: self.now + 100_000  # type: ignore[method-assign]
        last.queue("q").sweep()
        rest: Counter[int] = Counter()
        while messages := last.consume("q", 10):
            rest.update(message.message for message in messages)
            last.ack(messages)
        everything = self.acked + rest
        assert all(everything[number] or number in self.begun for number in range(MESSAGES)), "LOST"
        if not self.slow:
            assert max(everything.values()) == 1, f"DOUBLED: {everything}"


@pytest.mark.slow
@pytest.mark.parametrize("slow", [False, True], ids=["in time", "slow"])
@pytest.mark.parametrize("crashes", [0, 1, 3])
def test_any_order_of_calls(place: Path, crashes: int, slow: bool) -> None:
    """None lost in any order; none doubled unless a live client's lease ran out."""
    for seed in range(SCHEDULES // 3):
        world = World(place / f"{seed}", random.Random(seed), slow)
        try:
            world.run(crashes)
            world.finish()
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
