"""Which candidate a taker tries next."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmq_hpc.broker import Broker
from ddmq_hpc.head import LOSSES_A_LISTING
from ddmq_hpc.taking import Taker


@pytest.fixture
def taker(tmp_path: Path) -> Taker:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q", durable=False)
    for number in range(300):
        broker.publish("q", number)
    found = broker.queue("q").taker
    found.head._max_age = 3600.0  # a busy machine must not make a listing old in the middle of a test
    return found


def taken(taker: Taker, count: int) -> list[str]:
    """The packs of the next messages, taken one by one."""
    return [taker.take(1, 60_000)[0][0].entry.pack for _ in range(count)]


def lose(taker: Taker, times: int) -> None:
    for _ in range(times):
        taker.head.lost()


def test_without_others_the_order_is_kept(taker: Taker) -> None:
    packs = taken(taker, 300)
    assert packs == sorted(packs)


def test_after_a_lost_race_a_taker_goes_on_in_order_elsewhere(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.randrange", lambda window: min(window - 1, 10))
    first = taken(taker, 1)[0]
    lose(taker, 3)
    packs = taken(taker, 5)
    assert packs == sorted(packs) and first < packs[0]
    waiting = [name.name[:19] for name in Path(taker.head._paths.ready).glob("*/*/*")]
    assert sum(name < packs[0][:19] for name in waiting) == 10


def test_what_is_put_back_keeps_its_place_among_pieces_of_its_pack(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q", durable=False)
    broker.publish_many("q", range(20))
    held = broker.consume("q", 12)
    broker.release(held[2:5])
    assert [message.message for message in broker.consume("q", 20)] == [2, 3, 4, *range(12, 20)]


def test_a_taker_that_nobody_disputes_comes_back_to_the_front(taker: Taker) -> None:
    taken(taker, 1)
    lose(taker, 4)
    taken(taker, 100)
    assert taker.head.window == 1
    packs = taken(taker, 100)
    waiting = [name.name[:19] for name in Path(taker.head._paths.ready).glob("*/*/*")]
    assert packs == sorted(packs) and max(packs)[:19] < min(waiting)


def test_after_many_lost_races_it_lists_again(taker: Taker) -> None:
    listed = taker.head._read_at
    taken(taker, 1)
    lose(taker, LOSSES_A_LISTING - 1)
    before = taker.head._read_at
    assert before > listed
    lose(taker, 1)
    taken(taker, 1)
    assert taker.head._read_at > before
