"""A queue as `hostile_tools` makes it, one for all tests of a process, of which each test damages a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_tools import copy, outside, prepare
from hypothesis import settings

from ddmq_hpc import selection

# The same examples each time where a change is judged, new ones anywhere else.
settings.register_profile("judging", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("judging")


@pytest.fixture(scope="module", autouse=True)
def impatient() -> Iterator[None]:
    """Who looks for messages waits seconds for somebody who divides an entry. Where one stands in a queue of these
    tests nobody does, and half of the commands would wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_DIVIDING", 0.1)
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def root(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy; `outside` stands beside it. What a hostile text has run would leave `owned` where the tests work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    copy(prepared, tmp_path / "root")
    outside(tmp_path)
    return tmp_path / "root"
