"""Snakemake's jobs made messages, and what came of them: what the plugin `snakemake_executor_plugin_ddmq` calls.

Of Snakemake only what its interface for executors names is used here; the rest is in `internals` and `direct`.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Any

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import StorageBusy, StorageError, UsageError
from ddmq_hpc.idle import Patience
from ddmq_hpc.messages import Options
from ddmq_hpc.mounts import mount_of
from ddmq_hpc.names import check_queue_name, report_directory
from ddmq_hpc.snakemake import files
from ddmq_hpc.snakemake.direct import command_of
from ddmq_hpc.snakemake.dispatch import Dispatch
from ddmq_hpc.snakemake.internals import Run
from ddmq_hpc.snakemake.jobs import DIRECT, FORK, MODES, Job, key_of
from ddmq_hpc.snakemake.reports import Report

#: Of a queue that the executor makes: a worker that dies with its host is noticed within this (seconds).
LEASE = 60.0
#: No message names more files: of further outputs nothing is flushed but what closing them does.
_MANY = 1000
#: The resource of a rule that names the queue for its jobs.
QUEUE_RESOURCE = "ddmq_queue"


class Sender:
    """Sends jobs to the workers of queues and tells how they ended. Threads may share it. Raises `DdmqError`."""

    def __init__(self, workflow: Any, logger: Any) -> None:
        settings = workflow.executor_settings
        given: str = settings.queue or ""
        root, _, self._queue = given.rstrip("/").rpartition("/")
        if not root:
            raise UsageError(f"bad queue {given!r}: write --ddmq-queue ROOT/QUEUE")
        check_queue_name(self._queue)
        if settings.mode not in MODES:
            raise UsageError(f"bad mode {settings.mode!r:.40}: use {', '.join(MODES)}")
        self._mode = settings.mode
        self._workflow = workflow
        self._run = Run(workflow)
        self._logger = logger
        self._directory = os.getcwd()
        self._lock = Lock()
        self._patience = Patience(logger.warning, time.sleep)
        self._broker = Broker(root, create=True)
        if self._broker.checkup:
            logger.info(f"Made {self._broker.root}, a root for queues.")  # since it may have been a slip
        self._dispatches: dict[str, Dispatch] = {}
        self._sent: dict[str, tuple[Dispatch, list[str]]] = {}  # by message: where it is, and the job's outputs
        self._distant = not mount_of(self._directory).local
        self._dispatch(self._queue)

    # -- send

    def send(self, job: Any, command: str, environment: dict[str, str]) -> str:
        """The message that stands for `job` now, new or of a run that was killed. `command` is the line for a shell by
        which snakemake runs the job."""
        outputs = sorted(map(str, job.output))
        key = key_of(self._directory, list(map(str, job.rules)), outputs, _identity(job))
        made = self._job(job, command, environment, outputs)
        while True:
            try:
                ident = self._send(job, key, made, outputs)
            except StorageBusy as error:
                self._patience.wait(error)
            else:
                self._patience.succeeded()
                return ident

    def _send(self, job: Any, key: str, made: Job, outputs: list[str]) -> str:
        with self._lock:
            dispatch = self._dispatch(str(job.resources.get(QUEUE_RESOURCE, self._queue)))
            # Not `dag.incomplete_external_jobid`: that answers nothing with --rerun-incomplete, without which Snakemake
            # ends before it comes here when an output is half written.
            ident = dispatch.find(key, made, self._run.external_jobids(job))
            if ident is None:
                if self._mode == DIRECT and not made.arguments:
                    self._run.prepare(job)  # else snakemake does, where the job runs
                ident = dispatch.publish(key, made, _options(job))
            else:
                self._logger.info(f"Job {job.jobid} is message {ident} of an earlier run, which was taken over.")
            self._sent[ident] = (dispatch, outputs)
        return ident

    def _dispatch(self, name: str) -> Dispatch:
        if name not in self._dispatches:
            if name not in self._broker.list_queues():
                self._broker.create_queue(name, timeout=LEASE)
            self._dispatches[name] = Dispatch(self._broker.queue(name), report_directory(self._directory))
        return self._dispatches[name]

    def _job(self, job: Any, command: str, environment: dict[str, str], outputs: list[str]) -> Job:
        base = Job(
            reports=report_directory(self._directory),
            name=_title(job),
            directory=self._directory,
            environment=environment,
            outputs=outputs[:_MANY],
        )
        if self._mode == DIRECT and len(job.input) < _MANY and (shell := command_of(job, self._workflow)):
            settings = self._workflow.execution_settings
            return replace(base, shell=shell, inputs=sorted(map(str, job.input)), latency=settings.latency_wait)
        words = shlex.split(command)
        if words[:3] != [sys.executable, "-m", "snakemake"]:
            return replace(base, shell=command)  # with --precommand, say: that is for a shell
        return replace(base, python=sys.executable, arguments=words[3:], fork=self._mode in (FORK, DIRECT))

    # -- look

    def ended(self) -> dict[str, Report]:
        """The jobs that ended since this was last asked, by message. What the file system refuses it does for a while
        before that is raised."""
        found: dict[str, Report] = {}
        made: list[str] = []
        trouble: StorageError | None = None
        with self._lock:
            for name, dispatch in self._dispatches.items():
                try:
                    found.update((each.ident, each) for each in dispatch.ended())
                    if self._run.is_cancelled:  # by SIGTERM: it would wait, as for workers that will never come
                        found.update((each.ident, each) for each in dispatch.withdraw())
                    self._tell_of_workers(name, dispatch)
                except StorageError as error:
                    trouble = error  # of another queue it may be known what ended there
            for ident, each in found.items():
                _, outputs = self._sent.pop(ident)
                made += outputs if each.code == 0 else []
        if self._distant:
            files.find(self._directory, made)
        if trouble is None:
            self._patience.succeeded()
        elif not found:
            self._patience.wait(trouble)
        return found

    def _tell_of_workers(self, name: str, dispatch: Dispatch) -> None:
        if why := dispatch.hindrance():
            self._logger.warning(
                f"Jobs wait in queue {name!r}, and {why}. Unless some wait in a scheduler's queue, start workers with "
                f"room for them (threads, mem_mb, runtime): `ddmq-hpc work {self._broker.root} {name} --snakemake`, or "
                "`ddmq-hpc submit`. Ctrl-C withdraws the jobs."
            )

    # -- end

    def cancel(self, idents: list[str]) -> None:
        """Remove these jobs where they wait, and have those ended that run."""
        try:
            with self._lock:
                for ident in idents:
                    if sent := self._sent.pop(ident, None):
                        sent[0].cancel([ident])
        except StorageError as error:
            self._logger.warning(f"Jobs may go on: {error}")

    def close(self) -> None:
        """Clear up. What cannot be removed now is left to `ddmq-hpc clean`."""
        with self._lock, suppress(StorageError):
            for dispatch in self._dispatches.values():
                dispatch.close()
            self._broker.close()


def _identity(job: Any) -> str:
    """What tells a job without outputs from others."""
    return str(job.get_target_spec())


def _title(job: Any) -> str:
    """For people: `align[sample=7]`."""
    if job.is_group():
        return f"group {job.groupid}"
    wildcards = ",".join(f"{name}={value}" for name, value in job.wildcards_dict.items())
    return f"{job.rule.name}[{wildcards}]" if wildcards else str(job.rule.name)


def _options(job: Any) -> Options:
    """What a job needs of a worker, and how long: by its resources."""
    memory = job.resources.get("mem_mb")
    runtime = job.resources.get("runtime")
    return Options.checked(
        slots=max(1, job.threads),
        memory=memory * 10**6 if isinstance(memory, int) and memory > 0 else None,
        time_request=runtime * 60 if isinstance(runtime, int) and runtime > 0 else None,
    )
