"""Of all workers of a submission that near their end, one submits the next ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sites import Site

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import SchedulerBusy, SchedulerError
from ddmq_hpc.submission import successor

_ASK = """
import os, sys, time
from ddmq_hpc.broker import Broker
from ddmq_hpc.submission import successor
while time.time() < float(sys.argv[2]): time.sleep(0.001)
print(successor(Broker(sys.argv[1]), "tasks", os.environ))
"""


@pytest.fixture
def chain(site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A submission with a backlog; the environment of its third worker."""
    site.publish(1000)
    site.submit("--workers", "4", "--time", "2h", "--chain", "--", "./run", "{}")
    for name in ("PATH", "FAKE"):
        monkeypatch.setenv(name, site.env[name])
    job = site.records()[0]["job"]
    return {"SLURM_JOB_ID": "99999", "SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": "3", "SLURM_CLUSTER_NAME": "c"}


def test_16_workers_that_end_at_once_have_one_successor(site: Site, chain: dict[str, str]) -> None:
    import time

    start = str(time.time() + 3)
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", _ASK, site.root, start],
            env={**site.env, **chain, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": str(10**6 + task)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for task in range(16)
    ]
    said = [process.communicate(timeout=60)[0].strip() for process in asked]
    assert len(said) - said.count("None") == 1, said
    assert len(site.jobs()) == 2
    follower = next(record for record in site.records() if record["job"] in said)
    assert follower["request"]["command"] == ["./run", "{}"]
    assert follower["tasks"] == 4, "as the backlog takes, but no more than were asked for"
    # The successor's workers have a successor of their own.
    assert successor(Broker(site.root), "tasks", {**chain, "SLURM_ARRAY_JOB_ID": follower["job"]})


def test_without_a_backlog_there_is_none(site: Site, chain: dict[str, str]) -> None:
    site.broker.purge_queue("tasks")
    assert successor(Broker(site.root), "tasks", chain) is None
    site.publish(1)
    assert successor(Broker(site.root), "tasks", chain), "it was not given away"


def test_a_job_that_is_not_on_record_has_none(site: Site, chain: dict[str, str]) -> None:
    assert successor(Broker(site.root), "tasks", {**chain, "SLURM_ARRAY_JOB_ID": "1"}) is None
    assert successor(Broker(site.root), "tasks", {}) is None


def test_a_refusal_leaves_it_to_the_next_worker_but_not_for_ever(site: Site, chain: dict[str, str]) -> None:
    broker = Broker(site.root)
    (site.fake / "refuse").write_text("Unable to contact slurm controller")
    for _ in range(2):
        with pytest.raises(SchedulerBusy):
            successor(broker, "tasks", chain)
    (site.fake / "refuse").write_text("no such partition")
    with pytest.raises(SchedulerError):
        successor(broker, "tasks", chain)
    (site.fake / "refuse").unlink()
    assert successor(broker, "tasks", chain) is None
    assert len(site.jobs()) == 1


def test_when_nobody_knows_whether_it_was_submitted_nobody_tries_again(
    site: Site, chain: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddmq_hpc.submission.SUBMIT_SECONDS", 0.3)
    (site.fake / "slow").write_text("2")
    with pytest.raises(SchedulerBusy, match="may be there or not"):
        successor(Broker(site.root), "tasks", chain)
    os.unlink(site.fake / "slow")
    assert successor(Broker(site.root), "tasks", chain) is None


def test_arrays_of_one_submission_have_one_successor(site: Site, chain: dict[str, str]) -> None:
    for path in Path(site.root, "tasks", "workers").glob("job-*.json"):
        path.unlink()
    (site.fake / "scontrol").write_text("MaxArraySize            = 3\n")
    site.submit("--workers", "4", "--chain", "--shell")
    one, other = (record["job"] for record in site.records())
    broker = Broker(site.root)
    assert successor(broker, "tasks", {**chain, "SLURM_ARRAY_JOB_ID": one})
    assert successor(broker, "tasks", {**chain, "SLURM_ARRAY_JOB_ID": other}) is None
