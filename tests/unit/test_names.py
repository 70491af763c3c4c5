"""Names on disk: what is written is what is read, order is age, and foreign names are none of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmq_hpc import names
from ddmq_hpc.errors import BadName, BadReceipt
from ddmq_hpc.names import Dead, Delayed, Entry, Lease, QueuePaths

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=8, max_size=8)
PACKS = st.builds(names.pack_name, st.integers(0, 10**19 - 1), st.integers(0, 3), TOKENS)
PRIORITIES = st.integers(0, names.MAX_PRIORITY)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    first = draw(st.integers(0, 1000))
    stop = draw(st.integers(first + 1, names.MAX_PACK))
    return Entry(draw(PACKS), first, stop, draw(st.integers(0, 10**8)), draw(st.integers(0, 10**8)))


LEASES = st.builds(
    Lease,
    PRIORITIES,
    entries(),
    st.integers(0, 10**14),
    st.integers(1, 10**12),
    st.just("node-1.cluster:123:456:0a1b2c3d:abcdefgh.7:slurm-12_3"),
    st.booleans(),
)


@given(entries())
def test_an_entry_reads_back(entry: Entry) -> None:
    assert names.parse_entry(entry.name) == entry


@given(LEASES)
def test_a_lease_reads_back_and_its_name_fits(lease: Lease) -> None:
    assert names.parse_lease(lease.name) == lease
    assert len(lease.name) < 250


@given(st.integers(0, 10**14), PRIORITIES, entries())
def test_delayed_and_dead_read_back(due: int, priority: int, entry: Entry) -> None:
    late, dead = Delayed(due, priority, entry), Dead(priority, entry, "requeue-limit")
    assert names.parse_delayed(late.name) == late
    assert names.parse_dead(dead.name) == dead


@given(st.text())
def test_foreign_names_are_none_of_ours(text: str) -> None:
    for parse in (names.parse_entry, names.parse_lease, names.parse_delayed, names.parse_dead):
        found = parse(text)
        assert found is None or found.name == text


@given(PACKS, PACKS)
def test_older_packs_sort_first_and_stand_in_no_later_bucket(one: str, other: str) -> None:
    if names.published_ns(one) < names.published_ns(other):
        assert one < other
        assert names.bucket_start(names.bucket_of(one)) <= one
    bucket = names.bucket_of(one)
    assert int(names.bucket_start(bucket)) <= names.published_ns(one) < names.bucket_end_ns(bucket)


def test_buckets_of_narrower_levels_lie_within_wider_ones() -> None:
    ns = 1_795_000_000_123_456_789
    buckets = [names.bucket_of(names.pack_name(ns, level, "abcdefgh")) for level in range(len(names.WINDOWS))]
    assert buckets == sorted(buckets)
    ends = [names.bucket_end_ns(bucket) for bucket in buckets]
    assert ends == sorted(ends, reverse=True)


@pytest.mark.parametrize("name", ["", "..", ".", "/etc", "a/b", "a b", "ä", "x" * 65, "q\n", None, 7])
def test_bad_queue_names_are_refused(name: object) -> None:
    with pytest.raises(BadName):
        names.check_queue_name(name)


@given(LEASES)
def test_a_receipt_is_of_one_queue(lease: Lease) -> None:
    lease = lease._replace(split=False)
    receipt = names.make_receipt("q", lease)
    assert names.parse_receipt(receipt, "q") == lease
    assert names.parse_receipt(f"/some/root/{receipt}", "q") == lease
    with pytest.raises(BadReceipt):
        names.parse_receipt(receipt, "other")


@pytest.mark.parametrize("receipt", ["", "q", "q/", "q/../x", None, 5, "q/999.x~1+1@o"])
def test_what_is_no_receipt_is_refused(receipt: object) -> None:
    with pytest.raises(BadReceipt):
        names.parse_receipt(receipt, "q")


def test_an_entry_contains_its_parts_of_the_same_attempt_alone() -> None:
    whole = Entry(names.pack_name(1, 0, "abcdefgh"), 2, 9, 1, 0)
    assert whole.contains(whole.part(3, 5))
    assert not whole.contains(whole.part(1, 5))
    assert not whole.contains(whole.part(3, 5)._replace(failed=2))
    assert not whole.contains(whole.part(3, 5)._replace(lost=1))


def test_paths_stay_below_the_queue() -> None:
    paths = QueuePaths("/root", "q")
    entry = Entry(names.pack_name(1, 0, "abcdefgh"), 0, 1, 0, 0)
    assert paths.in_ready(5, entry).startswith("/root/q/ready/5/")
    assert paths.in_keys("../../etc/passwd").startswith("/root/q/keys/")
    assert ".." not in paths.in_keys("../../etc/passwd")


def test_files_of_the_journal_tell_what_they_are() -> None:
    plain, packed = names.journal_name("node1.x", "0123abcd", 1000, 20783), names.PackedJournal(1, 10**14, "abcdefgh")
    retired = names.retired_journal_name(plain, "abcdefgh")
    assert [names.is_journal(name) for name in (plain, retired, packed.name)] == [True, False, False]
    assert [names.retired_from(name) for name in (plain, retired, packed.name)] == [None, plain, None]
    assert [names.parse_packed_journal(name) for name in (plain, retired, packed.name)] == [None, None, packed]
    assert [names.journal_day(name) for name in (plain, retired, packed.name, "x.jsonl")] == [20783, None, None, None]
    assert sorted([packed.name, names.PackedJournal(2, 3, "aaaaaaaa").name])[0] == packed.name
