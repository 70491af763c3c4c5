"""Clients whose clocks differ by twenty minutes share a network file system.

Guarantee: no live lease is taken early, and a dead one is taken in time, whatever the clocks of the hosts say; where
clients stamp the files, no clock but the observer's own steady one counts.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from engine_tools import QUEUE, Watched, body, held_names

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import LeaseLost
from ddmq_hpc.identity import Detached, Identity

LEASE, GRACE = 20.0, 2.0
FAST, SLOW = 600.0, -600.0
SKEWS = [(FAST, SLOW), (SLOW, FAST), (FAST, 0.0), (0.0, FAST), (SLOW, 0.0), (0.0, SLOW), (0.4, -0.4)]


class World:
    """The file server's clock, which stamps all that is touched, and true time passing for all hosts."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.began = time.time()

    @property
    def server(self) -> float:
        return self.began + self.passed


class Client(Watched):
    """One host of the world: its own clock is off, its steady clock began at some other moment."""

    def __init__(self, root: str, world: World, skew: float, network: bool = True) -> None:
        super().__init__(root, network)
        self.world, self.skew, self.boot = world, skew, 1000.0 + skew

    def time(self) -> float:
        return self.world.server + self.skew

    def monotonic(self) -> float:
        return self.boot + self.world.passed

    def sleep(self, seconds: float) -> None:
        self.world.passed += seconds

    def touch(self, path: str) -> None:
        super().touch(path)
        os.utime(path, (self.world.server, self.world.server))


def _client(place: Path, world: World, skew: float, identity: Identity | None = None) -> Broker:
    broker = Broker(
        str(place / "root"), create=True, identity=identity, filesystem=lambda root: Client(root, world, skew)
    )
    broker.create_queue(QUEUE, durable=False, grace=GRACE)
    return broker


def _sweep(broker: Broker) -> int:
    return broker.queue(QUEUE).sweep().requeued


@pytest.mark.parametrize(("holder", "sweeper"), SKEWS)
def test_a_lease_ends_by_the_servers_clock(place: Path, holder: float, sweeper: float) -> None:
    """Not before its deadline and the grace, and at once after them, however wrong both hosts' clocks are."""
    world = World()
    one, other = _client(place, world, holder, Detached()), _client(place, world, sweeper)
    one.publish(QUEUE, "work")
    assert list(map(body, one.consume(QUEUE, lease=LEASE))) == ["work"]
    # Two steady clocks and one offset of up to half a second on each side that counts as none.
    slack = 1.0
    while world.passed < LEASE + GRACE - slack:
        assert _sweep(other) == 0 and other.consume(QUEUE) == [], f"taken early, after {world.passed} s"
        world.passed += 1.5
    world.passed = LEASE + GRACE + slack
    assert [one.message for one in other.consume(QUEUE)] == ["work"]


@pytest.mark.parametrize(("holder", "sweeper"), [(FAST, SLOW), (SLOW, FAST)])
def test_a_heartbeat_keeps_a_lease_for_hours(place: Path, holder: float, sweeper: float) -> None:
    """The offset of the clocks is measured again and again, and an extended lease is never taken."""
    world = World()
    one, other = _client(place, world, holder, Detached()), _client(place, world, sweeper)
    one.publish(QUEUE, "work")
    (message,) = one.consume(QUEUE, lease=LEASE)
    for _ in range(200):
        world.passed += LEASE - 1
        assert _sweep(other) == 0 and other.consume(QUEUE) == []
        one.extend(message)
    one.ack(message)
    assert held_names(other) == []


@pytest.mark.parametrize("step", [FAST, SLOW])
def test_a_clock_that_is_set_while_a_client_runs(place: Path, step: float) -> None:
    """An administrator, or NTP, sets the sweeper's clock by ten minutes: no live lease is taken early for that."""
    world = World()
    one, other = _client(place, world, 0.0, Detached()), _client(place, world, 0.0)
    one.publish(QUEUE, "work")
    (message,) = one.consume(QUEUE, lease=LEASE)
    assert _sweep(other) == 0  # it has measured
    assert isinstance(other.fs, Client)
    other.fs.skew += step
    world.passed += 5
    assert _sweep(other) == 0, "taken early"
    one.ack(message)


@pytest.mark.parametrize("step", [FAST, SLOW])
def test_a_holder_whose_clock_is_set_keeps_its_lease(place: Path, step: float) -> None:
    """The holder's own clock is set: the lease that it extends then still ends in the server's clock."""
    world = World()
    one, other = _client(place, world, 0.0, Detached()), _client(place, world, 0.0)
    one.publish(QUEUE, "work")
    (message,) = one.consume(QUEUE, lease=LEASE)
    assert isinstance(one.fs, Client)
    one.fs.skew += step
    world.passed += 10
    one.extend(message)
    world.passed += LEASE - 2
    assert _sweep(other) == 0, "taken early"
    world.passed += GRACE + 4
    assert _sweep(other) == 1, "not taken in time"
    with pytest.raises(LeaseLost):
        one.ack(message)


@pytest.mark.parametrize("after", [False, True], ids=["before the stamp", "after it"])
def test_a_measurement_that_hung_tells_nothing(place: Path, after: bool) -> None:
    """The file server is away for a minute while the sweeper measures its clock: no live lease is taken early."""
    world = World()
    one, other = _client(place, world, 0.0, Detached()), _client(place, world, 0.0)
    one.publish(QUEUE, "work")
    (message,) = one.consume(QUEUE, lease=90)
    assert isinstance(other.fs, Client)
    hung = 0
    stamped = other.queue(QUEUE).paths.tmp

    def around(name: str, call: Any, args: Any) -> Any:
        nonlocal hung
        if (name, args) != ("lstat" if after else "touch", (stamped,)) or hung:
            return call()
        hung += 1
        world.passed += 60
        return call()

    other.fs.around = around
    for _ in range(28):
        assert _sweep(other) == 0, f"taken early, after {world.passed} s"
        world.passed += 1
    assert hung
    one.ack(message)


@pytest.mark.parametrize(("holder", "sweeper"), [(FAST, SLOW), (SLOW, FAST)])
def test_the_times_of_real_files_are_the_servers_clock(place: Path, holder: float, sweeper: float) -> None:
    """The same with the kernel's own stamps: a live lease is left alone, one that is over is taken within seconds."""

    def client(skew: float, identity: Identity | None = None) -> Broker:
        def make(root: str) -> Watched:
            fs = Watched(root, True)
            fs.ahead = skew
            return fs

        broker = Broker(str(place / "root"), create=True, identity=identity, filesystem=make)
        broker.create_queue(QUEUE, durable=False, grace=0.2)
        return broker

    one, other = client(holder, Detached()), client(sweeper)
    one.publish_many(QUEUE, ["long", "short"])
    (long,) = one.consume(QUEUE, lease=LEASE)
    (short,) = one.consume(QUEUE, lease=1.0)
    assert _sweep(other) == 0
    time.sleep(0.8)
    assert _sweep(other) == 0, "taken early"
    time.sleep(0.7)
    assert _sweep(other) == 1, "not taken in time"
    assert list(map(body, other.consume(QUEUE, n=5))) == ["short"]
    one.ack(long)
    with pytest.raises(LeaseLost):
        one.ack(short)


@pytest.mark.parametrize(("publisher", "taker"), [(FAST, SLOW), (SLOW, FAST)])
def test_a_delay_is_in_the_servers_clock(place: Path, publisher: float, taker: float) -> None:
    """A delayed message becomes ready when its delay has passed in true time."""
    world = World()
    one, other = _client(place, world, publisher), _client(place, world, taker)
    one.publish(QUEUE, "later", delay=60)
    for _ in range(29):
        world.passed += 2
        assert other.consume(QUEUE) == [], f"ready after {world.passed} s"
    world.passed += 4
    assert list(map(body, other.consume(QUEUE))) == ["later"]


@pytest.mark.parametrize(("first", "second"), [(FAST, SLOW), (SLOW, FAST)])
def test_first_in_is_first_out_across_hosts(place: Path, first: float, second: float) -> None:
    """Publish times are the server's: what was published a second later comes later, whoever published it."""
    world = World()
    one, other = _client(place, world, first), _client(place, world, second)
    for number in range(6):
        (one, other)[number % 2].publish(QUEUE, number)
        world.passed += 1.5
    assert list(map(body, one.consume(QUEUE, n=6))) == list(range(6))


# -- observed


class Observer(Watched):
    """A host of a file system that stamps nothing itself: clocks without any relation to each other."""

    steady = 0.0
    wall = 0.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


def _observer(place: Path, wall: float, identity: Identity | None = None, **settings: Any) -> tuple[Broker, Observer]:
    fs = Observer(str(place), True)
    fs.wall, fs.steady = time.time() + wall, 5000.0

    def make(root: str) -> Observer:
        fs.root = root
        return fs

    broker = Broker(str(place / "root"), create=True, identity=identity, filesystem=make)
    broker.create_queue(QUEUE, durable=False, grace=GRACE, expiry="observed", **settings)
    return broker, fs


@pytest.fixture
def host(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Become another host: a node directory of its own."""

    def become(name: str) -> None:
        (place / name).mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(place / name))

    return become


@pytest.mark.parametrize("wall", [FAST, SLOW, 86400.0])
def test_observed_leases_end_by_the_observers_steady_clock(place: Path, wall: float) -> None:
    """Seen unchanged for the lease's whole duration and the grace: then it is over, and not a moment before."""
    one, _ = _observer(place, 0.0, Detached())
    other, fs = _observer(place, wall)
    one.publish(QUEUE, "work")
    assert one.consume(QUEUE, lease=LEASE)
    fs.steady += 1000  # the steady clock counts from the first look on
    assert _sweep(other) == 0
    fs.steady += LEASE + GRACE - 0.1
    assert _sweep(other) == 0, "taken early"
    fs.steady += 0.2
    assert _sweep(other) == 1, "not taken in time"


def test_an_observed_heartbeat_starts_anew(place: Path) -> None:
    """Each extension is a new name, and the observer waits its whole duration again."""
    one, holder = _observer(place, SLOW, Detached())
    other, fs = _observer(place, FAST)
    one.publish(QUEUE, "work")
    (message,) = one.consume(QUEUE, lease=LEASE)
    for _ in range(10):
        assert _sweep(other) == 0
        fs.steady += LEASE
        holder.wall += LEASE
        one.extend(message)
    assert _sweep(other) == 0
    fs.steady += LEASE + GRACE + 0.1
    assert _sweep(other) == 1


def test_one_shot_commands_of_one_host_observe_together(place: Path, host: Any) -> None:
    """Two commands of one host, two observations: what the first saw the second knows. Another host knows nothing."""
    one, _ = _observer(place, 0.0, Detached())
    one.publish(QUEUE, "work")
    one.consume(QUEUE, lease=LEASE)
    host("a")
    first, fs = _observer(place, 0.0)
    assert _sweep(first) == 0
    host("b")
    stranger, its = _observer(place, 0.0)
    its.steady = fs.steady + LEASE + GRACE + 1
    assert _sweep(stranger) == 0, "another host's first look is no observation of time passing"
    host("a")
    second, its = _observer(place, 0.0)
    its.steady = fs.steady + LEASE + GRACE + 1
    assert _sweep(second) == 1


def test_what_was_observed_before_a_reboot_is_forgotten(
    place: Path, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steady clock begins anew at boot: observations with the old one would end live leases."""
    one, _ = _observer(place, 0.0, Detached())
    one.publish(QUEUE, "work")
    one.consume(QUEUE, lease=LEASE)
    host("a")
    first, fs = _observer(place, 0.0)
    assert _sweep(first) == 0
    monkeypatch.setattr("ddmq_hpc.expiry._boot", lambda: "another")
    second, its = _observer(place, 0.0)
    its.steady = fs.steady + LEASE + GRACE + 1
    assert _sweep(second) == 0
