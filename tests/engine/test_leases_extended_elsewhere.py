"""A task extends its own lease by its receipt, from another process than the one that took it. Guarantee: whoever took
it holds it still, under whichever name it stands."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from engine_tools import QUEUE, ahead_by, drain, held_names, keep_done, outcomes

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import LeaseLost
from ddmq_hpc.messages import Message


@pytest.fixture(params=[False, True], ids=["local", "network"])
def broker(place: Path, request: pytest.FixtureRequest) -> Iterator[Broker]:
    with Broker(place / "root", create=True, filesystem=ahead_by(0, network=request.param)) as it:
        it.create_queue(QUEUE, durable=False, grace=0)
        yield it


def touch(broker: Broker, message: Message) -> None:
    with Broker(broker.root) as other:
        assert message.receipt
        other.extend(message.receipt, 900)


SETTLE: dict[str, Callable[[Broker, Message], object]] = {
    "ack": lambda broker, message: broker.ack(message),
    "ack by the queue": lambda broker, message: broker.queue(QUEUE).ack([message]),
    "nack": lambda broker, message: broker.nack(message, requeue=False),
    "release": lambda broker, message: broker.release(message),
    "extend, ack": lambda broker, message: (broker.extend(message), broker.ack(message)),
}


@pytest.mark.parametrize("how", SETTLE)
@pytest.mark.parametrize("count", [1, 3])
def test_its_holder_settles_it(broker: Broker, how: str, count: int) -> None:
    broker.publish_many(QUEUE, ["m0", "m1", "m2"][:count])
    held = broker.consume(QUEUE, n=count)
    touch(broker, held[0])
    SETTLE[how](broker, held[0])
    state = {"nack": "nacked", "release": "released"}.get(how, "acked")
    assert outcomes(broker, {held[0].id: "m0"}, state) == {"m0": 1}
    assert outcomes(broker, {held[0].id: "m0"}, "late") == {}
    broker.ack(held[1:])
    assert drain(broker) == (["m0"] if how == "release" else [])
    assert held_names(broker) == []


def test_kept_ones_as_well(broker: Broker) -> None:
    keep_done(broker)
    broker.publish(QUEUE, "m")
    (message,) = broker.consume(QUEUE)
    touch(broker, message)
    broker.ack(message)
    assert held_names(broker) == []


def test_what_was_reclaimed_is_lost(broker: Broker) -> None:
    """Also when the next holder has it under a name of its own."""
    if broker.fs.network:
        pytest.skip("a lease that is gone before its time was let go of by its holder, its reply lost")
    broker.publish(QUEUE, "m")
    (message,) = broker.consume(QUEUE)
    with Broker(broker.root, filesystem=ahead_by(86400)) as tomorrow:
        tomorrow.queue(QUEUE).sweep()
        (again,) = tomorrow.consume(QUEUE)
        with pytest.raises(LeaseLost):
            broker.ack(message)
        with pytest.raises(LeaseLost):
            broker.extend(message)
        tomorrow.ack(again)


def test_a_command_that_touches_its_own_message(broker: Broker) -> None:
    import sys

    broker.publish(QUEUE, "m")
    command = str(Path(sys.executable).with_name("ddmq-hpc"))
    words = [command, "exec", broker.root, QUEUE, "--", "sh", "-c", f"{command} touch && sleep 0.3 && {command} touch"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert held_names(broker) == [] and drain(broker) == []
