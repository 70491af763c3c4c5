"""Manual pages: one for each command, without fault, and installed where man(1) finds them."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from ddmq_hpc.cli.main import COMMANDS, cli

TOP = Path(__file__).resolve().parents[2]
#: Each prints what is wrong with a page, and nothing else.
CHECKS = {
    "mandoc": ["mandoc", "-T", "lint", "-W", "style"],
    "groff": ["groff", "-man", "-ww", "-z", "-K", "utf8", "-T", "utf8"],
}


@pytest.fixture(scope="module")
def build_man() -> ModuleType:
    sys.path.insert(0, str(TOP / "docs"))
    try:
        return importlib.import_module("build_man")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def pages(build_man: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found: list[Path] = build_man.write(tmp_path_factory.mktemp("man"))
    return found


def test_every_command_has_a_page(pages: list[Path]) -> None:
    assert {page.name for page in pages} == {"ddmq-hpc.1", *(f"ddmq-hpc-{name}.1" for name in COMMANDS)}


@pytest.mark.parametrize("check", list(CHECKS))
def test_pages_have_no_faults(check: str, pages: list[Path]) -> None:
    if not shutil.which(check) and not os.environ.get("CI"):
        pytest.skip(f"{check} is not installed")
    for page in pages:
        done = subprocess.run([*CHECKS[check], str(page)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["work", "publish", "explain"])
def test_a_page_says_what_the_help_does(name: str, pages: list[Path]) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    (page,) = (page for page in pages if page.name == f"ddmq-hpc-{name}.1")
    text = plain(page.read_text(encoding="utf-8"))
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    assert len(options) > 1
    for option in options:
        assert all(word in text for word in option.opts)
        assert " ".join((option.help or "").split()) in text
    words = " ".join((command.help or "").replace("\b", "").split())
    assert words in text


def plain(roff: str) -> str:
    """What a page says, without how it is laid out."""
    text = re.sub(r"^\.[A-Za-z]+.*$", "", roff, flags=re.MULTILINE)
    for escape, letter in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\fB", ""), (r"\fR", ""), (r"\&", "")):
        text = text.replace(escape, letter)
    return " ".join(text.replace(r"\e", "\\").split())


def test_what_could_be_taken_for_a_request_is_text(build_man: ModuleType) -> None:
    @click.command("x")
    def command() -> None:
        """Text.

        .so /etc/passwd and \\fB it is.

        \b
        .so /etc/passwd
        'quoted' \\n(yr
        """

    page = build_man._page("x", "y", command, click.Context(command, info_name="x"), [])
    assert not re.search(r"^[.']so", page, re.MULTILINE) and not re.search(r"^'", page, re.MULTILINE)
    assert r"\efB it is" in page and r"\en(yr" in page


def test_the_pages_are_installed() -> None:
    """Beside `bin`, where man(1) looks for the pages of what is on the PATH."""
    page = Path(sys.prefix) / "share" / "man" / "man1" / "ddmq-hpc-work.1"
    assert page.read_text(encoding="utf-8").startswith(".TH DDMQ\\-HPC\\-WORK 1 ")


def test_help_is_the_same_as_an_option_and_as_a_command() -> None:
    def said(*words: str, code: int = 0) -> str:
        command = [str(Path(sys.executable).with_name("ddmq-hpc")), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    assert said("help", "work") == said("work", "--help")
    assert said("help") == said("--help")
    assert said("help", "dead", "list") == said("dead", "list", "--help")
    assert "ddmq-hpc work has no commands" in said("help", "work", "list", code=2)
    assert "did you mean 'work'" in said("help", "wrok", code=2)
