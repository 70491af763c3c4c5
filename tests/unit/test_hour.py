"""The last hour from the ends of a journal, against what a reader of all of it would say."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ddmq_hpc import hour as hours
from ddmq_hpc.attempts import Attempt
from ddmq_hpc.broker import Broker
from ddmq_hpc.following import Follower
from ddmq_hpc.hour import Follow, cause
from ddmq_hpc.identity import token
from ddmq_hpc.journal import growing
from ddmq_hpc.names import PackedJournal
from ddmq_hpc.queue import Queue

NOW = 1_800_000_000.0


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    broker = Broker(tmp_path / "root", create=True)
    broker.create_queue("q")
    return broker.queue("q")


class Host:
    """Writes the journal of one host."""

    def __init__(self, queue: Queue, name: str = "node1") -> None:
        self.path = Path(queue.paths.journal, f"{name}.0.0.jsonl")
        self._count = 0

    def record(self, at: float, state: str = "acked", **more: Any) -> None:
        self._count += 1
        ident = f"{1_700_000_000_000_000_000 + self._count}-0aaaaaaaa.0"
        found = {
            "state": state,
            "id": ident,
            "attempt": 1,
            "at": at,
            "taken": at - 5,
            "host": "node1",
            "pid": 1,
            **more,
        }
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        os.utime(self.path, (at, at))

    def steady(self, since: float, until: float, every: float, **more: Any) -> None:
        at = since
        while at < until:
            self.record(at, **more)
            at += every


def test_exit_codes_are_causes_of_their_own(queue: Queue) -> None:
    host = Host(queue)
    for at, code in ((50, 3), (40, 3), (30, 3), (20, 1)):
        host.record(NOW - at, "nacked", exit=code, to="dead")
    found = Follow(queue).look(NOW)
    assert (found.cause, found.cause_part) == ("exit code 3", 0.75)


def test_a_short_journal_is_told_exactly(queue: Queue) -> None:
    host = Host(queue)
    host.steady(NOW - 7200, NOW - 3700, 100)
    host.steady(NOW - 3000, NOW, 100, wall=7.0)
    host.record(NOW - 50, "nacked", error="no file 17", to="ready")
    host.record(NOW - 40, "nacked", error="no file 23", to="ready")
    host.record(NOW - 30, "nacked", exit=3, to="dead")
    host.record(NOW - 30, "released")
    host.record(NOW - 20, "lost", to="ready")
    found = Follow(queue).look(NOW)
    assert found.outcomes == {"acked": 30, "nacked": 3, "lost": 1, "released": 1}
    assert (found.done, found.failed, found.ever, found.about, found.ever_about) == (30, 4, 65, False, False)
    assert (found.cause, found.cause_part) == ("no file 23", 0.5)
    assert abs(found.span - 3000) <= 10
    assert found.typical == 7.0 or found.typical == 5.0


def test_a_long_journal_is_told_about(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "_TAIL", 20_000)
    for name in ("node1", "node2", "node3"):
        Host(queue, name).steady(NOW - 10_000, NOW, 5)
    found = Follow(queue).look(NOW)
    assert found.about and found.ever_about
    assert abs(found.done - 3 * 720) < 100
    assert abs(found.ever - 3 * 2000) < 300


def test_a_journal_that_began_within_the_hour_is_not_made_longer(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "_TAIL", 20_000)
    Host(queue).steady(NOW - 600, NOW, 1)
    found = Follow(queue).look(NOW)
    assert found.about and abs(found.done - 600) < 60


def test_more_files_than_are_read(queue: Queue) -> None:
    for number in range(40):
        Host(queue, f"node{number}").steady(NOW - 3500, NOW - number, 100)
    found = Follow(queue).look(NOW)
    assert found.about and abs(found.done - 40 * 35) < 100
    assert found.ever_about and abs(found.ever - 40 * 35) < 100


def test_what_is_appended_is_counted_once_and_grows_old(queue: Queue) -> None:
    host = Host(queue)
    host.steady(NOW - 100, NOW, 10)
    follow = Follow(queue)
    assert follow.look(NOW).done == 10
    host.record(NOW + 1)
    host.record(NOW + 2, "nacked", to="dead", exit=1)
    Host(queue, "node9").record(NOW + 3)
    found = follow.look(NOW + 5)
    assert (found.done, found.failed, found.seen_done, found.seen_ended, found.ever) == (12, 1, 2, 3, 12)
    assert follow.look(NOW + 5) == found
    found = follow.look(NOW + 3700)
    assert (found.outcomes, found.cause, found.seen_done, found.ever) == ({}, "", 2, 12)


def test_a_line_that_is_being_written_is_read_when_it_is_whole(queue: Queue) -> None:
    host = Host(queue)
    host.record(NOW)
    line = host.path.read_bytes()
    host.path.write_bytes(line + line[:40])
    follow = Follow(queue)
    assert follow.look(NOW).done == 1
    second, third = (line.replace(b"0aaaaaaaa", other) for other in (b"0bbbbbbbb", b"0cccccccc"))
    host.path.write_bytes(line + second + third[:40])
    assert follow.look(NOW).done == 2
    host.path.write_bytes(line + second + third)
    assert follow.look(NOW).done == 3


def test_estimates_give_way_to_what_is_known(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hours, "_TAIL", 20_000)
    host = Host(queue)
    host.steady(NOW - 10_000, NOW, 5)
    follow = Follow(queue)
    assert follow.look(NOW).about
    host.steady(NOW, NOW + 3600, 10)
    found = follow.look(NOW + 3610)
    assert not found.about and found.ever_about and 355 <= found.done <= 360


def test_each_file_is_looked_at_in_turn(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddmq_hpc.following._LOOKED_AT", 3)
    hosts = [Host(queue, f"node{number}") for number in range(8)]
    for host in hosts:
        host.record(NOW)
    follower = Follower(queue.fs, queue.paths)
    follower.begin_at_tails(1000)
    for host in hosts:
        host.record(NOW)
    seen: list[str] = []
    for _ in range(4):
        grown = follower.grown()
        assert len(grown) <= 3
        seen += [path for path in grown for lines in follower.appended([path]) if lines]
    assert sorted(seen) == growing(queue.fs, queue.paths)


def test_what_was_compressed_is_not_read_again(queue: Queue) -> None:
    host, other = Host(queue), Host(queue, "node2")
    host.record(NOW)
    other.record(NOW)
    follow = Follow(queue)
    follow.look(NOW)
    packed = Path(queue.paths.journal, PackedJournal(int(NOW * 1000), int(NOW * 1000), token()).name)
    packed.write_bytes(gzip.compress(b'{"contains": ["node1.0.0.jsonl"]}\n' + host.path.read_bytes()))
    host.path.unlink()
    other.record(NOW)
    found = follow.look(NOW)
    assert (found.done, found.seen_done) == (3, 1)
    assert Follow(queue).look(NOW).done == 2


def test_files_that_come_and_go(queue: Queue) -> None:
    host, other = Host(queue), Host(queue, "node2")
    host.record(NOW)
    other.record(NOW)
    follow = Follow(queue)
    follow.look(NOW)
    host.path.unlink()
    other.record(NOW)
    assert follow.look(NOW).seen_done == 1
    host.record(NOW)
    assert follow.look(NOW).seen_done == 2


def test_an_empty_journal(queue: Queue) -> None:
    found = Follow(queue).look(NOW)
    assert (found.done, found.failed, found.about, found.typical, found.ever) == (0, 0, False, None, 0)


@pytest.mark.parametrize(
    "more, words",
    [
        ({"state": "lost"}, "its worker was lost"),
        ({"error": "no such file\nat line 3", "exit": 1}, "no such file"),
        ({"oom": True, "exit": 137, "signal": 9}, "out of memory"),
        ({"exit": 143, "signal": 15}, "signal 15"),
        ({"exit": 3}, "exit code 3"),
        ({}, "nacked"),
    ],
)
def test_causes_in_words(more: dict[str, Any], words: str) -> None:
    assert cause(Attempt("p", 0, 1, 1, more.pop("state", "nacked"), 1.0, 2.0, **more)) == words


def test_hosts_that_ended_long_ago_count_among_all_that_was_done(queue: Queue) -> None:
    for number in range(20):
        Host(queue, f"node{number}").steady(NOW - 90_000 - number, NOW - 80_000, 200)
    found = Follow(queue).look(NOW)
    assert found.done == 0 and not found.about
    assert found.ever_about and abs(found.ever - 20 * 50) < 60


def test_what_ended_in_the_future_did_not(queue: Queue) -> None:
    host = Host(queue)
    host.steady(NOW - 100, NOW, 10)
    for number in range(100):
        host.record(NOW * 2 + 1000 * number)
    follow = Follow(queue)
    found = follow.look(NOW)
    assert (found.done, found.span) == (10, 100)
    assert len(follow._tally._outcomes) == 10


def test_memory_does_not_grow_with_causes(queue: Queue) -> None:
    host = Host(queue)
    for number in range(300):
        host.record(NOW - 5, "nacked", error="".join(chr(97 + number // 26**place % 26) for place in range(3)))
    assert Follow(queue).look(NOW).cause == "other causes"
