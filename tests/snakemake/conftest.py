"""What the tests of the executor share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from executor_tools import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A queue `jobs`, a working directory, and what is started there."""
    found = Lab(tmp_path)
    yield found
    found.close()
