"""The walk of somebody who has never seen this: every command of the tutorial as it is printed, beginning with its
installation, and what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```(sh|text)\n(.*?)```", re.DOTALL)
#: Said by the shell between two blocks.
MARK = "=== end of block"


def blocks() -> list[tuple[str, str | None]]:
    """(commands, what they print or None) in order."""
    found: list[tuple[str, str | None]] = []
    for kind, text in BLOCK.findall((TOP / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        if kind == "sh":
            found.append((text, None))
        else:
            found[-1] = (found[-1][0], text)
    return found


def test_every_command_prints_what_the_tutorial_says(tmp_path: Path) -> None:
    walk = blocks()
    assert len(walk) >= 8 and sum(text is not None for _, text in walk) >= 8
    script = ["set -eu", *(f"{commands}echo '{MARK}'" for commands, _ in walk)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DDMQ_HPC_", "PYTHON"))}
    environment.pop("VIRTUAL_ENV", None)
    # The interpreter of these tests, without what its environment has installed.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    environment.update(HOME=str(tmp_path), PATH=f"{tmp_path}/bin:/usr/local/bin:/usr/bin:/bin", COLUMNS="80")
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=TOP,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout
    printed = done.stdout.split(f"{MARK}\n")
    for (commands, text), said in zip(walk, printed):
        wanted = re.escape(text or "").replace(re.escape("..."), ".*?")
        assert re.fullmatch(wanted, said), f"{commands}\nprinted\n{said}\nnot\n{text}"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "sample7" in page and "<script" in page
