"""What every operation must still be true about when one of its calls was answered with a lie: shared by the tests
that simulate such answers and those that bring real kernels to give them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple

from engine_tools import QUEUE, Watched, bodies_on_disk, body, drain, held_names, keep_done, letters

from ddmq_hpc import admin, steering
from ddmq_hpc.broker import Broker
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.errors import DdmqError, LeaseLost, StorageError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import Detached, Identity
from ddmq_hpc.messages import Message
from ddmq_hpc.names import parse_lease

FIVE = [f"m{number}" for number in range(5)]
#: The raw calls that change names.
CHANGING = ("create_open", "rename", "link", "unlink", "mkdir", "rmdir")
CREATE_EMPTY = "create_empty"
_A_DAY = 86400.0


class Operation(NamedTuple):
    """`act` is done after `prepare`. When it says that it succeeded, `settled` are gone for good and `dead` are dead
    letters, `taken` are held by it, `new` were published."""

    prepare: Callable[[Broker], Any]
    act: Callable[[Broker, Any], Any]
    settled: Iterable[str] = ()
    dead: Iterable[str] = ()
    taken: Iterable[str] = ()
    new: Iterable[str] = ()


def _five(broker: Broker) -> None:
    broker.publish_many(QUEUE, FIVE)


def _ids_of_five(broker: Broker) -> list[str]:
    _five(broker)
    return [item.message.id for item in admin.items(broker.queue(QUEUE))]


def _held(broker: Broker) -> list[Message]:
    _five(broker)
    return broker.consume(QUEUE, n=5)


def _held_to_keep(broker: Broker) -> list[Message]:
    keep_done(broker)
    return _held(broker)


def _one_held(broker: Broker) -> list[Message]:
    _five(broker)
    return broker.consume(QUEUE)


def _orphaned(broker: Broker) -> None:
    _five(broker)
    dead = Broker(broker.root, identity=Detached())
    assert len(dead.consume(QUEUE, n=5, lease=0.001)) == 5
    time.sleep(0.015)  # it runs out


def _half_divided(broker: Broker) -> None:
    """A client took all five and died when it had linked the piece that it would keep."""
    _orphaned(broker)
    (name,) = held_names(broker)
    lease = parse_lease(name)
    assert lease
    paths = broker.queue(QUEUE).paths
    whole = lease._replace(split=True)
    os.rename(paths.in_leased(lease), paths.in_leased(whole))
    os.link(paths.in_leased(whole), paths.in_leased(lease.part(1, 3)))


def _dead(broker: Broker) -> None:
    broker.nack(_held(broker), requeue=False)


def _purge(broker: Broker, pattern: str) -> list[str]:
    queue = broker.queue(QUEUE)
    return steering.purge(queue, steering.purgeable(queue, Criteria.of(match=pattern)))


OPERATIONS = {
    "publish": Operation(_five, lambda b, _: b.publish(QUEUE, "new"), new=["new"]),
    "publish to a new priority": Operation(_five, lambda b, _: b.publish(QUEUE, "new", priority=3), new=["new"]),
    "publish, durable": Operation(_five, lambda b, _: b.publish(QUEUE, "new", durable=True), new=["new"]),
    "publish to a new group": Operation(_five, lambda b, _: b.publish(QUEUE, "new", group="g"), new=["new"]),
    "publish_many to a new group": Operation(
        _five, lambda b, _: b.publish_many(QUEUE, ["n0", "n1"], group="g"), new=["n0", "n1"]
    ),
    "publish_many": Operation(_five, lambda b, _: b.publish_many(QUEUE, ["n0", "n1"]), new=["n0", "n1"]),
    "take one": Operation(_five, lambda b, _: b.consume(QUEUE), taken=["m0"]),
    "take three": Operation(_five, lambda b, _: b.consume(QUEUE, n=3), taken=FIVE[:3]),
    "take all": Operation(_five, lambda b, _: b.consume(QUEUE, n=5), taken=FIVE),
    "ack one, all there is": Operation(_one_held, lambda b, held: b.ack(held), settled=["m0"]),
    "ack all": Operation(_held, lambda b, held: b.ack(held), settled=FIVE),
    "ack the front": Operation(_held, lambda b, held: b.ack(held[0]), settled=["m0"]),
    "ack the middle": Operation(_held, lambda b, held: b.ack(held[2]), settled=["m2"]),
    "ack two apart": Operation(_held, lambda b, held: b.ack([held[1], held[3]]), settled=["m1", "m3"]),
    "ack all, kept": Operation(_held_to_keep, lambda b, held: b.ack(held), settled=FIVE),
    "ack the middle, kept": Operation(_held_to_keep, lambda b, held: b.ack(held[2]), settled=["m2"]),
    "nack all": Operation(_held, lambda b, held: b.nack(held)),
    "nack the middle": Operation(_held, lambda b, held: b.nack(held[2])),
    "nack two apart": Operation(_held, lambda b, held: b.nack([held[1], held[3]])),
    "nack to the dead letters": Operation(_held, lambda b, held: b.nack(held[1:3], requeue=False), dead=["m1", "m2"]),
    "release": Operation(_held, lambda b, held: b.release(held)),
    "release with a delay": Operation(_held, lambda b, held: b.release(held[1], delay=3)),
    "extend": Operation(_held, lambda b, held: b.extend(held, lease=900), taken=FIVE),
    "cancel what waits": Operation(_ids_of_five, lambda b, ids: b.cancel(QUEUE, ids[2]), settled=["m2"]),
    "cancel what is leased": Operation(_held, lambda b, held: b.cancel(QUEUE, held[2].id), settled=["m2"]),
    "retry dead letters": Operation(_dead, lambda b, _: b.retry(QUEUE, Criteria.of(all=True))),
    "retry some of an entry": Operation(
        _dead, lambda b, _: b.retry(QUEUE, Criteria.of(match="m[13]")), dead=["m0", "m2", "m4"]
    ),
    "purge dead letters": Operation(_dead, lambda b, _: _purge(b, "m"), settled=FIVE),
    "purge some of an entry": Operation(
        _dead, lambda b, _: _purge(b, "m2"), settled=["m2"], dead=["m0", "m1", "m3", "m4"]
    ),
    "cancel some of what waits": Operation(
        _five, lambda b, _: b.cancel_chosen(QUEUE, Criteria.of(match="m[13]")), settled=["m1", "m3"]
    ),
    "sweep": Operation(_orphaned, lambda b, _: b.queue(QUEUE).sweep()),
    "sweep half a division": Operation(_half_divided, lambda b, _: b.queue(QUEUE).sweep()),
}


def network_broker(root: str, identity: Identity | None = None) -> Broker:
    """A client of what it takes for a network file system."""
    return Broker(root, create=True, identity=identity, filesystem=lambda top: Watched(top, True))


def new_broker(root: str, identity: Identity | None = None) -> Broker:
    """The same, with a new queue."""
    broker = network_broker(root, identity)
    broker.create_queue(QUEUE, durable=False, grace=0)
    return broker


def changing_calls(operation: Operation, root: str) -> list[str]:
    """The calls that change a name when the operation is done undisturbed, in order; "" for those that fail, and
    `CREATE_EMPTY` for files without content."""
    calls: list[str] = []

    def note(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if not is_changing(name, args):
            return call()
        calls.append("")
        answer = call()
        calls[-1] = CREATE_EMPTY if name == "create_open" and not args[1] else name
        return answer

    with new_broker(root) as broker:
        state = operation.prepare(broker)
        assert isinstance(broker.fs, Watched)
        broker.fs.around = note
        operation.act(broker, state)
        broker.fs.around = None
    return calls


def is_changing(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a raw call changes the name of something; the probes of the clock are left out."""
    return name in CHANGING


def ack_what_was_taken(broker: Broker, operation: Operation, state: Any, answer: Any, where: str) -> list[str]:
    """After an operation that said it succeeded: it holds what it says it does. The bodies."""
    if not operation.taken:
        return []
    messages = answer or state
    assert list(map(body, messages)) == list(operation.taken), where
    broker.ack(messages)  # raises LeaseLost when it was not held after all
    return list(map(body, messages))


def check_failure(failure: DdmqError | None, executed: bool, where: str) -> None:
    """What an operation may raise whose call was `executed`, or was not, in spite of an error."""
    assert not isinstance(failure, LeaseLost), f"nobody took the lease away: {where}"
    assert failure is None or isinstance(failure, StorageError), where
    if executed:
        assert failure is None, f"what was done, or can be done at once, is no failure: {where}"


def check_whereabouts(
    operation: Operation, failed: bool, dead: list[str], delivered: list[str], where: str, knowable: bool = True
) -> None:
    """Of all messages, those that are `dead` letters now and those that were `delivered`, by then or to another.
    Whether a failed publish was done was `knowable` if the file system answered again before it failed."""
    settled, new = set(operation.settled), set(operation.new)
    if not failed:
        assert sorted(dead) == sorted(operation.dead), where
        assert sorted(delivered) == sorted({*FIVE, *new} - settled - set(dead)), where
        return
    # It failed: what was to be settled may have begun to be, and nothing was published.
    assert not (knowable and new & set(delivered)), f"published in spite of the error: {where}"
    assert len(delivered) == len(set(delivered)), where
    assert {*FIVE} - settled - set(dead) <= {*delivered}, f"lost: {where}"


class Tomorrow(Filesystem):
    """Its clock is a day ahead, so that every lease is over, and every delay."""

    def now(self, probe_directory: str) -> float:
        return super().now(probe_directory) + _A_DAY


def deliver_all(root: str) -> tuple[list[str], list[str]]:
    """(dead letters, what another client gets once every lease is over). Nothing else may be left."""
    with Broker(root, filesystem=Tomorrow) as other:
        other.queue(QUEUE).sweep()
        found = drain(other)
        assert held_names(other) == []
        assert bodies_on_disk(other) == {"ready": [], "leased": [], "delayed": []}
        return letters(other), found
