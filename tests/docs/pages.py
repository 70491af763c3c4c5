"""The code blocks of a page of the documentation, run as its reader would type them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Callable

TOP = Path(__file__).resolve().parents[2]
#: A fenced block, with the reason why it is not run, or with what it needs.
BLOCK = re.compile(
    r"(?:<!-- (?:not run: (?P<reason>[^>]+?)|needs: (?P<needs>[^>]+?)) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```",
    re.DOTALL,
)
#: How blocks of each language are run.
RUNNERS = {"python": "python", "perl": "perl", "julia": "julia", "r": "Rscript"}
#: Those of languages that need not be there, each with what succeeds where they and what the blocks use are.
OPTIONAL = {
    "perl": ["perl", "-MJSON::PP", "-e", "1"],
    "julia": ["julia", "-e", "using JSON"],
    "r": ["Rscript", "-e", "library(jsonlite)"],
}
#: Blocks that install or test the project itself: they run wherever these tests run, around them.
AROUND = ("make demo", "pip install")
#: What only the tests in tests/slurm have.
CLUSTER = "a Slurm cluster"


@cache
def is_there(needed: str) -> bool:
    """Whether this host has a language of a block, or a command or a Python package that one needs."""
    if probe := OPTIONAL.get(needed):
        return bool(shutil.which(probe[0])) and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    return bool(needed in RUNNERS or shutil.which(needed) or importlib.util.find_spec(needed))


def blocks(page: str, has: Callable[[str], bool] = is_there) -> Iterator[tuple[str, str]]:
    """Language and text of each that is to be run where what `has` says is there."""
    for match in BLOCK.finditer((TOP / page).read_text(encoding="utf-8")):
        kind, text, needs = match["kind"], match["text"], match["needs"]
        if match["reason"] or kind not in ("sh", *RUNNERS) or any(word in text for word in AROUND):
            continue
        if (kind == "sh" or is_there(kind)) and (needs is None or has(needs)):
            yield kind, text


def printed(page: str, words: str) -> str:
    """The text of the block in which these words are, whether it is run with the others or not."""
    found = [match["text"] for match in BLOCK.finditer((TOP / page).read_text(encoding="utf-8"))]
    [text] = [text for text in found if words in text]
    return text


def run(
    page: str, directory: Path, environ: Mapping[str, str] = os.environ, has: Callable[[str], bool] = is_there
) -> str:
    """What a page prints in an empty directory: its blocks in one shell, one after the other. None of them fails."""
    script = ["set -euo pipefail"]
    for number, (kind, text) in enumerate(blocks(page, has)):
        if kind in RUNNERS:
            (directory / f"block{number}.{kind}").write_text(text, encoding="utf-8")
            text = f"{RUNNERS[kind]} block{number}.{kind}\n"
        script.append(text)
    assert len(script) > 1, f"no blocks in {page}"
    environment = {key: value for key, value in environ.items() if not key.startswith("DDMQ_HPC_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["TMPDIR"] = str(directory)
    command = ["bash", "-c", "\n".join(script)]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout
