"""A queue as `hostile_tools` makes it, one for all tests of a process, of which each test damages a copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hostile_tools import copy, outside, prepare
from hypothesis import settings

# The same examples each time where a change is judged, new ones anywhere else.
settings.register_profile("judging", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("judging")


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
