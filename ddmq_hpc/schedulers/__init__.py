"""Batch schedulers: which one there is, what it is told at submission, and what it says of its jobs.

A module each, with text and environment in and values out. Whatever a scheduler does not say clearly is unknown: that a
job has ended is only taken from an answer that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ddmq_hpc.errors import UsageError

#: What a scheduler says of a job.
RUNNING, ENDED, UNKNOWN = "running", "ended", "unknown"
#: The schedulers that there are modules for, in the order in which they are looked for.
NAMES = ("slurm", "pbs", "sge")
#: Seconds that a scheduler is given to answer.
ANSWER_SECONDS = 10.0

_LABEL = re.compile(
    r"(?:(slurm)-(\d+(?:_\d+)?)|(pbs)-(\d+(?:=\d+=|-\d+)?)|(sge)-(\d+(?:\.\d+)?))(?:-r(\d+))?(?:=([A-Za-z0-9-]+))?",
    re.ASCII,
)


class Job(NamedTuple):
    """One run of a batch job, or of one task of an array."""

    scheduler: str
    id: str  # as its scheduler's commands take it: `123`, `123_7`, `7[2]`, `5`, `5.3`
    restart: int = 0  # how often it had been started before, as far as its environment told
    cluster: str = ""  # where the job id counts: the first letters of the cluster's or the server's name


@dataclass(frozen=True)
class Wanted:
    """An array to submit."""

    name: str
    tasks: int
    first: int = 1  # the index of the first task
    throttle: int | None = None  # at most so many run at the same time
    seconds: float | None = None  # wall time of each
    slots: int = 1  # CPUs of each
    extra: tuple[str, ...] = ()  # options for the scheduler, verbatim


class Scheduler(Protocol):
    """What one scheduler can do. Methods that ask it take at most `ANSWER_SECONDS` and never raise."""

    name: str
    directive: str  # what option lines of a script begin with

    # -- in a job

    def array_size(self, environ: Mapping[str, str]) -> int:
        """How many tasks the array has that this process is one of; 1 where there is none or nothing tells."""
        ...

    def slots(self, environ: Mapping[str, str]) -> int | None:
        """The CPUs that the job was given on this node."""
        ...

    def memory(self, environ: Mapping[str, str]) -> int | None:
        """The bytes of memory that the job was given on this node, if its environment tells."""
        ...

    def announced_end(self, environ: Mapping[str, str]) -> float | None:
        """When the job will be ended, in seconds since 1970, if its environment tells."""
        ...

    # -- submission

    def directives(self, wanted: Wanted) -> list[str]:
        """The option lines of a script, each complete with `directive`."""
        ...

    def submit_command(self) -> list[str]:
        """Submits the script on its standard input."""
        ...

    def submits_to(self) -> str:
        """Whose jobs they become: Slurm has a `qsub` of its own for PBS scripts."""
        ...

    def job_id(self, answer: str) -> str:
        """The job id in what the submit command printed. Raises `SchedulerError`."""
        ...

    def array_limit(self) -> int:
        """The highest number of tasks of one array whose first index is 1."""
        ...

    def live_tasks(self, job_ids: list[str]) -> dict[str, int] | None:
        """Of each submission, how many tasks are waiting or running, by ONE query; None without a clear answer."""
        ...

    # -- questions

    def available(self) -> bool:
        """Whether the commands to ask it are there."""
        ...

    def hides_jobs(self) -> bool:
        """Whether this user may be kept from seeing other users' jobs: then an absent job need not have ended."""
        ...

    def states(self, jobs: Iterable[Job], timeout: float = ANSWER_SECONDS) -> dict[Job, str]:
        """RUNNING, ENDED or UNKNOWN for each, by ONE query. ENDED: the run of the job that `restart` tells is over."""
        ...

    def end_time(self, job: Job) -> float | None:
        """When a running job will be ended, in seconds since 1970, by one query; None when nothing clear is said."""
        ...


def short_name(name: str) -> str:
    """The name of a cluster, or of the host of its server, as labels have it."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name.partition(".")[0])[:12]


def as_number(text: str | None) -> int | None:
    """The whole number that a text is, if it is one that anything can be counted with."""
    return int(text) if text and len(text) < 19 and text.isascii() and text.isdigit() else None


def clock(duration: float) -> str:
    """`HH:MM:SS`, as all schedulers read it, rounded up."""
    whole = -int(-duration // 1)
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def is_command(name: str) -> bool:
    """Whether a command is on the PATH."""
    from shutil import which

    return which(name) is not None


def parse_label(text: str) -> Job | None:
    """The job of a label that `identity.batch_job` made; None for any other text."""
    found = _LABEL.fullmatch(text)
    if not found:
        return None
    scheduler = found[1] or found[3] or found[5]
    ident = found[2] or found[4] or found[6]
    if found[4] and ident.endswith("="):
        ident = ident.replace("=", "[", 1).replace("=", "]")
    return Job(scheduler, ident, int(found[7] or 0), found[8] or "")


def running_under(environ: Mapping[str, str]) -> str | None:
    """The scheduler whose job this process is part of. Slurm first: a job of its `qsub` has Slurm's variables."""
    if environ.get("SLURM_JOB_ID"):
        return "slurm"
    if environ.get("PBS_JOBID"):
        return "pbs"
    if environ.get("SGE_ROOT") and environ.get("JOB_ID"):  # JOB_ID alone could be anybody's
        return "sge"
    return None


def detect(environ: Mapping[str, str]) -> str | None:
    """The scheduler whose job this process is part of, else the one whose commands are on the PATH."""
    if found := running_under(environ):
        return found
    if is_command("sbatch"):
        return "slurm"
    if is_command("qsub"):
        return "sge" if environ.get("SGE_ROOT") else "pbs"
    return None


def get(name: str) -> Scheduler:
    """The scheduler of that name. Raises `UsageError`."""
    if name not in NAMES:
        raise UsageError(f"no such scheduler {name[:40]!r}: one of {', '.join(NAMES)}")
    from importlib import import_module

    found: Scheduler = import_module(f"ddmq_hpc.schedulers.{name}").SCHEDULER
    return found


def array_size(environ: Mapping[str, str]) -> int:
    """How many tasks the array has that this process is one of; 1 outside of arrays."""
    name = running_under(environ)
    return get(name).array_size(environ) if name else 1


def slots(environ: Mapping[str, str]) -> int | None:
    """The CPUs that the job was given on this node; None outside of jobs, or where nothing tells."""
    name = running_under(environ)
    return get(name).slots(environ) if name else None


def memory(environ: Mapping[str, str]) -> int | None:
    """The bytes of memory that the job was given on this node; None outside of jobs, or where nothing tells."""
    name = running_under(environ)
    return get(name).memory(environ) if name else None
