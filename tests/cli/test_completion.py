"""Tab in real shells: commands, options, choices, directories, and the queues of the root before."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest
from command import COMMAND, Run
from test_start_up import modules_opened, traced

from ddmq_hpc.admin import items
from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.main import COMMANDS

Ask = Callable[..., "list[str]"]
#: How to start each shell without anybody's configuration, and have it use the script.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ['eval "$(ddmq-hpc completion bash)"']),
    "zsh": (["zsh", "-f", "-i"], ["autoload -Uz compinit; compinit -u -D", 'eval "$(ddmq-hpc completion zsh)"']),
}


def needs(shell: str) -> None:
    if not shutil.which(shell) and not os.environ.get("CI"):
        pytest.skip(f"{shell} is not installed")


@pytest.fixture
def place(run: Run, root: str, tmp_path: Path) -> Path:
    """Where a root with two queues is, and a directory that is none."""
    run("create", "-f", root, "tasks,trials")
    broker = Broker(root)
    broker.publish("trials", "dead")
    broker.nack(broker.consume("trials"), requeue=False)
    broker.publish("trials", "m", group="align")
    (Path(root) / "tasty").mkdir()
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    path = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(place), "TMPDIR": str(place), "TERM": "dumb", "PS1": "> ", "INPUTRC": "/dev/null"}


class Terminal:
    """A shell that takes what is typed."""

    def __init__(self, shell: str, place: Path) -> None:
        command, commands = SHELLS[shell]
        self.handle, inner = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, cwd=place, env=environment(place), start_new_session=True
        )
        os.close(inner)
        for line in commands:
            self.type(line + "\n")
        self.type("echo rea''dy\n")
        self.wait_for(r"\nready")

    def type(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """What was printed up to there."""
        seen, end = "", time.monotonic() + seconds
        while not re.search(pattern, seen):
            assert time.monotonic() < end, f"no {pattern!r} in {seen!r}"
            if select.select([self.handle], [], [], 0.2)[0]:
                seen += os.read(self.handle, 65536).decode("utf-8", "replace")
        return seen


@pytest.mark.parametrize("shell", list(SHELLS))
@pytest.mark.parametrize(
    "typed, shown",
    [
        ("ddmq-hpc publ\t", "ddmq-hpc publish "),
        ("ddmq-hpc status --form\t", "ddmq-hpc status --format "),
        ("ddmq-hpc status --format ya\t", "ddmq-hpc status --format yaml "),
        ("ddmq-hpc status ro\t", "ddmq-hpc status root/"),
        ("ddmq-hpc status root ta\t", "ddmq-hpc status root tasks "),
        ("ddmq-hpc purge ~/root tasks,tr\t", "ddmq-hpc purge ~/root tasks,trials "),
        ("ddmq-hpc workers stop root tr\t", "ddmq-hpc workers stop root trials "),
        ("ddmq-hpc exec root tasks -- ro\t", "ddmq-hpc exec root tasks -- root/"),
        ("ddmq-hpc cancel root trials --group al\t", "ddmq-hpc cancel root trials --group align "),
        ("ddmq-hpc dead list root trials --died-of re\t", "ddmq-hpc dead list root trials --died-of rejected "),
    ],
)
def test_tab_completes(shell: str, typed: str, shown: str, place: Path) -> None:
    needs(shell)
    terminal = Terminal(shell, place)
    try:
        terminal.type(typed)
        terminal.wait_for(re.escape(shown))
    finally:
        os.close(terminal.handle)
        terminal.process.kill()
        terminal.process.wait()


@pytest.mark.parametrize(
    "typed, offered",
    [
        ("ddmq-hpc publ", ["publish"]),
        ("ddmq-hpc status --format ya", ["yaml"]),
        ("ddmq-hpc status ro", ["root/"]),
        ("ddmq-hpc status root t", ["tasks", "trials"]),
        ("ddmq-hpc workers stop root tr", ["trials"]),
        ("ddmq-hpc wait root trials --group ", ["align"]),
        ("ddmq-hpc dead list root trials --died-of ", ["rejected"]),
    ],
)
def test_fish_is_offered(typed: str, offered: list[str], place: Path) -> None:
    needs("fish")
    script = f"ddmq-hpc completion fish | source; complete --do-complete '{typed}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == offered


@pytest.fixture
def ask(place: Path) -> Ask:
    """What a shell is told for a line whose last word is not complete."""

    def call(line: str, **env: str) -> list[str]:
        words = line.split(" ")
        given = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_DDMQ_HPC_COMPLETE": "bash_complete", **env}
        done = subprocess.run(
            [COMMAND], cwd=place, env={**environment(place), **given}, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        return [line for line in done.stdout.split("\n") if line]

    return call


def test_all_commands_are_offered(ask: Ask) -> None:
    assert ask("ddmq-hpc ") == [f"plain,{name}" for name in COMMANDS]


def test_a_root_in_the_environment_is_known(ask: Ask, root: str) -> None:
    assert ask("ddmq-hpc status ", DDMQ_HPC_ROOT=root) == ["plain,tasks", "plain,trials"]
    assert ask("ddmq-hpc status ./", DDMQ_HPC_ROOT=root) == ["dir,./"]
    assert ask("ddmq-hpc purge tasks tr", DDMQ_HPC_ROOT=root) == []
    assert ask("ddmq-hpc status tasks tr", DDMQ_HPC_ROOT=root) == ["plain,trials"]


def test_messages_are_offered_that_people_ask_about(ask: Ask, root: str) -> None:
    broker = Broker(root)
    queue = broker.queue("trials")
    broker.consume("trials")
    broker.publish("trials", "next")
    of = {state: next(items(queue, (state,))).message.id for state in ("dead", "leased", "ready")}
    every = sorted(f"plain,{ident}" for ident in of.values())
    for line in ("show root trials ", "logs root trials 1", "explain root trials ", "cancel root trials "):
        assert sorted(ask(f"ddmq-hpc {line}")) == every, line
    for line in ("retry root trials ", "dead show root trials ", "dead purge --all root trials 1"):
        assert ask(f"ddmq-hpc {line}") == [f"plain,{of['dead']}"], line
    assert ask(f"ddmq-hpc show root trials {of['ready'][:-3]}") == [f"plain,{of['ready']}"]
    assert ask(f"ddmq-hpc retry root trials x,{of['dead'][:9]}") == [f"plain,x,{of['dead']}"]
    places = {"DDMQ_HPC_ROOT": root, "DDMQ_HPC_QUEUE": "trials"}
    assert ask(f"ddmq-hpc show {of['leased'][:-3]}", **places) == [f"plain,{of['leased']}"]
    assert ask("ddmq-hpc retry --died-of ", **places) == ["plain,rejected"]
    assert ask("ddmq-hpc publish --after a", **places) == ["plain,align"]


def test_no_more_is_looked_at_than_a_person_waits_for(ask: Ask, root: str) -> None:
    dead = Path(root) / "tasks" / "dead"
    for number in range(1500):
        (dead / f"9.17957219838964{number:05}-0g3qndtxg.0-1.0-0~word-{number}").touch()
    assert len(ask("ddmq-hpc retry root tasks ")) == 200
    assert len(ask("ddmq-hpc retry root tasks --died-of ")) == 1000


@pytest.mark.parametrize(
    "line",
    [
        "ddmq-hpc cancel root nosuch --group ",
        "ddmq-hpc retry root ../.. --died-of ",
        "ddmq-hpc retry --died-of ",
        "ddmq-hpc nosuch x",
        "ddmq-hpc status nosuch ta",
        "ddmq-hpc status /dev/null ta",
        "ddmq-hpc show root tasks 17",
        "ddmq-hpc work --slots many root tasks --memory ",
        "ddmq-hpc status 'root ta",
    ],
)
def test_nothing_is_offered_and_nothing_is_said_where_nothing_is_known(ask: Ask, line: str) -> None:
    assert [word for word in ask(line) if not word.startswith("dir,")] == []


def test_names_in_a_root_that_are_no_queues_are_not_offered(ask: Ask, root: str) -> None:
    (Path(root) / "ta$(reboot)").mkdir()
    (Path(root) / "ta$(reboot)" / "ready").mkdir()
    assert ask("ddmq-hpc peek root ta") == ["plain,tasks"]


@pytest.mark.skipif(not shutil.which("strace") and not os.environ.get("CI"), reason="strace is not installed")
def test_what_completes_is_not_loaded_otherwise(run: Run, root: str, tmp_path: Path) -> None:
    run("create", "-f", root, "q")
    opened = modules_opened(traced(tmp_path, "openat,open", COMMAND, "status", root))
    names = {Path(path).name.partition(".")[0] for path in opened}
    assert {"looking", "decorators"} <= names
    assert not {"completing", "shell_completion"} & names
