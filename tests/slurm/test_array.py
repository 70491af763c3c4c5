"""A real Slurm job array drains a real queue with the job script that users get."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from cluster import Cluster, wait_for

pytestmark = pytest.mark.slurm

SCRIPT = str(Path(__file__).parents[2] / "slurm" / "array.sbatch")


class Work:
    """One queue in a fresh root, its tasks, and the jobs that drain it."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.home = home
        self.root = str(home / "root")
        # jobs find the command that belongs to the interpreter of this test
        self.path = f"{Path(sys.executable).parent}:{cluster.env['PATH']}"
        self.ddmq("create", "-f", self.root, "tasks")

    def ddmq(self, *arguments: str) -> str:
        return self.cluster.run("ddmq-hpc", *arguments, PATH=self.path)

    def publish(self, *commands: str) -> None:
        lines = self.home / "commands.txt"
        lines.write_text("".join(f"{command}\n" for command in commands))
        self.ddmq("publish", self.root, "tasks", "--each-line", str(lines))

    def submit(self, tasks: int, **env: str) -> str:
        log = f"--output={self.home}/%a.out"
        return self.cluster.submit(f"--array=1-{tasks}", log, SCRIPT, self.root, "tasks", PATH=self.path, **env)

    def counts(self) -> dict[str, int]:
        [status] = json.loads(self.ddmq("status", self.root, "tasks", "--format", "json"))["queues"]
        return {state: status[state] for state in ("ready", "leased", "delayed", "dead")}

    def output(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(self.home.glob("*.out")))


EMPTY = {"ready": 0, "leased": 0, "delayed": 0, "dead": 0}


@pytest.fixture
def work(cluster: Cluster, tmp_path: Path) -> Work:
    return Work(cluster, tmp_path)


def test_20_jobs_on_4_nodes_do_200_tasks_once_each(work: Work) -> None:
    source, results = work.home / "in", work.home / "results"
    source.mkdir()
    results.mkdir()
    for n in range(200):
        (source / f"{n}").write_bytes(f"sample {n}\n".encode() * 1000)
    # `>>` and not `>`: a task done twice leaves two lines
    task = 'echo "$(sha256sum < {0}/{n} | cut -c1-64) $SLURMD_NODENAME $SLURM_ARRAY_TASK_ID" >> {1}/{n}'
    work.publish(*(task.format(source, results, n=n) for n in range(200)))

    states = work.cluster.wait(work.submit(20), timeout=240)

    assert len(states) == 20
    assert set(states.values()) == {"COMPLETED"}, work.output()
    done = {int(file.name): [line.split() for line in file.read_text().splitlines()] for file in results.iterdir()}
    assert {n: len(lines) for n, lines in done.items()} == dict.fromkeys(range(200), 1), work.output()
    for n, [(digest, _, _)] in done.items():
        assert digest == hashlib.sha256((source / f"{n}").read_bytes()).hexdigest()
    assert {node for [(_, node, _)] in done.values()} == set(work.cluster.nodes)
    assert work.counts() == EMPTY


@pytest.mark.parametrize("how", [("--signal=USR1", "--batch"), ()], ids=["warned", "cancelled"])
def test_a_job_that_must_end_gives_its_message_back(work: Work, how: tuple[str, ...]) -> None:
    """`scancel --signal=USR1` is what Slurm sends ahead of a time limit, plain `scancel` what a user does."""
    log = work.home / "log"
    # the first attempt would take long, in a child of a child: all processes of a task must end
    endless = f'{{ [ "$(wc -l < {log})" -gt 1 ] || sh -c "sleep 987 && :"; }}'
    work.publish(f"echo start >> {log}; {endless} && echo done >> {log}")
    first = work.submit(1)
    wait_for(lambda: log.exists() and "start" in log.read_text(), 60, "the task to start")

    work.cluster.run("scancel", *how, first)
    states = work.cluster.wait(first)

    assert set(states.values()) == {"COMPLETED" if how else "CANCELLED"}, work.output()
    assert work.counts() == {**EMPTY, "ready": 1}, work.output()
    assert not work.cluster.processes("sleep 987")

    second = work.submit(1)
    assert set(work.cluster.wait(second).values()) == {"COMPLETED"}, work.output()
    assert log.read_text() == "start\nstart\ndone\n"
    assert work.counts() == EMPTY


def test_a_task_may_take_longer_than_its_lease(work: Work) -> None:
    """The heartbeat of the job that runs it keeps it from the others, which go on looking."""
    log = work.home / "log"
    work.publish(f"echo start >> {log}; sleep 9", *["sleep 1"] * 20)

    states = work.cluster.wait(work.submit(4, LEASE="5"))

    assert set(states.values()) == {"COMPLETED"}, work.output()
    assert log.read_text() == "start\n", work.output()
    assert work.counts() == EMPTY
    assert "lease lost" not in work.output()


def test_a_task_that_fails_is_tried_again_and_kept(work: Work) -> None:
    tries = work.home / "tries"
    work.publish(f"echo $DDMQ_HPC_ATTEMPT >> {tries}; exit 7", "true")
    (Path(work.root) / "tasks" / "ddmq.yaml").write_text("requeue: true\nrequeue_limit: 2\n")

    states = work.cluster.wait(work.submit(2))

    assert set(states.values()) == {"COMPLETED"}, work.output()
    assert len(tries.read_text().split()) == 3, work.output()
    assert work.counts() == {**EMPTY, "dead": 1}
