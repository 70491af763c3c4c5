"""Tables fit the terminal that they are shown on; pipes get everything."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from dataclasses import replace

import pytest
from command import COMMAND, Run
from test_terminal import _read_all

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli import tables
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration


def on_terminal(columns: int, *arguments: str) -> list[str]:
    """The lines that a command shows on a terminal of that width."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen([COMMAND, *arguments], stdout=inner, env={**environment, "NO_COLOR": "1"}):
        os.close(inner)
        return _read_all(outer).decode().splitlines()


@pytest.fixture
def name(run: Run, root: str) -> str:
    """A queue with a long name, and a worker that has much to tell."""
    name = "q" * 60
    broker = Broker(root, create=True)
    broker.create_queue(name)
    queue = broker.queue(name)
    info = WorkerInfo.of_this_process(queue, "node17-4711-abcdefgh", [name])
    running = ("1795721983896420864-0g3qndtxg.79",)
    Registration(queue, replace(info, job="slurm-123456_7", running=running)).start()
    return name


@pytest.mark.parametrize("command, columns", [("status", 80), ("workers", 80), ("workers", 110)])
def test_a_table_is_as_wide_as_the_terminal(run: Run, root: str, name: str, command: str, columns: int) -> None:
    whole = run(command, root).stdout.splitlines()
    shown = on_terminal(columns, command, root)
    assert max(map(len, whole)) > columns >= max(map(len, shown)) and len(shown) == len(whole) == 2
    assert name in whole[1] and name not in "".join(shown)
    wanted = {"status": ["queue", "ready", "leased", "dead"], "workers": ["worker", "alive", "running"]}
    assert set(wanted[command]) <= set(shown[0].split())
    assert shown[1].startswith({"status": "qqqqqqqqq", "workers": "node17-4711-abcdefgh"}[command])


def test_a_column_with_something_in_it_stays(run: Run, root: str, name: str) -> None:
    run("publish", "--delay", "1h", root, name, "later")
    assert "delayed" in on_terminal(80, "status", root)[0] and "damaged" not in on_terminal(80, "status", root)[0]


def test_a_pause_is_seen_beside_a_name_that_is_cut(run: Run, root: str, name: str) -> None:
    run("pause", root, name)
    assert on_terminal(80, "status", root)[1].split("  ")[0].endswith("qq (paused)")


def test_what_is_spare_goes_first_and_then_the_longest_text_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def lines(width: int) -> list[str]:
        monkeypatch.setattr(tables, "terminal_width", lambda: width)
        tables.out_table(("name", "text", "more", "n"), [("a" * 20, "b" * 30, "c", 12345)], 1, spare=("more",))
        return capsysbinary.readouterr().out.decode().splitlines()

    assert lines(65)[1] == f"{'a' * 20}  {'b' * 30}  c     12345"
    assert lines(64)[1] == f"{'a' * 20}  {'b' * 30}  12345"
    assert lines(50)[1] == f"{'a' * 20}  {'b' * 9}...{'b' * 9}  12345"
    assert lines(40)[1] == f"{'a' * 6}...{'a' * 6}  {'b' * 7}...{'b' * 6}  12345"
    assert lines(10)[1] == "aaaaa...aaaa  bbbbb...bbbb  12345", "less would say nothing"
