"""Users of a test's own, by number: each of their commands is a process with that id, their groups and their umask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LAB, OTHERS = 7100, 7999


class User:
    """One who has the command, in a place with a root `root`."""

    def __init__(self, place: Path, uid: int, umask: int, group: int = LAB) -> None:
        self.uid, self.place, self.root = uid, place, place / "home" / "root"
        self.environ = {
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(place / "node"),
            "PYTHONPATH": str(place / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DDMQ_HPC_ROOT": str(self.root),
        }
        self._as = ["setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={group}", "--no-new-privs", "--"]
        self._as += ["sh", "-c", f'umask {umask:03o}; exec "$@"', "sh"]

    def start(self, *command: str, **more: Any) -> subprocess.Popen[bytes]:
        """A process of this user."""
        return subprocess.Popen([*self._as, *command], env=self.environ, cwd=self.place / "home", **more)

    def start_python(self, script: str, *args: str) -> subprocess.Popen[bytes]:
        """A script, in which `queue` is the queue `tasks`."""
        head = "import os, sys; from ddmq_hpc.broker import Broker\n"
        head += "broker = Broker(os.environ['DDMQ_HPC_ROOT']); queue = broker.queue('tasks')\n"
        return self.start(interpreter(), "-c", head + script, *args, stdin=-1, stdout=-1, stderr=-1)

    def python(self, script: str, *args: str) -> str:
        """What such a script prints."""
        with self.start_python(script, *args) as process:
            answer, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
        return answer.decode()

    def tamper(self, script: str, *args: object) -> str:
        """What a script of this user prints that knows nothing of ddmq-hpc."""
        done = subprocess.run(
            self.script(script, *args),
            env=self.environ,
            cwd=self.place / "home",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def script(self, script: str, *args: object) -> list[str]:
        """The command for such a script."""
        head = "import fcntl, os, signal, socket, sys, time\n"
        return [*self._as, interpreter(), "-c", head + script, *map(str, args)]

    def command(self, *args: str) -> list[str]:
        return [interpreter(), "-m", "ddmq_hpc", *args]

    def run(self, *args: str, code: int = 0, stdin: str = "") -> str:
        """What the command prints; on standard error where it must fail with `code`."""
        with self.start(*self.command(*args), stdin=-1, stdout=-1, stderr=-1) as process:
            answer, errors = process.communicate(stdin.encode(), timeout=60)
        assert b"Traceback" not in errors, errors.decode()
        assert process.returncode == code, f"{args}: {process.returncode}\n{answer.decode()}{errors.decode()}"
        return (errors if code else answer).decode()


def interpreter() -> str:
    """An interpreter that every user can run."""
    real = Path(os.path.realpath(sys.executable))
    everybody = all(parent.stat().st_mode & 0o001 for parent in real.parents)
    return str(real) if everybody else "/usr/bin/python3"
