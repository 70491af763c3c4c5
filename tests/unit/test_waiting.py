"""Waiting for a queue ends when nothing is ready, leased or delayed at one moment, and not before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import Watched

from ddmq_hpc import Broker, groups
from ddmq_hpc.errors import DdmqError, NothingThere, UsageError
from ddmq_hpc.waiting import FIRST_PAUSE, LONGEST_PAUSE, blocked, wait_for_group, wait_until_done


class Steady(Watched):
    """Its steady clock goes on only while somebody sleeps, and long sleeps take no time: instead of those, between two
    looks, `meanwhile` is done."""

    clock = 0.0
    meanwhile: Callable[[], object] = staticmethod(lambda: None)  # type: ignore[assignment]

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        if seconds < FIRST_PAUSE / 2:
            time.sleep(seconds)  # of the look itself
        else:
            pauses.append(seconds)
            self.meanwhile()


pauses: list[float] = []


@pytest.fixture(params=[False, True], ids=["local", "network"])
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Broker:
    pauses.clear()
    made = Broker(str(tmp_path / "root"), create=True, filesystem=lambda root: Steady(root, request.param))
    made.create_queue("q", durable=False, retry_delay=0.05)
    return made


def steady(broker: Broker) -> Steady:
    assert isinstance(broker.fs, Steady)
    return broker.fs


def test_an_empty_queue_is_done_at_once_also_with_dead_letters(broker: Broker) -> None:
    broker.publish("q", 1)
    broker.nack(broker.consume("q"), requeue=False)
    assert broker.wait("q").dead == 1
    assert not pauses


@pytest.mark.parametrize("state", ["ready", "leased", "delayed"])
def test_it_is_waited_for_what_is_there(broker: Broker, state: str) -> None:
    message = broker.publish("q", 1, delay=60 if state == "delayed" else None)
    if state == "leased":
        broker.consume("q")
    told: list[Any] = []

    def meanwhile() -> None:
        if len(pauses) == 3:
            assert broker.cancel("q", message.id) == state

    steady(broker).meanwhile = meanwhile
    wait_until_done(broker.queue("q"), tell=told.append)
    assert [getattr(found, state) for found in told] == [1, 1, 1]


def test_pauses_grow_and_the_time_limit_is_kept(broker: Broker) -> None:
    broker.publish("q", 1)
    with pytest.raises(NothingThere, match="1 ready, 0 leased, 0 delayed") as caught:
        broker.wait("q", "10m")
    assert caught.value.exit_code == 3
    assert 0.75 * FIRST_PAUSE <= pauses[0] <= 1.25 * FIRST_PAUSE
    assert max(pauses) <= 1.25 * LONGEST_PAUSE
    assert len(pauses) < 60
    assert steady(broker).clock == pytest.approx(600, abs=5)


def test_a_message_that_moves_while_it_is_looked_for_is_not_overlooked(broker: Broker) -> None:
    """Between two calls of a look the message goes from one state to the next, wherever the look is at."""
    for at in range(1, 60):
        broker.publish("q", at)
        other = Broker(broker.root)
        [held] = other.consume("q")
        moves = [lambda: other.nack(held, delay=0.001), lambda: other.queue("q").sweep()]  # noqa: B023
        count = 0

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            nonlocal count
            count += 1
            if count in (at, at + 1) and moves:  # noqa: B023
                moves.pop(0)()  # noqa: B023
            return call()

        fs = steady(broker)
        fs.around = around
        assert not broker.queue("q").is_drained()
        fs.around = None
        other.queue("q").sweep()
        if count < at:
            return
        other.ack(other.consume("q", wait=5))
    raise AssertionError("a look has no end")


def test_the_last_of_several_attempts_is_waited_for(broker: Broker) -> None:
    broker.publish("q", 1)

    def meanwhile() -> None:
        for message in broker.consume("q"):
            broker.nack(message) if message.attempt < 3 else broker.ack(message)

    steady(broker).meanwhile = meanwhile
    broker.wait("q")
    assert len(pauses) >= 3
    assert sum(broker.stats("q").to_dict()[state] for state in ("ready", "leased", "delayed", "dead")) == 0


def test_a_group_is_waited_for_alone(broker: Broker) -> None:
    broker.publish("q", "other")
    first, second = broker.publish("q", "a0", group="a"), broker.publish("q", "a1", group="a")
    told: list[Any] = []
    queue = broker.queue("q")

    def meanwhile() -> None:
        if len(pauses) == 2:
            broker.cancel("q", first.id)
        if len(pauses) == 4:
            broker.nack([one for one in broker.consume("q", 9) if one.id == second.id], requeue=False)

    steady(broker).meanwhile = meanwhile
    found = wait_for_group(queue, "a", tell=told.append)
    assert [one.ready for one in told] == [2, 2, 1, 1]
    assert (found.dead, broker.stats("q").leased) == (1, 1)


def test_a_group_to_come_is_waited_for(broker: Broker) -> None:
    with pytest.raises(NothingThere, match="group 'a' is not done"):
        broker.wait("q", "1m", group="a")
    steady(broker).meanwhile = lambda: broker.cancel("q", broker.publish("q", 1, group="a").id)
    assert broker.wait("q", group="a").ready == 0
    with pytest.raises(UsageError):
        broker.wait("q", group="a/b")


class Enough(DdmqError):
    pass


def give_up(why: str) -> None:
    raise Enough(why)


def test_what_comes_after_dead_letters_alone_never_comes(broker: Broker) -> None:
    broker.publish("q", "a", group="a")
    broker.publish("q", "b", group="b", after="a")
    broker.publish("q", "c", after="b")
    [held] = broker.consume("q")

    def meanwhile() -> None:
        if len(pauses) == 3:
            broker.nack(held, requeue=False)

    steady(broker).meanwhile = meanwhile
    with pytest.raises(Enough, match=r"only dead letters are left of group 'a' \(1\), and 1 message comes after it"):
        wait_until_done(broker.queue("q"), stuck=give_up)
    assert len(pauses) > 3, "as long as it is worked on it may come"
    with pytest.raises(Enough, match=r"group 'b' is not done.* only dead letters are left of group 'a'"):
        wait_for_group(broker.queue("q"), "b", stuck=give_up)
    assert wait_for_group(broker.queue("q"), "a", stuck=give_up).dead == 1


def test_what_comes_after_a_misspelt_group_never_comes_unless_somebody_publishes_it(broker: Broker) -> None:
    broker.publish("q", 1, after="aling")
    told: list[str] = []

    def meanwhile() -> None:
        if len(told) == 2:
            broker.publish("q", 0, group="aling")
            told.append("published")
        broker.ack(broker.consume("q"))

    steady(broker).meanwhile = meanwhile
    wait_until_done(broker.queue("q"), stuck=told.append)
    assert "nothing was ever published with group 'aling', and 1 message comes after it" in told[0] == told[1]
    assert told[2:] == ["published"]


@pytest.mark.parametrize("state", ["ready", "leased", "delayed", "open"])
def test_as_long_as_anything_may_come_it_is_waited_for(broker: Broker, state: str) -> None:
    broker.publish("q", 1, after="later")
    queue = broker.queue("q")
    if state == "open":
        with groups.publishing(queue.fs, queue.paths, "other"):
            assert blocked(queue) == blocked(queue, "later") == ""
    else:
        broker.publish("q", 2, delay=60 if state == "delayed" else None)
        if state == "leased":
            broker.consume("q")
        assert blocked(queue) == blocked(queue, "later") == ""


def test_groups_that_wait_for_each_other(broker: Broker) -> None:
    broker.publish("q", 1, group="a", after="b")
    broker.publish("q", 2, group="b", after="a")
    assert blocked(broker.queue("q")) == "the messages of groups 'a', 'b' come after each other"


def test_a_group_that_nobody_published_to_is_said_to_be_that(broker: Broker) -> None:
    with pytest.raises(NothingThere, match="group 'x' is not done: nothing was ever published with it"):
        broker.wait("q", "1m", group="x")
    with pytest.raises(Enough, match="nothing was ever published with group 'x' "):
        wait_for_group(broker.queue("q"), "x", stuck=give_up)
