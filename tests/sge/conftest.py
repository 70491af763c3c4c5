"""The cell that the tests of this directory share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cell import Cell, running, why_not


@pytest.fixture(scope="session")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """A Grid Engine cell of one host. Where there can be none the tests are skipped, but in CI they fail."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with running(Path(tmp_path_factory.mktemp("sge"))) as it:
        yield it
