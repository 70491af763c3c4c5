"""Queues of which something is missing, and queues that one may not look into."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from command import Run

from ddmq_hpc import Broker
from ddmq_hpc.names import DIRECTORIES

COMMANDS = [
    ("publish", "q", "text"),
    ("pull", "q"),
    ("status", "q"),
    ("status",),
    ("list", "q"),
    ("peek", "q"),
    ("show", "q", "1718000000000000000-0abcdefgh.0"),
    ("groups", "q"),
    ("dead", "list", "q"),
    ("retry", "q", "--all"),
    ("cancel", "q", "--all"),
    ("pause", "q"),
    ("clean", "q"),
    ("clean",),
    ("purge", "q"),
    ("workers", "q"),
    ("workers",),
    ("recover",),
    ("journal", "export", "q"),
    ("logs", "q", "--failed"),
    ("metrics",),
    ("wait", "q", "--timeout", "1s"),
    ("exec", "q", "--", "true"),
    ("work", "q", "--shell"),
]


@pytest.mark.parametrize("missing", [DIRECTORIES, ("tmp",)], ids="-".join)
def test_a_queue_that_is_not_whole_is_told_of_in_a_line(run: Run, root: str, missing: tuple[str, ...]) -> None:
    run("create", "-f", root, "q,good")
    for name in missing:
        Path(root, "q", name).rmdir()
    for words in COMMANDS:
        at = 2 if words[0] in ("dead", "journal") else 1
        answer = run(*words[:at], root, *words[at:], code=None)
        named = "q" in words
        assert len(answer.stderr.splitlines()) <= 1, (words, answer.stderr)
        assert answer.returncode in ((4,) if named else (0, 4)), (words, answer.stderr)
        if not named and words[0] in ("status", "clean", "metrics"):
            assert "good" in answer.stdout
    assert run("create", root, "q").stdout == f"made queue q in {root}\n"
    run("publish", root, "q", "text")
    assert run("create", root, "q").stdout == f"there already: queue q in {root}\n"


def test_what_is_there_of_a_queue_can_be_deleted(run: Run, root: str) -> None:
    run("create", "-f", root, "q")
    Path(root, "q", "tmp").rmdir()
    assert "create" in run("pull", root, "q", code=4).stderr
    run("delete", "-y", root, "q")
    assert not os.path.exists(f"{root}/q")
    run("delete", "-y", root, "q", code=4)


def test_creating_completes_and_keeps(run: Run, root: str) -> None:
    run("create", "-f", root, "q", "--set", "timeout=1h")
    run("publish", root, "q", "text")
    Path(root, "q", "dead").rmdir()
    run("create", root, "q")
    assert "text" in run("peek", root, "q").stdout
    assert Broker(root).queue("q").settings.timeout == 3600


@pytest.fixture
def closed(run: Run, root: str) -> str:
    """A root with a queue that everybody may look into, and one for its owner alone."""
    if os.getuid():
        pytest.skip("only root can act for another user")
    if not shutil.which("setpriv"):
        assert not os.environ.get("CI")
        pytest.skip("no setpriv")
    run("create", "-f", root, "mine,open")
    run("publish", root, "open", "text")
    shutil.chown(f"{root}/mine", "nobody")
    for parent in (Path(root), *Path(root).parents):
        parent.chmod(parent.stat().st_mode | 0o555)
    return root


UNREADABLE = [
    (("status",), "open "),
    (("status", "--format", "json"), '"open"'),
    (("status", "--format", "csv"), "\nopen,1,"),
    (("view",), "| open | 1 |"),
    (("clean",), "open: nothing to do"),
    (("workers",), "no workers"),
    (("recover",), "open: 0 jobs"),
    (("metrics",), 'state="ready"} 1\n'),
]


@pytest.mark.parametrize(("words", "shown"), UNREADABLE, ids=["-".join(words) for words, _ in UNREADABLE])
def test_queues_that_may_not_be_looked_into(run: Run, closed: str, words: tuple[str, ...], shown: str) -> None:
    """Seen by root, who loses the right to look everywhere."""
    answer = run(*words, closed, code=1, unprivileged=True)
    assert shown in answer.stdout
    (line,) = answer.stderr.splitlines()
    assert "mine" in line and "Permission denied" in line and "permission" in line


def test_metrics_tell_of_queues_that_may_not_be_looked_into(run: Run, closed: str, tmp_path: Path) -> None:
    target = tmp_path / "ddmq.prom"
    run("metrics", closed, "-o", str(target), code=1, unprivileged=True)
    assert f'ddmq_hpc_queue_readable{{root="{closed}",queue="mine"}} 0\n' in target.read_text()
    assert f'ddmq_hpc_queue_readable{{root="{closed}",queue="open"}} 1\n' in target.read_text()
    assert run("metrics", closed, "mine", code=1, unprivileged=True).stdout.count('queue="mine"') == 1


def test_a_queue_that_is_named_and_may_not_be_looked_into(run: Run, closed: str) -> None:
    assert "Permission denied" in run("status", closed, "mine", code=1, unprivileged=True).stderr
    answer = run("status", closed, "mine", "open", code=1, unprivileged=True)
    assert "open" in answer.stdout and "Permission denied" in answer.stderr
