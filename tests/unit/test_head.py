"""Which candidate a taker tries next."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmq_hpc.broker import Broker
from ddmq_hpc.head import LOSSES_A_LISTING, MAX_WINDOW, Head
from ddmq_hpc.names import Entry, bucket_of, pack_name
from ddmq_hpc.taking import Taker

#: When the messages were published (ns), one every 10 ms: 25 in each bucket of this level.
START, STEP, LEVEL = 1_500_000_000_000_000_000, 10_000_000, 4


def takers(root: Path, count: int, messages: int) -> list[Taker]:
    """Of a queue of `messages`, packs of one that are empty files: nothing here reads them."""
    broker = Broker(root, create=True)
    broker.create_queue("q", durable=False)
    paths = broker.queue("q").paths
    for number in range(messages):
        path = Path(paths.in_ready(999, Entry(pack_name(START + number * STEP, LEVEL, "aaaaaaaa"), 0, 1, 0, 0)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [Broker(root).queue("q").taker for _ in range(count)]
    for taker in found:
        taker.head._max_age = 3600.0  # a busy machine must not make a listing old in the middle of a test
    return found


@pytest.fixture
def taker(tmp_path: Path) -> Taker:
    (found,) = takers(tmp_path / "root", 1, 300)
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
    monkeypatch.setattr("random.choice", lambda near: near[-1])
    monkeypatch.setattr("random.randrange", lambda window: min(window - 1, 10))
    first = taken(taker, 1)[0]
    lose(taker, 3)
    packs = taken(taker, 5)
    assert packs == sorted(packs) and first < packs[0]
    waiting = [path for path in Path(taker.head._paths.ready).glob("*/*/*") if path.name < packs[0]]
    assert 10 < len(waiting) < MAX_WINDOW
    assert sum(bucket_of(path.name) == bucket_of(packs[0]) for path in waiting) == 10


def test_takers_that_contend_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve that lost a race each: hardly two of them run after the same names."""
    contending = takers(tmp_path / "root", 12, 1000)
    for taker in contending:
        assert taker.head.next()
        lose(taker, 3)
    races, lost = [0], Head.lost

    def count(head: Head) -> None:
        races[0] += 1
        lost(head)

    monkeypatch.setattr(Head, "lost", count)
    for _ in range(20):
        for taker in contending:
            taken(taker, 1)
    assert races[0] <= 0.3 * 12 * 20


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
