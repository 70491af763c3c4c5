"""What those who take part read and run: commands that exist, forms that can be filled in, versions that agree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from building import TOP

from ddmq_hpc import __version__

PAGES = [*TOP.glob("*.md"), *TOP.glob("docs/*.md"), *TOP.glob("*/README.md"), *TOP.glob(".github/*.md")]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (TOP / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_make_command_is_one(page: Path) -> None:
    named = re.findall(r"(?:^|`)make ([a-z]+(?: [a-z]+)*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    for target in " ".join(named).split():
        assert target in targets(), (page, target)


@pytest.mark.parametrize("target", ["lint", "test", "bench", "dist"])
def test_one_command_each(target: str) -> None:
    assert target in targets() and f"`make {target}`" in (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    subprocess.run(["make", "-n", target], cwd=TOP, check=True, capture_output=True)


def test_a_commit_is_checked_as_by_hand() -> None:
    (repository,) = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local" and hook["entry"] == "make lint" and hook["language"] == "system"
    checked = re.compile(hook["files"])
    assert all(
        checked.search(name) for name in ("ddmq_hpc/fs.py", "tests/cli/command.py", "pyproject.toml", "Makefile")
    )


@pytest.mark.parametrize("form", ["fault", "wish"])
def test_forms_for_issues(form: str) -> None:
    """With the keys that GitHub wants."""
    read = yaml.safe_load((TOP / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml").read_text())
    assert read.keys() == {"name", "description", "body"}
    fields = [part["id"] for part in read["body"]]
    assert len(fields) == len(set(fields)) > 1
    assert all(part["type"] in ("textarea", "input") and part["attributes"]["label"] for part in read["body"])
    assert any(part.get("validations", {}).get("required") for part in read["body"])


def test_the_changes_of_this_version_are_told() -> None:
    assert f"\n## {__version__} " in (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
