"""What the tests of workers share: workers as processes of their own, and looks at what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

from ddmq_hpc import journal
from ddmq_hpc.broker import Broker

COMMAND = str(Path(sys.executable).with_name("ddmq-hpc"))


class Bench:
    """One queue `tasks`, and the workers that were started on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = str(place / "root")
        self.broker = Broker(self.root, create=True)
        self.broker.create_queue("tasks", durable=False)
        self.workers: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [COMMAND, "work", self.root, "tasks", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.place / "node"), **env},
        )
        self.workers.append(worker)
        return worker

    def work(self, *arguments: str, **env: str) -> str:
        """Run a worker to its end: what it says on stderr."""
        worker = self.start(*arguments, **env)
        _, said = worker.communicate(timeout=60)
        assert worker.returncode == 0, said
        return said

    def settings(self, text: str) -> None:
        (Path(self.root) / "tasks" / "ddmq.yaml").write_text("durable: false\n" + text)

    def counts(self) -> dict[str, int]:
        found = Broker(self.root).stats("tasks").to_dict()
        return {state: found[state] for state in ("ready", "leased", "delayed", "dead") if found[state]}

    def records(self) -> list[dict[str, Any]]:
        queue = self.broker.queue("tasks")
        return list(journal.read(queue.fs, queue.paths))

    def file(self, name: str) -> str:
        path = self.place / name
        return path.read_text() if path.exists() else ""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


def processes(text: str) -> list[str]:
    """Command lines of the processes on this host that contain a text, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if text in line and "pytest" not in line:
                found.append(line)
    return found


def of_journal(records: list[dict[str, Any]], state: str) -> list[dict[str, Any]]:
    return [record for record in records if record["state"] == state]


def as_json(text: str) -> Any:
    return json.loads(text)
