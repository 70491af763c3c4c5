"""Jobs of Snakemake as messages, their reports, and what is cancelled. None of this needs Snakemake."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddmq_hpc import Broker, admin, journal, keyed, removing
from ddmq_hpc.errors import BadMessage, LeaseLost, StorageError
from ddmq_hpc.messages import NO_OPTIONS, Options
from ddmq_hpc.names import parse_report, report_directory, report_name
from ddmq_hpc.processes import Spawned
from ddmq_hpc.snakemake import files, jobs, reports
from ddmq_hpc.snakemake.dispatch import Dispatch
from ddmq_hpc.snakemake.runner import JobRunner
from ddmq_hpc.tasks import Result, Task

JOB = jobs.Job(
    reports="a" * 16,
    name="one[n=1]",
    directory="/work",
    python="/usr/bin/python3",
    arguments=("--cores", "1"),
    fork=True,
    environment={"A": "b"},
    outputs=("x",),
)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    found = Broker(tmp_path / "root", create=True)
    found.create_queue("jobs", durable=False)
    return found


def test_a_job_comes_out_of_its_message_as_it_went_in(broker: Broker) -> None:
    broker.publish("jobs", JOB.body())
    [message] = broker.consume("jobs")
    found = jobs.parse(message.message)
    assert found.is_same(JOB) and found.body() == JOB.body()


def _changed(**values: Any) -> dict[str, Any]:
    return {**JOB.body(), **values}


@pytest.mark.parametrize(
    "body",
    [
        "rm -rf /", 7, None, [], {}, {"shell": "ls"},
        _changed(snakemake_job=2),
        _changed(more=1),
        {name: value for name, value in JOB.body().items() if name != "shell"},
        _changed(directory="relative"),
        _changed(directory=7),
        _changed(reports="../../etc"),
        _changed(reports="A" * 16),
        _changed(arguments="--cores 1"),
        _changed(arguments=["a\0b"]),
        _changed(arguments=[1]),
        _changed(environment=["A=b"]),
        _changed(environment={"A": 1}),
        _changed(fork="yes"),
        _changed(latency="5"),
        _changed(latency=True),
        _changed(outputs={"x": 1}),
    ],
)  # fmt: skip
def test_anything_else_is_no_job(body: Any) -> None:
    with pytest.raises(BadMessage):
        jobs.parse(body)


def test_the_same_job_of_another_run_is_told_from_another_one() -> None:
    first = jobs.Job(
        "a" * 16, "x", "/w", arguments=["--runtime-source-cache-path", "/tmp/1", "--rerun-triggers", "a", "b"]
    )
    again = jobs.Job(
        "a" * 16, "x", "/w", arguments=["--runtime-source-cache-path", "/tmp/2", "--rerun-triggers", "b", "a"]
    )
    other = jobs.Job(
        "a" * 16, "x", "/w", arguments=["--runtime-source-cache-path", "/tmp/1", "--rerun-triggers", "a", "c"]
    )
    assert first.is_same(again) and not first.is_same(other)


def test_a_key_is_of_a_place_rules_and_outputs() -> None:
    key = jobs.key_of("/w", ["b", "a"], ["2", "1"], "spec")
    assert key == jobs.key_of("/w", ["a", "b"], ["1", "2"], "whatever")
    assert len({key, jobs.key_of("/v", ["a", "b"], ["1", "2"], ""), jobs.key_of("/w", ["a"], ["1", "2"], ""),
                jobs.key_of("/w", ["a", "b"], ["1"], ""), jobs.key_of("/w", ["a", "b"], [], "spec")}) == 5  # fmt: skip


def test_reports_are_read_by_their_names_and_foreign_files_are_none(broker: Broker) -> None:
    queue, place = broker.queue("jobs"), report_directory("/w")
    ident = broker.publish("jobs", 1).id
    reports.write(queue, place, reports.Report(ident, 0))
    reports.write(queue, place, reports.Report(ident, 3, "the end\n\tof \x1b[31mit"))
    for name in ("..", "x", f"{ident}.9999", f"{ident}", "a.1"):
        assert parse_report(name) is None
    Path(queue.paths.in_reports(place, "foreign")).write_text("x")
    found = sorted(reports.listed(queue, place))
    assert found == [reports.Report(ident, 0), reports.Report(ident, 3)]  # texts are read when they are asked for
    assert [reports.with_text(queue, place, each).text for each in found] == ["", "the end\n\tof \\x1b[31mit"]
    Path(queue.paths.in_reports(place, report_name(ident, 3))).write_bytes(b"\xff{")
    assert reports.with_text(queue, place, found[1]) == found[1]
    reports.remove(queue, place, found[0])
    assert reports.listed(queue, place) == [reports.Report(ident, 3)]


def test_reports_that_nobody_came_to_read_go_after_a_month(broker: Broker) -> None:
    queue, place = broker.queue("jobs"), report_directory("/w")
    old, new = (broker.publish("jobs", n).id for n in range(2))
    for ident in (old, new):
        reports.write(queue, place, reports.Report(ident, 0))
    os.utime(queue.paths.in_reports(place, report_name(old, 0)), (1, 1))
    assert broker.clean("jobs")["jobs"]["leftovers"] == 1
    assert reports.listed(queue, place) == [reports.Report(new, 0)]


def test_inputs_are_waited_for_until_they_are_there_or_for_so_long(tmp_path: Path) -> None:
    timer = threading.Timer(0.3, (tmp_path / "late").write_text, ("x",))
    timer.start()
    files.wait_for(str(tmp_path), ["late"], 30)
    assert (tmp_path / "late").exists()
    files.wait_for(str(tmp_path), ["never"], 0.1)


def test_a_message_is_cancelled_wherever_it_stands(broker: Broker) -> None:
    queue = broker.queue("jobs")
    ready, delayed, dead, leased = (broker.publish("jobs", n, delay=d).id for n, d in enumerate((0, 60, 0, 0)))
    first, second, third = broker.consume("jobs", 3)
    broker.release(first)
    broker.nack(second, requeue=False)
    assert [removing.cancel(queue, ident) for ident in (ready, delayed, dead, leased)] == [
        "ready", "delayed", "dead", "leased"
    ]  # fmt: skip
    assert not list(admin.entries(queue))
    assert removing.cancel(queue, ready) is None
    with pytest.raises(LeaseLost):
        broker.ack(third)
    told = [record["id"] for record in journal.read(queue.fs, queue.paths) if record["state"] == "cancelled"]
    assert sorted(told) == sorted([ready, delayed, dead, leased])


def test_what_was_leased_together_with_a_cancelled_message_is_ready_again(broker: Broker) -> None:
    queue = broker.queue("jobs")
    broker.publish_many("jobs", range(5))
    held = broker.consume("jobs", 4)
    assert removing.cancel(queue, held[1].id) == "leased"
    assert [message.message for message in broker.consume("jobs", 9)] == [0, 2, 3, 4]
    assert all(item.message.attempt == 1 for item in admin.items(queue, ("leased",)))


def test_a_key_tells_whether_its_message_is_there_still(broker: Broker) -> None:
    queue = broker.queue("jobs")
    assert keyed.find(queue, "k") is None
    ident = broker.publish("jobs", 1, key="k").id
    assert keyed.find(queue, "k") == (ident, True)
    broker.ack(broker.consume("jobs"))
    assert keyed.find(queue, "k") == (ident, False)
    keyed.forget(queue, "k")
    assert keyed.find(queue, "k") is None


def test_a_job_that_was_reported_leaves_nothing_once_its_message_is_gone(broker: Broker) -> None:
    queue = broker.queue("jobs")
    dispatch = Dispatch(queue, JOB.reports)
    ident = dispatch.publish("k", JOB, NO_OPTIONS)
    [message] = broker.consume("jobs")
    assert dispatch.ended() == []
    reports.write(queue, JOB.reports, reports.Report(ident, 0))
    assert [each.ident for each in dispatch.ended()] == [ident]
    assert reports.listed(queue, JOB.reports) and keyed.find(queue, "k")  # its message is there
    broker.ack(message)
    assert dispatch.ended() == []
    assert not reports.listed(queue, JOB.reports) and not keyed.find(queue, "k")


@pytest.mark.parametrize("call", ["names", "read", "drop", "lstat", "refresh"])
def test_no_end_of_a_job_is_missed_when_the_file_system_has_a_fault(
    broker: Broker, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = broker.queue("jobs")
    dispatch = Dispatch(queue, JOB.reports)
    done, late = (dispatch.publish(key, JOB, NO_OPTIONS) for key in "ab")
    broker.consume("jobs", 2)
    reports.write(queue, JOB.reports, reports.Report(done, 0))
    told = [each.ident for each in dispatch.ended()]
    reports.write(queue, JOB.reports, reports.Report(late, 4, "why"))

    def faulty(*_: object) -> None:
        raise OSError(errno.EIO, "fault")

    with monkeypatch.context() as patch:
        patch.setattr(type(queue.fs), call, faulty)
        try:
            told += [each.ident for each in dispatch.ended()]
        except StorageError:
            pass
    told += [each.ident for each in dispatch.ended()]
    assert told == [done, late]


def test_a_job_that_failed_is_published_anew_and_not_taken_for_one_that_runs(broker: Broker) -> None:
    queue = broker.queue("jobs")
    dispatch = Dispatch(queue, JOB.reports)
    first = dispatch.publish("k", JOB, NO_OPTIONS)
    [message] = broker.consume("jobs")
    reports.write(queue, JOB.reports, reports.Report(first, 2, "why"))
    assert [(each.code, each.text) for each in dispatch.ended()] == [(2, "why")]
    # Its worker lets go of it a moment later.
    threading.Timer(0.2, broker.nack, (message,), {"requeue": False}).start()
    assert dispatch.find("k", JOB, [first]) is None
    second = dispatch.publish("k", JOB, NO_OPTIONS)
    assert second != first
    assert [item.message.id for item in admin.items(queue)] == [second]


def test_nobody_takes_over_what_an_earlier_run_saw_fail_or_end_otherwise(broker: Broker) -> None:
    queue = broker.queue("jobs")
    ident = Dispatch(queue, JOB.reports).publish("k", JOB, NO_OPTIONS)
    assert Dispatch(queue, JOB.reports).find("k", JOB, []) == ident  # it waits
    other = replace(JOB, outputs=("y",))
    assert Dispatch(queue, JOB.reports).find("k", other, []) is None  # what waits says something else
    broker.consume("jobs")
    assert Dispatch(queue, JOB.reports).find("k", other, []) == ident  # what runs, runs
    reports.write(queue, JOB.reports, reports.Report(ident, 0))
    assert Dispatch(queue, JOB.reports).find("k", JOB, []) is None  # Snakemake does not know of it
    assert Dispatch(queue, JOB.reports).find("k", JOB, [ident]) == ident
    reports.write(queue, JOB.reports, reports.Report(ident, 1))
    reports.remove(queue, JOB.reports, reports.Report(ident, 0))
    assert Dispatch(queue, JOB.reports).find("k", JOB, [ident]) is None


def test_a_lease_that_is_nearly_over_by_the_file_systems_clock_is_renewed_before_a_job_is_reported(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever this host's clock says: else somebody else might be at the job when it is told to be done."""
    queue = broker.queue("jobs")
    broker.publish("jobs", jobs.Job(JOB.reports, "x", "/", shell="true").body())
    [message] = broker.consume("jobs", lease=60)
    task = Task(message, broker.root, "", "", "worker")
    before, now = message.deadline, queue.fs.now(queue.paths.tmp)
    assert before
    runner = JobRunner.__new__(JobRunner)
    runner.conclude(queue, task, Result(code=0))
    assert message.deadline == before
    monkeypatch.setattr(type(queue.fs), "now", lambda *_: now + 55)
    runner.conclude(queue, task, Result(code=0))
    assert message.deadline and message.deadline > before + 30


def test_a_process_that_was_signalled_to_its_end_says_by_what(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as output:
        process = Spawned(
            [sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ), os.devnull, output.fileno()
        )
        process.signal(signal.SIGTERM)
        end = process.wait()
        process.signal(signal.SIGTERM)  # nothing, whoever has the number now
    assert (end.signal, end.code, end.seen) == (signal.SIGTERM, 143, True)


def test_options_of_a_job_are_checked_as_any() -> None:
    with pytest.raises(BadMessage):
        Options.checked(slots=0)
    with pytest.raises(BadMessage):
        Options.checked(memory="a lot")
