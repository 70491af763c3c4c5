"""What is used of Snakemake beside its documented interfaces, but for what `direct` asks of a job that is a command
alone, and `forkserver` of Snakemake's own command line.

Tested with the versions in `TESTED`. A part that a version does not have is missed at the first look at the queue,
before anything is taken, and the error names it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Callable

from ddmq_hpc.errors import SnakemakeUnfit
from ddmq_hpc.installation import archive

#: `from_queue` came with the first of these.
OLDEST = (9, 14, 3)
_OLDEST = ".".join(map(str, OLDEST))
TESTED = ("9.14.3", "9.27.1")

_NEEDED = (
    "dag.jobs",
    "dag.jobid",
    "dag.needrun",
    "dag.finished",
    "dag.dependencies",
    "dag.forcefiles",
    "execution_settings.keep_going",
    "execution_settings.ignore_incomplete",
    "persistence.path",
    "scheduler.failed",
    "scheduler.running",
    "scheduler._lock",
    "scheduler._user_kill",
    "scheduler._open_jobs.release",
    "scheduler._schedule_reevalutation",
)


def require_installed() -> None:
    """Raises `SnakemakeUnfit` unless a Snakemake is there that is new enough. Imports nothing of it."""
    from importlib.metadata import PackageNotFoundError, version

    if archive():  # its jobs import this package in processes of their own
        raise SnakemakeUnfit(f"{archive()} cannot run jobs of Snakemake", _OLDEST)
    try:
        found = version("snakemake")
    except PackageNotFoundError:
        raise SnakemakeUnfit("there is no snakemake for this Python", _OLDEST) from None
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < OLDEST:
        raise SnakemakeUnfit(f"snakemake {found} is too old", _OLDEST)


def require() -> None:
    """The same; and it can be imported."""
    require_installed()
    try:
        import snakemake.io  # noqa: F401
    except ImportError as error:
        raise SnakemakeUnfit(f"snakemake cannot be imported: {error}", _OLDEST) from None


def say(text: str) -> None:
    """A line in Snakemake's log."""
    _logger().info(f"ddmq-hpc: {text}")


def warn(text: str) -> None:
    """A line in Snakemake's log that `--quiet` does not hide."""
    _logger().warning(f"ddmq-hpc: {text}")


def from_queue(queue: Any, end: object) -> Any:
    """Input that comes from `queue` until it gives `end`, as Snakemake's function of that name makes it.

    That one fails when it is asked again after the end ("bug: queue marked as finished", 9.27.1), as it is when another
    queue goes on, or when a checkpoint that the same rule needs is done later. Then this one's input is what it was.
    """
    from snakemake.io import QueueInfo, flag

    class Patient(QueueInfo):  # type: ignore[misc,unused-ignore]
        def consume(self, wildcards: Any) -> Any:
            return self.items if self.finished else super().consume(wildcards)

    info = Patient(queue, end)
    return flag(info.consume, "from_queue", info)


class Run:
    """One run of Snakemake: `workflow` is what Snakefiles know under that name."""

    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow

    # -- how far it is

    @property
    def is_scheduling(self) -> bool:
        """Whether jobs are being run. While the Snakefile is read, and for `--dag`, `--lint` and the like, none are."""
        return self._workflow.scheduler is not None

    @property
    def is_real(self) -> bool:
        """False for `-n` and `--touch`, and in the processes that run one job of a workflow. Right once it is
        scheduling: when the Snakefile is read, a dry run does not look like one."""
        workflow = self._workflow
        return bool(workflow.is_main_process and not workflow.dryrun and not workflow.touch)

    @property
    def is_cancelled(self) -> bool:
        """Whether SIGTERM came: jobs that fail from then on may have got the signal, too."""
        return self.is_scheduling and self._workflow.scheduler._user_kill is not None

    @property
    def starts_no_more(self) -> bool:
        """Whether it only waits for what is running."""
        failed = self._workflow.scheduler.failed
        return self.is_cancelled or bool(failed and not self._workflow.execution_settings.keep_going)

    @property
    def directory(self) -> str:
        """The absolute path of the working directory's `.snakemake`."""
        return str(os.path.abspath(self._workflow.persistence.path))

    def check(self) -> None:
        """Raises `SnakemakeUnfit` for a part that is not there."""
        for path in _NEEDED:
            at = self._workflow
            for name in path.split("."):
                if not hasattr(at, name):
                    raise self._unfit(f"workflow.{path}")
                at = getattr(at, name)
        persistence = self._workflow.persistence
        if not any(hasattr(persistence, name) for name in ("_filter_incomplete_keys", "_exists_record")):
            raise self._unfit("workflow.persistence._filter_incomplete_keys")
        _finished_event()

    def _unfit(self, path: str) -> SnakemakeUnfit:
        from snakemake import __version__

        why = f"snakemake {__version__} has no `{path}`; this was tested with {' and '.join(TESTED)}"
        return SnakemakeUnfit(why, TESTED[-1])

    # -- jobs

    def jobs_by_output(self) -> dict[str, Any]:
        """Every job of the graph by each file that it makes."""
        return {str(path): job for job in self._workflow.dag.jobs for path in job.output}

    def external_jobids(self, job: Any) -> list[str]:
        """What an executor called a job that was not seen to end."""
        return list(self._workflow.persistence.external_jobids(job))

    def prepare(self, job: Any) -> None:
        """Remove old outputs of a job and make directories for the new ones, as Snakemake does where a job runs."""
        self._workflow.async_run(job.prepare())

    def number(self, job: Any) -> int | None:
        """What log events call it; None for a job that another one has replaced in the graph."""
        try:
            return int(self._workflow.dag.jobid(job))
        except KeyError:
            return None

    def is_finished(self, job: Any) -> bool:
        """Whether it was run and its outputs were found to be there."""
        return bool(self._workflow.dag.finished(job))

    def is_up_to_date(self, job: Any, target: str) -> bool:
        """Whether it need not be run, since its output `target` is there. Not to be asked while the graph is changed:
        then no job is known to be needed."""
        dag, scheduler = self._workflow.dag, self._workflow.scheduler
        return (
            not dag.needrun(job)
            and job not in scheduler.running
            and os.path.exists(target)
            and not self._incomplete(job.output)
        )

    def failed(self) -> set[Any]:
        """Jobs that failed and are not tried again."""
        failed = self._workflow.scheduler.failed
        return {job for one in failed for job in (one if one.is_group() else (one,))}

    def count_failed(self) -> int:
        """How many there were so far; never fewer than before."""
        return len(self._workflow.scheduler.failed)

    def needed_by(self, job: Any) -> set[Any]:
        """A job and all those that it depends on, however far."""
        dependencies = self._workflow.dag.dependencies
        found, left = {job}, [job]
        while left:
            for other in dependencies.get(left.pop(), ()):
                if other not in found:
                    found.add(other)
                    left.append(other)
        return found

    # -- what is put right

    def redo_incomplete(self) -> None:
        """Have jobs run again whose outputs a killed run left half-written, as `--rerun-incomplete` does.

        Snakemake looks for those once, before the first job (9.27.1, `DAG.check_incomplete`), so jobs that come later
        take what they find for whole. Not with `--ignore-incomplete`.
        """
        if not self._workflow.execution_settings.ignore_incomplete:
            dag = self._workflow.dag
            dag.forcefiles = _ForceIncomplete(dag.forcefiles, self._incomplete)

    def _incomplete(self, paths: Iterable[Any]) -> bool:
        """Whether an output is there that a job began to write and did not finish."""
        persistence = self._workflow.persistence
        there = [path for path in paths if os.path.lexists(path)]
        if hasattr(persistence, "_filter_incomplete_keys"):
            return bool(persistence._filter_incomplete_keys([persistence._get_key(path) for path in there]))
        return any(persistence._exists_record(persistence._incomplete_path, path) for path in there)  # 9.14

    def keep_one_timer(self) -> None:
        """Have the scheduler wait for one timer at a time.

        While it waits for a queue each job that ended leaves a timer, a thread, that starts another one when it fires
        (9.27.1, `_schedule_reevalutation`): as many as there were jobs, and each writes a line to the log.
        """
        scheduler = self._workflow.scheduler
        scheduler._schedule_reevalutation = _OneTimer(scheduler._open_jobs.release)

    def let_sigterm_in(self) -> None:
        """Have SIGTERM not hang the run.

        Snakemake's handler takes the scheduler's lock in the main thread, which has it already when the signal comes
        while it looks for jobs to run or tells of finished ones, and waits for itself (9.27.1, `exit_gracefully`).
        """
        scheduler = self._workflow.scheduler
        if not scheduler.running:  # nor does any job's thread want it
            scheduler._lock = threading.RLock()

    # -- events

    def listen(self, finished: Callable[[int], None], otherwise: Callable[[], None]) -> Callable[[], None]:
        """Call `finished` with the number of each job whose outputs were found to be there, `otherwise` at all other
        lines of the log, in this thread alone. How to end that."""
        handler = _Listener(finished, otherwise)
        _logger().addHandler(handler)

        def end() -> None:
            _logger().removeHandler(handler)

        return end


class _ForceIncomplete(set[Any]):
    """Files whose jobs are run whatever is there, as Snakemake asks for them, and those that are half-written."""

    def __init__(self, files: Iterable[Any], incomplete: Callable[[Iterable[Any]], bool]) -> None:
        super().__init__(files)
        self._is_incomplete = incomplete

    def isdisjoint(self, outputs: Iterable[Any]) -> bool:
        outputs = list(outputs)
        return super().isdisjoint(outputs) and not self._is_incomplete(outputs)


class _OneTimer:
    """At most one timer of each delay. They are daemons: a run that ends does not wait for them."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._pending: set[float] = set()
        self._lock = threading.Lock()

    def __call__(self, delay: float) -> None:
        with self._lock:
            if delay in self._pending:
                return
            self._pending.add(delay)
        timer = threading.Timer(delay, self._fire, (delay,))
        timer.daemon = True
        timer.start()

    def _fire(self, delay: float) -> None:
        with self._lock:
            self._pending.discard(delay)
        self._wake()


class _Listener(logging.Handler):
    def __init__(self, finished: Callable[[int], None], otherwise: Callable[[], None]) -> None:
        super().__init__()
        self._finished, self._otherwise = finished, otherwise
        self._event = _finished_event()
        self._thread = threading.get_ident()
        self._inside = False  # what is called here writes to the same log

    def emit(self, record: logging.LogRecord) -> None:
        if self._inside or threading.get_ident() != self._thread:
            return
        self._inside = True
        try:
            number = getattr(record, "job_id", None)
            if getattr(record, "event", None) == self._event and number is not None:
                self._finished(number)
            else:
                self._otherwise()
        except Exception:
            self.handleError(record)
        finally:
            self._inside = False


def _finished_event() -> Any:
    with suppress(ImportError, AttributeError):
        from snakemake_interface_logger_plugins.common import LogEvent

        return LogEvent.JOB_FINISHED
    raise SnakemakeUnfit("snakemake-interface-logger-plugins has no LogEvent.JOB_FINISHED", TESTED[-1])


def _logger() -> logging.Logger:
    return logging.getLogger("snakemake.logging")
