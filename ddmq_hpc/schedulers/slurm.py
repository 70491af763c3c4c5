"""Slurm. What its commands print was observed with Slurm 22.05."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache

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

#: squeue prints fixed columns, cut off at their width: wide enough for any number and any name of a state.
_COLUMNS = (("ArrayJobID", 20), ("ArrayTaskID", 20), ("JobID", 20), ("State", 30), ("RestartCnt", 12))
_FORMAT = ",".join(f"{name}:{width}" for name, width in _COLUMNS)
_UNKNOWN_ID = "Invalid job id specified"
#: A job in one of these had its processes started, or they are being ended. SUSPENDED ones go on some day.
_RUNNING = frozenset("RUNNING COMPLETING CONFIGURING SUSPENDED STOPPED SIGNALING STAGE_OUT RESIZING".split())
#: In one of these it is over, or (a job that had held a lease) waits to be run again.
_ENDED = frozenset(
    "PENDING REQUEUED REQUEUE_HOLD REQUEUE_FED SPECIAL_EXIT COMPLETED CANCELLED FAILED TIMEOUT NODE_FAIL PREEMPTED "
    "BOOT_FAIL DEADLINE OUT_OF_MEMORY REVOKED".split()
)
_WAITING = frozenset({"PENDING", "REQUEUED", "CONFIGURING"})
#: Linux takes arguments of up to 128 KiB.
_MOST_IDS = 6000
_CONF_FILES = ("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf")
_DEFAULT_LIMIT = 1000
#: Seconds before the time limit at which the job scripts have workers warned.
_WARNING = 120
_CONFIGURATION_SECONDS = 5.0


class Slurm:
    """See `Scheduler`."""

    name = "slurm"
    directive = "#SBATCH"

    def array_size(self, environ: Mapping[str, str]) -> int:
        return as_number(environ.get("SLURM_ARRAY_TASK_COUNT")) or 1

    def slots(self, environ: Mapping[str, str]) -> int | None:
        return as_number(environ.get("SLURM_CPUS_PER_TASK")) or as_number(environ.get("SLURM_CPUS_ON_NODE"))

    def memory(self, environ: Mapping[str, str]) -> int | None:
        """sbatch(1): both variables are MiB; of a job that asked for all of the node's memory the value is 0."""
        if each := as_number(environ.get("SLURM_MEM_PER_CPU")):
            return (each * (as_number(environ.get("SLURM_CPUS_ON_NODE")) or 1)) << 20
        whole = as_number(environ.get("SLURM_MEM_PER_NODE"))
        return whole << 20 if whole else None

    def announced_end(self, environ: Mapping[str, str]) -> float | None:
        return as_number(environ.get("SLURM_JOB_END_TIME"))  # newer versions set it

    # -- submission

    def directives(self, wanted: Wanted) -> list[str]:
        limit = f"%{wanted.throttle}" if wanted.throttle else ""
        options = [
            f"--job-name={wanted.name}",
            f"--array={wanted.first}-{wanted.first + wanted.tasks - 1}{limit}",
            f"--cpus-per-task={wanted.slots}",
        ]
        if wanted.seconds is not None:
            options.append(f"--time={clock(wanted.seconds)}")
            if wanted.seconds < 2 * _WARNING:
                # Not the job script's two minutes: a job that has no more than that would be warned as it starts.
                options.append(f"--signal=B:USR1@{int(wanted.seconds / 2)}")
        return [f"{self.directive} {option}" for option in (*options, *wanted.extra)]

    def submit_command(self) -> list[str]:
        return ["sbatch", "--parsable"]

    def submits_to(self) -> str:
        return self.name

    def job_id(self, answer: str) -> str:
        """`123`, or `123;cluster` where another cluster was asked for."""
        for line in answer.splitlines():
            if re.fullmatch(r"\d+(;[\w.-]+)?", line.strip(), re.ASCII):
                return line.strip()
        raise SchedulerError(f"sbatch answered no job id but {answer.strip()[:200]!r}")

    def array_limit(self) -> int:
        """MaxArraySize is one more than the highest index there may be."""
        size = as_number(_configuration().get("MaxArraySize"))
        return max(1, size - 1) if size else _DEFAULT_LIMIT

    def live_tasks(self, job_ids: list[str]) -> dict[str, int] | None:
        numbers = {ident: ident.partition(";")[0] for ident in job_ids}
        clusters = {ident.partition(";")[2] for ident in job_ids}
        if not numbers:
            return {}
        if len(clusters) > 1:
            return None  # one query answers for one cluster
        where = [f"--clusters={cluster}" for cluster in clusters if cluster]
        asked = ",".join(sorted(set(numbers.values())))
        answer = query(["squeue", *where, "-a", "-h", "-r", "-j", asked, "-o", "%F|%T"], ANSWER_SECONDS)
        if answer.code and not (answer.code == 1 and _UNKNOWN_ID in answer.err and "," not in asked):
            return None
        live = dict.fromkeys(numbers.values(), 0)
        for line in answer.out.splitlines():
            ident, bar, state = line.strip().partition("|")
            if bar and ident in live and (state in _WAITING or state in _RUNNING - {"COMPLETING"}):
                live[ident] += 1
        return {ident: live[number] for ident, number in numbers.items()}

    # -- questions

    def available(self) -> bool:
        return is_command("squeue")

    def hides_jobs(self) -> bool:
        """Sites may set PrivateData=jobs; squeue then leaves out what others own."""
        if os.geteuid() == 0:
            return False
        configured = _configuration().get("PrivateData")
        return configured is None or bool({"jobs", "all"} & set(re.split(r"[ ,]+", configured.lower())))

    def states(self, jobs: Iterable[Job], timeout: float = ANSWER_SECONDS) -> dict[Job, str]:
        states = dict.fromkeys(jobs, UNKNOWN)
        here = [job for job in states if not job.cluster or job.cluster == _cluster()]
        asked = sorted({job.id for job in here})[:_MOST_IDS]
        if not asked:
            return states
        # -a: jobs in hidden partitions, too; -r: each task on a line of its own.
        answer = query(["squeue", "-a", "-h", "-r", "-t", "all", "-j", ",".join(asked), "-O", _FORMAT], timeout)
        said = _read(answer.out)
        # Of a single id that is gone squeue says so, of one among several it says nothing.
        gone = len(asked) == 1 and answer.code == 1 and _UNKNOWN_ID in answer.err and not answer.out.strip()
        complete = gone or (said is not None and answer.code == 0 and not answer.err.strip())
        meant = set(asked)
        states.update({job: _judge(job, said or {}, complete) for job in here if job.id in meant})
        return states

    def end_time(self, job: Job) -> float | None:
        if job.cluster and job.cluster != _cluster():
            return None
        answer = query(["squeue", "-a", "-h", "-j", job.id, "-o", "%e"], ANSWER_SECONDS)
        return _time(answer.out.strip()) if answer.code == 0 else None


def _read(text: str) -> dict[str, tuple[str, int]] | None:
    """State and restarts by job id, `123` and `123_7`; None when a line is none of squeue's."""
    found: dict[str, tuple[str, int]] = {}
    for line in text.splitlines():
        fields, at = [], 0
        for _, width in _COLUMNS:
            fields.append(line[at : at + width].strip())
            at += width
        array, task, ident, state, restarts = fields
        again = as_number(restarts)
        if not (array.isdigit() and ident.isdigit() and again is not None and state.isascii()):
            return None
        if task.isdigit():
            found[f"{array}_{task}"] = (state, again)
        if ident != array or not task.isdigit():  # the waiting tasks of an array all have the array's id
            found[ident] = (state, again)
    return found


def _judge(job: Job, said: dict[str, tuple[str, int]], complete: bool) -> str:
    if job.id not in said:
        if "_" not in job.id and any(name.startswith(f"{job.id}_") for name in said):
            return UNKNOWN  # the id of a whole array
        return ENDED if complete else UNKNOWN
    state, restarts = said[job.id]
    # While it is COMPLETING, processes of the run before may be left, whatever the count says.
    if state == "COMPLETING" or (state in _RUNNING and restarts == job.restart):
        return RUNNING
    if state in _ENDED or (state in _RUNNING and restarts > job.restart):
        return ENDED
    return UNKNOWN


def _time(text: str) -> float | None:
    """Seconds since 1970 in squeue's answer to %e; None for `NONE`, `N/A` and the like."""
    if re.fullmatch(r"\d{9,12}", text, re.ASCII):
        return float(text)
    import time

    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def _cluster() -> str:
    """The cluster that squeue asks, as labels have it; "?" when that cannot be told."""
    name = os.environ.get("SLURM_CLUSTER_NAME") or _configured_cluster() or _configuration().get("ClusterName")
    return short_name(name) if name else "?"


@cache
def _configured_cluster() -> str:
    """From the configuration file, which costs the controller nothing."""
    for path in (os.environ.get("SLURM_CONF"), *_CONF_FILES):
        try:
            with open(path or "", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        if found := re.search(r"^\s*ClusterName\s*=\s*(\S+)", text, re.IGNORECASE | re.MULTILINE):
            return found[1]
    return ""


_known: dict[str, str] = {}


def _configuration() -> Mapping[str, str]:
    """What the controller is configured as; asked once, empty as long as it does not answer."""
    if not _known:
        answer = query(["scontrol", "show", "config"], _CONFIGURATION_SECONDS)
        if answer.code == 0:
            _known.update(re.findall(r"^(\w+)\s*= (.*\S)", answer.out, re.ASCII | re.MULTILINE))
    return _known


SCHEDULER = Slurm()
