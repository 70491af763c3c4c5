"""The cluster that the tests of this directory share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, running, why_not


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm cluster of 4 nodes. Where there can be none the tests are skipped, but in CI they fail."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with running(Path(tmp_path_factory.mktemp("slurm"))) as it:
        yield it
