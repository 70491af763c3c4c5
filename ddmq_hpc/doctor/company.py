"""Where a second host comes from: a step of the Slurm job that this process is in, else what its user has to type."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ddmq_hpc import schedulers
from ddmq_hpc.installation import own_command

#: Seconds that a step is given to end by itself.
_ENDING = 10.0


def command(path: str, environ: Mapping[str, str] = os.environ) -> str:
    """The command line that makes two hosts look at `path` together."""
    doctor = f"ddmq-hpc doctor --peers 2 {shlex.quote(path)}"
    in_job = f"{shlex.join(own_command())} doctor --peers 2 --wait 10m {shlex.quote(path)}"  # PATH is another there
    scheduler = schedulers.detect(environ)
    if scheduler == "slurm":
        return f"srun -N2 -n2 {doctor}"
    if scheduler == "pbs":
        return f"qsub -J 1-2 -j oe -- {in_job}"
    if scheduler == "sge":
        return f"qsub -t 1-2 -b y -cwd -j y {in_job}"
    return f"{doctor}` on two hosts at the same time, for example `pdsh -w HOST1,HOST2 {doctor}"


def has_second_host(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is in a Slurm job of several nodes, and outside of its steps."""
    nodes = schedulers.as_number(environ.get("SLURM_JOB_NUM_NODES") or environ.get("SLURM_NNODES")) or 1
    in_step = schedulers.as_number(environ.get("SLURM_STEP_NUM_TASKS")) or 1
    return bool(environ.get("SLURM_JOB_ID")) and nodes > 1 and in_step == 1 and schedulers.is_command("srun")


@contextmanager
def second_host(path: str, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """A doctor on another node of this Slurm job, for the `with` block. It does not lead: what it prints is lost."""
    argv = ["srun", "--overlap", "--quiet", "-N1", "-n1"]
    if here := environ.get("SLURMD_NODENAME"):
        argv += ["--exclude", here]
    argv += [*own_command(), "doctor", "--peers", "2", "--rank", "1", path]
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
        child.wait(_ENDING)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_ENDING)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
