"""Which messages are meant: by id, by how they failed, by age, by text; and what a retry makes of them."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from ddmq_hpc import Broker, steering
from ddmq_hpc.admin import items
from ddmq_hpc.attempts import history
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.errors import MessageNotFound, UsageError
from ddmq_hpc.journal import Journal
from ddmq_hpc.queue import Queue
from ddmq_hpc.selection import ids_of, letters, select

DAY = 86400.0


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    made = Broker(str(tmp_path / "root"), create=True)
    made.create_queue("q", durable=False)
    return made


@pytest.fixture
def queue(broker: Broker) -> Queue:
    return broker.queue("q")


def die(broker: Broker, *bodies: Any, **outcome: Any) -> list[str]:
    """Dead letters of one entry; their ids."""
    broker.publish_many("q", bodies)
    held = broker.consume("q", len(bodies))
    broker.nack(held, requeue=False, **outcome)
    return [message.id for message in held]


def chosen(queue: Queue, *states: str, **values: Any) -> list[str]:
    return ids_of(select(queue, states or ("dead",), Criteria.of(**values)))


def tell(queue: Queue, ident: str, at: float, host: str, **more: Any) -> None:
    """What another host's journal has of an attempt."""
    record = {"state": "nacked", "id": ident, "attempt": 1, "at": at, "taken": at - 1, "to": "dead", "host": host}
    with open(f"{queue.paths.journal}/{host}.jsonl", "a", encoding="ascii") as file:
        file.write(json.dumps({**record, **more}) + "\n")


def test_a_foreign_file_that_looks_as_if_somebody_divided_is_not_waited_for(
    broker: Broker, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    [one] = die(broker, "a")
    Path(queue.paths.leased, "foreign!split").touch()
    monkeypatch.setattr(queue.fs, "sleep", lambda seconds: pytest.fail("waited"))
    assert chosen(queue) == [one]


def test_by_exit_code_the_last_attempt_counts(broker: Broker, queue: Queue) -> None:
    [one] = die(broker, "a", exit=1)
    two = die(broker, "b", "c", exit=137, signal=9)
    broker.publish("q", "d", requeue_limit=1)
    broker.nack(broker.consume("q"), exit=1)
    broker.nack(broker.consume("q"), exit=2)
    assert chosen(queue, exit_code=1) == [one]
    assert chosen(queue, exit_code="1,137") == [one, *two]
    assert len(chosen(queue, exit_code=[2])) == 1


def test_by_host_and_age_as_the_journal_tells(broker: Broker, queue: Queue) -> None:
    broker.publish_many("q", range(3))
    held = broker.consume("q", 3)
    Journal.write, write = lambda *_: None, Journal.write  # type: ignore[method-assign,assignment]
    try:
        broker.nack(held, requeue=False)
    finally:
        Journal.write = write  # type: ignore[method-assign]
    now = queue.fs.time()
    tell(queue, held[0].id, now - 5 * DAY, "n1.cluster")
    tell(queue, held[1].id, now - 3600, "n2")
    ids = [message.id for message in held]
    assert chosen(queue, host="n1") == chosen(queue, host="n1.cluster") == chosen(queue, older_than="2d") == ids[:1]
    assert chosen(queue, newer_than="2d") == chosen(queue, host="n2", newer_than="2h") == ids[1:2]
    assert chosen(queue, host="n2", older_than="2d") == []
    assert chosen(queue) == ids, "of the last one the journal knows nothing: it has no age and no host"


def test_a_lost_lease_was_lost_on_the_host_of_its_owner(broker: Broker, queue: Queue) -> None:
    [ident] = die(broker, "a")
    lost = {"state": "lost", "owner": "n7:1:2:k:s.1:slurm-5=c"}
    tell(queue, ident, queue.fs.time() + 1, "sweeper", **lost)
    [letter] = letters(queue, Criteria())
    assert letter.failure and (letter.failure.host, letter.failure.job) == ("n7", "slurm-5=c")
    assert chosen(queue, host="n7") == [ident] and chosen(queue, host="sweeper") == []


def test_by_reason_and_by_text(broker: Broker, queue: Queue) -> None:
    rejected = die(broker, "align sample7", {"sample": 9}, "call sample7")
    broker.publish("q", "call sample7", requeue_limit=0)
    broker.nack(broker.consume("q"))
    [limited] = chosen(queue, died_of="requeue-limit")
    assert chosen(queue, died_of="rejected") == rejected
    assert chosen(queue, match="sample(7|9)") == [rejected[0], rejected[2], limited]
    assert chosen(queue, match='"sample":') == [rejected[1]]
    assert chosen(queue, match="^call", died_of="rejected") == [rejected[2]]


def test_by_id_whole_or_as_far_as_it_is_unique(broker: Broker, queue: Queue) -> None:
    first, second = die(broker, *range(12)), die(broker, "x")
    assert chosen(queue, ids=first[3]) == [first[3]]
    assert chosen(queue, ids=[second[0], first[11], first[1]]) == [*second, first[1], first[11]]
    assert chosen(queue, ids=first) == first
    assert chosen(queue, ids=second[0][:29]) == second
    assert chosen(queue, ids=first[1]) == [first[1]], "a whole id is no beginning of another"
    with pytest.raises(UsageError, match="several"):
        chosen(queue, ids=first[0][:29])
    for nonsense in (second[0][:-1] + "7", [first[0], f"{first[0][:30]}99"]):
        with pytest.raises(MessageNotFound):
            chosen(queue, ids=nonsense)
    for slip in (second[0][0], second[0][:9], "nonsense", "nonsense-and-more"):
        with pytest.raises(UsageError, match="is no id"):
            chosen(queue, ids=slip)
    broker.publish("q", "ready")
    [ready] = chosen(queue, "ready")
    with pytest.raises(MessageNotFound):
        chosen(queue, ids=ready)
    assert chosen(queue, "ready", "dead", ids=[ready, second[0]]) == [ready, second[0]]


def test_of_leased_ones_the_host_is_the_one_that_works_on_them(broker: Broker, queue: Queue) -> None:
    broker.publish_many("q", range(2))
    [held] = broker.consume("q")
    from ddmq_hpc.identity import host

    assert chosen(queue, "leased", "ready", host=host()) == [held.id]


def test_something_must_be_said() -> None:
    Criteria.of(all=True).demand_something()
    for values in ({}, {"all": True, "exit_code": 1}):
        with pytest.raises(UsageError, match="--all"):
            Criteria.of(**values).demand_something()


@pytest.mark.parametrize(
    "values",
    [
        {"exit_code": "one"},
        {"exit_code": [256]},
        {"exit_code": True},
        {"match": "("},
        {"older_than": "soon"},
        {"ids": ""},
        {"ids": [1]},
        {"host": 5},
        {"color": "red"},
        {"all": "false"},
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Criteria.of(**values)


def test_a_retried_message_has_its_place_and_all_its_attempts_again(broker: Broker, queue: Queue) -> None:
    broker.create_queue("q")
    broker.publish("q", "first", requeue_limit=1)
    for _ in range(2):
        broker.nack(broker.consume("q"), exit=3)
    broker.publish("q", "second")
    time.sleep(0.005)  # the journal tells milliseconds, by which attempts of the same number differ
    [ident] = broker.retry("q", Criteria.of(all=True))
    for attempt in (1, 2):
        [message] = broker.consume("q")
        assert (message.message, message.attempt) == ("first", attempt)
        broker.nack(message, exit=4)
    assert chosen(queue, exit_code=4) == [ident], "dead again, by its own limit"
    told = [(one.state, one.number, one.exit) for one in history(queue, ident)]
    failed = [("nacked", 1, 3), ("nacked", 2, 3), ("retried", 3, None), ("nacked", 1, 4), ("nacked", 2, 4)]
    assert told == failed


def test_some_of_an_entry_at_another_priority(broker: Broker, queue: Queue) -> None:
    ids = die(broker, *range(5))
    broker.publish("q", "before", priority=10)
    assert broker.retry("q", Criteria.of(ids=[ids[1], ids[4]]), priority=5) == [ids[1], ids[4]]
    assert [message.message for message in broker.consume("q", 9)] == [1, 4, "before"]
    assert chosen(queue) == [ids[0], ids[2], ids[3]]


def test_a_dry_run_changes_nothing(broker: Broker, queue: Queue) -> None:
    ids = die(broker, *range(3))
    assert broker.retry("q", Criteria.of(all=True), dry_run=True) == ids
    assert broker.cancel_chosen("q", Criteria.of(ids=ids), dry_run=True) == ids
    assert chosen(queue) == ids


def test_purged_ones_are_gone_and_told(broker: Broker, queue: Queue) -> None:
    ids = die(broker, *range(4))
    for pattern, gone in (("[03]", [ids[0], ids[3]]), (".", ids[1:3])):
        assert steering.purge(queue, steering.purgeable(queue, Criteria.of(match=pattern))) == gone
    assert chosen(queue) == []
    assert all(history(queue, ident)[-1].state == "purged" for ident in ids)


def test_cancelling_by_text_spares_the_dead_unless_told_otherwise(broker: Broker, queue: Queue) -> None:
    [dead] = die(broker, "x dead")
    broker.publish("q", "x delayed", delay=60)
    broker.publish_many("q", ["x leased", "y leased", "x ready"])
    held = broker.consume("q", 2)
    done = broker.cancel_chosen("q", Criteria.of(match="^x"), reason="wrong reference")
    assert [history(queue, ident)[-1].reason for ident in done] == ["wrong reference"] * 3
    left = {item.message.message: item.state for item in items(queue)}
    assert left == {"x dead": "dead", "y leased": "ready"}
    assert broker.cancel_chosen("q", Criteria.of(ids=held[1].id)) == [held[1].id]
    assert broker.cancel_chosen("q", Criteria.of(match="^x"), ("dead",)) == [dead]
    assert not list(items(queue))


def test_an_outcome_taken_back_after_a_retry_takes_nothing_back_from_before(broker: Broker, queue: Queue) -> None:
    [ident] = die(broker, "a", exit=1)
    broker.retry("q", Criteria.of(all=True))
    record = {"state": "acked", "id": ident, "attempt": 1, "at": 2e9, "taken": 1.9e9}
    path = next(Path(queue.paths.journal).iterdir())
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n" + json.dumps({**record, "state": "late"}) + "\n")
    assert [(one.state, one.number) for one in history(queue, ident)] == [("nacked", 1), ("retried", 2)]


def test_by_group(broker: Broker, queue: Queue) -> None:
    records = [("a", {"group": "one"}), ("b", {"group": "two"}), ("c", {})]
    broker.publish_records("q", records)
    (_, two, _) = held = broker.consume("q", 3)
    broker.nack(held, requeue=False)
    assert chosen(queue, group="two") == [two.id]
    assert broker.retry("q", Criteria.of(group="two")) == [two.id]
    assert chosen(queue, group="two") == []


def test_what_is_done_is_retried_where_it_was_kept(broker: Broker, queue: Queue) -> None:
    settings = dataclasses.replace(queue.settings, keep_done=DAY)
    queue._settings = lambda: settings
    broker.publish_many("q", ["a", "b", "c"], priority=3)
    held = broker.consume("q", 3)
    broker.ack(held[:2], exit=0)
    broker.ack(held[2], exit=4)
    assert chosen(queue) == []
    assert chosen(queue, "done", exit_code=4) == [held[2].id]
    assert chosen(queue, "done", newer_than=60) == [message.id for message in held]
    assert chosen(queue, "done", older_than=60) == []
    assert broker.retry("q", Criteria.of(match="a|c"), state="done") == [held[0].id, held[2].id]
    again = broker.consume("q", 9)
    assert [(message.message, message.priority, message.attempt) for message in again] == [("a", 3, 1), ("c", 3, 1)]
    assert [attempt.state for attempt in history(queue, held[0].id)] == ["acked", "retried"]
    with pytest.raises(UsageError, match="cannot be retried"):
        broker.retry("q", Criteria.of(all=True), state="leased")
