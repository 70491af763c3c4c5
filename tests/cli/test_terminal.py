"""What a person at a terminal meets: a progress bar, Ctrl-C, a pipe that ends early."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import COMMAND, Run


@pytest.fixture(autouse=True)
def queue(run: Run, root: str) -> None:
    run("create", "-f", root, "q")


def test_a_slow_publish_shows_how_far_it_is(root: str) -> None:
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "publish", "--each-line", "-", root, "q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=inner
    ) as process:
        os.close(inner)
        assert process.stdin and process.stdout
        shown, chunks, end = b"", 0, time.monotonic() + 60
        while b"/s" not in shown and time.monotonic() < end:  # however slowly it starts
            process.stdin.write(b"line\n" * 200)
            process.stdin.flush()
            chunks += 1
            if select.select([outer], [], [], 0.06)[0]:
                shown += os.read(outer, 65536)
        process.stdin.close()
        shown += _read_all(outer)
        assert b"published %d messages to q" % (200 * chunks) in process.stdout.read()
    assert b"publishing" in shown and b"/s" in shown, shown


def _read_all(handle: int) -> bytes:
    data = b""
    while select.select([handle], [], [], 10)[0]:
        try:
            part = os.read(handle, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not part:
            break
        data += part
    os.close(handle)
    return data


def test_no_bar_where_there_is_no_terminal(run: Run, root: str) -> None:
    assert run("publish", "--each-line", "-", root, "q", stdin="a\nb\n").stderr == ""


@pytest.mark.parametrize(
    "command",
    [["pull", "--wait", "60s"], ["publish", "--each-line", "-"], ["exec", "ROOT", "q", "--", "sleep", "60"]],
    ids=lambda command: command[0],
)
def test_ctrl_c(run: Run, root: str, command: list[str], tmp_path: Path) -> None:
    """Exit code 130, no traceback, and what was held is ready again."""
    if command[0] == "exec":
        run("publish", root, "q", "text")
        command = [root if word == "ROOT" else word for word in command]
    else:
        command = [*command, root, "q"]
    with subprocess.Popen(
        [COMMAND, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    ) as process:
        time.sleep(1.5)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    row = json.loads(run("status", "--format", "json", root, "q").stdout)["queues"][0]
    assert (row["ready"], row["leased"], row["dead"]) == (1 if command[0] == "exec" else 0, 0, 0)


def test_a_pipe_that_ends_early(run: Run, root: str) -> None:
    run("publish", "--each-line", "-", root, "q", stdin="line\n" * 20000)
    done = subprocess.run(["bash", "-c", f"'{COMMAND}' list '{root}' q | head -n 1"], capture_output=True, timeout=60)
    assert done.stderr == b"" and len(done.stdout.splitlines()) == 1
