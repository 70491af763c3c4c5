"""When the batch job that this process runs in will be ended by its scheduler."""

from __future__ import annotations

from collections.abc import Mapping

from ddmq_hpc import identity, schedulers


def job_end(environ: Mapping[str, str]) -> float | None:
    """Seconds since 1970, by the clock of this host; None outside of jobs, and where the scheduler tells no end.

    From the environment if that has it, else by one query, which takes `schedulers.ANSWER_SECONDS` at most.
    """
    name = schedulers.running_under(environ)
    if name is None:
        return None
    scheduler = schedulers.get(name)
    if end := scheduler.announced_end(environ):
        return end
    job = schedulers.parse_label(identity.batch_job(environ))
    return scheduler.end_time(job) if job and scheduler.available() else None
