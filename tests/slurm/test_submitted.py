"""Workers that `submit` and `scale` put on a real cluster, with the job scripts that come with the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torque
from cluster import Cluster, wait_for
from slurm_site import Site

pytestmark = pytest.mark.slurm

SCRIPTS = Path(__file__).parents[2] / "slurm"
#: Each task says that it was done: `>>` and not `>`, so that what is done twice shows.
TASK = ("sh", "-c", "echo {} >> done")


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


@pytest.fixture(scope="session")
def qsub(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of Slurm's own qsub."""
    if reason := torque.why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return torque.unpack(tmp_path_factory.mktemp("torque"), cluster.env["PATH"])


def assert_completed(site: Site, jobs: list[str]) -> None:
    for job in jobs:
        assert set(site.cluster.wait(job).values()) == {"COMPLETED"}, site.output()


def test_submitted_workers_do_each_task_once(site: Site) -> None:
    site.publish(100)
    jobs = site.submit("--workers", "6", "--slots", "2", "--throttle", "4", "--time", "5m", "--", *TASK)
    assert_completed(site, jobs)
    assert site.done() == list(range(100)), site.output()
    assert site.left() == 0


def test_submission_above_the_limit_of_arrays(site: Site) -> None:
    """Slurm refuses an index of MaxArraySize; `submit` asks what it is."""
    site.publish(3)
    limit = int(site.run("sh", "-c", "scontrol show config | sed -n 's/^MaxArraySize *= //p'"))
    jobs = site.submit("--workers", str(limit + 3), "--time", "5m", "-O", "--hold", "--", *TASK)
    assert len(jobs) == 2
    assert [len(site.cluster.states(job)) for job in jobs] == [(limit + 4) // 2, (limit + 3) // 2]
    site.run("scancel", *jobs)


def test_scale_brings_workers_up_and_none_for_nothing(site: Site) -> None:
    site.publish(60)
    first = ("scale", site.root, "tasks", "--max", "1", "--time", "5m", "-O", "--hold", "--", *TASK)
    assert site.ddmq(*first).endswith("\t1 worker")
    # workers that wait to be started are not submitted a second time
    assert site.ddmq(*first) == ""
    job, count = site.ddmq("scale", site.root, "tasks", "--max", "4").split("\t")
    assert count == "3 workers"
    assert site.ddmq("scale", site.root, "tasks", "--max", "4") == ""
    held = site.run("sh", "-c", "squeue --noheader --me --format=%F | sort -u").split()
    assert len(held) == 2
    assert len(site.cluster.states(job)) == 3
    site.run("scontrol", "release", *held)
    assert_completed(site, held)
    assert site.done() == list(range(60)), site.output()
    assert site.ddmq("scale", site.root, "tasks", "--max", "4") == "", "there is nothing to do"


def test_an_unclear_answer_submits_nothing(site: Site) -> None:
    site.publish(5)
    site.submit("--workers", "1", "--time", "5m", "-O", "--hold", "--", *TASK)
    site.env["SLURM_CONF"] = "/nonexistent"
    site.ddmq("scale", site.root, "tasks", "--max", "4", code=75)


def test_what_slurm_refuses_is_said(site: Site) -> None:
    command = ("ddmq-hpc", "submit", site.root, "tasks", "--workers", "1", "-O", "--partition=none", "--", *TASK)
    done = subprocess.run(command, env=site.env, cwd=site.home, capture_output=True, text=True)
    assert done.returncode == 1
    assert "invalid partition specified" in done.stderr
    assert not list(Path(site.root, "tasks", "workers").iterdir())


def test_the_script_of_workers_runs_as_it_is(site: Site) -> None:
    site.publish(40)
    script = str(SCRIPTS / "worker.sbatch")
    job = site.run("sbatch", "--parsable", "--array=1-4", script, site.root, "tasks", "-j", "2", "--", *TASK)
    assert_completed(site, [job])
    assert site.done() == list(range(40)), site.output()


def test_workers_are_warned_before_their_time_is_up(site: Site) -> None:
    """`scancel --batch` signals what Slurm warns ahead of the limit: the batch process, which is the worker."""
    site.publish(2)
    [job] = site.submit(
        "--workers", "1", "--slots", "2", "--time", "5m", "--", "sh", "-c", "echo {} >> done; sleep 600"
    )
    wait_for(lambda: len(site.done()) == 2, 60, "the tasks to start")
    site.run("scancel", "--signal=USR1", "--batch", job)
    assert_completed(site, [job])
    [status] = json.loads(site.ddmq("status", site.root, "tasks", "--format", "json"))["queues"]
    assert status["ready"] == 2, site.output()


def test_a_chain_goes_on_until_nothing_is_left(site: Site) -> None:
    """Three workers have 15 s each for tasks of half a second: they end at about the same time, with work left."""
    site.publish(100)
    task = ("sh", "-c", "sleep 0.5; echo {} >> done")
    [first] = site.submit("--workers", "3", "--time", "1m", "--margin", "45s", "--chain", "--", *task)
    assert_completed(site, [first])
    assert 3 <= len(site.done()) < 100, site.output()
    jobs = {first}

    def is_over() -> bool:
        jobs.update(path.stem.rpartition("-")[2] for path in Path(site.root, "tasks", "workers").glob("job-*.json"))
        return len(site.done()) == 100 and all("RUNNING" not in site.cluster.states(job).values() for job in jobs)

    try:
        wait_for(is_over, 120, "the chain to end")
    except AssertionError as late:
        raise AssertionError(site.output()) from late
    assert_completed(site, sorted(jobs))
    assert site.done() == list(range(100)), site.output()
    # 100 tasks take 50 s, less what waits for workers to start; each link of the chain has 45 s of work
    assert 2 <= len(jobs) <= 4, (jobs, site.output())


class TestPBSScriptsOnSlurm:
    """Slurm's `qsub` takes PBS scripts; the jobs are Slurm's."""

    @pytest.fixture
    def pbs(self, cluster: Cluster, qsub: Path, tmp_path: Path) -> Site:
        return Site(cluster, tmp_path, qsub)

    def test_submit(self, pbs: Site) -> None:
        pbs.publish(40)
        jobs = pbs.submit("--scheduler", "pbs", "--workers", "4", "--time", "5m", "--", *TASK)
        shown = pbs.run("scontrol", "show", "job", jobs[0])
        assert "JobName=ddmq-hpc" in shown
        assert "TimeLimit=00:05:00" in shown
        assert_completed(pbs, jobs)
        assert pbs.done() == list(range(40)), pbs.output()
        logs = list(pbs.home.glob("ddmq-hpc.o*"))
        assert len(logs) == 4, "a file a task"
        assert pbs.ddmq("scale", pbs.root, "tasks", "--max", "3") == "", "there is nothing to do"

    def test_the_script_of_workers_runs_as_it_is(self, pbs: Site) -> None:
        pbs.publish(20)
        pbs.env.update(DDMQ_HPC_ROOT=pbs.root, DDMQ_HPC_QUEUE="tasks", DDMQ_HPC_WORK="-- sh -c 'echo {} >> done'")
        job = pbs.run("qsub", "-t", "1-3", str(SCRIPTS / "worker.pbs"))
        assert_completed(pbs, [job])
        assert pbs.done() == list(range(20)), pbs.output()

    def test_the_script_of_pull_and_ack_runs_as_it_is(self, pbs: Site) -> None:
        (pbs.home / "numbers").write_text("".join(f"echo {n} >> {pbs.home}/done\n" for n in range(12)))
        pbs.ddmq("publish", pbs.root, "tasks", "--each-line", "numbers")
        pbs.env.update(DDMQ_HPC_ROOT=pbs.root, DDMQ_HPC_QUEUE="tasks")
        job = pbs.run("qsub", "-t", "1-3", str(SCRIPTS / "array.pbs"))
        assert_completed(pbs, [job])
        assert pbs.done() == list(range(12)), pbs.output()
        assert pbs.left() == 0

    def test_it_gives_back_what_a_signal_to_all_of_it_ended(self, pbs: Site) -> None:
        """PBS sends TERM to every process of a job."""
        line = f"echo 1 >> {pbs.home}/done; sleep 321"
        pbs.ddmq("publish", pbs.root, "tasks", line)
        pbs.env.update(DDMQ_HPC_ROOT=pbs.root, DDMQ_HPC_QUEUE="tasks")
        job = pbs.run("qsub", "-t", "1-1", str(SCRIPTS / "array.pbs"))
        wait_for(lambda: bool(pbs.done()), 60, "the task to start")
        pbs.run("scancel", "--signal=TERM", "--full", job)
        pbs.cluster.wait(job)
        [status] = json.loads(pbs.ddmq("status", pbs.root, "tasks", "--format", "json"))["queues"]
        assert status["ready"] == 1, pbs.output()
        assert not pbs.cluster.processes("sleep 321")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The commands of an environment in which the package was installed from its wheel, with no checkout beside it."""
    home = tmp_path_factory.mktemp("installed")
    top = SCRIPTS.parent
    source = home / "source"
    source.mkdir()
    for name in ("ddmq_hpc", "docs", "slurm", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (top / name).is_dir() else shutil.copy
        copy(top / name, source / name)
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", str(home / "venv")], check=True)
    pip = [str(home / "venv/bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", str(source)]
    subprocess.run(pip, check=True, capture_output=True, timeout=200)
    shutil.rmtree(source)
    yield home / "venv" / "bin"


def test_the_scripts_come_with_the_installed_package(site: Site, installed: Path) -> None:
    site.publish(10)
    command = (str(installed / "ddmq-hpc"), "submit", site.root, "tasks", "--workers", "2", "--time", "5m", "--", *TASK)
    job = site.run(*command).split("\t")[0]
    assert_completed(site, [job])
    assert site.done() == list(range(10)), site.output()
