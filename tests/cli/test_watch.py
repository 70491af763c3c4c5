"""`status --watch` in a terminal: what is on its screen, its keys and signals, and that it is given back as it was."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pyte
import pytest
from command import COMMAND, Run

from ddmq_hpc.advance import Progress
from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.watching import _Looker, shows_unicode
from ddmq_hpc.worker_info import Running, WorkerInfo
from ddmq_hpc.workers import Registration

PLAIN, COLOURED = {"LC_ALL": "C"}, {"LC_ALL": "en_US.UTF-8"}
HOSTILE = "simulate \x1b[2J\x9b31m [red]7[/red] \r\n日本 \u202e"


class Terminal:
    """A terminal with the command in it, as an emulator sees it."""

    def __init__(self, width: int, height: int, *arguments: str, **env: str) -> None:
        self.screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.outer, self.inner = pty.openpty()
        self.resize(width, height)
        self.before = termios.tcgetattr(self.inner)
        drop = ("DDMQ_HPC_", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "LC_", "LANG", "COLUMNS", "LINES")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
        self.process = subprocess.Popen(
            [COMMAND, *arguments],
            stdin=self.inner,
            stdout=self.inner,
            stderr=self.inner,
            env={**environment, "TERM": "xterm-256color", **env},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.resize(height, width)

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, condition: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds:g} s:\n{self.text}"
            self.read(0.2)

    def read(self, seconds: float) -> None:
        if select.select([self.outer], [], [], seconds)[0]:
            data = os.read(self.outer, 1 << 16)
            self.raw += data
            self._stream.feed(data)

    def ends(self) -> int:
        """The exit code; the terminal has been given back."""
        end = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text
            self.read(0.1)
        while select.select([self.outer], [], [], 0.1)[0]:
            self.read(0)
        assert termios.tcgetattr(self.inner) == self.before
        assert self.raw.rstrip().endswith(b"\x1b[?25h\x1b[?1049l"), self.raw[-200:]
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.inner)
        os.close(self.outer)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*arguments: Any, **env: str) -> Terminal:
        made.append(Terminal(*arguments, **env))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def broker(root: str) -> Broker:
    """Queue `tasks`: 40 done, 5 dead, 3 leased, 52 ready; two workers, one on a slow task."""
    found = Broker(root, create=True)
    found.create_queue("tasks", durable=False)
    found.publish_many("tasks", [f"simulate {number}" for number in range(100)])
    for message in found.consume("tasks", 40):
        found.ack(message, wall=3.0)
    for message in found.consume("tasks", 5):
        found.nack(message, requeue=False, error=f"no such file \x1b[2J{message.attempt}", exit=3)
    found.consume("tasks", 3)
    queue = found.queue("tasks")
    for path in Path(queue.paths.journal).iterdir():  # some minutes ago: what began just now has no ETA
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            record.update(at=record["at"] - 600, taken=record["taken"] - 600)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    now = queue.fs.time()
    slow = Running("m1", "tasks", HOSTILE, now - 7200, now, Progress(3, 10, "epoch 3"))
    for host, tasks in (("node1", (slow,)), ("node2\x1b[2J", (Running("m2", "tasks", "simulate 8 日本", now),))):
        info = WorkerInfo.of_this_process(queue, f"{host[:5]}-1-a", ["tasks"], 2)
        info = replace(info, host=host, job="slurm-12_3", kernel="another", tasks=tasks, running=(tasks[0].id,))
        Registration(queue, info).start()
    return found


def shown(terminal: Terminal) -> bool:
    return "ready 52" in terminal.text and "node1" in terminal.text


def test_all_is_on_a_screen_of_80_columns(terminal: Callable[..., Terminal], broker: Broker) -> None:
    watched = terminal(80, 24, "status", "--watch", broker.root, **COLOURED)
    watched.wait_for(lambda: shown(watched))
    text = watched.text
    assert watched.lines[0].startswith(broker.root[:40]) and watched.lines[-1] == "q quits"
    for words in (
        "done 40  ready 52  leased 3  dead 5",
        "last hour 40/h  ETA",
        "a task takes 3s",
        "5 failed in the last hour",
        "100% of them: no such file \\x1b[2J1",
        "slow: 2h00m on node1: simulate \\x1b[2J\\x9b31m [red]7[/red] \\r\\n",
        "2 workers on 2 hosts",
        "node1  slurm-12_3  1 of 2 slots",
        "3/10 epoch 3",
        "node2\\x1b[2J",
        "simulate 8 日",
    ):
        assert words in text, (words, text)
    (bar,) = (line for line in watched.lines if "] 40% done" in line)
    assert bar.startswith("  [██") and len(bar) == 80 and 0.35 < bar.count("█") / (bar.index("]") - 3) < 0.45
    assert watched.screen.buffer[watched.lines.index(bar)][4].fg == "green"
    os.write(watched.outer, b"q")
    assert watched.ends() == 0


def test_60_columns_without_colour_and_without_utf_8(terminal: Callable[..., Terminal], broker: Broker) -> None:
    watched = terminal(60, 20, "status", "--watch", "1", broker.root, NO_COLOR="1", **PLAIN)
    watched.wait_for(lambda: shown(watched))
    assert watched.raw.isascii()
    text = watched.text
    assert "done 40  ready 52  leased 3  dead 5" in text and "ETA" in text and "simulate 8 \\u65e5" in text
    (bar,) = (line for line in watched.lines if "] 40% done" in line)
    assert bar.startswith("  [####") and ">" in bar and "..." in bar and "x" in bar and len(bar) == 60
    cells = [watched.screen.buffer[row][column] for row in range(20) for column in range(60)]
    assert {(cell.fg, cell.bg) for cell in cells} == {("default", "default")}
    os.write(watched.outer, b"\x03")
    assert watched.ends() == 0


def test_it_follows_what_happens_and_the_size_of_its_window(terminal: Callable[..., Terminal], broker: Broker) -> None:
    watched = terminal(80, 24, "status", "--watch", broker.root, COLUMNS="80", LINES="24", **COLOURED)
    watched.wait_for(lambda: shown(watched))
    broker.ack(broker.consume("tasks", 2))
    watched.wait_for(lambda: "done 42  ready 50" in watched.text)
    watched.resize(50, 15)
    watched.wait_for(lambda: watched.lines[-1] == "q quits" and any(len(line) == 50 for line in watched.lines))
    assert watched.lines[0].startswith("/")
    watched.resize(10, 2)
    watched.wait_for(lambda: "q quits" in watched.lines[-1])
    os.write(watched.outer, b"Q")
    assert watched.ends() == 0


def test_a_pause_is_told_with_its_reason(terminal: Callable[..., Terminal], broker: Broker) -> None:
    broker.pause("tasks", "the disk is full")
    watched = terminal(100, 24, "status", "--watch", broker.root, **COLOURED)
    watched.wait_for(lambda: shown(watched))
    assert any(line.startswith("tasks  (paused by ") for line in watched.lines), watched.text
    assert ": the disk is full)" in watched.text and "ETA" not in watched.text


def test_many_queues_have_a_line_each(terminal: Callable[..., Terminal], broker: Broker) -> None:
    for number in range(30):
        broker.create_queue(f"other{number:02}")
    watched = terminal(80, 24, "status", "--watch", broker.root, **COLOURED)
    watched.wait_for(lambda: shown(watched))
    lines = watched.lines
    assert lines[2].startswith("tasks") and 10 < sum(line.startswith("other") for line in lines) < 20
    assert any("more lines" in line for line in lines) and lines[-1] == "q quits"


def test_a_name_of_a_queue_that_is_none_ends_it_at_once(run: Run, terminal: Callable[..., Terminal], root: str) -> None:
    run("create", "-f", root, "q")
    watched = terminal(80, 24, "status", "--watch", "2s", root, "nothing", **COLOURED)
    while watched.process.poll() is None:
        watched.read(0.1)
    watched.read(0.1)
    assert watched.process.returncode == 4 and b"1049h" not in watched.raw


def test_a_root_that_vanishes_is_told_of(terminal: Callable[..., Terminal], broker: Broker, tmp_path: Path) -> None:
    watched = terminal(80, 24, "status", "--watch", "0.5", broker.root, "tasks", **COLOURED)
    watched.wait_for(lambda: shown(watched))
    os.rename(broker.root, tmp_path / "away")
    watched.wait_for(lambda: "no ddmq-hpc root" in watched.text or "no queue" in watched.text)
    os.rename(tmp_path / "away", broker.root)
    watched.wait_for(lambda: shown(watched))


def test_terminated_it_gives_the_terminal_back(terminal: Callable[..., Terminal], broker: Broker) -> None:
    watched = terminal(80, 24, "status", "--watch", broker.root, **COLOURED)
    watched.wait_for(lambda: shown(watched))
    watched.process.send_signal(signal.SIGTERM)
    assert watched.ends() == -signal.SIGTERM


def test_stopped_and_continued(terminal: Callable[..., Terminal], broker: Broker) -> None:
    watched = terminal(80, 24, "status", "--watch", broker.root, **COLOURED)
    watched.wait_for(lambda: shown(watched))
    watched.process.send_signal(signal.SIGTSTP)
    watched.wait_for(lambda: watched.raw.endswith(b"\x1b[?25h\x1b[?1049l"))
    os.waitid(os.P_PID, watched.process.pid, os.WSTOPPED)
    assert termios.tcgetattr(watched.inner) == watched.before
    watched.raw = b""
    watched.process.send_signal(signal.SIGCONT)
    watched.wait_for(lambda: b"ready 52" in watched.raw)
    os.write(watched.outer, b"q")
    assert watched.ends() == 0


def test_without_a_terminal_it_says_what_programs_read(run: Run, root: str) -> None:
    run("create", "-f", root, "q")
    assert "status --format json" in run("status", "--watch", root, code=2).stderr
    assert "--format json" in run("status", "--watch", "3", "--format", "json", root, code=2).stderr


def test_without_rich_the_error_names_the_extra(
    terminal: Callable[..., Terminal], broker: Broker, tmp_path: Path
) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError\n")
    watched = terminal(80, 24, "status", "--watch", broker.root, PYTHONPATH=str(tmp_path), **COLOURED)
    watched.wait_for(lambda: "ddmq-hpc[rich]" in watched.text.replace("\n", ""))
    assert watched.process.wait(30) == 2


def test_where_looking_takes_long_it_looks_more_seldom_and_says_so() -> None:
    class Slow:
        def look(self) -> list[Any]:
            time.sleep(0.3)
            return []

    looked = threading.Event()
    looker = _Looker(Slow(), 2.0)  # type: ignore[arg-type]
    looker.start(looked.set)
    assert looked.wait(30)
    assert looker._pause >= 19 * 0.3 and ", every " in looker.state()


@pytest.mark.parametrize(
    "environ, encoding, expected",
    [
        ({"LANG": "en_US.UTF-8"}, "utf-8", True),
        ({"LC_ALL": "C.UTF-8"}, "utf-8", True),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "utf-8", False),
        ({}, "utf-8", False),
        ({"LC_CTYPE": "C.UTF-8"}, "utf-8", False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C.UTF-8"}, "utf-8", True),
        ({"LANG": "de_DE.ISO-8859-1"}, "iso8859-1", False),
    ],
)
def test_which_letters_a_terminal_shows(environ: dict[str, str], encoding: str, expected: bool) -> None:
    assert shows_unicode(environ, encoding) is expected


@pytest.mark.parametrize(
    "env, coloured",
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"CLICOLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
        ({"CLICOLOR": "0", "FORCE_COLOR": "1"}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
    ids=str,
)
def test_colours_of_the_plain_table(
    terminal: Callable[..., Terminal], broker: Broker, env: dict[str, str], coloured: bool
) -> None:
    shown = terminal(80, 24, "status", broker.root, **env)
    shown.wait_for(lambda: "tasks" in shown.text)
    assert shown.process.wait(30) == 0
    assert (b"\x1b[31m" in shown.raw) is coloured


def test_colours_where_no_terminal_is(run: Run, broker: Broker) -> None:
    assert "\x1b" not in run("status", broker.root).stdout
    assert "\x1b[31m" in run("status", broker.root, env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[31m" in run("status", broker.root, env={"CLICOLOR_FORCE": "1"}).stdout
    assert "\x1b" not in run("status", broker.root, env={"FORCE_COLOR": "0"}).stdout
