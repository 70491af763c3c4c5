"""How this ddmq-hpc is started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddmq_hpc import __version__, installation, schedulers, usage
from ddmq_hpc.errors import DdmqError


def test_it_is_started_again_from_anywhere(tmp_path: Path) -> None:
    command = [*installation.own_command(), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"ddmq-hpc {__version__}\n"


def test_the_command_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "ddmq-hpc"
    monkeypatch.setattr(sys, "argv", [str(command)])
    assert installation.own_directory() == str(Path(sys.executable).parent)
    command.touch(0o755)
    assert installation.own_directory() == str(tmp_path)


def test_memory_of_tasks_is_not_watched_where_there_is_no_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the single file: what is compiled is not in it."""
    torque = {"PBS_WALLTIME": "3600"}
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())  # the one of this test may have ended
    pbs = schedulers.get("pbs")
    assert usage.tree_rss(os.getpid()) and pbs.announced_end(torque)
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert usage.tree_rss(os.getpid()) is None and pbs.announced_end(torque) is None


def test_files_that_come_with_it() -> None:
    assert "exec ddmq-hpc work" in installation.data("templates/none", "../slurm/worker.sbatch")
    with pytest.raises(DdmqError, match=r"templates/none is missing; install ddmq-hpc again"):
        installation.data("templates/none", "none")
