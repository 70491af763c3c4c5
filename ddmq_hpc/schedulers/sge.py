"""SGE: Grid Engine and its descendants. What its commands print was observed with Son of Grid Engine 8.1.9."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ddmq_hpc.errors import SchedulerError
from ddmq_hpc.schedulers import (
    ANSWER_SECONDS,
    ENDED,
    RUNNING,
    UNKNOWN,
    Job,
    Wanted,
    as_number,
    clock,
    is_command,
    short_name,
)
from ddmq_hpc.schedulers.commands import query

#: Seconds before its end in which a worker is to give its tasks back.
_WARNING = 120.0
_ARRAY_LIMIT = 75_000  # max_aj_tasks, as it comes
#: Everybody's jobs, those waiting, running and suspended: one call, whatever the number of jobs asked for.
_EVERY_JOB = ("qstat", "-u", "*", "-s", "prs", "-xml")


class _Row(NamedTuple):
    """Some tasks of a job in one state."""

    job: str
    tasks: str  # `3`, `3-6:1`, `2,4,7-9:1`; empty without an array
    state: str
    running: bool
    start: str
    limit: str


class SGE:
    """See `Scheduler`."""

    name = "sge"
    directive = "#$"

    def array_size(self, environ: Mapping[str, str]) -> int:
        first, last, step = (as_number(environ.get(f"SGE_TASK_{name}")) for name in ("FIRST", "LAST", "STEPSIZE"))
        return (last - first) // step + 1 if first and last and step else 1

    def slots(self, environ: Mapping[str, str]) -> int | None:
        return as_number(environ.get("NSLOTS"))

    def memory(self, environ: Mapping[str, str]) -> int | None:
        return None

    def announced_end(self, environ: Mapping[str, str]) -> float | None:
        return None

    # -- submission

    def directives(self, wanted: Wanted) -> list[str]:
        options = [f"-N {wanted.name}", f"-t {wanted.first}-{wanted.first + wanted.tasks - 1}"]
        if wanted.throttle:
            options.append(f"-tc {wanted.throttle}")
        if wanted.seconds is not None:
            # USR1 at s_rt, KILL at h_rt.
            warned = max(wanted.seconds - _WARNING, wanted.seconds / 2)
            options.append(f"-l h_rt={clock(wanted.seconds)},s_rt={clock(warned)}")
        if wanted.slots > 1:
            options.append(f"-pe smp {wanted.slots}")
        return [f"{self.directive} {option}" for option in (*options, *wanted.extra)]

    def submit_command(self) -> list[str]:
        return ["qsub", "-terse"]

    def submits_to(self) -> str:
        return self.name

    def job_id(self, answer: str) -> str:
        """`1` of `1`, `1.1-6:1`, or of the long form that some sites' wrappers bring back."""
        found = re.search(r"^(?:Your job(?:-array)? )?(\d+)(?:\.\d+-\d+:\d+)?(?:$| \()", answer, re.MULTILINE)
        if not found:
            raise SchedulerError(f"qsub answered no job id but {answer.strip()[:200]!r}")
        return found[1]

    def array_limit(self) -> int:
        return _ARRAY_LIMIT

    def live_tasks(self, job_ids: list[str]) -> dict[str, int] | None:
        if not job_ids:
            return {}
        rows = _ask(_EVERY_JOB, ANSWER_SECONDS)
        if rows is None:
            return None
        live = dict.fromkeys(job_ids, 0)
        for row in rows:
            if row.job in live and "d" not in row.state:
                live[row.job] += sum(len(span) for span in _spans(row.tasks)) if row.tasks else 1
        return live

    # -- questions

    def available(self) -> bool:
        return bool(os.environ.get("SGE_ROOT")) and is_command("qstat")

    def hides_jobs(self) -> bool:
        return False

    def states(self, jobs: Iterable[Job], timeout: float = ANSWER_SECONDS) -> dict[Job, str]:
        states = dict.fromkeys(jobs, UNKNOWN)
        here = [job for job in states if not job.cluster or job.cluster == _cluster()]
        rows = _ask(_EVERY_JOB, timeout) if here else None
        if rows is not None:
            absent = UNKNOWN if _leaves_out() else ENDED
            by_job: dict[str, list[_Row]] = {}
            for row in rows:
                by_job.setdefault(row.job, []).append(row)
            states.update({job: _judge(job, by_job.get(job.id.partition(".")[0], []), absent) for job in here})
        return states

    def end_time(self, job: Job) -> float | None:
        """From the h_rt that it was submitted with; a limit of its queue is not seen."""
        number, _, task = job.id.partition(".")
        for row in _ask(("qstat", "-u", "*", "-s", "rs", "-r", "-xml"), ANSWER_SECONDS) or ():
            limit = as_number(row.limit)
            if row.job == number and row.tasks == task and limit is not None:
                return _end(row.start, limit)
        return None


def _ask(argv: Iterable[str], timeout: float) -> list[_Row] | None:
    """What qstat says; None when it says nothing, or not all."""
    answer = query([*argv], timeout)
    if answer.code != 0 or answer.err.strip():
        return None
    from xml.etree import ElementTree

    try:
        top = ElementTree.fromstring(answer.out)
    except (ElementTree.ParseError, ValueError):
        return None
    rows = []
    for job in top.iter("job_list"):
        limits = [limit.text or "" for limit in job.iter("hard_request") if limit.get("name") == "h_rt"]
        row = _Row(
            job.findtext("JB_job_number", ""),
            job.findtext("tasks", ""),
            job.findtext("state", ""),
            job.get("state") == "running",
            job.findtext("JAT_start_time", ""),
            limits[0] if limits else "",
        )
        if not row.job.isdigit() or not row.state:
            return None
        rows.append(row)
    return rows if top.tag == "job_info" else None


def _leaves_out() -> bool:
    """Whether qstat may leave out jobs: it reads options of the user and of the cell from files by itself."""
    return any(map(os.path.lexists, (os.path.expanduser("~/.sge_qstat"), f"{_cell()}/common/sge_qstat")))


def _judge(job: Job, rows: list[_Row], absent: str) -> str:
    """The state of a job, of the rows that its job number has; `absent` when its task is in none."""
    found = [row for row in rows if _has(row, job.id.partition(".")[2])]
    if not found:
        return absent
    # A job that had held a lease and waits is to be run again; R marks one that is.
    running = [row for row in found if row.running and not ("R" in row.state and not job.restart)]
    return RUNNING if running else ENDED


def _has(row: _Row, task: str) -> bool:
    """Whether a row is of the task; a job that is no array is asked for, and found, without one."""
    if not task or not row.tasks:
        return True
    return any(int(task) in span for span in _spans(row.tasks))


def _spans(tasks: str) -> Iterator[range]:
    for part in tasks.split(","):
        if found := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", part.strip(), re.ASCII):
            yield range(int(found[1]), int(found[2] or found[1]) + 1, max(1, int(found[3] or 1)))


def _end(start: str, limit: int) -> float | None:
    import time

    try:
        return time.mktime(time.strptime(start[:19], "%Y-%m-%dT%H:%M:%S")) + limit
    except (ValueError, OverflowError):
        return None


def _cell() -> str:
    return f"{os.environ.get('SGE_ROOT', '')}/{os.environ.get('SGE_CELL') or 'default'}"


def _cluster() -> str:
    """The host of the queue master, as labels have it; "?" when that cannot be told."""
    try:
        with open(f"{_cell()}/common/act_qmaster", encoding="ascii", errors="replace") as file:
            return short_name(file.read().strip())
    except OSError:
        return "?"


SCHEDULER = SGE()
