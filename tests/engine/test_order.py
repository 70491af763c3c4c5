"""Which message comes next, and where each goes that was not acked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import BadReceipt, LeaseLost, UsageError
from ddmq_hpc.identity import Detached
from ddmq_hpc.taking import Taken, Taker


def broker(place: Path, **settings: Any) -> Broker:
    made = Broker(place / "root", create=True)
    made.create_queue("q", durable=False, **settings)
    return made


def bodies(messages: Any) -> list[Any]:
    return [message.message for message in messages]


def test_first_in_first_out_within_a_priority_and_priorities_are_numbers(place: Path) -> None:
    b = broker(place)
    for priority in (10, 9, 100, 0, 10**18):
        b.publish("q", f"{priority}a", priority=priority)
        b.publish("q", f"{priority}b", priority=priority)
    order = [body for priority in (0, 9, 10, 100, 10**18) for body in (f"{priority}a", f"{priority}b")]
    assert bodies(b.consume("q", 10)) == order


def test_order_holds_across_publishers_buckets_and_packs(place: Path) -> None:
    """Two clients publish in turn, alone and in bulk, fast enough to go through buckets of every width."""
    one, two = broker(place), Broker(place / "root")
    for number in range(600):
        one.publish("q", 3 * number)
        two.publish_many("q", [3 * number + 1, 3 * number + 2])
    taker = Broker(place / "root")
    got = []
    while messages := taker.consume("q", 7):
        got += bodies(messages)
        taker.ack(messages)
    assert got == list(range(1800))


def test_a_nacked_message_keeps_its_place_and_a_released_one_its_attempt(place: Path) -> None:
    b = broker(place)
    b.publish_many("q", range(6))
    first = b.consume("q", 3)
    b.nack(first[1])
    b.release(first[0])
    b.ack(first[2])
    again = b.consume("q", 6)
    assert [(m.message, m.attempt) for m in again] == [(0, 1), (1, 2), (3, 1), (4, 1), (5, 1)]


def test_requeue_prio_moves_a_failed_message(place: Path) -> None:
    b = broker(place)
    b.publish("q", "moves", requeue_prio=2000)
    b.publish("q", "stays")
    b.nack(b.consume("q")[0])
    found = b.consume("q", 2)
    assert [(m.message, m.priority) for m in found] == [("stays", 999), ("moves", 2000)]


def test_the_limit_makes_dead_letters_and_losses_may_count_apart(place: Path) -> None:
    b = broker(place, requeue_limit=2)
    b.publish("q", "x")
    for attempt in (1, 2, 3):
        (message,) = b.consume("q")
        assert message.attempt == attempt
        b.nack(message)
    assert b.consume("q") == []
    assert b.stats("q").dead == 1


@pytest.mark.parametrize(("requeue", "dead"), [(None, 1), (True, 0), (False, 1)])
def test_nack_does_as_the_message_says_unless_forced(place: Path, requeue: bool | None, dead: int) -> None:
    b = broker(place)
    b.publish("q", "x", requeue=False)
    b.nack(b.consume("q")[0], requeue=requeue)
    assert b.stats("q").dead == dead


def test_delay_and_backoff(place: Path) -> None:
    b = broker(place, retry_delay=0.3)
    b.publish("q", "later", delay=0.3)
    assert b.consume("q") == []
    (message,) = b.consume("q", wait=5)
    b.nack(message)
    assert (b.consume("q"), b.stats("q").delayed) == ([], 1)
    assert b.consume("q", wait=5)[0].attempt == 2


def test_a_lease_ends_at_its_deadline_and_a_dead_holders_receipt_is_worth_nothing(place: Path) -> None:
    b = broker(place, grace=0)
    b.publish("q", "x")
    other = Broker(place / "root", identity=Detached())
    (message,) = other.consume("q", lease=0.2)
    assert b.consume("q") == []
    (again,) = b.consume("q", wait=5)
    assert (again.attempt, again.id) == (2, message.id)
    with pytest.raises(LeaseLost):
        other.ack(message)
    b.ack(again)


def test_a_receipt_survives_heartbeats_and_the_settling_of_its_neighbours(place: Path) -> None:
    b = broker(place)
    b.publish_many("q", range(5))
    messages = b.consume("q", 5)
    receipts = [str(message.receipt) for message in messages]
    b.extend(messages[0], lease=1000)
    b.ack(messages[2])
    other = Broker(place / "root")
    other.ack(receipts[4])
    other.nack([receipts[0], receipts[1]])
    with pytest.raises(LeaseLost) as lost:
        other.ack([receipts[2], receipts[3]])
    assert lost.value.receipts == [receipts[2]]
    assert bodies(b.consume("q", 9)) == [0, 1]
    forged = receipts[3].replace("@", "@x")
    with pytest.raises(LeaseLost):
        other.ack(forged)
    with pytest.raises(BadReceipt):
        other.ack("q/nonsense")


def test_damaged_packs_are_set_aside_and_the_rest_goes_on(place: Path) -> None:
    b = broker(place)
    b.publish_many("q", range(4))
    b.publish("q", "good")
    pack = next(path for path in (place / "root/q/ready").glob("*/*/*") if ".0-4." in path.name)
    lines = pack.read_bytes().split(b"\n")
    pack.write_bytes(lines[0] + b"\nrubbish\n" + lines[2] + b"\n" + lines[3][:-1])
    for content in (b"", b"\0" * 5000, b"[" * 100_000):
        b.publish("q", "x")
        last = max((place / "root/q/ready").glob("*/*/*"), key=lambda path: path.name)
        last.write_bytes(content)
    got = []
    while messages := b.consume("q", 10):
        got += bodies(messages)
        b.ack(messages)
    assert got == [0, 2, "good"]
    assert b.stats("q").damaged == 5


def test_an_outcome_cannot_falsify_its_record(place: Path) -> None:
    b = broker(place)
    b.publish_many("q", range(3))
    alone, both = b.consume("q"), b.consume("q", 2)
    for messages in (alone[0], both):
        with pytest.raises(UsageError):
            b.ack(messages, state="nacked")
        b.ack(messages, exit_code=0)


def test_a_message_settles_itself(place: Path) -> None:
    b = broker(place)
    b.publish("q", "x")
    with pytest.raises(ZeroDivisionError), b.consume("q")[0]:
        _ = 1 / 0
    with b.consume("q")[0] as message:
        assert message.attempt == 2
    assert b.consume("q") == []


def test_waiting_ends_when_a_message_comes(place: Path) -> None:
    b = broker(place)
    started = time.monotonic()
    assert b.consume("q", wait=0.3) == []
    assert 0.3 <= time.monotonic() - started < 2


def test_who_loses_every_race_is_not_told_that_the_queue_is_empty(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times all that it saw is gone before it can take it, and is put back before it looks again."""
    b = broker(place)
    b.publish("q", "x")
    take, faster = Taker.take, [True] * 3

    def take_late(taker: Taker, count: int, duration_ms: int) -> list[Taken]:
        return [] if faster and faster.pop() else take(taker, count, duration_ms)

    monkeypatch.setattr(Taker, "take", take_late)
    assert bodies(b.consume("q")) == ["x"]


def test_threads_share_a_broker(place: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    b = broker(place)
    b.publish_many("q", range(300))

    def drain(_: int) -> list[Any]:
        got = []
        while messages := b.consume("q", 3):
            got += bodies(messages)
            b.ack(messages)
        return got

    with ThreadPoolExecutor(4) as pool:
        got = [body for part in pool.map(drain, range(4)) for body in part]
    assert sorted(got) == list(range(300))
