"""A network file system whose replies get lost and whose listings go stale.

Each mutating call of each operation in turn is executed and then answered as a server does that has forgotten it, or
not executed and answered with an error, or executed and answered with the error that a soft mount gives. Guarantee:
the operation reports the truth, and each message is delivered exactly once.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import QUEUE, Watched, bodies_on_disk, body, drain
from truth import (
    CHANGING,
    FIVE,
    OPERATIONS,
    ack_what_was_taken,
    check_failure,
    check_whereabouts,
    deliver_all,
    network_broker,
    new_broker,
)

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import DdmqError, StorageError
from ddmq_hpc.identity import Detached
from ddmq_hpc.mounts import Mount

#: {fault: {call: (executed?, errno)}}
FAULTS: dict[str, dict[str, tuple[bool, int]]] = {
    "repeated": {
        "rename": (True, errno.ENOENT),
        "link": (True, errno.EEXIST),
        "unlink": (True, errno.ENOENT),
        "mkdir": (True, errno.EEXIST),
        "rmdir": (True, errno.ENOENT),
    },
    "soft mount, executed": dict.fromkeys(("rename", "link", "unlink"), (True, errno.EIO)),
    "soft mount, not executed": dict.fromkeys(
        ("rename", "link", "unlink", "mkdir", "create", "create_open", "append", "sync_file", "sync_directory"),
        (False, errno.EIO),
    ),
    "stale handle": dict.fromkeys(("rename", "link", "unlink", "mkdir"), (False, errno.ESTALE)),
}


class Fault:
    """Falsifies the `at`-th call of those that it is about."""

    def __init__(self, kinds: dict[str, tuple[bool, int]], at: int) -> None:
        self.kinds, self.at = kinds, at
        self.count = 0
        self.hit = ""

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name not in self.kinds or self.hit:
            return call()
        self.count += 1
        if self.count != self.at:
            return call()
        self.hit = name
        executed, code = self.kinds[name]
        if executed:
            call()
        raise OSError(code, os.strerror(code), args[0])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_truth_is_told(place: Path, name: str, fault: str) -> None:
    """Whatever one call answers, what an operation says is what happened, and nothing is lost or doubled."""
    operation = OPERATIONS[name]
    for at in range(1, 100):
        root = str(place / f"root{at}")
        with new_broker(root) as broker:
            state = operation.prepare(broker)
            assert isinstance(broker.fs, Watched)
            broker.fs.around = falsify = Fault(FAULTS[fault], at)
            failure: DdmqError | None = None
            answer: Any = None
            try:
                answer = operation.act(broker, state)
            except DdmqError as error:
                failure = error
            broker.fs.around = None
            if not falsify.hit:
                assert failure is None
                assert at > 1, "nothing was falsified"
                return
            where = f"{falsify.hit} {falsify.at} of {name!r}, {fault}: {failure!r}"
            check_failure(failure, fault != "soft mount, not executed", where)
            acked = [] if failure else ack_what_was_taken(broker, operation, state, answer, where)
            dead, delivered = deliver_all(root)
            check_whereabouts(operation, failure is not None, dead, acked + delivered, where)
    raise AssertionError("faults without end")


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
@pytest.mark.parametrize("name", ["publish", "take one", "take all", "ack all", "ack the middle", "nack two apart"])
def test_the_operation_can_be_tried_again(place: Path, name: str, executed: bool) -> None:
    """After a failure the same client can repeat the operation; each message still comes exactly once."""
    operation = OPERATIONS[name]
    kinds = FAULTS["soft mount, executed" if executed else "soft mount, not executed"]
    for at in range(1, 100):
        root = str(place / f"root{at}")
        with new_broker(root) as broker:
            state = operation.prepare(broker)
            assert isinstance(broker.fs, Watched)
            broker.fs.around = falsify = Fault(kinds, at)
            answer: Any = None
            try:
                answer = operation.act(broker, state)
            except StorageError:
                answer = operation.act(broker, state)
            broker.fs.around = None
            if not falsify.hit:
                return
            where = f"{falsify.hit} {at} of {name!r}"
            acked = []
            if operation.taken:
                assert [body(one) for one in answer] == list(operation.taken), where
                broker.ack(answer)
                acked = list(map(body, answer))
            delivered = acked + deliver_all(root)[1]
            expected = {*FIVE, *operation.new} - set(operation.settled)
            assert sorted(delivered) == sorted(expected), where
    raise AssertionError("faults without end")


class Outage:
    """From the `at`-th raw call on the file system does not answer `length` calls; the first may have been done."""

    def __init__(self, at: int, length: int, executed: bool) -> None:
        self.at, self.length, self.executed = at, length, executed
        self.count = 0
        self.hit = ""

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name in ("create", "acl"):  # made of other calls; never fails
            return call()
        self.count += 1
        if not self.at <= self.count < self.at + self.length:
            return call()
        if self.count == self.at:
            self.hit = name
            if self.executed and name in CHANGING:
                answer = call()
                if name == "create_open":
                    os.close(answer)
        raise OSError(errno.EIO, os.strerror(errno.EIO), args[0] if isinstance(args[0], str) else None)

    @property
    def over(self) -> bool:
        return self.count >= self.at + self.length


@pytest.mark.parametrize("executed", [True, False], ids=["executed", "not executed"])
@pytest.mark.parametrize("length", [2, 3, 4, 1000])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_outage_of_several_calls(place: Path, name: str, length: int, executed: bool) -> None:
    """A soft mount on which looking fails, too: nothing is lost or doubled, and what an operation says is true. Only of
    a publish that failed nobody knows whether it was done, as long as nothing answers."""
    operation = OPERATIONS[name]
    for at in range(1, 200):
        root = str(place / f"root{at}")
        with new_broker(root) as broker:
            state = operation.prepare(broker)
            assert isinstance(broker.fs, Watched)
            broker.fs.around = outage = Outage(at, length, executed)
            failure: StorageError | None = None
            answer: Any = None
            where = f"{at} of {name!r}"
            try:
                answer = operation.act(broker, state)
            except StorageError as error:
                failure = error
            except OSError as error:
                raise AssertionError(f"{outage.hit} {where}") from error
            broker.fs.around = None
            if not outage.hit:
                assert failure is None
                return
            where = f"{outage.hit} {where}: {failure!r}"
            acked = [] if failure else ack_what_was_taken(broker, operation, state, answer, where)
        # Of a group something is tidied up after the failure: by then it may be over.
        unknown = "group" in name and failure is not None and failure.may_be_done
        dead, delivered = deliver_all(root)
        knowable = outage.over and not unknown
        check_whereabouts(operation, failure is not None, dead, acked + delivered, where, knowable)
    raise AssertionError("an outage without end")


@pytest.mark.parametrize(("call", "keeps_name"), [("sync_file", False), ("sync_directory", False), ("sync_file", True)])
def test_what_cannot_be_flushed_is_not_published(place: Path, call: str, keeps_name: bool) -> None:
    """A disk that refuses to flush: the message is withdrawn, whether it had its name before that or not."""
    with Broker(str(place / "root"), create=True, filesystem=lambda top: Watched(top, False)) as broker:
        broker.create_queue(QUEUE, durable=False, grace=0)
        assert isinstance(broker.fs, Watched)
        broker.fs.sync_keeps_name = keeps_name
        broker.fs.around = falsify = Fault({call: (False, errno.EIO)}, 1)
        with pytest.raises(StorageError):
            broker.publish(QUEUE, "new", durable=True)
        assert falsify.hit
        assert bodies_on_disk(broker) == {"ready": [], "leased": [], "delayed": []}
        assert broker.fs.names(broker.queue(QUEUE).paths.tmp) == []
        broker.publish(QUEUE, "again", durable=True)
        assert drain(broker) == ["again"]


class Stale:
    """Listings miss the entries of `hidden` directories until those are touched, or changed by this client: the
    tick bug of NFS v3."""

    def __init__(self) -> None:
        self.fresh: set[str] = set()
        self.served = 0

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name == "touch":
            self.fresh.add(args[0])
        elif name in ("listdir", "subdirectories") and args[0] not in self.fresh:
            call()  # a directory that is gone says so
            self.served += 1
            return []
        elif name in ("rename", "link", "unlink", "create", "mkdir"):
            self.fresh |= {os.path.dirname(path) for path in args if isinstance(path, str)}
        return call()


def test_a_stale_listing_of_ready_is_not_believed(place: Path) -> None:
    """A taker whose listings miss everything says nothing about emptiness before it made them complete."""
    root = str(place / "root")
    with new_broker(root) as publisher:
        publisher.publish_many(QUEUE, FIVE)
    for expected in FIVE:
        with network_broker(root) as broker:
            assert isinstance(broker.fs, Watched)
            broker.queue(QUEUE)
            broker.fs.around = stale = Stale()
            messages = broker.consume(QUEUE)
            assert stale.served, "no stale listing was served"
            assert list(map(body, messages)) == [expected]
            broker.ack(messages)


@pytest.mark.parametrize("state", ["ended", "delayed"])
def test_a_sweep_finds_what_a_stale_listing_misses(place: Path, state: str) -> None:
    """Leases that ran out come back, and delayed messages become ready, although the listing would miss them for
    good: nobody changes these directories any more."""
    root = str(place / "root")
    with new_broker(root, Detached()) as publisher:
        publisher.publish_many(QUEUE, FIVE, delay=0.001 if state == "delayed" else None)
        if state == "ended":
            assert len(publisher.consume(QUEUE, n=5, lease=0.001)) == 5
    with network_broker(root) as broker:
        assert isinstance(broker.fs, Watched)
        broker.queue(QUEUE)
        broker.fs.around = stale = Stale()
        broker.fs.sleep(0.05)
        found = drain(broker)
        # What is delayed is listed only after its directory was made complete: no stale listing is ever asked for.
        assert stale.served or state == "delayed"
        assert found == FIVE


def test_a_division_that_a_stale_listing_hides_is_waited_for(place: Path) -> None:
    """Nobody says "empty" while a live client divides the only entry, although the listing of leases misses that."""
    root = str(place / "root")
    with new_broker(root) as divider:
        divider.publish_many(QUEUE, FIVE)
        assert isinstance(divider.fs, Watched)
        found: list[Any] = []

        def meanwhile(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            """Before the rest goes back to ready, another client looks."""
            if name == "rename" and "!split" in args[0] and "/ready/" in args[1] and not found:
                with network_broker(root) as taker:
                    assert isinstance(taker.fs, Watched)
                    taker.queue(QUEUE)
                    taker.fs.around = Stale()
                    looks = 0

                    def count(_: float) -> None:
                        nonlocal looks
                        looks += 1
                        if looks > 3:
                            raise StopLooking

                    taker.fs.sleep = count  # type: ignore[method-assign]
                    try:
                        found.append(list(map(body, taker.consume(QUEUE))))
                    except StopLooking:
                        found.append("waits")
            return call()

        divider.fs.around = meanwhile
        assert list(map(body, divider.consume(QUEUE))) == ["m0"]
        assert found == ["waits"]


class StopLooking(Exception):
    """The taker is about to look once more."""


def test_a_client_that_remembers_names_looks_into_the_listing(place: Path) -> None:
    """FUSE keeps a name for a second after another client took it away: the loser of a race must not believe it."""
    fs = Watched(str(place), True)
    fs.mount = Mount("/", "fuse.glusterfs")
    fs.around = lambda name, call, args: os.lstat(place) if name == "lstat" else call()  # all is remembered
    assert not fs.is_there(f"{place}/taken")
    assert fs.claim(f"{place}/taken", f"{place}/mine") is False
    (place / "here").touch()
    assert fs.is_there(f"{place}/here")
