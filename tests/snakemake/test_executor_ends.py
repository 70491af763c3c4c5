"""The ends of jobs, as the plugin passes them on to Snakemake."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from rules_tools import require_snakemake

require_snakemake()

from snakemake_executor_plugin_ddmq import Executor  # noqa: E402
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo  # noqa: E402


def test_a_job_that_ends_before_snakemake_counts_it_as_active_is_reported_all_the_same() -> None:
    """It is published first and registered then; a round of looking may come in between."""
    told: list[Any] = []
    ends: list[dict[str, Any]] = [{"quick": SimpleNamespace(ident="quick", code=0, text="")}, {}]
    executor = Executor.__new__(Executor)
    executor._ends = {}
    executor._sender = SimpleNamespace(ended=lambda: ends.pop(0))
    executor.report_job_success = told.append

    async def look(active: list[SubmittedJobInfo]) -> list[SubmittedJobInfo]:
        return [info async for info in executor.check_active_jobs(active)]

    job = SubmittedJobInfo(None, external_jobid="quick")
    assert asyncio.run(look([])) == [] and told == []
    assert asyncio.run(look([job])) == [] and told == [job]
