"""Which tasks one run of Snakemake takes, until when, and what becomes of them by the fate of their jobs."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Callable

from ddmq_hpc.errors import QueuePaused, StorageError, UsageError
from ddmq_hpc.idle import PATIENCE
from ddmq_hpc.snakemake.claims import Claims
from ddmq_hpc.snakemake.internals import Run, say, warn


@dataclass(frozen=True)
class Limits:
    """How much a run takes: counts, seconds; None where there is no limit."""

    until: str = "empty"
    max_inflight: int = 200
    max_tasks: int | None = None
    idle_exit: float | None = None


class Intake:
    """One run that is taking tasks. All of it is called in Snakemake's main thread."""

    def __init__(self, run: Run, claims: Claims, limits: Limits) -> None:
        self._run, self._claims, self._limits = run, claims, limits
        self._jobs: dict[str, Any] = {}
        self._victims: dict[Any, set[str]] = defaultdict(set)
        self._seen_failed = 0
        self._stop = ""
        self._idle_since: float | None = None
        self._trouble_since: float | None = None
        run.redo_incomplete()
        run.keep_one_timer()
        run.let_sigterm_in()
        self._turn_away = run.listen(self._finished, self._look)

    def next_targets(self) -> list[str] | None:
        """What jobs are to make that the run did not know of; None when there will be no more of them.

        The graph of jobs is consistent now, as Snakemake asks between two changes. Raises `UsageError` when no rule
        makes a target, `QueueNotFound`, `Untrusted`; `StorageError` when there were only such for `PATIENCE` seconds.
        """
        self._know_jobs()
        self._settle_done(lambda target, job: self._run.is_finished(job) or self._run.is_up_to_date(job, target))
        self._settle_failed()
        if self._run.starts_no_more:
            return []
        reason = self._stop or self._take()
        targets, self._claims.fresh = self._claims.fresh, []
        if targets or not reason:
            return targets
        say(f"no more tasks are taken: {reason}")
        return None

    def end(self) -> None:
        """Give the last verdicts; what is held afterwards has none."""
        self._turn_away()
        self._know_jobs(told=False)
        self._settle_done(lambda target, job: self._run.is_finished(job))
        self._settle_failed()

    # -- taking

    def _take(self) -> str:
        """Take what there is room for. Why there will be no more; empty when there may be."""
        limits, claims = self._limits, self._claims
        room = limits.max_inflight - len(claims.held)
        if limits.max_tasks is not None:
            room = min(room, limits.max_tasks - len(claims.bodies))
            if room <= 0 and len(claims.bodies) >= limits.max_tasks:
                return f"{limits.max_tasks} were to be taken"
        try:
            if room > 0:
                claims.take(room)
            reason = self._why_nothing_comes()
        except QueuePaused as error:
            return "" if claims.held or limits.until != "empty" else str(error)
        except StorageError as error:
            self._bear(error)
            return ""
        self._trouble_since = None
        return reason

    def _why_nothing_comes(self) -> str:
        limits, claims = self._limits, self._claims
        if claims.held:
            self._idle_since = None
            return ""  # what comes back from them, or is published meanwhile, is taken
        now = time.monotonic()
        self._idle_since = self._idle_since or now
        if limits.until == "empty":
            return "nothing is ready"
        if limits.until == "drained" and not claims.more_may_come():
            return "the queue is drained"
        if limits.idle_exit is not None and now - self._idle_since >= limits.idle_exit:
            return "nothing came for a while"
        return ""

    def _bear(self, error: StorageError) -> None:
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
            warn(f"{error}; trying on")
        if now - self._trouble_since > PATIENCE:
            raise error

    # -- verdicts

    def _finished(self, number: int) -> None:
        """Of a job whose outputs were found to be there just now."""
        if any(target not in self._jobs for target in self._claims.held):
            self._know_jobs(told=False)
        self._settle_done(lambda target, job: self._run.number(job) == number)

    def _look(self) -> None:
        """At any other line of the log: a failure is told to others at once."""
        if self._run.count_failed() > self._seen_failed:
            self._know_jobs(told=False)
            self._settle_failed()

    def _know_jobs(self, told: bool = True) -> None:
        """Find the jobs of what is held; of what Snakemake was told of there must be one."""
        held = self._claims.held
        by_output = self._run.jobs_by_output() if held else {}
        self._jobs = {target: by_output[target] for target in held if target in by_output}
        if told and (unmade := held.keys() - self._jobs.keys() - set(self._claims.fresh)):
            raise UsageError(f"no rule makes {min(unmade)}: `target` must be what the output of a rule is")

    def _settle_done(self, is_done: Callable[[str, Any], bool]) -> None:
        for target, job in list(self._jobs.items()):
            if is_done(target, job):
                self._claims.done(target)
                del self._jobs[target]

    def _settle_failed(self) -> None:
        """Nack the tasks whose jobs failed. A job that several tasks wait for in vain is no fault of theirs: they are
        released in the end, and no more are taken, which would only fail in turn."""
        self._seen_failed = self._run.count_failed()
        if not self._seen_failed or self._run.is_cancelled:
            return
        failed = self._run.failed()
        culprits = {target: self._run.needed_by(job) & failed for target, job in self._jobs.items()}
        for target, jobs in culprits.items():
            for job in jobs:
                self._victims[job].add(target)
        for target, jobs in culprits.items():
            if any(len(self._victims[job]) == 1 for job in jobs):
                self._claims.failed(target)
                del self._jobs[target]
            elif jobs:
                self._stop = "a job that several of them need failed"
