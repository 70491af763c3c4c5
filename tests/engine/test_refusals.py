"""A file system that refuses for a while: full, read-only, forbidden, or away. Guarantee: what an operation was refused
it can do when that is over, by the same client, as if nothing had been; nothing is lost, doubled, or said to be."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import QUEUE, Watched, body, drain, held_names, outcomes
from truth import FIVE, OPERATIONS, deliver_all, new_broker

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import LeaseLost, StorageBusy, StorageError
from ddmq_hpc.settings import Settings

#: What asks for room on a disk, and what changes anything.
GROWING = ("create_open", "append", "rename", "link", "mkdir", "sync_handle", "sync_file")
WRITING = (*GROWING, "unlink", "rmdir", "touch", "open_append", "sync_directory")
REFUSALS = {
    errno.ENOSPC: (75, GROWING),
    errno.EDQUOT: (75, GROWING),
    errno.EROFS: (1, WRITING),
    errno.EACCES: (1, (*WRITING, "listdir", "lstat", "open_directory", "subdirectories", "read")),
}


class Refusal:
    """From the `at`-th of the calls that it is about, all of them are refused, until `over`."""

    def __init__(self, code: int, calls: tuple[str, ...], at: int) -> None:
        self.code, self.calls, self.at = code, calls, at
        self.count = 0

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name not in self.calls:
            return call()
        self.count += 1
        if self.count < self.at:
            return call()
        raise OSError(self.code, os.strerror(self.code), args[0] if isinstance(args[0], str) else None)

    @property
    def hit(self) -> bool:
        return self.count >= self.at


class Away:
    """From the `at`-th raw call on nothing is answered; that one may have been executed."""

    def __init__(self, at: int, executed: bool) -> None:
        self.at, self.executed = at, executed
        self.count = 0

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name in ("create", "acl"):  # made of other calls; never fails
            return call()
        self.count += 1
        if self.count < self.at:
            return call()
        if self.count == self.at and self.executed and name in ("rename", "link", "unlink"):
            call()
        raise OSError(errno.EIO, os.strerror(errno.EIO), args[0] if isinstance(args[0], str) else None)

    @property
    def hit(self) -> bool:
        return self.count >= self.at


Trouble = Callable[[int], Any]
TROUBLES: dict[str, Trouble] = {
    **{errno.errorcode[code]: lambda at, code=code: Refusal(code, REFUSALS[code][1], at) for code in REFUSALS},
    "away": lambda at: Away(at, False),
    "away, executed": lambda at: Away(at, True),
}
SETTLING = [name for name in OPERATIONS if name.startswith(("ack", "nack", "release", "extend"))]


def fail(broker: Broker, trouble: Any, act: Callable[[], Any]) -> StorageError | None:
    """What `act` raises under `trouble`, which is over then."""
    assert isinstance(broker.fs, Watched)
    broker.fs.around = trouble
    try:
        act()
    except StorageError as error:
        return error
    finally:
        broker.fs.around = None
    return None


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("name", SETTLING)
def test_settling_is_tried_again(place: Path, name: str, kind: str) -> None:
    """Wherever it is refused: it succeeds afterwards, no lease is said to be lost, and each message comes once."""
    operation = OPERATIONS[name]
    for at in range(1, 200):
        root = str(place / f"root{at}")
        with new_broker(root) as broker:
            held = operation.prepare(broker)
            trouble = TROUBLES[kind](at)
            failure = fail(broker, trouble, lambda: operation.act(broker, held))  # noqa: B023
            if not trouble.hit:
                assert failure is None
                return
            if failure:
                assert len(str(failure).splitlines()) == 1
                operation.act(broker, held)
            if operation.taken:
                broker.ack(held)
        where = f"{at} of {name!r}: {failure!r}"
        gone = {*operation.settled, *operation.taken, *operation.dead}
        dead, delivered = deliver_all(root)
        assert (sorted(dead), sorted(delivered)) == (sorted(operation.dead), sorted({*FIVE} - gone)), where
    raise AssertionError("troubles without end")


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("then", ["extend", "ack", "ack one", "nack"])
def test_a_lease_whose_renewal_failed_is_still_held(place: Path, then: str, kind: str) -> None:
    """Nobody took it: neither the next heartbeat nor settling may say so, and what is acked does not come back."""
    acts: dict[str, Callable[[Broker, list[Any]], Any]] = {
        "extend": lambda broker, held: (broker.extend(held, lease=900), broker.ack(held)),
        "ack": lambda broker, held: broker.ack(held),
        "ack one": lambda broker, held: [broker.ack(message) for message in held],
        "nack": lambda broker, held: broker.nack(held, requeue=False),
    }
    for at in range(1, 100):
        root = str(place / f"root{at}")
        with new_broker(root) as broker:
            broker.publish_many(QUEUE, FIVE)
            held = broker.consume(QUEUE, n=3)
            trouble = TROUBLES[kind](at)
            fail(broker, trouble, lambda: broker.extend(held, lease=800))  # noqa: B023
            if not trouble.hit:
                return
            acts[then](broker, held)
        dead, delivered = deliver_all(root)
        assert delivered == FIVE[3:]
        assert dead == (FIVE[:3] if then == "nack" else [])


@pytest.mark.parametrize("kind", TROUBLES)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_what_a_failed_take_leased_comes_back_at_once(place: Path, count: int, kind: str) -> None:
    """Not when its lease runs out: nobody knows that it has it."""
    for at in range(1, 100):
        root = str(place / f"root{at}")
        with new_broker(root) as broker:
            broker.publish_many(QUEUE, FIVE)
            trouble = TROUBLES[kind](at)
            found: list[Any] = []
            failure = fail(broker, trouble, lambda: found.extend(broker.consume(QUEUE, n=count)))  # noqa: B023
            if not trouble.hit:
                assert len(found) == count
                return
            assert failure is None or not found
            broker.ack(found)
            assert list(map(body, found)) + drain(broker) == FIVE, f"{at}: {failure!r}"
            assert held_names(broker) == []


@pytest.mark.parametrize("code", REFUSALS)
def test_the_error_says_what_and_how_to_exit(place: Path, code: int) -> None:
    with new_broker(str(place / "root")) as broker:
        broker.publish(QUEUE, "m")
        (message,) = broker.consume(QUEUE)
        exit_code, calls = REFUSALS[code]
        for act in (lambda: broker.publish(QUEUE, "new"), lambda: broker.ack(message)):
            failure = fail(broker, Refusal(code, calls, 1), act)
            assert failure is not None
            assert (failure.errno, failure.exit_code, failure.may_be_done) == (code, exit_code, False)
            assert "nothing was lost: " in str(failure)


def test_what_a_take_is_refused_for_is_said_even_if_its_entry_is_gone(place: Path) -> None:
    """Refused in the middle of a division, which others put back meanwhile, or of which this client sees nothing."""
    with new_broker(str(place / "root")) as broker:
        broker.publish_many(QUEUE, FIVE)

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            if name == "link":
                os.rename(args[0], place / "elsewhere")
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), args[0])
            return call()

        failure = fail(broker, around, lambda: broker.consume(QUEUE, n=2))
        assert failure is not None and failure.errno == errno.EACCES


def test_half_a_file_that_cannot_be_removed_hides_no_error(place: Path) -> None:
    """A disk that is full, and read-only by the time that what was half written is removed."""
    with new_broker(str(place / "root")) as broker:

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            if name == "sync_file":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if name == "unlink":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), args[0])
            return call()

        failure = fail(broker, around, lambda: broker.publish(QUEUE, "m", durable=True))
        assert isinstance(failure, StorageBusy) and failure.errno == errno.ENOSPC
        assert broker.consume(QUEUE) == []


def test_a_batch_that_failed_in_the_middle(place: Path) -> None:
    """Of several leases the first is settled, then the disk becomes read-only: to try again is no loss of the first."""
    with new_broker(str(place / "root")) as broker:
        for text in FIVE:
            broker.publish(QUEUE, text)
        held = broker.consume(QUEUE, n=5)
        first = held[0].receipt
        assert first and fail(broker, Refusal(errno.EROFS, ("unlink",), 3), lambda: broker.ack(held))
        broker.ack(held)
        with pytest.raises(LeaseLost):
            broker.ack(first)
        assert outcomes(broker, {message.id: message.message for message in held}, "acked").keys() == {*FIVE}
    assert deliver_all(broker.root) == ([], [])


@pytest.mark.parametrize("at", range(1, 8))
def test_settings_that_are_out_of_reach_in_the_middle(place: Path, at: int) -> None:
    """They are read again now and then, by whatever asks for them: then the operation was not done, or is done."""
    with new_broker(str(place / "root")) as broker:
        for text in FIVE:
            broker.publish(QUEUE, text)
        held = broker.consume(QUEUE, n=5)
        queue = broker.queue(QUEUE)
        read, asked = queue._settings, itertools.count(1)

        def unreadable() -> Settings:
            if next(asked) == at:
                raise StorageError(PermissionError(errno.EACCES, "no"), "read the settings")
            return read()

        queue._settings = unreadable
        for act in (lambda: broker.ack(held[:3]), lambda: broker.ack(held[3]), lambda: broker.nack(held[4])):
            try:
                act()
            except StorageError:
                act()
        assert outcomes(broker, {message.id: message.message for message in held[:4]}, "acked").keys() == {*FIVE[:4]}
    assert deliver_all(broker.root) == ([], [FIVE[4]])


def test_a_wait_for_messages_outlasts_a_fault(place: Path) -> None:
    with new_broker(str(place / "root")) as broker:
        broker.publish(QUEUE, "m")
        assert isinstance(broker.fs, Watched)
        broker.fs.around = away = Away(1, False)

        def sleep(_: float) -> None:
            if away.count > 3:
                broker.fs.around = None  # type: ignore[attr-defined]

        broker.fs.sleep = sleep  # type: ignore[method-assign]
        assert list(map(body, broker.consume(QUEUE, wait=60))) == ["m"]


class Pages:
    """A network file system whose server's disk is full: appends stay in the pages of this host, and the flush that
    drops them says so, or the next append does when the kernel flushed by itself."""

    def __init__(self) -> None:
        self.full = False
        self.flushes = 0
        self.kept = 0  # what is on the server
        self.dropped = False

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name == "append" and self.dropped:
            self.dropped = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if name == "sync_handle":
            self.flushes += 1
            if self.full:
                os.truncate(args[0], self.kept)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.kept = os.fstat(args[0]).st_size
        return call()

    def drop(self, path: str) -> None:
        """The kernel flushes, and has to drop what was not flushed before."""
        os.truncate(path, self.kept)
        self.dropped = True


@pytest.fixture
def pages(place: Path) -> Any:
    with new_broker(str(place / "root")) as broker:
        broker.publish_many(QUEUE, FIVE)
        assert isinstance(broker.fs, Watched)
        broker.fs.around = it = Pages()
        yield broker, it


def test_an_outcome_that_a_full_server_drops_leaves_its_message_held(pages: tuple[Broker, Pages]) -> None:
    """The first record of a process is flushed before it counts, since it may be the only one."""
    broker, server = pages
    (message,) = broker.consume(QUEUE)
    server.full = True
    with pytest.raises(StorageBusy):
        broker.ack(message)
    assert len(held_names(broker)) == 1
    server.full = False
    broker.ack(message)
    assert outcomes(broker, {message.id: "m0"}, "acked") == {"m0": 1}


def test_outcomes_that_a_full_server_dropped_are_written_again(pages: tuple[Broker, Pages]) -> None:
    """Those of the last second count before they are flushed: the next one brings them along, or is not taken."""
    broker, server = pages
    messages = broker.consume(QUEUE, n=5)
    ids = {message.id: message.message for message in messages}
    broker.ack(messages[0])
    flushes = server.flushes
    server.full = True
    broker.ack(messages[1])
    assert server.flushes == flushes, "a flush for each message is too much"
    broker.queue(QUEUE).journal.flush()
    assert outcomes(broker, ids, "acked") == {"m0": 1}
    with pytest.raises(StorageBusy):
        broker.ack(messages[2])
    server.full = False
    broker.ack(messages[2])
    assert outcomes(broker, ids, "acked") == {"m0": 1, "m1": 1, "m2": 1}
    server.full = True
    broker.ack(messages[3])
    broker.queue(QUEUE).journal.flush()
    server.full = False
    broker.ack(messages[4])
    assert outcomes(broker, ids, "acked") == dict.fromkeys(FIVE, 1)


def test_what_cannot_be_seen_is_not_said_to_be_removed(place: Path) -> None:
    """A bucket is gone, and then the root cannot be looked into: still one error of this tree."""
    with new_broker(str(place / "root")) as broker:
        (message,) = [broker.publish(QUEUE, "m"), *broker.consume(QUEUE)][1:]

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            if name in ("unlink", "lstat"):
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), args[0])
            if name == "open_directory" and args[0] == broker.root:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), args[0])
            return call()

        broker.fs.around = around  # type: ignore[attr-defined]
        message.held.runs[0] = message.held.runs[0]._replace(deadline=1)  # type: ignore[union-attr]
        with pytest.raises(LeaseLost):
            broker.ack(message)
        broker.fs.around = None  # type: ignore[attr-defined]


def test_outcomes_that_the_kernel_dropped_by_itself(pages: tuple[Broker, Pages]) -> None:
    """It tells so once, to whoever writes next: a flush after that knows of nothing."""
    broker, server = pages
    messages = broker.consume(QUEUE, n=5)
    ids = {message.id: message.message for message in messages}
    broker.ack(messages[0])
    broker.ack(messages[1])
    journal = broker.queue(QUEUE).paths.journal
    server.drop(f"{journal}/{os.listdir(journal)[0]}")
    with pytest.raises(StorageBusy):
        broker.ack(messages[2])
    broker.queue(QUEUE).journal.flush()
    broker.ack(messages[2])
    assert outcomes(broker, ids, "acked") == {"m0": 1, "m1": 1, "m2": 1}


@pytest.mark.parametrize("keeps_name", [False, True])
def test_what_can_neither_be_flushed_nor_withdrawn_may_be_published(place: Path, keeps_name: bool) -> None:
    """It has its name when the disk becomes read-only: the error does not say that it is not there."""
    with new_broker(str(place / "root")) as broker:
        broker.fs.sync_keeps_name = keeps_name
        refusal = Refusal(errno.EROFS, ("sync_file" if keeps_name else "sync_directory", "unlink"), 1)
        failure = fail(broker, refusal, lambda: broker.publish(QUEUE, "m", durable=True))
        assert failure is not None and failure.may_be_done and "look whether it was done" in str(failure)
        assert drain(broker) == ["m"]
