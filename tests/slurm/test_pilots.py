"""Snakemake's jobs on pilot workers: the example `workflows/pilot-workers` on a real cluster, and what a job costs."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, wait_for
from counting import CountedCommands

from ddmq_hpc import Broker, journal

if sys.version_info < (3, 11):
    pytest.skip("Snakemake wants Python 3.11", allow_module_level=True)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

TOP = Path(__file__).resolve().parents[2]
EXAMPLE = TOP / "workflows" / "pilot-workers"
BENCHMARK = TOP / "benchmarks" / "snakemake.py"
#: Seconds after which a run has failed, whatever this machine does besides.
PATIENCE = 600
#: On one host: fewer pilots, which end sooner, on nodes of a gigabyte.
SMALLER = {"--workers 8": "--workers 3", "--mem=4G": "--mem=1000", "--snakemake": "--snakemake -W --idle-exit=20s"}


class Run:
    """A copy of the example, and the commands of its README."""

    def __init__(self, home: Path, env: dict[str, str], path: str) -> None:
        self.home = home / "pilot-workers"
        shutil.copytree(EXAMPLE, self.home)
        self.env = {**env, "PATH": path, "XDG_CACHE_HOME": str(home / "cache")}
        self.readme = (self.home / "README.md").read_text(encoding="utf-8")

    def printed(self, *words: str) -> str:
        """The one command of the README that has all these words."""
        lines = [
            line for block in re.findall(r"```sh\n(.*?)```", self.readme, re.DOTALL) for line in block.splitlines()
        ]
        found = {line for line in lines if all(word in line for word in words)}
        assert len(found) == 1, found
        return found.pop()

    def start(self, command: str) -> subprocess.Popen[bytes]:
        with open(self.home / "run.log", "ab") as log:
            return subprocess.Popen(shlex.split(command), cwd=self.home, env=self.env, stdout=log, stderr=log)

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.home, env=self.env, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def broker(self) -> Broker:
        return Broker(self.home / "queues")

    def waiting(self) -> int:
        return self.broker.stats("jobs").ready

    def logs(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()[-4000:]}" for log in sorted(self.home.glob("*.[lo][ou][gt]")))

    def outcomes(self) -> list[dict[str, Any]]:
        queue = self.broker.queue("jobs")
        return list(journal.read(queue.fs, queue.paths))

    def table(self) -> list[dict[str, str]]:
        with (self.home / "results/table.tsv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))


def smaller(command: str) -> str:
    for words, others in SMALLER.items():
        command = command.replace(words, others)
    assert "10m" not in command
    return command


def test_a_thousand_jobs_on_one_array_of_pilots(cluster: Cluster, tmp_path: Path) -> None:
    """Each is done once, and the pilots end by themselves. The scheduler is called twice to submit them, and asked
    once a minute whether those that hold jobs are still there, however many jobs: three calls in a minute."""
    counted = CountedCommands(tmp_path, f"{Path(sys.executable).parent}:{cluster.env['PATH']}")
    run = Run(tmp_path, cluster.env, counted.path)
    run.run(run.printed("ddmq-hpc create"))
    before = time.time()
    snakemake = run.start(run.printed("--workflow-profile", "profiles/slurm"))
    try:
        wait_for(lambda: run.waiting() > 0 or snakemake.poll() is not None, PATIENCE, "the first jobs")
        submitted = run.run(smaller(run.printed("ddmq-hpc submit", "--mem=")))
        job = re.fullmatch(r"(\d+)\t3 workers\n", submitted)
        assert job, submitted
        assert snakemake.wait(PATIENCE) == 0, run.logs()
    finally:
        snakemake.kill()
        snakemake.wait()
    states = cluster.wait(job[1], PATIENCE)
    assert Counter(states.values()) == {"COMPLETED": 3}, run.logs()
    assert not cluster.processes(str(run.home)), "something is left"

    # released is what a pilot put back because it had no room for it
    outcomes = run.outcomes()
    assert {one["state"] for one in outcomes} <= {"acked", "released", "worker"}, run.logs()
    done = [one for one in outcomes if one["state"] == "acked"]
    assert (len(done), len({one["id"] for one in done})) == (1000, 1000)
    assert {one["attempt"] for one in done} == {1}
    minutes = time.time() // 60 - before // 60
    calls = counted.counts()
    assert (calls["sbatch"], calls["scontrol"]) == (1, 1)
    assert sum(calls.values()) <= 3 + max(0, minutes - 1), calls

    rows = run.table()
    assert [row["density"] for row in rows] == [f"0.{percent}" for percent in range(46, 73)]
    for row in rows:
        paths = (run.home / "results/lattices" / row["density"]).glob("*.json")
        lattices = [json.loads(path.read_text()) for path in paths]
        assert sorted(one["seed"] for one in lattices) == list(range(1, 37))
        assert {one["density"] for one in lattices} == {row["density"]}
        assert float(row["spanning"]) == pytest.approx(sum(one["spans"] for one in lattices) / 36, abs=0.001)
        assert float(row["largest"]) == pytest.approx(sum(one["largest"] for one in lattices) / 36, abs=0.001)
    again = run.run("python workflow/scripts/percolation.py 0.59 7 --size 48")
    assert again == (run.home / "results/lattices/0.59/7.json").read_text()
    found = re.match(r"threshold: ([\d.]+),", (run.home / "logs/table.log").read_text())
    assert found and abs(float(found[1]) - 0.5927) < 0.01


def test_the_profile_for_pbs_and_the_script_of_its_pilots(tmp_path: Path) -> None:
    """There is no PBS here: the job script is run as PBS would, by a shell."""
    env = {"HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    run = Run(tmp_path, env, f"{Path(sys.executable).parent}:/usr/bin:/bin")
    run.run(run.printed("ddmq-hpc create"))
    workflow = run.printed("--workflow-profile", "profiles/pbs")
    assert re.search(r"^total +1001$", run.run(f"{workflow} --dry-run"), re.MULTILINE)
    submit = run.printed("ddmq-hpc submit", "--scheduler pbs")
    script = run.run(f"{smaller(submit)} --dry-run")
    for line in ("#PBS -J 1-3", "#PBS -l select=1:ncpus=4", "#PBS -l walltime=01:00:00"):
        assert line in script.splitlines()
    (run.home / "pilot.sh").write_text(script)
    run.run("bash -n pilot.sh")

    snakemake = run.start(f"{workflow} --config lowest=59 highest=60 lattices=2")
    try:
        wait_for(lambda: run.waiting() > 0 or snakemake.poll() is not None, PATIENCE, "the first jobs")
        run.run("bash pilot.sh")
        assert snakemake.wait(PATIENCE) == 0, run.logs()
    finally:
        snakemake.kill()
        snakemake.wait()
    assert [(row["density"], row["lattices"]) for row in run.table()] == [("0.59", "2"), ("0.60", "2")]
    assert [one["state"] for one in run.outcomes()].count("acked") == 7


def measured(kind: str, *options: str) -> dict[str, float]:
    """What the benchmark finds, on a cluster of its own."""
    command = [sys.executable, str(BENCHMARK), kind, "--rounds", "1", "--pilots", "1", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)[kind]
    return dict(found)


@pytest.mark.usefixtures("cluster")
def test_a_job_on_a_pilot_costs_a_seventh_of_a_batch_job() -> None:
    """0.15 of the CPU time. The start of a pilot takes as much as some thirty jobs, so there have to be some."""
    pilots = measured("ddmq fork", "--jobs", "60")
    generic = measured("cluster-generic", "--jobs", "8")
    assert pilots["cpu"] <= 0.15 * generic["cpu"], (pilots, generic)
    assert pilots["calls"] <= 3, pilots
