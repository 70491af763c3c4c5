"""Storage that fails: full, read-only, forbidden, gone. A clear line, nothing half done, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Run

from ddmq_hpc import QueueNotFound, StorageError
from ddmq_hpc.broker import Broker

NOBODY = 65534


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, mounted for the test."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], capture_output=True)
    if mounted.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"cannot mount a tmpfs: {mounted.stderr.decode()}")
        pytest.skip(f"only root can mount a file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def full(run: Run, small: Path) -> str:
    """A root with five messages and one more that is leased, and no room left."""
    root = str(small / "root")
    run("create", "-f", root, "q")
    run("publish", "--each-line", "-", root, "q", stdin="0\n1\n2\n3\n4\n5\n")
    (small / "first").write_text(run("pull", "--format", "json", root, "q").stdout)
    with open(small / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    return root


def waiting(run: Run, root: str) -> list[str]:
    """Everything that is left, taken out."""
    lines = run("pull", "-n", "100", "--format", "json", root, "q").stdout.splitlines()
    return [json.loads(line)["message"] for line in lines]


def held(small: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((small / "first").read_text())
    return found


def test_a_full_disk_takes_no_message_and_loses_none(run: Run, small: Path, full: str) -> None:
    for command in (
        ("publish", full, "q", "x" * 5000),
        ("publish", "--each-line", "-", full, "q"),
    ):
        answer = run(*command, code=75, stdin=f"{'y' * 5000}\n" * 3)
        assert "No space left" in answer.stderr
    row = json.loads(run("status", "--format", "json", full, "q").stdout)["queues"][0]
    assert (row["ready"], row["leased"]) == (5, 1)
    (small / "filler").unlink()
    run("ack", full, "q", held(small)["receipt"])
    run("publish", full, "q", "more")
    assert waiting(run, full) == ["1", "2", "3", "4", "5", "more"]


def test_a_full_disk_still_hands_out_messages(run: Run, small: Path, full: str) -> None:
    assert json.loads(run("pull", "--format", "json", full, "q").stdout)["message"] == "1"


def test_an_outcome_that_cannot_be_written_leaves_the_message_held(run: Run, small: Path, full: str) -> None:
    receipt = held(small)["receipt"]
    journal = next((Path(full) / "q" / "journal").glob("*.jsonl"), None)
    if journal:  # fill up the last page of it, too
        with journal.open("ab", buffering=0) as file:
            file.write(b"\n" * (-journal.stat().st_size % 4096))
    answer = run("ack", full, "q", receipt, code=75)
    assert "No space left" in answer.stderr
    (small / "filler").unlink()
    run("ack", full, "q", receipt)
    assert waiting(run, full) == ["1", "2", "3", "4", "5"]


def test_read_only(run: Run, small: Path) -> None:
    root = str(small / "root")
    run("create", "-f", root, "q")
    run("publish", root, "q", "text")
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    for command in (("publish", root, "q", "more"), ("pull", root, "q")):
        answer = run(*command, code=1)
        assert "Read-only file system" in answer.stderr and len(answer.stderr.splitlines()) == 1
    assert "text" in run("peek", root, "q").stdout
    assert json.loads(run("status", "--format", "json", root, "q").stdout)["queues"][0]["ready"] == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for another user")
def test_permission_denied(run: Run, root: str) -> None:
    """In the library, as another user: the interpreter may be where that user cannot read."""
    broker = Broker(root, create=True)
    broker.publish("q", "text")
    broker.release(broker.consume("q"))  # by now all that it takes is imported
    for parent in (Path(root), *Path(root).parents):
        parent.chmod(parent.stat().st_mode | 0o555)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            code = _denied(broker)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
    assert waiting(run, root) == ["text"]


def _denied(broker: Broker) -> int:
    """How many of two operations were not refused as they should be."""
    failures = 0
    for act in (lambda: broker.publish("q", "more"), lambda: broker.consume("q")):
        try:
            act()
            failures += 1
        except StorageError as error:
            failures += "Permission denied" not in str(error)
    return failures


def test_a_queue_that_was_removed_is_not_made_again(run: Run, root: str) -> None:
    run("create", "-f", root, "q")
    broker = Broker(root)
    broker.publish("q", "text")
    (message,) = broker.consume("q")
    shutil.rmtree(f"{root}/q")
    with pytest.raises(QueueNotFound):
        broker.publish("q", "more")
    with pytest.raises(QueueNotFound):
        broker.consume("q")
    with pytest.raises(QueueNotFound):
        broker.ack(message)
    assert not os.path.exists(f"{root}/q")
    shutil.rmtree(root)
    run("pull", root, "q", code=4)


def test_operations_go_on_when_a_queue_was_removed(root: str) -> None:
    def ask(**values: Any) -> Any:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps({"root": root, **values}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    Broker(root, create=True).create_queue("q")
    with subprocess.Popen([COMMAND, "json", "-"], stdin=-1, stdout=-1, text=True) as process:
        assert ask(cmd="publish", queue="q", message="text")["ok"]
        shutil.rmtree(f"{root}/q")
        for cmd in ("publish", "consume"):
            answer = ask(cmd=cmd, queue="q", message="more") if cmd == "publish" else ask(cmd=cmd, queue="q")
            assert not answer["ok"] and answer["error"]["exit_code"] == 4, answer
        assert process.stdin
        process.stdin.close()


@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_is_no_file_stops_nothing(run: Run, root: str, plant: Any) -> None:
    run("create", "-f", root, "q")
    run("publish", "-p", "5", root, "q", "first")
    (found,) = Path(root).glob("q/ready/5/*/*")
    pack, _, rest = found.name.partition("-")
    plant(str(found.with_name(f"{int(pack) - 1:019d}-{rest}")))
    answer = run("pull", "-n", "5", "--format", "json", root, "q")
    assert [json.loads(line)["message"] for line in answer.stdout.splitlines()] == ["first"]
    assert len(os.listdir(f"{root}/q/damaged")) == 1
