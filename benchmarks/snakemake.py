"""Snakemake's executors beside each other on a Slurm cluster: `python benchmarks/snakemake.py [KIND...] [--rounds 3]`.

Each runs the same short jobs on a private cluster of one node with eight CPUs (see tests/slurm), as it comes. Needs
root, Slurm's commands, Snakemake and requirements.txt. Prints the table of SNAKEMAKE.md, or with --json the figures.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "slurm"))

from cluster import Cluster, why_not
from counting import CountedCommands

SNAKEFILE = """\
rule all:
    input:
        expand("out/{n}", n=range(int(config["jobs"]))),


rule one:
    output:
        "out/{n}",
    shell:
        "sleep 0.1; touch {output}"
"""
#: As the plugin's documentation has it, but that squeue is asked: there is no accounting here.
STATUS = """\
#!/bin/sh
case $(squeue --noheader --states=all --format=%T --jobs="$1") in
  COMPLETED) echo success ;;
  PENDING|CONFIGURING|RUNNING|COMPLETING|SUSPENDED) echo running ;;
  *) echo failed ;;
esac
"""
DDMQ = ("--executor", "ddmq", "--ddmq-queue", "queues/jobs", "--ddmq-mode")
GENERIC = (
    *("--executor", "cluster-generic", "--cluster-generic-status-cmd", "./status.sh"),
    *("--cluster-generic-submit-cmd", "sbatch --parsable --cpus-per-task={threads} --time=10 --output=/dev/null"),
)
SLURM = (
    *("--executor", "slurm", "--slurm-status-command", "squeue", "--slurm-no-account"),
    *("--default-resources", "slurm_partition=main", "mem_mb=100", "runtime=10"),
)
KINDS = {
    "ddmq fork": (*DDMQ, "fork"),
    "ddmq direct": (*DDMQ, "direct"),
    "ddmq plain": (*DDMQ, "plain"),
    "cluster-generic": GENERIC,
    "slurm": SLURM,
}
#: Installed for its own rows alone: where it is, each process of Snakemake loads it, which takes long and calls
#: scontrol (2.8.0).
SLURM_PLUGIN = "snakemake-executor-plugin-slurm"
#: One node, and so as many slots for each executor.
SLOTS = 8
#: Pilots wait so long for more (seconds).
IDLE = 5
#: Seconds after which a run has failed.
PATIENCE = 1800


class Orphans:
    """CPU time of the processes that this process inherits: Slurm's daemon leaves its jobs' supervisors to init, or to
    the next ancestor that asks for orphans. Of each the kernel tells what it and all that it waited for took."""

    _PR_SET_CHILD_SUBREAPER = 36

    def __init__(self) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(self._PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        self.own: set[int] = set()  # children that others wait for
        self.seconds: Counter[str] = Counter()  # by name

    def reap(self) -> bool:
        """Account for those that have ended; whether others are still there."""
        left = False
        for pid in _children() - self.own:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            found, _, usage = os.wait4(pid, os.WNOHANG)
            if found:
                self.seconds[name] += usage.ru_utime + usage.ru_stime
            left = left or not found
        return left


def _children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def install_slurm_plugin(directory: Path) -> None:
    """With the versions of what else is installed, which it would hide else."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    versions = directory.with_suffix(".txt")
    versions.write_bytes(subprocess.run([*pip, "list", "--format=freeze"], stdout=subprocess.PIPE, check=True).stdout)
    subprocess.run([*pip, "install", "-qq", "-c", versions, "--target", directory, SLURM_PLUGIN], check=True)


@contextmanager
def one_node(home: Path) -> Iterator[Cluster]:
    cluster = Cluster(home, nodes=1)
    try:
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.cancel_all()
    finally:
        cluster.stop()


def measure(
    cluster: Cluster, orphans: Orphans, home: Path, kind: str, jobs: int, pilots: int, plugins: Path
) -> dict[str, float]:
    """Run `jobs` jobs in a new directory `home`: wall time from the submission of pilots to the end of Snakemake; CPU
    time of all that Slurm started, until all of it has ended; that of the user's commands; calls of the scheduler's."""
    home.mkdir()
    (home / "Snakefile").write_text(SNAKEFILE)
    (home / "status.sh").write_text(STATUS)
    (home / "status.sh").chmod(0o755)
    counted = CountedCommands(home, f"{Path(sys.executable).parent}:{_steps(home, cluster)}:{cluster.env['PATH']}")
    env = {**cluster.env, "PATH": counted.path, "XDG_CACHE_HOME": str(home / "cache")}
    if kind == "slurm":
        env["PYTHONPATH"] = str(plugins)
    orphans.own = {daemon.pid for daemon in cluster.daemons.values()}
    orphans.seconds.clear()
    controller = 0.0

    def run(*command: str) -> str:
        """The output of a command of the user, whose CPU time is the controller's."""
        nonlocal controller
        with open(home / "log", "a+") as log, open(home / "out.log", "w+") as out:
            process = subprocess.Popen(command, cwd=home, env=env, stdout=out, stderr=log)
            orphans.own.add(process.pid)
            end = time.monotonic() + PATIENCE
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                assert time.monotonic() < end, f"{command}: not done in {PATIENCE} s"
                orphans.reap()
                time.sleep(0.1)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            orphans.own.discard(process.pid)
            controller += usage.ru_utime + usage.ru_stime
            log.seek(0)
            assert process.returncode == 0, f"{command}: {process.returncode}\n{log.read()[-4000:]}"
            out.seek(0)
            return out.read()

    if kind.startswith("ddmq"):
        run("ddmq-hpc", "create", "-f", "queues", "jobs", "--set", "timeout=1m")
    before = time.monotonic()
    if kind.startswith("ddmq"):
        shape = (
            "--workers",
            f"{pilots}",
            "--slots",
            f"{SLOTS // pilots}",
            "--time",
            "1h",
            "-W",
            f"--idle-exit={IDLE}s",
        )
        run("ddmq-hpc", "submit", "queues", "jobs", "--snakemake", "-O", "--output=pilot-%a.log", *shape)
    run("snakemake", "--jobs", str(jobs), "--config", f"jobs={jobs}", *KINDS[kind])
    wall = time.monotonic() - before
    end = time.monotonic() + 60 + IDLE
    while orphans.reap() or cluster.run("squeue", "--noheader"):
        assert time.monotonic() < end, "jobs did not end"
        time.sleep(0.2)
    assert len(list((home / "out").iterdir())) == jobs
    calls = counted.counts()
    return {
        "wall": wall,
        "cpu": sum(orphans.seconds.values()) / jobs,
        "controller": controller / jobs,
        "calls": sum(calls.values()),
        **{f"calls of {name}": number for name, number in calls.items()},
        **{f"cpu of {name}": seconds / jobs for name, seconds in orphans.seconds.items()},
    }


def _steps(home: Path, cluster: Cluster) -> Path:
    """A directory with an srun that finds this cluster: the slurm plugin keeps SLURM_CONF from it."""
    directory = home / "steps"
    directory.mkdir()
    srun = shutil.which("srun", path=cluster.env["PATH"])
    (directory / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={cluster.env["SLURM_CONF"]} exec {srun} "$@"\n')
    (directory / "srun").chmod(0o755)
    return directory


def table(found: dict[str, list[dict[str, float]]], jobs: int) -> Iterator[str]:
    yield "| | wall (s) | CPU a job (ms) | beside cluster-generic | controller's (ms) | scheduler calls | a job |"
    yield "|---|---|---|---|---|---|---|"
    middle = {kind: {key: median(one[key] for one in each) for key in each[0]} for kind, each in found.items()}
    base = middle.get("cluster-generic", {}).get("cpu")
    for kind, one in middle.items():
        row = (
            kind,
            f"{one['wall']:.1f}",
            f"{one['cpu'] * 1000:.0f}",
            f"{one['cpu'] / base:.3f}" if base else "",
            f"{one['controller'] * 1000:.0f}",
            f"{one['calls']:.0f}",
            f"{one['calls'] / jobs:.2f}",
        )
        yield "| " + " | ".join(row) + " |"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all of them")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pilots", type=int, default=2, choices=(1, 2, 4, 8), help="which share the slots")
    parser.add_argument("--json", action="store_true", help="print the figures of all rounds")
    given = parser.parse_args(arguments)
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    if reason := why_not():
        sys.exit(reason)
    kinds = given.kinds or list(KINDS)
    orphans = Orphans()
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home, one_node(Path(home)) as cluster:
        plugins = Path(home) / "plugins"
        if "slurm" in kinds:
            install_slurm_plugin(plugins)
        for number in range(given.rounds):
            for kind in kinds:
                place = Path(home) / f"{kind.replace(' ', '-')}-{number}"
                one = measure(cluster, orphans, place, kind, given.jobs, given.pilots, plugins)
                print(kind, json.dumps(one), file=sys.stderr, flush=True)
                found[kind].append(one)
    print(json.dumps(found) if given.json else "\n".join(table(found, given.jobs)))


if __name__ == "__main__":
    main(sys.argv[1:])
