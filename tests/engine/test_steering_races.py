"""Several people steer one queue at once, while workers work on it: each message is dealt with once, by one of them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, cast

import pytest
from engine_tools import QUEUE, Watched, drain, forked, letters

from ddmq_hpc import steering
from ddmq_hpc.admin import items
from ddmq_hpc.broker import Broker
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.errors import LeaseLost

COUNT = 60
#: What each of those who steer at the same time means: ranges that overlap, so that entries are divided.
PATTERNS = ("^[0-9]$", "[05]$", "", "[13579]$")


def _dead(root: str) -> dict[str, int]:
    """Dead letters in entries of twenty; their bodies by id."""
    with Broker(root, create=True) as broker:
        broker.create_queue(QUEUE, durable=False)
        for start in range(0, COUNT, 20):
            broker.publish_many(QUEUE, range(start, start + 20))
        while found := broker.consume(QUEUE, 20):
            broker.nack(found, requeue=False)
        return {item.message.id: item.message.message for item in items(broker.queue(QUEUE), ("dead",))}


def _all_at_once(place: Path, acts: list[Callable[[], list[str]]]) -> list[list[str]]:
    """What each answered, all begun at the same moment."""
    reading, writing = os.pipe()

    def child(number: int, act: Callable[[], list[str]]) -> None:
        os.close(writing)
        os.read(reading, 1)  # until the other end is closed
        (place / f"answer{number}").write_text(json.dumps(act()))

    pids = [forked(lambda number=number, act=act: child(number, act)) for number, act in enumerate(acts)]
    os.close(writing)
    os.close(reading)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)
    return [json.loads((place / f"answer{number}").read_text()) for number in range(len(acts))]


def _retry(root: str, pattern: str) -> list[str]:
    return Broker(root).retry(QUEUE, Criteria.of(match=pattern or "."))


def _purge(root: str, pattern: str) -> list[str]:
    queue = Broker(root).queue(QUEUE)
    return steering.purge(queue, steering.purgeable(queue, Criteria.of(match=pattern or ".")))


def _cancel(root: str, pattern: str) -> list[str]:
    return Broker(root).cancel_chosen(QUEUE, Criteria.of(match=pattern or "."))


@pytest.mark.parametrize("attempt", range(3))
def test_each_dead_letter_is_retried_by_one(place: Path, attempt: int) -> None:
    root = str(place / "root")
    bodies = _dead(root)
    answers = _all_at_once(place, [lambda pattern=pattern: _retry(root, pattern) for pattern in PATTERNS])
    assert Counter(ident for answer in answers for ident in answer) == Counter(list(bodies))
    with Broker(root) as broker:
        assert drain(broker) == sorted(bodies.values()), "in their place, in order"
        assert not letters(broker)


@pytest.mark.parametrize("attempt", range(3))
def test_each_dead_letter_is_retried_or_purged(place: Path, attempt: int) -> None:
    root = str(place / "root")
    bodies = _dead(root)
    acts = [lambda: _retry(root, "[05]$"), lambda: _purge(root, "[0-4]$"), lambda: _purge(root, "0$")]
    retried, *purged = _all_at_once(place, acts)
    gone = [ident for answer in purged for ident in answer]
    assert len({*retried, *gone}) == len(retried) + len(gone), "each by one of them"
    assert {bodies[ident] for ident in (*retried, *gone)} == {n for n in bodies.values() if n % 10 <= 5}
    with Broker(root) as broker:
        assert drain(broker) == sorted(bodies[ident] for ident in retried)
        assert sorted(letters(broker)) == [n for n in range(COUNT) if n % 10 > 5]


def test_what_a_slow_host_divides_is_awaited(place: Path) -> None:
    """Each of its calls takes long enough for all looks that are cheap."""
    root = str(place / "root")
    bodies = _dead(root)

    def slowly(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if name in ("link", "rename", "unlink"):
            time.sleep(0.3)
        return call()

    def purge_slowly() -> list[str]:
        queue = Broker(root, filesystem=Watched).queue(QUEUE)
        cast(Watched, queue.fs).around = slowly
        return steering.purge(queue, steering.purgeable(queue, Criteria.of(match="[0-4]$")))

    def retry_later() -> list[str]:
        time.sleep(0.5)
        return _retry(root, "[59]$")

    purged, retried = _all_at_once(place, [purge_slowly, retry_later])
    assert sorted(bodies[ident] for ident in retried) == [n for n in range(COUNT) if n % 10 in (5, 9)]
    assert sorted(bodies[ident] for ident in purged) == [n for n in range(COUNT) if n % 10 < 5]


def _work(root: str) -> list[str]:
    """Acks one message after the other; the ids."""
    done = []
    with Broker(root) as broker:
        while found := broker.consume(QUEUE):
            with suppress(LeaseLost):  # cancelled while it was held
                broker.ack(found)
                done.append(found[0].id)
    return done


@pytest.mark.parametrize("attempt", range(3))
def test_what_is_cancelled_is_not_done_and_the_other_way_round(place: Path, attempt: int) -> None:
    root = str(place / "root")
    with Broker(root, create=True) as broker:
        broker.create_queue(QUEUE, durable=False)
        broker.publish_many(QUEUE, range(200))
        every = {item.message.id for item in items(broker.queue(QUEUE))}
    acts = [lambda: _work(root), lambda: _cancel(root, "[05]$"), lambda: _cancel(root, "5"), lambda: _work(root)]
    answers = [ident for answer in _all_at_once(place, acts) for ident in answer]
    with Broker(root) as broker:
        left = [message.id for message in broker.consume(QUEUE, 200)]
        answers += left
    assert sorted(answers) == sorted(every), "each was done or cancelled, by one"
