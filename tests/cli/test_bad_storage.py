"""Storage that fails: full, read-only, forbidden, gone. A clear line, nothing half done, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Run

from ddmq_hpc import Message, NotFound, QueueNotFound, StorageError
from ddmq_hpc.broker import Broker

NOBODY = 65534


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
def test_a_root_that_cannot_be(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, told in (("file", "move it away"), ("file/in", "move it away"), ("n" * 300, "give a shorter one")):
        failed = run("create", "-f", str(tmp_path / path), "q", code=1).stderr
        assert told in failed and failed.count("\n") == 1, failed


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


OPERATIONS: dict[str, Callable[[Broker, Message], object]] = {
    "publish": lambda broker, message: broker.publish("q", "more"),
    "publish_many": lambda broker, message: broker.publish_many("q", ["more", "still more"]),
    "publish_key": lambda broker, message: broker.publish("q", "more", key="k"),
    "publish_late": lambda broker, message: broker.publish("q", "more", delay=60),
    "consume": lambda broker, message: broker.consume("q"),
    "ack": lambda broker, message: broker.ack(message),
    "ack_receipt": lambda broker, message: broker.ack(message.receipt or ""),
    "nack": lambda broker, message: broker.nack(message),
    "release": lambda broker, message: broker.release(message),
    "extend": lambda broker, message: broker.extend(message),
    "purge": lambda broker, message: broker.purge_queue("q"),
    "clean": lambda broker, message: broker.clean("q"),
    "stats": lambda broker, message: broker.stats("q"),
    "delete": lambda broker, message: broker.delete_queue("q"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_queue_that_was_removed(root: str, name: str) -> None:
    """Whatever comes first says so, and makes nothing of it again; when it is made again work goes on."""
    Broker(root, create=True).create_queue("q")
    broker = Broker(root)
    broker.publish_many("q", ["first", "text", "left"])
    broker.ack(broker.consume("q"))
    (message,) = broker.consume("q")
    shutil.rmtree(f"{root}/q")
    with pytest.raises(QueueNotFound) as error:
        OPERATIONS[name](broker, message)
    assert error.value.exit_code == 4
    assert not os.path.exists(f"{root}/q")
    Broker(root).create_queue("q")
    broker.publish("q", "again")
    broker.ack(broker.consume("q"))
    assert len(Path(root).glob("q/journal/*").__next__().read_text().splitlines()) == 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_root_that_was_removed(root: str, name: str) -> None:
    Broker(root, create=True).create_queue("q")
    broker = Broker(root)
    broker.publish("q", "text")
    (message,) = broker.consume("q")
    shutil.rmtree(root)
    with pytest.raises(NotFound):
        OPERATIONS[name](broker, message)
    assert not os.path.exists(root)


@pytest.mark.parametrize("first", ["publish", "consume", "ack", "status"])
def test_operations_go_on_when_a_queue_was_removed(root: str, first: str) -> None:
    def ask(**values: Any) -> Any:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps({"root": root, "queue": "q", **values}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    Broker(root, create=True).create_queue("q")
    with subprocess.Popen([COMMAND, "json", "-"], stdin=-1, stdout=-1, text=True) as process:
        assert ask(cmd="publish", message="text")["ok"]
        (message,) = ask(cmd="consume")["result"]
        requests = {"publish": {"message": "more"}, "ack": {"receipt": message["receipt"]}}
        shutil.rmtree(f"{root}/q")
        answer = ask(cmd=first, **requests.get(first, {}))
        assert not answer["ok"] and answer["error"]["exit_code"] == 4, answer
        assert ask(cmd="create")["ok"] and ask(cmd="publish", message="again")["ok"]
        assert process.stdin
        process.stdin.close()


def test_a_file_system_without_inodes(run: Run, tmp_path: Path) -> None:
    """As full as one without room; what needs no new file goes on."""
    place = tmp_path / "few"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=60", "none", str(place)])
    if mounted.returncode:
        assert not os.environ.get("CI")
        pytest.skip("only root can mount a file system")
    try:
        root = str(place / "root")
        run("create", "-f", root, "q")
        run("publish", "--each-line", "-", root, "q", stdin="0\n1\n2\n")
        run("ack", root, "q", json.loads(run("pull", "--format", "json", root, "q").stdout)["receipt"])
        while True:
            try:
                (place / f"filler{len(os.listdir(place))}").touch()
            except OSError:
                break
        answer = run("publish", root, "q", "more", code=75)
        assert "No space left" in answer.stderr and "inodes" in answer.stderr
        assert os.listdir(f"{root}/q/tmp") == []
        next(place.glob("filler*")).unlink()  # dividing a pack takes links alone, and tmpfs counts those, too
        assert json.loads(run("pull", "--format", "json", root, "q").stdout)["message"] == "1"
        for filler in place.glob("filler*"):
            filler.unlink()
        assert waiting(run, root) == ["2"]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


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
