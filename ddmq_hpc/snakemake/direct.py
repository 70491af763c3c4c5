"""The mode `direct`: which jobs are nothing but a command for a shell, and what that is.

Snakemake does more for a job than to run its command: whatever of that a worker could not do alone is a reason to have
snakemake run the job. What is read here was found in 9.27, and is tested against the version at hand.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

#: A longer command goes by snakemake, which writes it to a file: Linux takes no argument of more than 128 KiB.
_LONGEST = 100_000
#: What snakemake sets to the threads of a job.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)  # fmt: skip


def command_of(job: Any, workflow: Any) -> str:
    """The command line for bash of a job that needs nothing else; nothing for other jobs."""
    if job.is_group() or not job.is_shell or _needs_snakemake(job, workflow):
        return ""
    from snakemake.shell import shell

    if (shell.get_executable() or "bash").rpartition("/")[2] != "bash":
        return ""
    threads = " ".join(f"{name}={job.threads}" for name in _THREAD_VARIABLES)
    parts = [shell._get_process_prefix("bash"), str(job.shellcmd), shell._process_suffix]
    command = f"export {threads}\n{' '.join(parts).strip()}"
    return command if len(command) < _LONGEST else ""


def _needs_snakemake(job: Any, workflow: Any) -> bool:
    rule, deploys = job.rule, bool(workflow.deployment_settings.deployment_method)
    files = list(chain(job.input, job.output, job.log))
    return bool(
        (deploys and (job.conda_env or job.container_img_url or job.env_modules))
        or job.is_shadow
        or job.benchmark
        or (workflow.workflow_settings.cache is not None and rule.cache)
        or rule.is_handover
        or job.is_checkpoint
        or workflow.remote_execution_settings.precommand
        or job.resources.get("shell_exec") is not None
        or "tmpdir" in rule.shellcmd
        or any(file.is_storage for file in files)
        or any(flag in getattr(file, "flags", {}) for file in files for flag in ("pipe", "service", "update"))
    )
