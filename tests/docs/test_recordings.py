"""Pictures of the documentation: drawings and recordings that need nothing else, and that a script can make again."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

TOP = Path(__file__).resolve().parents[2]
PICTURES = sorted(TOP.glob("docs/pictures/*.svg"))


@pytest.fixture
def build_recordings() -> ModuleType:
    sys.path.insert(0, str(TOP / "docs"))
    try:
        return importlib.import_module("build_recordings")
    finally:
        sys.path.pop(0)


def test_all_pictures_are_on_a_page() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in TOP.glob("docs/*.md"))
    assert PICTURES
    assert [path.name for path in PICTURES if f"(pictures/{path.name})" not in pages] == []


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_says_what_it_shows_and_needs_nothing_else(picture: Path) -> None:
    text = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None and title.text and root.get("role") == "img"
    assert not re.search(r"<script|\bhref=|@import|/tmp/", text)


@pytest.mark.slow
def test_a_session_is_recorded(build_recordings: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_recordings, "SESSION", ["ddmq-hpc create -f tasks", "ddmq-hpc status"])
    monkeypatch.setattr(build_recordings, "_TYPING", 0.01)
    monkeypatch.setattr(build_recordings, "_READING", 0.1)
    root = ElementTree.fromstring(build_recordings.session())
    groups = root.findall("{http://www.w3.org/2000/svg}g")
    last = ["".join(group.itertext()) for group in groups if group.get("class", "").endswith(" last")]
    said = " ".join(last)
    assert "$ ddmq-hpc create -f tasks" in said and "made queue tasks in /scratch/me/queues" in said
    assert "holders" in said
    # What was there for a moment: the command while it was typed.
    assert len(groups) > len(last) > 3
    style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
    assert all(f"@keyframes {group.get('class', '').split()[0]}{{" in style for group in groups)
