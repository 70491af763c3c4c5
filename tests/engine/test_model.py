"""The engine's own code under a scheduler that stops every actor before each of its file-system calls.

Takers that take one message at a time, clients that settle batches, and sweepers run as threads of which one at a time
goes on for one call; which one, and who is killed where, a seed decides. After every call, guarantee 1: each message
that nobody began to settle is named by some entry. At the end, guarantee 2: each was done once, as long as no live
lease ran out; crashes alone double nothing.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable
from zlib import crc32

import pytest
from engine_tools import Watched

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import LeaseLost
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import Identity
from ddmq_hpc.names import QueuePaths, parse_entry, parse_lease
from ddmq_hpc.queue import Queue
from ddmq_hpc.settings import Settings

SECONDS = 8.0  # for each of the tests with random schedules; what it reaches is at least SCHEDULES
SCHEDULES = 300
MESSAGES, MAX_STEPS = 3, 2000
SETTINGS = Settings(durable=False, grace=0.0, requeue_limit=10**6)


class Killed(BaseException):
    """The actor's process is gone: it does nothing more, no cleaning up either."""


class Actor:
    """One client: a thread that waits before each raw call until the world lets it go on."""

    def __init__(self, world: World, name: str, work: Callable[[Actor], None]) -> None:
        self.world, self.name = world, name
        self.dead = self.ended = False
        self.failure: BaseException | None = None
        self.turn, self.stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.queue = world.client(self)
        self.settling: set[int] = set()  # what it has begun to settle
        self.doing = ""
        self.calls = 0
        self.thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self.thread.start()
        self.stopped.acquire()

    def _run(self, work: Callable[[Actor], None]) -> None:
        try:
            self.pause("starts")
            work(self)
        except Killed:
            pass
        except BaseException as error:
            self.failure = error
        self.ended = True
        self.stopped.release()

    def pause(self, doing: str) -> None:
        """Wait for the next turn; dies instead when it was killed."""
        if self.dead:
            raise Killed
        self.doing = doing
        self.stopped.release()
        self.turn.acquire()
        if self.dead:
            raise Killed

    def step(self) -> None:
        """One raw call, and whatever comes before the next."""
        self.turn.release()
        self.stopped.acquire()
        if self.failure:
            raise AssertionError(f"{self.name} failed") from self.failure

    def kill(self) -> None:
        self.dead = True
        self.turn.release()
        self.stopped.acquire()
        self.thread.join()

    def around(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        self.calls += 1
        self.pause(f"{name} {' '.join(str(arg).rpartition('/')[2][:90] for arg in args[:2])}")
        return call()


class Client(Watched):
    """A client's file system in the world's clock."""

    world: World
    actor: Actor | None = None

    def time(self) -> float:
        return self.world.now

    def monotonic(self) -> float:
        return self.world.now

    def sleep(self, seconds: float) -> None:
        if self.actor:
            self.actor.pause("sleeps")

    def listdir(self, path: str) -> list[str]:
        """In two parts, as readdir(3) may: what is renamed meanwhile can be missed under both of its names, or be seen
        under both."""
        early = super().listdir(path)
        if self.actor is None:
            return early
        self.actor.pause(f"lists the rest of {path.rpartition('/')[2]}")
        late = Filesystem.listdir(self, path)
        return [name for name in early if not _sorts_late(name)] + [name for name in late if _sorts_late(name)]


def _sorts_late(name: str) -> bool:
    return crc32(name.encode()) % 2 == 1


class Holder(Identity):
    """Owners named after their actor; dead when that was killed."""

    def __init__(self, world: World, name: str, actor: Actor | None = None) -> None:
        super().__init__()
        self.world, self.name, self.number, self.actor = world, name, 0, actor

    def owner(self) -> str:
        self.number += 1
        return f"host:1:1:kernel:{self.name}.{self.number}"

    def is_dead(self, text: str) -> bool:
        if self.actor:
            self.actor.pause("looks whether a process is there")
        return text.split(":")[4].rpartition(".")[0] in self.world.killed


class World:
    """One queue with one pack, and everybody who works on it."""

    def __init__(self, top: Path, network: bool = False, messages: int = MESSAGES) -> None:
        self.root, self.network, self.messages = str(top), network, messages
        self.paths = QueuePaths(self.root, "q")
        self.killed: set[str] = set()
        self.now = time.time() + 1000.0  # every change of a directory is long ago: nobody waits for it to settle
        self.actors: list[Actor] = []
        self.done: Counter[int] = Counter()  # settled for good, as its holder was told
        self.excused: set[int] = set()  # begun to be settled by one that was killed then
        self.trail: list[str] = []
        with Broker(self.root, create=True, filesystem=lambda root: Watched(root, False)) as broker:
            broker.create_queue("q", durable=False)
            broker.publish_many("q", range(messages))

    def client(self, actor: Actor | None, name: str = "") -> Queue:
        fs = Client(self.root, self.network)
        fs.world, fs.actor = self, actor
        queue = Queue(fs, self.paths, Holder(self, actor.name if actor else name, actor), lambda: SETTINGS)
        # Whether to sweep depends on what others of this node did lately; here sweepers do, and who finds nothing.
        queue.sweeper.maybe = lambda settings: None  # type: ignore[method-assign,assignment,return-value]
        if actor:
            fs.around = actor.around
        return queue

    def start(self, name: str, work: Callable[[Actor], None]) -> None:
        self.actors.append(Actor(self, name, work))

    @property
    def running(self) -> list[Actor]:
        return [actor for actor in self.actors if not actor.ended]

    def kill(self, actor: Actor) -> None:
        self.trail.append(f"{actor.name} is KILLED before: {actor.doing}")
        self.killed.add(actor.name)
        self.excused |= actor.settling
        actor.kill()

    def step(self, actor: Actor) -> None:
        self.trail.append(f"{actor.name}: {actor.doing}")
        self.now += 0.0001
        actor.step()
        self.check()

    def check(self) -> None:
        named: set[int] = set()
        for directory, _, names in os.walk(self.paths.ready):
            for name in names:
                entry = parse_entry(name)
                assert entry, f"foreign: {directory}/{name}"
                named.update(range(entry.first, entry.stop))
        for name in os.listdir(self.paths.leased):
            lease = parse_lease(name)
            assert lease, f"foreign: {name}"
            named.update(range(lease.entry.first, lease.entry.stop))
        begun = set(self.done) | self.excused
        for actor in self.actors:
            begun |= actor.settling
        lost = set(range(self.messages)) - named - begun
        assert not lost, f"LOST {lost}"

    def finish(self, once: bool) -> None:
        """Everybody has ended: one more client gets what is left, and each message was done once."""
        names = os.listdir(self.paths.leased)
        left = [name for name in names if not Holder(self, "").is_dead(parse_lease(name).owner)]  # type: ignore[union-attr]
        if once:
            assert not left, f"left leased by the living: {left}"
        self.now += 10**6
        queue = self.client(None, "last")
        queue.sweep()
        while messages := queue.take(2):
            for message in messages:
                self.done[message.message] += 1
            queue.ack(messages)
        assert os.listdir(self.paths.leased) == []
        for number in range(self.messages):
            assert self.done[number] or number in self.excused, f"LOST {number}"
            if once:
                extra = 1 if number in self.excused else 0
                assert self.done[number] <= 1 + extra, f"DOUBLED {number}"
        queue.close()

    def close(self) -> None:
        for actor in self.running:
            actor.kill()
        for actor in self.actors:
            actor.queue.close()


# -- what the actors do


def _settle(actor: Actor, messages: list[Any], act: Callable[[], None]) -> bool:
    actor.settling = {message.message for message in messages}
    try:
        act()
    except LeaseLost:
        return False
    finally:
        if not actor.dead:
            actor.settling = set()
    return True


def take_one_at_a_time(actor: Actor) -> None:
    while messages := actor.queue.take(1):
        assert len(messages) == 1
        if _settle(actor, messages, lambda: actor.queue.ack(messages)):
            actor.world.done[messages[0].message] += 1


def take_batches(actor: Actor) -> None:
    """Takes two, gives the first one back at first sight, acks the others one by one."""
    while messages := actor.queue.take(2):
        for message in reversed(messages):
            if message.failed == 0 and message.message == 0:
                try:
                    actor.queue.nack([message])
                except LeaseLost:
                    pass
            elif _settle(actor, [message], lambda: actor.queue.ack([message])):  # noqa: B023
                actor.world.done[message.message] += 1


def sweep_twice(actor: Actor) -> None:
    for _ in range(2):
        actor.queue.sweep()


def extend_and_ack(actor: Actor) -> None:
    while messages := actor.queue.take(3):
        try:
            actor.queue.extend(messages, 999)
        except LeaseLost:
            continue
        for message in messages:
            if _settle(actor, [message], lambda: actor.queue.ack([message])):  # noqa: B023
                actor.world.done[message.message] += 1


CASTS: dict[str, list[tuple[str, Callable[[Actor], None]]]] = {
    "two takers, two sweepers": [
        ("A", take_one_at_a_time),
        ("B", take_one_at_a_time),
        ("S", sweep_twice),
        ("T", sweep_twice),
    ],
    "batches": [("A", take_batches), ("B", take_one_at_a_time), ("S", sweep_twice), ("T", sweep_twice)],
    "heartbeats": [("A", extend_and_ack), ("B", take_batches), ("S", sweep_twice)],
}


def _random_run(world: World, seed: int, cast: list[tuple[str, Callable[[Actor], None]]], late: bool) -> None:
    """One schedule. Half of the seeds choose anew at each step, the others keep to a ranking that changes at few
    steps: those find what needs one actor to stop for long. With `late` the leases of the living run out, too."""
    chance = random.Random(seed)
    for name, work in cast:
        world.start(name, work)
    crashes = chance.choice([0, 1, 2, 3])
    changes = {chance.randrange(120) for _ in range(chance.randrange(1, 5))}
    lapses = {chance.randrange(120) for _ in range(chance.randrange(1, 4))} if late else set()
    crash_at = {chance.randrange(100) for _ in range(crashes)}
    rank = [name for name, _ in cast]
    chance.shuffle(rank)
    ranked = seed % 2 == 0
    for at in range(MAX_STEPS):
        running = world.running
        if not running:
            return
        if at in changes:
            chance.shuffle(rank)
        if at in lapses:
            world.trail.append("every lease runs out")
            world.now += 10_000
        if ranked and at < 150:
            actor = min(running, key=lambda one: rank.index(one.name[0]))
        else:
            actor = chance.choice(running)
        if at in crash_at:
            world.kill(actor)
            work = dict(cast)[actor.name[0]]
            world.start(actor.name + "-next", work)  # somebody does its work after it
        else:
            world.step(actor)
    raise AssertionError("no end")


def _explore(place: Path, cast: list[tuple[str, Callable[[Actor], None]]], late: bool, network: bool) -> int:
    end = time.monotonic() + SECONDS
    seed = 0
    while time.monotonic() < end or seed < SCHEDULES:
        top = place / "world"
        world = World(top, network)
        try:
            _random_run(world, seed, cast, late)
            world.finish(once=not late)
        except AssertionError as error:
            trail = "\n".join(world.trail)
            raise AssertionError(f"seed {seed}: {error} ({error.__cause__!r})\n{trail}") from error
        finally:
            world.close()
            shutil.rmtree(top)
        seed += 1
    return seed


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["crashes", "late holders"])
@pytest.mark.parametrize("name", CASTS)
def test_random_schedules(place: Path, name: str, late: bool, record_property: Callable[[str, object], None]) -> None:
    """Guarantees 1 and 2 hold after each step of thousands of schedules with up to three crashes."""
    record_property("schedules", _explore(place, CASTS[name], late, network=False))
