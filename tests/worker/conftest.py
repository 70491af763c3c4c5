"""A root for each test, outside of any batch job."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_tools import Bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    for name in os.environ:
        if name.startswith(("SLURM_", "PBS_", "SGE_", "DDMQ_HPC_")):
            monkeypatch.delenv(name)
    found = Bench(tmp_path)
    yield found
    for worker in found.workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGKILL)
        worker.communicate()
    found.broker.close()
