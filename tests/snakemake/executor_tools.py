"""Workflows whose jobs run on workers, all of them processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

from ddmq_hpc import Broker, admin, journal
from ddmq_hpc.messages import Message

BIN = Path(sys.executable).parent
#: Seconds after which a test gives up, whatever this machine does besides.
PATIENCE = 150.0


class Lab:
    """A working directory, a root and workers."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = top / "root"
        self.directory = top / "work"
        self.directory.mkdir()
        self.broker = Broker(self.root, create=True)
        self.broker.create_queue("jobs", durable=False, timeout=60)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DDMQ_HPC_")}
        self.environment.update(XDG_CACHE_HOME=str(top / "cache"), TMPDIR=str(top / "tmp"))
        (top / "tmp").mkdir()
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def worker(self, *options: str, queue: str = "jobs", **env: str) -> subprocess.Popen[str]:
        """Started, in a session of its own; it goes on until it is stopped."""
        return self.worker_as_it_comes("--until", "forever", *options, queue=queue, **env)

    def worker_as_it_comes(self, *options: str, queue: str = "jobs", **env: str) -> subprocess.Popen[str]:
        command = [str(BIN / "ddmq-hpc"), "work", str(self.root), queue, "--snakemake", *options]
        return self._start(command, f"worker-{len(self.processes)}.log", env)

    def snakemake(self, *options: str, mode: str = "fork", jobs: int = 20, **env: str) -> subprocess.Popen[str]:
        """Started, with all it prints in `controller-N.log`."""
        executor = ["--executor", "ddmq", "--ddmq-queue", f"{self.root}/jobs", "--ddmq-mode", mode, "-j", str(jobs)]
        command = [str(BIN / "snakemake"), *executor, "--nocolor", "--latency-wait", "5", *options]
        return self._start(command, f"controller-{len(self.processes)}.log", env)

    def run(self, *options: str, mode: str = "fork", code: int = 0, **env: str) -> str:
        """Snakemake to its end: what it printed."""
        process = self.snakemake(*options, mode=mode, **env)
        assert process.wait(PATIENCE) == code, self.log(process)
        return self.log(process)

    def _start(self, command: list[str], log: str, env: dict[str, str]) -> subprocess.Popen[str]:
        with open(self.top / log, "w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**self.environment, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        process.log = self.top / log  # type: ignore[attr-defined]
        self.processes.append(process)
        return process

    def log(self, process: subprocess.Popen[str]) -> str:
        return Path(process.log).read_text()  # type: ignore[attr-defined]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    # -- looks

    def records(self, queue: str = "jobs") -> list[dict[str, Any]]:
        found = self.broker.queue(queue)
        return list(journal.read(found.fs, found.paths))

    def counts(self) -> dict[str, int]:
        found = Broker(self.root).stats("jobs").to_dict()
        return {state: found[state] for state in ("ready", "leased", "delayed", "dead") if found[state]}

    def leftovers(self) -> list[str]:
        """Files of reports and keys that nobody needs once all is done."""
        top = self.root / "jobs"
        return [str(path) for place in ("reports", "keys") for path in (top / place).rglob("*") if path.is_file()]

    def bodies(self) -> list[dict[str, Any]]:
        """The jobs that wait."""
        return [message.message for message in self.waiting()]

    def waiting(self, queue: str = "jobs") -> list[Message]:
        return [item.message for item in admin.items(self.broker.queue(queue), ("ready",))]


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def of_state(records: list[dict[str, Any]], state: str) -> list[dict[str, Any]]:
    return [record for record in records if record["state"] == state]
