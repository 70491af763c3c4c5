"""Schedulers as tests want them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scheduler_commands import Commands

from ddmq_hpc.schedulers import pbs, slurm


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands in front of the PATH, outside of any job, nothing remembered of the schedulers of this machine."""
    for name in list(os.environ):
        if name.startswith(("SLURM", "SQUEUE", "PBS", "SGE")) or name in ("JOB_ID", "RESTARTED"):
            monkeypatch.delenv(name)
    made = Commands(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.place}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "_known", {})
    monkeypatch.setattr(slurm, "_configured_cluster", lambda: "testbed")
    pbs._is_torque.cache_clear()
    return made
