"""Messages that come after a group, and finished messages that are kept. Guarantee: what comes after a group is ready
when all of the group is done and never before, whoever does it, dies, or publishes meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import QUEUE, Watched, ahead_by, body, die, drain, in_child, keep_done

from ddmq_hpc import admin, groups
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import BadMessage
from ddmq_hpc.queue import Queue
from ddmq_hpc.removing import remove_waiting

HOUR = 3600.0


@pytest.fixture
def broker(place: Path) -> Iterator[Broker]:
    with Broker(place / "root", create=True) as it:
        it.create_queue(QUEUE, durable=False, grace=0, requeue_limit=0)
        yield it


def state(broker: Broker, group: str) -> str:
    queue: Queue = broker.queue(QUEUE)
    return groups.state(queue.fs, queue.paths, group)


def take(broker: Broker) -> list[object]:
    """Bodies of what is ready, which stays leased."""
    return list(map(body, broker.consume(QUEUE, n=100)))


def test_after_a_group(broker: Broker) -> None:
    broker.publish_many(QUEUE, ["a0", "a1"], group="a")
    broker.publish(QUEUE, "b", after="a", group="b", priority=0)
    broker.publish(QUEUE, "c", after=["a", "b"])
    first, second = broker.consume(QUEUE, n=100)
    assert (first.message, second.message) == ("a0", "a1")
    broker.ack(first)
    assert take(broker) == []
    broker.ack(second)
    (third,) = broker.consume(QUEUE, n=100)
    assert (third.message, third.priority, third.to_dict()["group"]) == ("b", 0, "b")
    assert take(broker) == []
    broker.ack(third)
    assert take(broker) == ["c"]


def test_a_group_that_nobody_published_to_is_waited_for(broker: Broker) -> None:
    broker.publish(QUEUE, "b", after="a")
    assert (take(broker), state(broker, "a")) == ([], groups.UNKNOWN)
    broker.publish(QUEUE, "a", group="a")
    assert state(broker, "a") == groups.UNFINISHED
    assert drain(broker) == ["a", "b"]
    assert state(broker, "a") == groups.FINISHED


def test_each_message_of_a_stream_is_of_its_group(broker: Broker) -> None:
    """Between two packs nothing of the group is in the queue, and it is not finished."""

    def records() -> Iterator[tuple[str, dict[str, str]]]:
        for number in range(3):
            yield f"a{number}", {"group": "a"}
            yield f"b{number}", {"group": f"b{number % 2}"}  # another group is another pack
            assert "after" not in drain(broker)
            assert state(broker, "a") == groups.OPEN

    broker.publish(QUEUE, "after", after="a")
    assert broker.publish_records(QUEUE, records()) == 6
    assert sorted(map(str, drain(broker))) == ["after", "b2"]
    assert [state(broker, group) for group in ("a", "b0", "b1")] == [groups.FINISHED] * 3
    assert groups.groups(broker.fs, broker.queue(QUEUE).paths) == ["a", "b0", "b1"]


def test_a_publisher_that_died_is_not_waited_for(broker: Broker) -> None:
    def child() -> None:
        publisher = Broker(broker.root)

        def bodies() -> Iterator[tuple[str, dict[str, str]]]:
            yield "a", {}
            yield "x", {"group": "x"}
            die()

        publisher.publish_records(QUEUE, bodies(), group="a")

    assert not in_child(child)
    broker.publish(QUEUE, "b", after="a")
    assert drain(broker) == ["a"]
    assert state(broker, "a") == groups.OPEN
    with Broker(broker.root, filesystem=ahead_by(301)) as later:
        assert drain(later) == ["b"]
        assert state(later, "a") == groups.FINISHED


def test_dead_letters_hold_up_what_comes_after_until_they_are_gone(broker: Broker) -> None:
    broker.publish_many(QUEUE, ["a0", "a1", "a2"], group="a")
    broker.publish(QUEUE, "b", after="a")
    held = broker.consume(QUEUE, n=3)
    broker.nack(held[1])
    assert state(broker, "a") == groups.UNFINISHED
    broker.ack([held[0], held[2]])
    assert (take(broker), state(broker, "a")) == ([], groups.DEAD)
    assert remove_waiting(broker.queue(QUEUE), held[1].id)
    assert take(broker) == ["b"]


@pytest.mark.parametrize("how", ["cancel", "purge"])
def test_what_is_removed_is_not_waited_for(broker: Broker, how: str) -> None:
    message = broker.publish(QUEUE, "a", group="a")
    if how == "cancel":
        broker.cancel(QUEUE, message.id)
    else:
        broker.purge_queue(QUEUE)
    broker.publish(QUEUE, "b", after="a")
    assert take(broker) == ["b"]


def test_a_failure_that_is_tried_again_is_waited_for(broker: Broker) -> None:
    broker.publish(QUEUE, "a", group="a", requeue_limit=5)
    broker.publish(QUEUE, "b", after="a")
    for delay in (0, 0, HOUR):
        (message,) = broker.consume(QUEUE)
        assert message.message == "a"
        broker.nack(message, delay=delay)
    assert (take(broker), state(broker, "a")) == ([], groups.UNFINISHED)


def test_a_delay_besides(broker: Broker) -> None:
    broker.publish(QUEUE, "a", group="a")
    broker.publish(QUEUE, "b", after="a", delay=HOUR)
    assert drain(broker) == ["a"]
    (item,) = admin.items(broker.queue(QUEUE), ("delayed",))
    assert item.to_dict().get("after") is None, "what it waits for now is its time"
    with Broker(broker.root, filesystem=ahead_by(HOUR + 1)) as later:
        assert drain(later) == ["b"]


def test_what_waits_is_seen(broker: Broker) -> None:
    message = broker.publish(QUEUE, "b", after=["x", "a"])
    (item,) = admin.items(broker.queue(QUEUE))
    assert (item.state, item.to_dict()["after"]) == ("delayed", ["a", "x"])
    assert broker.stats(QUEUE).delayed == 1
    assert broker.cancel(QUEUE, message.id) == "delayed"
    assert broker.stats(QUEUE).delayed == 0


def test_what_a_publisher_left_in_between_is_removed(broker: Broker) -> None:
    """It died when the pack was linked to its group, and had no place yet."""
    queue = broker.queue(QUEUE)
    written = queue.paths.in_tmp(pack := queue.publisher.new_pack())
    queue.fs.create(written, b'{"message":"lost","group":"a"}\n', False)
    groups.enter(queue.fs, queue.paths, "a", pack, written)
    assert state(broker, "a") == groups.UNFINISHED
    broker.clean(QUEUE)
    assert os.path.exists(written)
    with Broker(broker.root, filesystem=ahead_by(HOUR + 1)) as later:
        assert later.clean(QUEUE)[QUEUE]["leftovers"] == 1
        assert (state(later, "a"), drain(later)) == (groups.FINISHED, [])


@pytest.mark.parametrize("name", ["", ".x", "-x", "a/b", "a+b", "a b", "x" * 65, "ä", 7])
def test_bad_names(broker: Broker, name: object) -> None:
    for where in ("group", "after"):
        if name or where == "group":
            with pytest.raises(BadMessage, match="bad group"):
                broker.publish(QUEUE, "m", **{where: name if where == "group" else [name]})
    assert broker.stats(QUEUE).ready == 0


def test_what_cannot_be_is_refused(broker: Broker) -> None:
    with pytest.raises(BadMessage, match="cannot be of a group"):
        broker.publish(QUEUE, "m", key="k", group="a")
    with pytest.raises(BadMessage, match="too many groups"):
        broker.publish(QUEUE, "m", after=[f"{number:060d}" for number in range(4)])


def test_a_look_at_a_large_group_is_a_look_at_one_pack(broker: Broker) -> None:
    broker.publish_many(QUEUE, map(str, range(2000)), group="a")
    queue = broker.queue(QUEUE)
    looked = []
    read_some = queue.fs.read_some
    queue.fs.read_some = lambda *args: (looked.append(args), read_some(*args))[1]
    assert not groups.is_finished(queue.fs, queue.paths, "a")
    assert len(looked) == 1


@pytest.mark.parametrize("keep", [False, True])
def test_what_moves_while_it_is_looked_at_is_not_finished(broker: Broker, keep: bool) -> None:
    """Between any two calls of a look another client takes a message and acks it."""
    if keep:
        keep_done(broker)
    broker.publish_many(QUEUE, map(str, range(60)), group="a")
    with Broker(broker.root) as watcher:
        queue = watcher.queue(QUEUE)

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            for message in broker.consume(QUEUE):
                broker.ack(message)
            return call()

        watched = Watched(broker.root, False)
        while (left := broker.stats(QUEUE).ready) > 10:
            watched.around = around
            assert not groups.is_finished(watched, queue.paths, "a")
            assert broker.stats(QUEUE).ready < left
        watched.around = None
        drain(broker)
        assert groups.is_finished(watched, queue.paths, "a")


class TestKept:
    """Finished messages that are kept for a while."""

    @pytest.fixture(autouse=True)
    def keeping(self, broker: Broker) -> None:
        keep_done(broker)

    @pytest.mark.parametrize("count", [1, 3])
    def test_they_are_there_with_all_that_they_were(self, broker: Broker, count: int) -> None:
        broker.publish_many(QUEUE, ["m0", "m1", "m2"], headers={"sample": "S1"}, priority=5)
        held = broker.consume(QUEUE, n=count)
        broker.ack(held[0])
        broker.ack(held[1:])
        found = [item.to_dict() for item in admin.items(broker.queue(QUEUE), ("done",))]
        assert [row["message"] for row in found] == ["m0", "m1", "m2"][:count]
        assert {(row["state"], row["priority"], row["headers"]["sample"]) for row in found} == {("done", 5, "S1")}
        assert admin.show(broker.queue(QUEUE), held[0].id)["state"] == "done"
        stats = broker.stats(QUEUE)
        assert (stats.ready, stats.leased, stats.foreign) == (3 - count, 0, [])
        assert drain(broker) == ["m0", "m1", "m2"][count:]

    def test_they_are_forgotten_in_time(self, broker: Broker) -> None:
        broker.publish(QUEUE, "m")
        drain(broker)
        broker.queue(QUEUE).sweep()
        assert len(list(admin.items(broker.queue(QUEUE), ("done",)))) == 1
        with Broker(broker.root, filesystem=ahead_by(2 * HOUR)) as later:
            keep_done(later)
            later.queue(QUEUE).sweep()
            assert list(admin.items(later.queue(QUEUE), ("done",))) == []
            assert later.fs.directories(later.queue(QUEUE).paths.done) == []

    def test_when_none_are_kept_any_more_clean_removes_them(self, broker: Broker) -> None:
        broker.publish(QUEUE, "m")
        drain(broker)
        with Broker(broker.root, filesystem=ahead_by(HOUR)) as other:
            assert other.clean(QUEUE)[QUEUE]["forgotten"] == 1

    def test_their_group_is_finished(self, broker: Broker) -> None:
        broker.publish_many(QUEUE, ["a0", "a1", "a2"], group="a")
        broker.publish(QUEUE, "b", after="a")
        held = broker.consume(QUEUE, n=3)
        broker.ack(held[:2])
        assert (take(broker), state(broker, "a")) == ([], groups.UNFINISHED)
        broker.ack(held[2])
        assert take(broker) == ["b"]


def test_what_would_wait_for_itself_is_refused(broker: Broker) -> None:
    with pytest.raises(BadMessage, match="wait for itself"):
        broker.publish(QUEUE, "m", group="a", after=["b", "a"])


@pytest.mark.parametrize("state", ["ready", "dead"])
def test_lists_are_in_order_as_numbers(broker: Broker, state: str) -> None:
    bodies = [str(number) for number in range(15)]
    broker.publish_many(QUEUE, bodies)
    broker.publish(QUEUE, "first", priority=9)
    for message in broker.consume(QUEUE, n=16):
        if state == "dead":
            broker.nack(message, requeue=False)
        else:
            broker.release(message)
    found = [item.message.message for item in admin.items(broker.queue(QUEUE), (state,))]
    assert found == ["first", *bodies]


def test_others_are_listed_by_their_times(broker: Broker) -> None:
    """When they were taken or last held on to, when they are due, when they were done: as numbers, too."""
    queue = broker.queue(QUEUE)
    pack = "1795721983896420864-0g3qndtxg"

    def listed(state: str, place: str, *names: str) -> list[str]:
        for name in names:
            Path(f"{queue.paths.top}/{place}").mkdir(parents=True, exist_ok=True)
            Path(f"{queue.paths.top}/{place}/{name}").touch()
        return [found.path.rpartition("/")[2] for found in admin.entries(queue, (state,))]

    first, second, third = (
        f"{priority}.{pack}.{index}-{index + 1}.0-0~{deadline}+{duration}@h:1:2:k:s"
        for priority, index, deadline, duration in (
            (999, 2, 9_999, 9_000),
            (10, 10, 11_999, 1_000),
            (9, 1, 13_000, 1_000),
        )
    )
    assert listed("leased", "leased", third, first, second) == [first, second, third]
    for state in ("delayed", "done"):
        one, two, three = (
            f"{at:015d}.{priority}.{pack}.{index}-{index + 1}.0-0"
            for at, priority, index in ((5, 999, 9), (5, 999, 10), (7, 5, 0))
        )
        assert listed(state, f"{state}/000000000001", three, two, one) == [one, two, three]
