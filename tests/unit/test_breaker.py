"""The bad-host breaker: by what others finished, and never the last worker."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ddmq_hpc.breaker import Breaker
from ddmq_hpc.broker import Broker
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.messages import Message
from ddmq_hpc.queue import Queue
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration

BAD, WORSE, GOOD = ("bad", 11), ("worse", 12), ("good", 13)


class Clocked(Filesystem):
    """A file system whose clocks the test turns."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def time(self) -> float:
        return super().time() + self.ahead


class Site:
    """A queue, its workers by (host, process id), and what they write into the journal."""

    def __init__(self, top: Path) -> None:
        self.broker = Broker(top / "root", create=True, filesystem=Clocked)
        self.broker.create_queue("q", requeue_limit=100, durable=False)
        self.queue: Queue = self.broker.queue("q")
        self.registered: dict[tuple[str, int], Registration] = {}

    def worker(self, me: tuple[str, int]) -> Breaker:
        info = WorkerInfo.of_this_process(self.queue, f"{me[0]}-{me[1]}", ["q"])
        self.registered[me] = Registration(self.queue, replace(info, host=me[0], pid=me[1]))
        self.registered[me].start()
        return Breaker(self.queue, me)

    def messages(self, count: int = 8) -> list[Message]:
        for number in range(count):
            self.broker.publish("q", number)
        found = self.queue.take(count)
        assert len(found) == count
        return found

    def record(self, by: tuple[str, int], state: str, *idents: str) -> None:
        with open(f"{self.queue.paths.journal}/{by[0]}.0.0.jsonl", "a", encoding="utf-8") as file:
            for ident in idents:
                file.write('{"state":"%s","id":"%s","host":"%s","pid":%d}\n' % (state, ident, *by))

    def later(self, seconds: float = 6.0) -> None:
        self.queue.fs.ahead += seconds  # type: ignore[attr-defined]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def fail(breaker: Breaker, messages: list[Message], wall: float = 0.1) -> None:
    for message in messages:
        breaker.failed(message.id, wall)


def finished_elsewhere(site: Site, count: int = 8, walls: float = 0.1) -> Breaker:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    messages = site.messages()
    fail(breaker, messages[:count], walls)
    site.record(GOOD, "acked", *(message.id for message in messages))
    return breaker


def test_a_worker_ends_that_fails_what_others_finish(site: Site) -> None:
    said = finished_elsewhere(site).verdict()
    assert said and "8 tasks in a row" in said and "on bad" in said and "8 of them" in said
    assert os.listdir(site.queue.paths.tmp) == []


@pytest.mark.parametrize(("count", "walls"), [(4, 0.1), (8, 11.0)], ids=["too few", "not quickly"])
def test_not_for_few_failures_or_slow_ones(site: Site, count: int, walls: float) -> None:
    breaker = finished_elsewhere(site, count, walls)
    assert breaker.verdict() is None and breaker.pause() == 0


def test_one_message_that_always_fails_says_nothing_about_the_host(site: Site) -> None:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    (message,) = site.messages(1)
    fail(breaker, [message] * 20)
    site.record(GOOD, "acked", message.id)
    assert breaker.verdict() is None and breaker.pause() == 0


def test_success_ends_the_row(site: Site) -> None:
    breaker = finished_elsewhere(site)
    breaker.succeeded()
    assert breaker.verdict() is None and breaker.pause() == 0


def test_evidence_may_come_later_and_bit_by_bit(site: Site) -> None:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    messages = site.messages(200)
    fail(breaker, messages[:6])
    for message in messages[:4]:
        site.record(GOOD, "acked", message.id)
        assert breaker.verdict() is None
        site.later()
    with open(f"{site.queue.paths.journal}/good.0.0.jsonl", "a") as file:
        file.write('torn\n{"state":"acked","id":"%s"' % messages[4].id)
    assert breaker.verdict() is None
    site.later()
    with open(f"{site.queue.paths.journal}/good.0.0.jsonl", "a") as file:
        file.write(',"host":"good","pid":13}\n')
    assert breaker.verdict()


def test_a_record_may_tell_of_several_messages(site: Site) -> None:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    site.broker.publish_many("q", range(20))
    messages = site.queue.take(20)
    fail(breaker, messages[5:12])
    pack = messages[0].id.rpartition(".")[0]
    site.record(GOOD, "acked", f"{pack}.0-9")
    assert breaker.verdict() is None
    site.later()
    site.record(GOOD, "acked", f"{pack}.9-10")
    assert breaker.verdict()


def test_what_it_did_itself_is_no_evidence(site: Site) -> None:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    messages = site.messages()
    fail(breaker, messages)
    site.record(BAD, "acked", *(message.id for message in messages))
    assert breaker.verdict() is None


def test_what_was_finished_before_is_no_evidence(site: Site) -> None:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    messages = site.messages()
    site.record(GOOD, "acked", *(message.id for message in messages))
    fail(breaker, messages)
    assert breaker.verdict() is None


def test_messages_that_others_fail_with_too_are_bad_themselves(site: Site) -> None:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    messages = site.messages()
    fail(breaker, messages)
    assert breaker.pause() > 0
    site.record(GOOD, "nacked", *(message.id for message in messages))
    assert breaker.verdict() is None and breaker.pause() == 0
    site.later()
    site.record(GOOD, "acked", *(message.id for message in messages[:6]))  # flaky
    assert breaker.verdict() is None
    site.later()
    more = site.messages(5)
    fail(breaker, more)
    site.record(GOOD, "acked", *(message.id for message in more))
    assert breaker.verdict()


def test_never_the_last_worker(site: Site) -> None:
    breaker = finished_elsewhere(site)
    site.registered[GOOD].end()
    assert breaker.verdict() is None and breaker.pause() == 1  # slowly, for a person to see
    site.later()
    site.worker(GOOD)
    assert breaker.verdict()


def test_a_silent_worker_is_none(site: Site) -> None:
    breaker = finished_elsewhere(site)
    path = Path(site.queue.paths.in_workers("good-13"))
    os.utime(path, (path.stat().st_mtime - 400,) * 2)
    assert breaker.verdict() is None


def test_two_bad_workers_do_not_both_end_when_nobody_else_is_left(site: Site) -> None:
    bad, worse = site.worker(BAD), site.worker(WORSE)
    messages = site.messages()
    for breaker in (bad, worse):
        fail(breaker, messages)
    site.record(GOOD, "acked", *(message.id for message in messages))  # was there, and is no more
    assert bad.verdict()
    for _ in range(40):  # `bad` stays registered while its last task runs
        assert worse.verdict() is None
        site.later(7)


def test_one_worker_a_minute(site: Site) -> None:
    site.worker(GOOD)
    breakers = [site.worker((f"bad{number}", number)) for number in range(3)]
    messages = site.messages()
    for breaker in breakers:
        fail(breaker, messages)
    site.record(GOOD, "acked", *(message.id for message in messages))
    ended: list[float] = []
    for _ in range(60):
        now = site.queue.fs.time()
        for breaker in list(breakers):
            if breaker.verdict():
                breakers.remove(breaker)
                ended.append(now)
        for registration in site.registered.values():
            registration.beat(registration._info)
            registration._write(registration._info)
        site.later(7)
    assert len(ended) == 3
    assert min(b - a for a, b in zip(ended, ended[1:])) >= 60


def test_pauses_grow_and_end_with_success(site: Site) -> None:
    site.worker(GOOD)
    breaker = site.worker(BAD)
    pauses = []
    for message in site.messages(20):
        breaker.failed(message.id, 0.1)
        pauses.append(breaker.pause())
    assert pauses[:7] == [0, 0, 0, 0, 1, 2, 4] and max(pauses) == 30
    breaker.succeeded()
    assert breaker.pause() == 0


def test_foreign_lines_and_files_hurt_nobody(site: Site) -> None:
    breaker = finished_elsewhere(site)
    (ident, *_) = breaker._failed
    journal = Path(site.queue.paths.journal)
    strange = ["[", "null", '"x"', json.dumps({"id": ident}), json.dumps({"state": ["acked"], "id": ident})]
    strange += ['{"id":"%s", acked"' % ident, "[" * 100_000, json.dumps({"state": "acked", "id": [ident]})]
    (journal / "strange.jsonl").write_text("\n".join(strange) + "\n")
    (journal / "directory").mkdir()
    Path(site.queue.paths.in_locks("breaker-x")).write_text("x")
    Path(site.queue.paths.in_locks("breaker-1")).write_bytes(b"\xff\xff 12a")
    assert breaker.verdict()
    assert not os.path.exists(site.queue.paths.in_locks("breaker-1"))
