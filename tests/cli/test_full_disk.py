"""No room for what is printed, for files that commands write, for queues. One line, exit code 75, nothing half done."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
from command import COMMAND, Run

from ddmq_hpc import Broker

#: Every command with `-o`, or that prints much.
WRITING = [
    ("journal", "export"),
    ("metrics",),
    pytest.param(
        ("report",), marks=pytest.mark.skipif(importlib.util.find_spec("plotly") is None, reason="plotly is missing")
    ),
]


@pytest.mark.parametrize("command", WRITING, ids=lambda words: "-".join(words))
def test_a_file_for_which_there_is_no_room_leaves_the_one_before(
    run: Run, small: Path, full: str, command: tuple[str, ...]
) -> None:
    for name, before in (("new", None), ("old", "before")):
        target = small / name
        if before is not None:
            (small / "first").rename(target)
            before = target.read_text()
        answer = run(*command, full, "q", "-o", str(target), code=75)
        assert "No space left" in answer.stderr and str(target) in answer.stderr
        assert (target.read_text() if target.exists() else None) == before
    assert not [path for path in small.iterdir() if path.name.startswith(".")]


PRINTING = [("status",), ("status", "--format", "csv"), ("metrics",), ("list",), ("journal", "export"), ("explain",)]


@pytest.mark.parametrize("command", [*PRINTING, ("--help",), ("help", "pull")], ids=lambda words: "-".join(words))
def test_what_cannot_be_printed_is_told_in_one_line(root: str, command: tuple[str, ...]) -> None:
    """Also what does not fit into a buffer (`list`), and none of the interpreter's own complaints when it ends."""
    Broker(root, create=True).publish_many("q", range(3000))
    words = [COMMAND, *command, *([root, "q"] if command in PRINTING else [])]
    with open("/dev/full", "w") as target:
        done = subprocess.run(words, stdout=target, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 75, done.stderr
    assert done.stderr.startswith("ddmq-hpc: cannot print: No space left on device; the disk is full")
    assert len(done.stderr.splitlines()) == 1


def test_what_was_settled_is_not_said_to_be_worth_another_try(run: Run, root: str) -> None:
    Broker(root, create=True).publish("q", "text")
    receipt = json.loads(run("pull", "--format", "json", root, "q").stdout)["receipt"]
    with open("/dev/full", "w") as target:
        words = [COMMAND, "ack", root, "q", receipt]
        done = subprocess.run(words, stdout=target, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and f"{receipt} is acked, but this could not be printed: No space left" in done.stderr
    run("pull", root, "q", code=3)


def test_a_failure_that_was_told_of_comes_before_what_cannot_be_printed(run: Run, root: str) -> None:
    run("create", "-f", root, "q")
    with open("/dev/full", "w") as target:
        words = [COMMAND, "status", root, "q", "nothing"]
        done = subprocess.run(words, stdout=target, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 75 and "no queue 'nothing'" in done.stderr and "Exception" not in done.stderr


def test_a_queue_for_which_there_is_no_room_is_none_until_it_is_whole(run: Run, small: Path, full: str) -> None:
    assert "No space left" in run("create", full, "half", "--set", "timeout=1h", code=75).stderr
    assert "half" not in run("status", full).stdout
    assert "create" in run("publish", full, "half", "text", code=4).stderr
    (small / "filler").unlink()
    assert run("create", full, "half", "--set", "timeout=1h").stdout == f"made queue half in {full}\n"
    run("publish", full, "half", "text")
    assert Broker(full).queue("half").settings.timeout == 3600


def test_a_root_for_which_there_is_no_room(run: Run, small: Path, full: str) -> None:
    assert "No space left" in run("create", "-f", str(small / "other"), "q", code=75).stderr
    assert not (small / "other").exists()
    (small / "filler").unlink()
    run("create", "-f", str(small / "other"), "q")
