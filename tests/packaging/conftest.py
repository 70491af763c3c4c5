"""What is built, once for all tests: wheel, sdist, and the single file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from building import TOP, Built, build, make_pyz, tracked


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project elsewhere, with other times and modes of its files."""
    place = tmp_path_factory.mktemp("elsewhere") / "project"
    for name in tracked():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TOP / name, target)
        target.chmod(0o700 if (TOP / name).stat().st_mode & 0o100 else 0o600)
    return place


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, and the wheel that was made from it."""
    return build(TOP, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pyz(TOP, tmp_path_factory.mktemp("pyz"))
