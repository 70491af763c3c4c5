"""Building as the Makefile does it, and the interpreters to try on what was built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).resolve().parents[2]
#: As reproducible builds are told it: another day than the one of hatchling's own choice.
EPOCH = "1700000000"


def python(which: str) -> str:
    """The `oldest` or the `newest` interpreter here, a bare one."""
    lines = subprocess.run([TOP / ".ci" / "pythons"], capture_output=True, text=True, check=True).stdout.splitlines()
    return lines[0 if which == "oldest" else -1].partition("PYTHON=")[2]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DDMQ_HPC_", "PYTHON"))}
    return {**kept, "SOURCE_DATE_EPOCH": EPOCH, "PYTHONHASHSEED": "0", **more}


def tracked() -> list[str]:
    """The files of the project, as git knows them."""
    if not (TOP / ".git").exists():
        pytest.skip("only a clone tells which files are the project's")
    listed = subprocess.run(["git", "-C", TOP, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (TOP / name).exists()]


class Built(NamedTuple):
    wheel: Path
    sdist: Path


def build(source: Path, output: Path, *what: str) -> Built:
    """As `make dist` does."""
    command = [sys.executable, "-m", "build", *what, "--outdir", str(output), str(source)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return Built(wheel, sdist)


def make_pyz(source: Path, output: Path) -> Path:
    """As `make pyz` does."""
    made = output / "ddmq-hpc.pyz"
    command = [sys.executable, str(source / "recipes" / "pyz.py"), str(made)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return made
