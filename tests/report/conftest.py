from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from browser import PATHS, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium. Where there is none the tests are skipped, but in CI they fail."""
    if not all(PATHS):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("chromium or chromium-driver is not installed")
    found = Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()
