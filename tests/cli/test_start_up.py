"""What a command costs before and while it works: files opened, system calls. On a network file system each is a round
trip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import COMMAND, Run

pytestmark = pytest.mark.skipif(
    not shutil.which("strace") and not os.environ.get("CI"), reason="strace is not installed"
)

_OPENED = re.compile(r'openat?\(.*"([^"]+)".* = \d+')
#: Does work between two marks, so that the calls in between can be counted.
_BETWEEN = """
import os, sys
import ddmq_hpc
broker = ddmq_hpc.Broker(sys.argv[1])
def mark():
    try: os.stat("/the/mark")
    except OSError: pass
"""


def traced(place: Path, calls: str, *command: str, **env: str) -> list[str]:
    log = place / "trace"
    environment = {**os.environ, "TMPDIR": str(place), **env}
    subprocess.run(
        ["strace", "-f", "-e", f"trace={calls}", "-s", "300", "-o", str(log), *command],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    return log.read_text(errors="replace").splitlines()


def modules_opened(lines: list[str]) -> list[str]:
    """Paths of the Python files that a process opened, compiled or not."""
    opened = [found[1] for line in lines if (found := _OPENED.search(line))]
    return [path for path in opened if re.search(r"\.pyc?$|\.so$|\.pyc\.\d+$", path) and "lib-dynload" not in path]


@pytest.mark.parametrize("command, most", [("pull", 30), ("publish", 30), ("ack", 30)])
def test_few_files_are_opened_at_start(run: Run, root: str, tmp_path: Path, command: str, most: int) -> None:
    """`most`: what each needs now, and a few to spare; the standard library's and click's are not this project's."""
    run("publish", "-f", root, "q", "text")
    given = {"pull": [], "publish": ["text"], "ack": []}[command]
    if command == "ack":
        given = [run("pull", "--format", "plain", root, "q").stdout.split("receipt = ")[1].split()[0]]
    lines = traced(tmp_path, "openat,open", COMMAND, command, root, "q", *given)
    opened = modules_opened(lines)
    ours = {Path(path).name.partition(".")[0] for path in opened if "/ddmq_hpc/" in path}
    assert 10 < len(ours) <= most, sorted(ours)
    assert not ours & {"clients", "ledger", "legacy_names"}
    for package in ("yaml", "psutil", "filelock", "rich", "hypothesis"):
        assert not any(f"/{package}/" in path for path in opened), package


def test_progress_costs_less_than_a_pull_and_asks_nothing_of_the_file_server(
    run: Run, root: str, tmp_path: Path
) -> None:
    run("publish", "-f", root, "q", "text")
    task = tmp_path / "1.some-id.0"
    task.mkdir()
    environment = {"DDMQ_HPC_ROOT": root, "DDMQ_HPC_TASK_DIR": str(task), "DDMQ_HPC_ID": "some-id.0"}
    lines = traced(tmp_path, "all", COMMAND, "progress", "1/2", **environment)
    opened = modules_opened(lines)
    assert 3 < len({path for path in opened if "/ddmq_hpc/" in path}) <= 10, opened
    for package in ("yaml", "psutil", "filelock", "rich"):
        assert not any(f"/{package}/" in path for path in opened), package
    assert (task / "progress").exists()
    assert not [line for line in lines if f'"{root}' in line and "execve" not in line]


def calls_between_marks(place: Path, root: str, work: str) -> int:
    lines = traced(place, "all", sys.executable, "-c", f"{_BETWEEN}\n{work}", root)
    first, last = (number for number, line in enumerate(lines) if '/the/mark"' in line and "ENOENT" in line)
    assert last - first > 1
    return last - first - 1


def test_system_calls_of_a_bulk_publish(run: Run, root: str, tmp_path: Path) -> None:
    run("create", "-f", root, "q")
    work = "broker.publish_many('q', ['x'] * 1280, durable=False); mark()\n"
    work += "broker.publish_many('q', ['x' * 200] * 12800, durable=False); mark()"
    assert calls_between_marks(tmp_path, root, work) < 0.2 * 12800


@pytest.mark.parametrize("bulk", [True, False], ids=["bulk", "one by one"])
def test_system_calls_of_pull_and_ack(run: Run, root: str, tmp_path: Path, bulk: bool) -> None:
    run("create", "-f", root, "q")
    put = "broker.publish_many('q', range(300))" if bulk else "[broker.publish('q', n) for n in range(300)]"
    work = f"broker.create_queue('q', durable=False); {put}\n"
    work += "one = lambda: broker.ack(broker.consume('q')[0])\nfor _ in range(20): one()\nmark()\n"
    work += "for _ in range(200): one()\nmark()"
    assert calls_between_marks(tmp_path, root, work) <= 8 * 200
