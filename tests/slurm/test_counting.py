"""What workers ask of the scheduler."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cluster import Cluster
from counting import CountedCommands

from ddmq_hpc.broker import Broker

pytestmark = pytest.mark.slurm

SCRIPT = str(Path(__file__).parents[2] / "slurm" / "worker.sbatch")


def test_the_counter_counts(cluster: Cluster, tmp_path: Path) -> None:
    counted = CountedCommands(tmp_path, cluster.env["PATH"])
    job = cluster.submit("--hold", "--wrap=true", PATH=counted.path)
    cluster.run("squeue", PATH=counted.path)
    cluster.run("scancel", job, PATH=counted.path)
    cluster.run("squeue", PATH=counted.path)
    assert counted.counts() == {"squeue": 2, "scancel": 1, "sbatch": 1}


def test_workers_ask_little(cluster: Cluster, tmp_path: Path) -> None:
    """1,000 tasks of an array: five commands at most, besides the one that submitted it."""
    counted = CountedCommands(tmp_path, f"{Path(sys.executable).parent}:{cluster.env['PATH']}")
    broker = Broker(tmp_path / "root", create=True)
    broker.publish_many("tasks", range(1000))
    options = ("--array=1-8", "--time=10", f"--output={tmp_path}/%a.out")
    job = cluster.submit(*options, SCRIPT, broker.root, "tasks", "-j", "2", "--", "true", PATH=counted.path)
    states = cluster.wait(job, 240)
    output = "\n".join(path.read_text() for path in tmp_path.glob("*.out"))
    assert set(states.values()) == {"COMPLETED"}, output
    row = broker.stats("tasks")
    assert (row.ready, row.leased, row.dead) == (0, 0, 0), output
    asked = counted.counts()
    assert asked.pop("sbatch") == 1
    assert sum(asked.values()) <= 5, asked
