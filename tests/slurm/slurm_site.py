"""A user of a real cluster: a queue in a fresh root, and the commands to work with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

from cluster import Cluster


class Site:
    """A queue in a fresh root, and the commands of its user, who works in the directory above it."""

    def __init__(self, cluster: Cluster, home: Path, *before: Path) -> None:
        self.cluster = cluster
        self.home = home
        self.root = str(home / "root")
        path = ":".join(map(str, [Path(sys.executable).parent, *before]))
        self.env = {**cluster.env, "PATH": f"{path}:{cluster.env['PATH']}", "TMPDIR": "/tmp"}
        self.ddmq("create", "-f", self.root, "tasks")

    def run(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(command, env=self.env, cwd=self.home, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def ddmq(self, *arguments: str, code: int = 0) -> str:
        return self.run("ddmq-hpc", *arguments, code=code)

    def publish(self, count: int) -> None:
        (self.home / "numbers").write_text("".join(f"{n}\n" for n in range(count)))
        self.ddmq("publish", self.root, "tasks", "--each-line", "numbers")

    def submit(self, *arguments: str) -> list[str]:
        """The ids of the jobs."""
        return [line.split("\t")[0] for line in self.ddmq("submit", self.root, "tasks", *arguments).splitlines()]

    def done(self) -> list[int]:
        return sorted(map(int, (self.home / "done").read_text().split())) if (self.home / "done").exists() else []

    def left(self) -> int:
        [status] = json.loads(self.ddmq("status", self.root, "tasks", "--format", "json"))["queues"]
        return int(sum(status[state] for state in ("ready", "leased", "delayed", "dead")))

    def output(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(self.home.glob("*")) if log.is_file())

    def count_commands(self, *names: str) -> Callable[[], list[str]]:
        """From here on commands of these names are written down; what was."""
        wrappers, log = self.home / "wrappers", self.home / "commands"
        wrappers.mkdir()
        for name in names:
            real = shutil.which(name, path=self.env["PATH"])
            wrapper = wrappers / name
            wrapper.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nexec {real} "$@"\n')
            wrapper.chmod(0o755)
        self.env["PATH"] = f"{wrappers}:{self.env['PATH']}"
        return lambda: log.read_text().splitlines() if log.exists() else []
