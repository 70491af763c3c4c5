"""A fresh root for each test, in memory where the machine has such a place: these tests make thousands of files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory; what clients of a node share is kept below it, too."""
    shm = "/dev/shm"
    base = shm if os.access(shm, os.W_OK | os.X_OK) else None
    path = Path(tempfile.mkdtemp(prefix="ddmq-hpc-test-", dir=base))
    (path / "node").mkdir()
    monkeypatch.setenv("TMPDIR", str(path / "node"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
