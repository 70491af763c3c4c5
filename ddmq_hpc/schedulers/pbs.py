"""PBS: OpenPBS, observed with 23.06, and Torque where it differs, as its manuals say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

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

_ARRAY_LIMIT = 10_000  # max_array_size, as it comes
#: E: exiting, S and U: suspended, B: an array of which some run.
_RUNNING = frozenset("RESUB")
#: F and X: finished; C: Torque's word for it. A job that had held a lease and waits (Q, H, W) is to be run again.
_ENDED = frozenset("FXCQHW")
_ROW = re.compile(r"^(\d+(?:\[\d*\])?(?:-\d+)?)\.?(\S*)\s.*\s([A-Z])\s+\S+\s*$", re.ASCII)
#: `Unknown Job Id 7.server` (Torque: `Unknown Job Id Error 7.server`), `qstat: 7.server Job has finished, use -x ...`
_GONE = re.compile(r"Unknown Job Id (?:Error )?(\d+\S*)|^qstat: (\d+\S*) Job has finished", re.ASCII | re.MULTILINE)


class PBS:
    """See `Scheduler`."""

    name = "pbs"
    directive = "#PBS"

    def array_size(self, environ: Mapping[str, str]) -> int:
        return 1  # nothing in the environment tells

    def slots(self, environ: Mapping[str, str]) -> int | None:
        return as_number(environ.get("NCPUS")) or as_number(environ.get("PBS_NUM_PPN"))

    def memory(self, environ: Mapping[str, str]) -> int | None:
        return None

    def announced_end(self, environ: Mapping[str, str]) -> float | None:
        """Torque tells the wall time; the job began with its first process, the leader of this session."""
        wall = as_number(environ.get("PBS_WALLTIME"))
        if not wall:
            return None
        import os

        try:
            import psutil
        except ImportError:
            return None
        try:
            return float(psutil.Process(os.getsid(0)).create_time()) + wall
        except (psutil.Error, OSError, ValueError):
            return None

    # -- submission

    def directives(self, wanted: Wanted) -> list[str]:
        limit = f"%{wanted.throttle}" if wanted.throttle else ""
        span = f"{wanted.first}-{wanted.first + wanted.tasks - 1}"
        torque = _is_torque()
        options = [f"-N {wanted.name}"]
        if torque:
            options += [f"-t {span}{limit}", f"-l nodes=1:ppn={wanted.slots}"]
        else:
            # An array has two tasks or more.
            options += [f"-J {span}{limit}"] if wanted.tasks > 1 else []
            options += [f"-l select=1:ncpus={wanted.slots}"]
        if wanted.seconds is not None:
            options.append(f"-l walltime={clock(wanted.seconds)}")
        return [f"{self.directive} {option}" for option in (*options, *wanted.extra)]

    def submit_command(self) -> list[str]:
        # Slurm's reads no standard input, and would have all tasks of an array write over one file.
        return ["qsub", "-j", "oe", "-o", "ddmq-hpc.o%A.%a", "/dev/stdin"] if _is_slurms() else ["qsub"]

    def submits_to(self) -> str:
        return "slurm" if _is_slurms() else self.name

    def job_id(self, answer: str) -> str:
        """`7[]` of `7[].server`, `4` of `4.server`."""
        found = re.search(r"^(\d+(?:\[\])?)(?:\.\S+)?$", answer, re.ASCII | re.MULTILINE)
        if not found:
            raise SchedulerError(f"qsub answered no job id but {answer.strip()[:200]!r}")
        return found[1]

    def array_limit(self) -> int:
        if _is_slurms():
            from ddmq_hpc.schedulers import slurm

            return slurm.SCHEDULER.array_limit()
        return _ARRAY_LIMIT

    def live_tasks(self, job_ids: list[str]) -> dict[str, int] | None:
        if not job_ids:
            return {}
        # Without -x: what has finished is not of interest, and said to be so.
        answer = query(["qstat", "-t", *sorted(set(job_ids))], ANSWER_SECONDS)
        rows, gone = _rows(answer.out), {ident for ident, _ in _gone(answer.err)}
        live = {}
        for ident in job_ids:
            mine = [state for found, _, state in rows if _array_of(found) == ident and found != ident] or [
                state for found, _, state in rows if found == ident
            ]
            if not mine and ident not in gone:
                return None
            live[ident] = sum(state in "QHWTRSUB" for state in mine)
        return live

    # -- questions

    def available(self) -> bool:
        return is_command("qstat")

    def hides_jobs(self) -> bool:
        """Never: of a job that a user may not see the server says that, and not that it does not know it."""
        return False

    def states(self, jobs: Iterable[Job], timeout: float = ANSWER_SECONDS) -> dict[Job, str]:
        states = dict.fromkeys(jobs, UNKNOWN)
        if not states:
            return states
        # Arrays are asked for as a whole: `7[]` for `7[2]`. Torque's -x is for XML, and it needs none.
        asked = sorted({_array_of(job.id) for job in states})
        answer = query(["qstat", *(["-t"] if _is_torque() else ["-x", "-t"]), *asked], timeout)
        rows = {ident: (server, state) for ident, server, state in _rows(answer.out)}
        gone = dict(_gone(answer.err))
        return {job: _judge(job, rows, gone) for job in states}

    def end_time(self, job: Job) -> float | None:
        if _is_torque():
            answer = query(["qstat", "-f", job.id], ANSWER_SECONDS)
            return _end(dict(re.findall(r"^\s+([\w.]+) = (.*\S)", answer.out, re.MULTILINE)))
        answer = query(["qstat", "-f", "-F", "json", job.id], ANSWER_SECONDS)
        try:
            found: dict[str, Any] = json.loads(answer.out)["Jobs"]
            (facts,) = (facts for ident, facts in found.items() if ident.partition(".")[0] == job.id)
            return _end({**facts, "Resource_List.walltime": facts["Resource_List"]["walltime"]})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _rows(text: str) -> list[tuple[str, str, str]]:
    """(id, server, state) of each job in qstat's table; the server may be cut off."""
    return [(row[1], row[2], row[3]) for row in map(_ROW.match, text.splitlines()) if row]


def _gone(text: str) -> list[tuple[str, str]]:
    """(id, server) of the jobs that are said to be unknown, or finished."""
    names = [found[1] or found[2] for found in _GONE.finditer(text)]
    return [(ident, server) for ident, _, server in (name.partition(".") for name in names)]


def _judge(job: Job, rows: Mapping[str, tuple[str, str]], gone: Mapping[str, str]) -> str:
    """Only what is said of the job itself, by the server that its label names, counts: absence says nothing."""
    if job.id in rows:
        server, state = rows[job.id]
        if _is_server(job.cluster, server):
            return RUNNING if state in _RUNNING else ENDED if state in _ENDED else UNKNOWN
    ident = _array_of(job.id)
    return ENDED if ident in gone and _is_server(job.cluster, gone[ident]) else UNKNOWN


def _is_server(cluster: str, server: str) -> bool:
    """Whether a server, its name perhaps cut off, can be the one of a label."""
    shown = short_name(server.rstrip("*"))
    whole = "." in server or len(shown) >= len(cluster)
    return not cluster or (shown == cluster if whole else cluster.startswith(shown))


def _array_of(ident: str) -> str:
    return re.sub(r"\[\d*\]", "[]", ident)


def _end(facts: Mapping[str, Any]) -> float | None:
    """Start and wall time, of the facts that qstat -f lists: `stime` (OpenPBS) or `start_time` (Torque)."""
    import time

    from ddmq_hpc.errors import UsageError
    from ddmq_hpc.units import seconds

    try:
        start = time.mktime(time.strptime(str(facts.get("stime") or facts["start_time"]), "%a %b %d %H:%M:%S %Y"))
        return start + seconds(str(facts["Resource_List.walltime"]))
    except (KeyError, ValueError, OverflowError, UsageError):
        return None


@cache
def _is_torque() -> bool:
    """Whether these are Torque's commands: OpenPBS says `pbs_version = ...`. Asks no server."""
    answer = query(["qstat", "--version"], ANSWER_SECONDS)
    said = (answer.out + answer.err).lower()
    return "pbs_version" not in said and bool(re.search(r"^version:", said, re.MULTILINE))


def _is_slurms() -> bool:
    """Whether the `qsub` here is the one that comes with Slurm, a script that calls sbatch."""
    import shutil

    found = shutil.which("qsub")
    if not found:
        return False
    try:
        with open(found, "rb") as file:
            start = file.read(8192)
    except OSError:
        return False
    return start.startswith(b"#!") and b"use Slurm" in start


SCHEDULER = PBS()
