"""A client is killed at each of its file-system calls in turn; another one repairs what it left.

Guarantees: no message is lost, none is delivered twice unless its settling had begun, a crash at any call leaves a
state that the next client repairs.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from engine_tools import (
    QUEUE,
    Watched,
    ahead_by,
    bodies_on_disk,
    die,
    drain,
    held_names,
    in_child,
    keep_done,
    letters,
    outcomes,
)

from ddmq_hpc import admin, steering
from ddmq_hpc.broker import Broker
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.identity import Detached, Identity
from ddmq_hpc.messages import Message
from ddmq_hpc.names import parse_lease
from ddmq_hpc.settling import split_lease

FIVE = [f"m{number}" for number in range(5)]
HOUR, DAY = 3600.0, 86400.0


class Scenario(NamedTuple):
    """`prepare` makes the state that the killed operation `act` finds. `begun` are the bodies whose settling `act`
    begins, `maybe` those that it publishes: they may be there or not until it has come to its end."""

    prepare: Callable[[Broker], Any]
    act: Callable[[Broker, Any], object]
    begun: Iterable[str] = ()
    maybe: Iterable[str] = ()
    before: Iterable[str] = FIVE
    ahead: float = 0.0
    keeps_name: bool = False  # whether a file's flush brings its name to the disk, so that it is renamed first


def _five(broker: Broker) -> None:
    broker.publish_many(QUEUE, FIVE)


def _five_apart(broker: Broker) -> None:
    for text in FIVE:
        broker.publish(QUEUE, text)


def _held(count: int) -> Callable[[Broker], list[Message]]:
    def prepare(broker: Broker) -> list[Message]:
        _five(broker)
        messages = broker.consume(QUEUE, n=count)
        assert len(messages) == count
        return messages

    return prepare


def _expired(broker: Broker) -> None:
    """All five leased by a client that is gone, the lease over."""
    _five(broker)
    dead = Broker(broker.root, identity=Detached())
    assert len(dead.consume(QUEUE, n=5, lease=1)) == 5


def _half_split(broker: Broker) -> None:
    """A client died while it divided five: the whole, marked, with links inside it."""
    _expired(broker)
    leased = broker.queue(QUEUE).paths.leased
    (name,) = os.listdir(leased)
    lease = parse_lease(name)
    assert lease
    whole = split_lease(lease, lease.entry, lease.deadline - lease.duration)
    os.rename(f"{leased}/{name}", f"{leased}/{whole.name}")
    os.link(f"{leased}/{whole.name}", f"{leased}/{lease.part(0, 2).name}")
    os.link(f"{leased}/{whole.name}", f"{leased}/{whole.part(2, 5).name}")


def _half_split_after(broker: Broker) -> None:
    """The same one step later: the whole is gone, its pieces stand."""
    _half_split(broker)
    leased = broker.queue(QUEUE).paths.leased
    (whole,) = [name for name in os.listdir(leased) if ".0-5." in name]
    os.unlink(f"{leased}/{whole}")


def _delayed(broker: Broker) -> None:
    broker.publish_many(QUEUE, FIVE, delay=600)


def _after_a_group(broker: Broker) -> None:
    """What came before is done, so that whoever looks next finds five to be ready."""
    broker.publish(QUEUE, "before", group="g")
    broker.publish_many(QUEUE, FIVE, after="g")
    broker.ack(broker.consume(QUEUE))


def _held_to_keep(broker: Broker) -> list[Message]:
    keep_done(broker)
    return _held(5)(broker)


def _sweep(broker: Broker, _: Any) -> None:
    broker.queue(QUEUE).sweep()


def _cancel(broker: Broker, text: str) -> None:
    [ident] = [item.message.id for item in admin.items(broker.queue(QUEUE)) if item.message.message == text]
    broker.cancel(QUEUE, ident)


def _dead(broker: Broker) -> None:
    """Five dead letters in one entry."""
    broker.nack(_held(5)(broker), requeue=False)


def _dead_apart(broker: Broker) -> None:
    """The same in an entry each."""
    for message in _held(5)(broker):
        broker.nack(message, requeue=False)


def _texts(pattern: str) -> Criteria:
    return Criteria.of(match=pattern)


def _purge_dead(broker: Broker, pattern: str) -> None:
    queue = broker.queue(QUEUE)
    steering.purge(queue, steering.purgeable(queue, _texts(pattern)))


SCENARIOS = {
    "publish": Scenario(_five, lambda b, _: b.publish(QUEUE, "new", durable=True), maybe=["new"]),
    "publish to a new priority": Scenario(
        _five, lambda b, _: b.publish(QUEUE, "new", priority=3, durable=True), maybe=["new"]
    ),
    "publish, renamed before it is flushed": Scenario(
        _five, lambda b, _: b.publish(QUEUE, "new", priority=3, durable=True), maybe=["new"], keeps_name=True
    ),
    "publish delayed, renamed before it is flushed": Scenario(
        _five, lambda b, _: b.publish(QUEUE, "new", delay=600, durable=True), maybe=["new"], keeps_name=True
    ),
    "publish_many": Scenario(
        _five, lambda b, _: b.publish_many(QUEUE, ["n0", "n1", "n2"], durable=True), maybe=["n0", "n1", "n2"]
    ),
    "publish to a new group": Scenario(
        _five, lambda b, _: b.publish(QUEUE, "new", group="g", durable=True), maybe=["new"]
    ),
    "publish_many to a new group, renamed before it is flushed": Scenario(
        _five,
        lambda b, _: b.publish_many(QUEUE, ["n0", "n1", "n2"], group="g", durable=True),
        maybe=["n0", "n1", "n2"],
        keeps_name=True,
    ),
    "make ready what came after a group": Scenario(_after_a_group, _sweep),
    "publish delayed": Scenario(_five, lambda b, _: b.publish(QUEUE, "new", delay=600, durable=True), maybe=["new"]),
    "take one of five": Scenario(_five, lambda b, _: b.consume(QUEUE)),
    "take all in one": Scenario(_five, lambda b, _: b.consume(QUEUE, n=5)),
    "take all of five packs": Scenario(_five_apart, lambda b, _: b.consume(QUEUE, n=5)),
    "take one with its own timeout": Scenario(
        lambda b: b.publish_many(QUEUE, FIVE, timeout=77), lambda b, _: b.consume(QUEUE)
    ),
    "ack one, all there is": Scenario(_held(1), lambda b, held: b.ack(held), begun=["m0"]),
    "ack the middle": Scenario(_held(5), lambda b, held: b.ack(held[2]), begun=["m2"]),
    "ack the front": Scenario(_held(5), lambda b, held: b.ack(held[0]), begun=["m0"]),
    "ack two apart": Scenario(_held(5), lambda b, held: b.ack([held[1], held[3]]), begun=["m1", "m3"]),
    "ack all, kept": Scenario(_held_to_keep, lambda b, held: b.ack(held), begun=FIVE),
    "ack two apart, kept": Scenario(_held_to_keep, lambda b, held: b.ack([held[1], held[3]]), begun=["m1", "m3"]),
    "ack all": Scenario(_held(5), lambda b, held: b.ack(held), begun=FIVE),
    "ack one after the other": Scenario(_held(3), lambda b, held: [b.ack(one) for one in held], begun=FIVE[:3]),
    "ack by receipt": Scenario(_held(5), lambda b, held: b.ack(held[1].receipt), begun=["m1"]),
    "nack all": Scenario(_held(5), lambda b, held: b.nack(held)),
    "nack the middle": Scenario(_held(5), lambda b, held: b.nack(held[2])),
    "nack two apart": Scenario(_held(5), lambda b, held: b.nack([held[1], held[3]])),
    "nack with a delay": Scenario(_held(5), lambda b, held: b.nack(held[:2], delay=600)),
    "nack to the dead letters": Scenario(_held(5), lambda b, held: b.nack(held, requeue=False), begun=FIVE),
    "nack two apart to the dead letters": Scenario(
        _held(5), lambda b, held: b.nack([held[0], held[3]], requeue=False), begun=["m0", "m3"]
    ),
    "release": Scenario(_held(5), lambda b, held: b.release(held)),
    "release the last": Scenario(_held(5), lambda b, held: b.release(held[4])),
    "extend": Scenario(_held(5), lambda b, held: b.extend(held, lease=900)),
    "sweep what ran out": Scenario(_expired, _sweep, ahead=HOUR),
    "sweep a half-done division": Scenario(_half_split, _sweep, ahead=HOUR),
    "sweep the pieces of one": Scenario(_half_split_after, _sweep, ahead=HOUR),
    "promote": Scenario(_delayed, lambda b, _: b.queue(QUEUE).sweeper.promote(), ahead=HOUR),
    "cancel the middle of what waits": Scenario(_five, lambda b, _: _cancel(b, "m2"), begun=["m2"]),
    "cancel the middle of what is leased": Scenario(_held(5), lambda b, _: _cancel(b, "m2"), begun=["m2"]),
    "cancel all that is leased": Scenario(_held(1), lambda b, _: _cancel(b, "m0"), begun=["m0"]),
    "retry all dead letters of an entry": Scenario(_dead, lambda b, _: b.retry(QUEUE, _texts("m"))),
    "retry the middle of an entry": Scenario(_dead, lambda b, _: b.retry(QUEUE, _texts("m2"))),
    "retry the ends of an entry at another priority": Scenario(_dead, lambda b, _: b.retry(QUEUE, _texts("m[04]"), 3)),
    "retry dead letters in an entry each": Scenario(_dead_apart, lambda b, _: b.retry(QUEUE, _texts("m[13]"))),
    "purge all dead letters of an entry": Scenario(_dead, lambda b, _: _purge_dead(b, "m"), begun=FIVE),
    "purge some of an entry": Scenario(_dead, lambda b, _: _purge_dead(b, "m[13]"), begun=["m1", "m3"]),
    "cancel two apart of what waits": Scenario(
        _five, lambda b, _: b.cancel_chosen(QUEUE, _texts("m[13]")), begun=["m1", "m3"]
    ),
    "cancel two apart of what is leased": Scenario(
        _held(5), lambda b, _: b.cancel_chosen(QUEUE, _texts("m[13]")), begun=["m1", "m3"]
    ),
    "purge": Scenario(_five, lambda b, _: b.purge_queue(QUEUE), begun=FIVE),
}
#: Killed before the call, after it, or (creating a file) in the middle of it.
MOMENTS = ("before", "during", "after")


def _killing(fs: Watched, at: int, moment: str) -> None:
    """From now on the process dies at the `at`-th raw call."""
    count = 0

    def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        nonlocal count
        count += 1
        if count != at:
            return call()
        if moment == "during" and name in ("create", "create_open", "append"):
            try:
                if name != "append":
                    with open(args[0], "xb") as file:
                        file.write(args[1][: len(args[1]) // 2])
            finally:
                die()
        try:
            if moment == "after":
                call()
        finally:
            die()

    fs.around = around


def _run_and_die(place: Path, root: Path, scenario: Scenario, at: int, moment: str, identity: Identity) -> bool:
    """Prepare, then act and be killed at call `at`; whether the operation came to its end before."""

    def child() -> None:
        broker = Broker(str(root), create=True, identity=identity, filesystem=lambda top: Watched(top, False))
        broker.create_queue(QUEUE, durable=False)
        state = scenario.prepare(broker)
        (place / "ids").write_text(json.dumps(_ids(broker)))
        fs = broker.fs
        assert isinstance(fs, Watched)
        fs.ahead, fs.sync_keeps_name = scenario.ahead, scenario.keeps_name
        _killing(fs, at, moment)
        scenario.act(broker, state)

    return in_child(child)


def _ids(broker: Broker) -> dict[str, str]:
    return {item.message.id: item.message.message for item in admin.items(broker.queue(QUEUE))}


def _check(root: Path, scenario: Scenario, ids: dict[str, str], finished: bool, ahead: float) -> None:
    """Another client sweeps and drains: what it gets is what there must be."""
    with Broker(str(root), filesystem=ahead_by(ahead)) as broker:
        bodies_on_disk(broker)  # nothing unreadable
        settled = sum((outcomes(broker, ids, state) for state in ("acked", "nacked", "cancelled", "purged")), Counter())
        broker.queue(QUEUE).sweep()
        assert held_names(broker) == [], "one sweep puts everything of a dead client back"
        delivered = drain(broker)
    with Broker(str(root), filesystem=ahead_by(ahead + HOUR)) as broker:
        delivered += drain(broker)  # what was delayed
        dead = letters(broker)
        assert bodies_on_disk(broker) == {"ready": [], "leased": [], "delayed": []}
    begun, maybe = set(scenario.begun), set(scenario.maybe)
    assert set(delivered) | set(dead) <= {*scenario.before, *maybe}
    for text in {*scenario.before, *maybe}:
        times = delivered.count(text) + dead.count(text)
        assert times <= 1, f"{text} came {times} times"
        if text in begun:
            assert times or settled[text], f"{text} is lost: not delivered, and the journal has no outcome"
        elif text not in maybe or finished:
            assert times, f"{text} is lost"


@pytest.mark.parametrize("recovery", ["dead owner", "deadline"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_each_call(place: Path, name: str, moment: str, recovery: str) -> None:
    """Guarantees 1, 2 and 4: killed anywhere, nothing is lost or doubled, and the next client repairs what is left."""
    scenario = SCENARIOS[name]
    by_deadline = recovery == "deadline"
    for at in range(1, 200):
        root = place / f"root{at}"
        identity = Detached() if by_deadline else Identity()
        finished = _run_and_die(place, root, scenario, at, moment, identity)
        ids = json.loads((place / "ids").read_text())
        try:
            _check(root, scenario, ids, finished, DAY if by_deadline else scenario.ahead)
        except AssertionError as error:
            raise AssertionError(f"killed {moment} call {at} of {name}: {error}") from error
        shutil.rmtree(root)
        if finished:
            assert at > 1, "nothing was killed"
            return
    raise AssertionError("the operation never came to its end")
