"""A workflow that consumes tasks, run by real Snakemakes in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import pytest

from ddmq_hpc import Broker
from ddmq_hpc.admin import entries
from ddmq_hpc.names import message_id

#: Seconds after which a test gives up, whatever this machine does besides.
PATIENCE = 120.0

SNAKEFILE = """
from ddmq_hpc.snakemake import tasks

queue = tasks(config["queue"], workflow=workflow, target="results/{{task}}.txt", {options})


onsuccess:
    queue.settle()


onerror:
    queue.settle()


rule all:
    input:
        queue.feed(),


rule consume:
    output:
        "results/{{task}}.txt",
    {more}
    params:
        task=queue.body,
    shell:
        {command!r}
"""
#: As from a terminal: what is started in the background of a script ignores Ctrl-C, and so do its children.
SNAKEMAKE = """
import runpy, signal

signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
"""
#: Its start is told before the work, and its result is complete or not there.
COMMAND = "echo {params.task[n]} >> starts; echo $(( {params.task[n]} * {params.task[n]} )) > {output}"


def require_snakemake() -> None:
    """At the head of a module of tests: skip it where Snakemake cannot be had."""
    spec = importlib.util.find_spec("snakemake")
    if spec is not None and spec.origin is not None:
        return
    if os.environ.get("CI") == "true" and sys.version_info >= (3, 11):
        pytest.fail("snakemake is not installed: make .venv/.test", pytrace=False)
    pytest.skip("snakemake cannot be imported; it wants Python 3.11", allow_module_level=True)


class Site:
    """A queue and a working directory, with what runs there."""

    def __init__(self, top: Path, name: str = "work") -> None:
        self.root = top / "queues"
        self.directory = top / name
        self.directory.mkdir()
        self.broker = Broker(self.root, create=True)
        self.queue = self.broker.queue("tasks")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DDMQ_HPC_")}
        self.environment["XDG_CACHE_HOME"] = str(top / "cache")
        self.processes: list[subprocess.Popen[str]] = []

    def beside(self, name: str) -> Site:
        """Another working directory on the same queue."""
        return Site(self.directory.parent, name)

    def write(self, options: str = "", command: str = COMMAND, more: str = "") -> None:
        text = SNAKEFILE.format(options=options, command=command, more=more)
        (self.directory / "Snakefile").write_text(text, encoding="utf-8")

    def publish(self, *numbers: int) -> None:
        self.broker.publish_many("tasks", ({"n": number} for number in numbers))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A run of its own process group, as a shell starts one; stderr goes to `log`."""
        command = [sys.executable, "-c", SNAKEMAKE, "--config", f"queue={self.root}/tasks", "--cores", "4"]
        command += ["--queue-input-wait-time", "1", *arguments]
        with open(self.directory / "log", "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> int:
        return self.start(*arguments).wait(timeout=PATIENCE)

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        self.broker.close()

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8")

    @property
    def starts(self) -> list[int]:
        """The numbers of the tasks that were begun, in order."""
        path = self.directory / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @property
    def results(self) -> list[int]:
        """What came out, sorted."""
        return sorted(int(path.read_text()) for path in self.directory.glob("results/*.txt"))

    def states(self) -> dict[str, int]:
        """How many messages are in each state."""
        found: Counter[str] = Counter()
        for entry in entries(self.queue):
            found[entry.state] += entry.entry.stop - entry.entry.first
        return dict(found)

    def attempts(self) -> list[tuple[int, int]]:
        """(failed, lost) of each message that is there, sorted."""
        return sorted(
            (e.entry.failed, e.entry.lost) for e in entries(self.queue) for _ in range(e.entry.first, e.entry.stop)
        )

    def ids(self) -> list[str]:
        return [message_id(e.entry.pack, i) for e in entries(self.queue) for i in range(e.entry.first, e.entry.stop)]

    def outcomes(self) -> dict[str, int]:
        """How often the journal says what."""
        from ddmq_hpc import journal

        return dict(Counter(str(record["state"]) for record in journal.read(self.queue.fs, self.queue.paths)))


def wait_for(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
