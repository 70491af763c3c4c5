"""Packs: how many messages share one, and names ever later, in buckets that stay small however fast they come."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from ddmq_hpc.broker import Broker
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.mounts import Mount
from ddmq_hpc.names import bucket_of
from ddmq_hpc.publishing import PackNames


def test_names_grow_even_when_the_clock_stands_or_jumps_back() -> None:
    names = PackNames(64)
    made = [names.next(ns) for ns in (5, 5, 5, 3, 10**18, 7)]
    assert made == sorted(set(made))


def test_a_busy_publisher_keeps_every_bucket_small() -> None:
    names = PackNames(64)
    start = 1_795_000_000_000_000_000
    counts = Counter(bucket_of(names.next(start + i * 70_000)) for i in range(100_000))  # 14,000 a second
    assert max(counts.values()) <= 230  # what the narrowest window takes at this rate
    assert len(counts) < 700


def test_a_busy_publisher_goes_straight_to_the_width_that_fits() -> None:
    """A bucket of each width in between would be one more for takers to list."""
    names = PackNames(64)
    start = 1_795_000_000_000_000_000
    levels = Counter(names.next(start + i * 70_000)[20] for i in range(5000))
    assert set(levels) == {"0", "6"} and levels["0"] == 64


def test_a_slow_publisher_returns_to_wide_buckets() -> None:
    names = PackNames(64)
    start = 1_795_000_000_000_000_000
    for i in range(5000):
        names.next(start + i * 70_000)
    buckets = {bucket_of(names.next(start + 10**9 * (100 + i))) for i in range(640)}
    assert len(buckets) < 13


def test_buckets_hold_a_quarter_of_what_they_may_at_least() -> None:
    """So that a look at all of them costs few listings, at whatever pace they were published."""
    start = 1_795_000_000_000_000_000
    for pace in (1, 5, 17, 50, 110, 230, 777, 3000):
        names = PackNames(64)
        counts = Counter(bucket_of(names.next(start + i * 10**9 // pace)) for i in range(2000))
        assert max(counts.values()) <= 65 and len(counts) <= 2 + 2000 // (64 // 4)


def test_a_forked_child_makes_other_names() -> None:
    names = PackNames(64)
    names.next(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, names.next(2).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100).decode() != names.next(2)
    os.close(reader)
    os.close(writer)


def on_glusterfs(root: str) -> Filesystem:
    fs = Filesystem(root)
    fs.mount = Mount("/volume", "fuse.glusterfs", "rw")
    return fs


@pytest.mark.parametrize(
    ("make", "settings", "packs"), [(Filesystem, {}, 2), (on_glusterfs, {}, 17), (Filesystem, {"pack_size": 50}, 4)]
)
def test_how_many_messages_share_a_pack(tmp_path: Path, make: type[Filesystem], settings: dict, packs: int) -> None:  # type: ignore[type-arg]
    with Broker(tmp_path / "root", create=True, filesystem=make) as broker:
        broker.create_queue("q", **settings)
        assert broker.publish_many("q", range(200)) == 200
        assert sum(len(names) for _, _, names in os.walk(f"{broker.root}/q/ready")) == packs
        assert [message.message for message in broker.consume("q", 200)] == list(range(200))
