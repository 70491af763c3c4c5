"""The command as users have it: a process of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Run


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `ddmq-hpc` with arguments; `code` is the exit code it must have. Nothing may ever print a traceback."""

    def call(*args: str, code: int | None = 0, stdin: str = "", env: dict[str, str] | None = None, **more: Any) -> Any:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DDMQ_HPC_")}
        environment.update({"TMPDIR": str(tmp_path), **(env or {})})
        done: Any = subprocess.run(
            [COMMAND, *args],
            input=stdin.encode(),
            env=environment,
            capture_output=True,
            timeout=60,
            **more,
        )
        # Not as text=True would: that changes line ends.
        done.stdout, done.stderr = (part.decode("utf-8", "surrogateescape") for part in (done.stdout, done.stderr))
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, (
            f"{args}: {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
        )
        if code not in (None, 0, 1):
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done

    return call
