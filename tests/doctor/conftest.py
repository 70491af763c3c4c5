"""Directories to check."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddmq_hpc.mounts import mount_of

MEMORY = "/dev/shm"


@pytest.fixture
def in_memory() -> Iterator[Path]:
    if mount_of(MEMORY).type != "tmpfs":
        pytest.skip(f"{MEMORY} is no tmpfs here")
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        yield Path(place)
