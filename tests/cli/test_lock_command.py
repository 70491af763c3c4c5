"""`ddmq-hpc lock`: exit codes, signals, what the command finds, who is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Run


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "it")


def _start(path: str, *command: str, options: tuple[str, ...] = ()) -> Any:
    """A lock's command under way, once it has printed a line."""
    process = subprocess.Popen([COMMAND, "lock", *options, path, "--", *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "in\n"
    return process


def _end(process: Any) -> int:
    process.stdout.close()
    return int(process.wait(30))


def test_the_exit_code_is_the_commands_and_the_token_grows(run: Run, path: str) -> None:
    done = run("lock", path, "--", "sh", "-c", "echo $DDMQ_HPC_LOCK_TOKEN; exit 7", code=None)
    assert (done.returncode, done.stdout, done.stderr) == (7, "1\n", "")
    done = run("lock", path, "--", "sh", "-c", "echo $DDMQ_HPC_LOCK_TOKEN $DDMQ_HPC_LOCK")
    assert done.stdout == f"2 {path}\n"
    assert run("lock", path, "--wait", "0", "--", "true").stdout == ""


def test_what_cannot_be_run_exits_as_with_shells_and_lets_go(run: Run, path: str, tmp_path: Path) -> None:
    assert "cannot run" in run("lock", path, "--", "/no/such/command", code=127).stderr
    (tmp_path / "data").write_text("no command")
    for what in (tmp_path / "data", tmp_path):
        assert "Permission denied" in run("lock", path, "--wait", "0", "--", str(what), code=126).stderr
    run("lock", path, "--wait", "0", "--", "true")


def test_the_command_of_a_killed_holder_does_not_go_on(path: str, tmp_path: Path) -> None:
    """Nor what it started, in a session of its own."""
    beat = 'while :; do date +%s%N >>"$0"; sleep 0.02; done'
    script = f"""setsid sh -c '{beat}' {tmp_path}/far & echo in; exec sh -c '{beat}' {tmp_path}/near"""
    process = _start(path, "sh", "-c", script)
    files = [tmp_path / "far", tmp_path / "near"]
    until = time.monotonic() + 10
    while not all(file.exists() for file in files):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    assert _end(process) == -signal.SIGKILL
    time.sleep(1.5)
    sizes = [file.stat().st_size for file in files]
    time.sleep(0.5)
    assert [file.stat().st_size for file in files] == sizes


def test_what_a_command_left_in_the_background_is_its_own_business(run: Run, path: str, tmp_path: Path) -> None:
    run("lock", path, "--", "sh", "-c", f'(sleep 1; echo x >"{tmp_path}/late") >/dev/null 2>&1 &')
    time.sleep(2)
    assert (tmp_path / "late").exists()


def test_what_is_wrong_is_said(run: Run, path: str) -> None:
    for bad in ("", "/"):
        assert "bad path of a lock" in run("lock", bad, "--", "true", code=2).stderr
    assert "after `--`" in run("lock", path, code=2).stderr
    run("lock", path, "--slots", "0", "--", "true", code=2)
    run("lock", path, "--lease", "0", "--", "true", code=2)
    run("lock", f"{path}/no/where", "--", "true", code=4)


def test_a_held_lock_is_busy_listed_and_broken(run: Run, path: str) -> None:
    assert run("lock", "list", path).stdout == "nobody holds it\n"
    process = _start(path, "sh", "-c", "echo in; exec sleep 60", options=("--lease", "4"))
    try:
        busy = run("lock", path, "--wait", "0.2", "--", "true", code=75)
        assert f"PID {process.pid}" in busy.stderr
        assert f"PID {process.pid}" in run("lock", "list", path).stdout
        (holder,) = json.loads(run("lock", "list", "--format", "json", path).stdout)["holders"]
        assert (holder["pid"], holder["host"], holder["token"]) == (process.pid, os.uname().nodename, 1)
        broken = run("lock", "break", path).stdout
        assert f"PID {process.pid}" in broken and "since 20" in broken
        run("lock", path, "--wait", "0", "--", "true")
    finally:
        assert _end(process) == 5, "its command was ended and the loss told"


def test_slots_are_counted(run: Run, path: str) -> None:
    first = _start(path, "sh", "-c", "echo in; exec sleep 60", options=("--slots", "2"))
    run("lock", "--slots", "2", "--wait", "0", path, "--", "true")
    run("lock", "--slots", "1", "--wait", "0", path, "--", "true", code=75)
    first.send_signal(signal.SIGTERM)
    assert _end(first) == 128 + signal.SIGTERM
    run("lock", "--slots", "1", "--wait", "0", path, "--", "true")


def test_signals_reach_the_command(path: str) -> None:
    process = _start(path, "sh", "-c", "trap 'exit 9' USR1; echo in; while :; do sleep 0.05; done")
    process.send_signal(signal.SIGUSR1)
    assert _end(process) == 9


def test_who_is_ended_while_it_waits_leaves_no_ticket(path: str) -> None:
    holder = _start(path, "sh", "-c", "echo in; exec sleep 60")
    waiter = subprocess.Popen([COMMAND, "lock", path, "--", "true"])
    until = time.monotonic() + 20
    while not any(name.startswith("want.") for name in os.listdir(f"{path}.lock")):
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.2)
    waiter.terminate()
    assert waiter.wait(20) == 128 + signal.SIGTERM
    assert os.listdir(f"{path}.lock") == ["lock.0000000001"]
    holder.terminate()
    _end(holder)
