"""Workers under everything that a real Slurm does to its jobs: warnings, limits, cancelling, requeueing, preemption,
crashes of nodes, a node's daemon that dies alone, a controller that is away."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for
from slurm_site import Site

from ddmq_hpc import journal
from ddmq_hpc.broker import Broker

pytestmark = pytest.mark.slurm

#: Workers share one kernel here, so that dead ones would be recognised by their process ids. In a PID namespace of its
#: own a worker is on another machine as far as that goes: then only the scheduler can tell.
ELSEWHERE = "unshare --pid --fork --mount-proc --kill-child "
#: Writes its number down when it begins and when it ends; `>>` and not `>`: what is done twice shows.
LONG = "echo {} >> begun; sleep %s && echo {} >> done"


class Workers(Site):
    """A queue whose leases last an hour, and batch jobs with workers on it."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        super().__init__(cluster, home)
        self.broker = Broker(self.root)

    def job(self, work: str, *options: str, before: str = "") -> str:
        """A batch job that runs a worker: its id. `work` are options and command of `ddmq-hpc work`."""
        script = self.home / "job.sh"
        script.write_text(
            f"#!/bin/bash\ncd {self.home}\nexec {before}ddmq-hpc work {self.root} tasks --lease 1h {work}\n"
        )
        log = f"--output={self.home}/%j.out"
        return self.run("sbatch", "--parsable", "--open-mode=append", log, *options, str(script)).split(";")[0]

    def lines(self, name: str) -> list[str]:
        path = self.home / name
        return path.read_text().split() if path.exists() else []

    def wait_for_lines(self, name: str, count: int, seconds: float = 60) -> None:
        wait_for(lambda: len(self.lines(name)) >= count, seconds, f"{count} lines in {name}\n{self.output()}")

    def records(self, state: str) -> list[dict[str, Any]]:
        queue = self.broker.queue("tasks")
        return [record for record in journal.read(queue.fs, queue.paths) if record["state"] == state]

    def counts(self) -> dict[str, int]:
        [status] = json.loads(self.ddmq("status", self.root, "tasks", "--format", "json"))["queues"]
        return {state: status[state] for state in ("ready", "leased", "delayed", "dead") if status[state]}

    def tries(self) -> list[tuple[int, int]]:
        """(failed, lost) of the messages that are ready."""
        found = self.broker.consume("tasks", 100)
        self.broker.release(found)
        return [(message.failed, message.lost) for message in found]


@pytest.fixture
def workers(cluster: Cluster, tmp_path: Path) -> Iterator[Workers]:
    yield Workers(cluster, tmp_path)
    cluster.cancel_all()  # what a test leaves that failed


def test_2000_tasks_over_an_array_of_32_workers_are_done_once_each(workers: Workers) -> None:
    """With at most five commands to the scheduler for 1,000 tasks, beside the submission."""
    workers.publish(2000)
    calls = workers.count_commands("squeue", "sacct", "scontrol", "sinfo", "scancel")
    jobs = workers.submit(
        "--workers", "32", "--time", "10m", "--", "sh", "-c", "echo {} $SLURM_ARRAY_TASK_ID >> by-$SLURM_JOB_ID"
    )
    before = len(calls())  # of the submission
    for job in jobs:
        assert set(workers.cluster.wait(job, 240).values()) == {"COMPLETED"}, workers.output()
    lines = [line.split() for log in workers.home.glob("by-*") for line in log.read_text().splitlines()]
    assert sorted(int(number) for number, _ in lines) == list(range(2000))
    assert len({task for _, task in lines}) > 16
    assert workers.counts() == {}
    assert len(calls()) - before <= 10, calls()


def test_warnings_cancelling_and_requeueing_give_tasks_back_uncounted(workers: Workers) -> None:
    workers.publish(3)
    work = f"--grace 1 -j 1 --max-tasks 1 -- sh -c '[ -e again ] || {{ {LONG % 300}; }}'"
    warned, cancelled, requeued = (workers.job(work, "--requeue") for _ in range(3))
    workers.wait_for_lines("begun", 3)
    (workers.home / "again").touch()
    workers.run("scancel", "--signal=USR1", "--batch", warned)
    workers.run("scancel", cancelled)
    assert set(workers.cluster.wait(warned).values()) == {"COMPLETED"}, workers.output()
    workers.cluster.wait(cancelled)
    assert workers.counts() == {"ready": 2, "leased": 1}, workers.output()
    workers.run("scontrol", "requeue", requeued)
    wait_for(lambda: workers.counts() == {"ready": 3}, 20, "the task of the requeued job")
    assert workers.tries() == [(0, 0)] * 3
    # the requeued job starts again by itself and does one of them
    assert set(workers.cluster.wait(requeued, 120).values()) == {"COMPLETED"}, workers.output()
    assert workers.counts() == {"ready": 2}
    assert not workers.records("nacked") + workers.records("lost")


def test_a_time_limit_is_met_with_a_warning_or_without(workers: Workers) -> None:
    """Jobs of a minute: one is warned by Slurm, one asks when it ends, one is killed while its task will not stop."""
    workers.publish(3)
    stubborn = "-- sh -c 'trap \"\" TERM USR1; echo {} >> begun; sleep 300 & wait; sleep 300'"
    warned = workers.job(f"--walltime 1h --grace 1 -- sh -c '{LONG % 300}'", "--time=1", "--signal=B:USR1@20")
    workers.wait_for_lines("begun", 1)
    asking = workers.job(f"--grace 2 -- sh -c '{LONG % 301}'", "--time=1")
    workers.wait_for_lines("begun", 2)
    killed = workers.job(f"--walltime 1h --grace 60 {stubborn}", "--time=1")
    workers.wait_for_lines("begun", 3)
    assert set(workers.cluster.wait(warned, 150).values()) == {"COMPLETED"}, workers.output()
    assert "SIGUSR1" in (workers.home / f"{warned}.out").read_text()
    assert set(workers.cluster.wait(asking, 150).values()) == {"COMPLETED"}, workers.output()
    assert "its job is about to end" in (workers.home / f"{asking}.out").read_text()
    assert set(workers.cluster.wait(killed, 150).values()) == {"TIMEOUT"}, workers.output()
    wait_for(
        lambda: workers.ddmq("clean", workers.root, "tasks") is not None and workers.counts() == {"ready": 3},
        30,
        "the third task",
    )
    assert sorted(workers.tries()) == [(0, 0), (0, 0), (0, 1)], workers.output()


def test_preemption_by_an_urgent_partition_loses_nothing(workers: Workers) -> None:
    workers.publish(24)
    for _ in range(8):
        workers.job(
            f"--grace 1 --until drained --idle-exit 90s --walltime 10m -- sh -c '{LONG % 6}'",
            "--cpus-per-task=4",
            "--requeue",
        )
    workers.wait_for_lines("begun", 8)
    urgent = workers.run("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "sleep 3")
    workers.cluster.wait(urgent, 120)
    wait_for(lambda: workers.counts() == {}, 180, f"the queue to be empty\n{workers.output()}")
    done = Counter(workers.lines("done"))
    assert sorted(map(int, done)) == list(range(24))
    assert set(done.values()) == {1}, workers.output()
    assert not workers.records("nacked") + workers.records("lost"), workers.output()
    assert workers.records("released")  # preempted in mid-task


def test_a_node_that_crashes_gives_its_tasks_up_within_a_minute_of_slurm_noticing(workers: Workers) -> None:
    workers.publish(2)
    task = f"-- sh -c '[ -e again ] && echo {{}} >> done || {{ {LONG % 600}; }}'"
    first = workers.job(f"-j 2 {task}", "--nodelist=node2", "--no-requeue", before=ELSEWHERE)
    workers.wait_for_lines("begun", 2)
    # another one waits, and knows of the first by its leases alone
    workers.job(f"--until drained {task}", "--nodelist=node3", before=ELSEWHERE)
    (workers.home / "again").touch()
    workers.cluster.crash_node("node2")
    try:
        wait_for(lambda: set(workers.cluster.states(first).values()) == {"NODE_FAIL"}, 90, "Slurm to notice")
        noticed = time.monotonic()
        workers.wait_for_lines("done", 2, 75)
        assert time.monotonic() - noticed < 75
    finally:
        workers.cluster.start_node("node2")
        workers.cluster.wait_for_nodes()
    assert sorted(workers.lines("done")) == ["0", "1"]
    assert [record["attempt"] for record in workers.records("lost")] == [1] * len(workers.records("lost"))
    assert {record["attempt"] for record in workers.records("acked")} == {2}
    assert not workers.records("nacked")


def test_when_only_the_daemon_of_a_node_dies_the_old_holder_learns_that_its_lease_is_lost(workers: Workers) -> None:
    """Split brain: Slurm takes the job for dead while its task goes on. It is done twice, and counted once."""
    workers.publish(1)
    first = workers.job(
        f"--on-lost=finish -- sh -c '{LONG % 75}'", "--nodelist=node4", "--no-requeue", before=ELSEWHERE
    )
    workers.wait_for_lines("begun", 1)
    workers.cluster.kill_node_daemon("node4")
    try:
        wait_for(lambda: set(workers.cluster.states(first).values()) == {"NODE_FAIL"}, 90, "Slurm to notice")
        found = json.loads(workers.ddmq("recover", workers.root, "tasks", "--format", "json"))
        assert found, found
        assert workers.counts() == {"ready": 1}
        assert workers.tries() == [(0, 1)]
        workers.run("ddmq-hpc", "work", workers.root, "tasks", "--", "sh", "-c", "echo {} >> elsewhere")
        assert workers.lines("elsewhere") == ["0"]
        workers.wait_for_lines("done", 1, 120)
        wait_for(lambda: "1 lost" in workers.output(), 60, f"the old worker to say so\n{workers.output()}")
    finally:
        workers.cluster.start_node("node4")
        workers.cluster.wait_for_nodes()
    # The old worker looks at its lease every half minute, and tells nothing of what it has lost; an outcome that came
    # too late all the same would be taken back.
    told, late = ([one["attempt"] for one in workers.records(state)] for state in ("acked", "late"))
    assert [attempt for attempt in told if attempt not in late] == [2]
    assert workers.counts() == {}


def test_work_goes_on_while_the_controller_is_away(workers: Workers) -> None:
    workers.publish(150)
    jobs = [
        workers.job("-j 2 --walltime 10m -- sh -c 'sleep 0.3; echo {} >> done'", before=ELSEWHERE) for _ in range(3)
    ]
    workers.wait_for_lines("done", 6)
    workers.cluster.stop_controller()
    try:
        said = workers.ddmq("recover", workers.root, "tasks")
        assert "0 have ended" in said
        assert "unknown: no clear answer" in said
        wait_for(lambda: workers.counts() == {}, 120, "the queue to be empty")
    finally:
        workers.cluster.start_controller()
        workers.cluster.wait_for_nodes()
    assert sorted(map(int, workers.lines("done"))) == list(range(150))
    assert not workers.records("lost") + workers.records("nacked")
    for job in jobs:
        workers.cluster.wait(job)


def test_scale_brings_workers_up_for_1000_tasks_and_they_go_when_it_is_empty(workers: Workers) -> None:
    workers.publish(1000)
    scale = (
        "scale",
        workers.root,
        "tasks",
        "--min",
        "0",
        "--max",
        "8",
        "--time",
        "5m",
        "--",
        "sh",
        "-c",
        "echo {} >> done",
    )
    workers.ddmq(*scale)
    workers.ddmq(*scale)  # cron comes again
    wait_for(lambda: workers.counts() == {}, 120, f"the queue to be empty\n{workers.output()}")
    wait_for(lambda: not workers.run("squeue", "--noheader"), 60, f"the workers to end\n{workers.output()}")
    assert sorted(map(int, workers.lines("done"))) == list(range(1000))
    workers.ddmq(*scale)
    assert not workers.run("squeue", "--noheader")  # nothing to do, no worker
