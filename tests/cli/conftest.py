"""The command as users have it: a process of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Run

UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "root")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `ddmq-hpc` with arguments; `code` is the exit code it must have. Nothing may ever print a traceback.

    `unprivileged`: as root without the capabilities that make permissions mean nothing to it, since another user may
    not be able to read the interpreter.
    """

    def call(
        *args: str,
        code: int | None = 0,
        stdin: str = "",
        env: dict[str, str] | None = None,
        unprivileged: bool = False,
        **more: Any,
    ) -> Any:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DDMQ_HPC_")}
        environment.update({"TMPDIR": str(tmp_path), **(env or {})})
        done: Any = subprocess.run(
            [*(UNPRIVILEGED if unprivileged else ()), COMMAND, *args],
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


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, mounted for the test."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], capture_output=True)
    if mounted.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"cannot mount a tmpfs: {mounted.stderr.decode()}")
        pytest.skip(f"only root can mount a file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def full(run: Run, small: Path) -> str:
    """A root with five messages and one more that is leased, and no room left."""
    root = str(small / "root")
    run("create", "-f", root, "q")
    run("publish", "--each-line", "-", root, "q", stdin="0\n1\n2\n3\n4\n5\n")
    (small / "first").write_text(run("pull", "--format", "json", root, "q").stdout)
    with open(small / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    return root
