"""Snakemake's executor `ddmq`: jobs go through a queue to workers, `ddmq-hpc work --snakemake`.

Snakemake imports all its plugins at every start, so the top of this module loads nothing of ddmq-hpc; and reads the
types of the settings, which therefore are no texts.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Optional

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase
from snakemake_interface_executor_plugins.utils import format_cli_arg


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    queue: Optional[str] = field(
        default=None,
        metadata={
            "help": "The queue, as ROOT/QUEUE; it is made when it is missing. A rule's resource `ddmq_queue` names "
            "another queue of the same root.",
            "required": True,
        },
    )
    mode: str = field(
        default="fork",
        metadata={
            "help": "How workers run jobs: `fork` from a process that has snakemake loaded; `plain`, a new process "
            "each; `direct`, the command of a rule alone where the rule needs nothing else, else as `fork`. "
            "(default: fork)",
        },
    )


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=False,
    auto_deploy_default_storage_provider=False,
)
#: Seconds between two looks for jobs that ended.
_LOOK_EVERY = 0.5
#: With more inputs than this a job is told by a file which to wait for, as Snakemake's own executors do.
_MANY_INPUTS = 20


class Executor(RemoteExecutor):
    """What Snakemake makes of its side; what becomes of jobs is `ddmq_hpc.snakemake.executor`'s to know."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        from ddmq_hpc.errors import DdmqError
        from ddmq_hpc.snakemake.executor import Sender

        # Before the thread that asks for it begins, which the parent's constructor starts.
        try:
            self._sender = Sender(workflow, logger)
        except DdmqError as error:
            raise WorkflowError(str(error)) from error
        #: Not passed on yet: a job may end before it is counted as active.
        self._ends: dict[Optional[str], Any] = {}
        super().__init__(workflow, logger)
        self.next_seconds_between_status_checks = _LOOK_EVERY

    def run_job(self, job: JobExecutorInterface) -> None:
        from ddmq_hpc.errors import DdmqError

        try:
            ident = self._sender.send(job, self.format_job_exec(job), self.envvars())
        except DdmqError as error:
            self.report_job_error(SubmittedJobInfo(job), msg=f"{error}\n")
            return
        self.report_job_submission(SubmittedJobInfo(job, external_jobid=ident))

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        self._ends.update(self._sender.ended())
        for info in active_jobs:
            end = self._ends.pop(info.external_jobid, None)
            if end is None:
                yield info
            elif end.code == 0:
                self.report_job_success(info)
            else:
                self.report_job_error(info, msg=f"{end.text}\n")

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        self._sender.cancel([info.external_jobid for info in active_jobs])

    def shutdown(self) -> None:
        super().shutdown()
        self._sender.close()

    def additional_general_args(self) -> str:
        # A job that is alone waits at its end for the timer of its own rate limit, a second by default. Not `0ms`: the
        # unit is read as minutes.
        # Quiet, for what it prints is what a user sees of a job that failed.
        return "--max-jobs-per-timespan 100000/0s --quiet host progress rules reason"

    def get_job_args(self, job: JobExecutorInterface, **kwargs: Any) -> str:
        """As the parent has it, but for what is different in each run of Snakemake: the directory for its own files,
        which a job of an earlier run would wait for in vain. And a job gets the cores that it has a worker's slots for.
        """
        inputs = list(job.get_wait_for_files())
        if len(inputs) > _MANY_INPUTS:
            path = f"{self.get_jobscript(job)}.inputs"
            with open(path, "w") as file:
                print(*inputs, sep="\n", file=file)
            wait = format_cli_arg("--wait-for-files-file", path)
        else:
            wait = format_cli_arg("--wait-for-files", inputs)
        return f"{RealExecutor.get_job_args(self, job, cores=max(1, job.threads), **kwargs)} {wait}"
