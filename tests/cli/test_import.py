"""`ddmq-hpc import`, of a root made by ddmq 0.9.14 itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Run

#: What ddmq is told to do: it is older than PyYAML 6, whose `load` wants to be told how, and its own command does not
#: start under Python 3, so its Python form is used.
_OLD = """
import sys, yaml
load = yaml.load
yaml.load = lambda text, Loader=yaml.SafeLoader: load(text, Loader)
import ddmq
b = ddmq.broker(sys.argv[1], create=True)
for queue in ("work_list", "busy", "empty"):
    b.create_queue(queue)
b.publish("work_list", "ten", priority=10)
b.publish("work_list", "first", timeout=60, requeue=True, requeue_limit=3, requeue_prio=2)
b.publish("work_list", "nine", priority=9)
b.publish("work_list", "hundred", priority=100)
b.publish("work_list", 'a "quoted"\\nline, \\u00e9 \\U0001f600', requeue=False)
b.publish("work_list", "last")
for number in range(5):
    b.publish("busy", "task %d" % number, requeue=True)
held = b.consume("busy", n=3)
b.nack("busy", held[2].filename, requeue=True)
b.ack("busy", held[1].filename)
"""


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has ddmq 0.9.14."""
    place = tmp_path_factory.mktemp("ddmq")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = str(place / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-qq", "ddmq==0.9.14", "PyYAML"], check=True)
    return python


@pytest.fixture
def old(old_python: str, tmp_path: Path) -> Path:
    place = tmp_path / "old"
    subprocess.run([old_python, "-c", _OLD, str(place)], check=True, stdout=subprocess.DEVNULL)
    return place


def everything(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def imported(run: Run, old: Path, root: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("import", "--format", "json", str(old), root, code=code).stdout)
    return found


def taken(run: Run, root: str, queue: str) -> list[dict[str, Any]]:
    lines = run("consume", "-n", "100", "--format", "json", root, queue).stdout
    return [json.loads(line) for line in lines.splitlines()]


def test_nothing_is_lost(run: Run, old: Path, root: str) -> None:
    before = everything(old)
    report = imported(run, old, root)
    assert (report["waiting"], report["at_work"], report["unreadable"], report["foreign"]) == (9, 1, [], [])
    assert sorted(report["queues"]) == ["busy", "empty", "work_list"]
    bodies = [message["message"] for message in taken(run, root, "work_list")]
    assert bodies == ["nine", "ten", "hundred", "first", 'a "quoted"\nline, é \U0001f600', "last"]
    assert everything(old) == before


def test_what_was_consumed_comes_first_in_its_priority(run: Run, old: Path, root: str) -> None:
    imported(run, old, root)
    bodies = [message["message"] for message in taken(run, root, "busy")]
    # The acked one is gone, and ddmq put the nacked one last: its `requeue_prio` of 0 counts as none.
    assert bodies == ["task 0", "task 3", "task 4", "task 2"]


def test_properties_are_kept(run: Run, old: Path, root: str) -> None:
    imported(run, old, root)
    (first,) = [message for message in taken(run, root, "work_list") if message["message"] == "first"]
    assert (first["timeout"], first["requeue"], first["requeue_limit"], first["requeue_prio"]) == (60, True, 3, 2)
    assert len(first["headers"]["ddmq_id"]) == 32
    assert taken(run, root, "busy")[-1]["headers"]["ddmq_requeue_counter"] == 1


def test_settings_of_a_queue_are_kept(run: Run, old: Path, root: str) -> None:
    (old / "empty" / "ddmq.yaml").write_text("message_timeout: 77\npriority: 5\ncleaned: 1600000000\n")
    imported(run, old, root)
    run("publish", root, "empty", "new")
    (new,) = taken(run, root, "empty")
    assert (new["timeout"], new["priority"]) == (77, 5)


def test_settings_that_ddmq_did_not_have_are_not_taken_over(run: Run, old: Path, root: str) -> None:
    """Others may write to the old root: what would be run, or trusted, is for who imports to say."""
    with open(old / "work_list" / "ddmq.yaml", "a", encoding="utf-8") as file:
        file.write("on_complete: touch owned\ntrusted_users: [root]\nkey_file: /tmp/key\nretry_delay: 5\n")
    imported(run, old, root)
    found = (Path(root) / "work_list" / "ddmq.yaml").read_text()
    assert "message_timeout" not in found
    assert not [line for line in found.splitlines() if line.startswith(("on_complete", "trusted", "key_file"))]


def test_again_takes_only_what_is_new(run: Run, old: Path, root: str) -> None:
    imported(run, old, root)
    report = imported(run, old, root)
    assert (report["waiting"], report["at_work"], report["already"]) == (0, 0, 10)
    assert len(taken(run, root, "work_list")) == 6


def test_what_cannot_be_read_is_reported(run: Run, old: Path, root: str) -> None:
    waiting = sorted((old / "busy").glob("*.ddmq*[0-9a-f]"))
    torn, empty = waiting[0], waiting[-1]
    torn.write_bytes(torn.read_bytes()[:20])
    empty.write_bytes(b"")
    foreign = old / "busy" / "notes\x1b.txt"
    foreign.write_text("mine")
    report = imported(run, old, root, code=1)
    assert sorted(report["unreadable"]) == sorted(map(str, (torn, empty)))
    assert report["foreign"] == [str(foreign)]
    assert report["waiting"] + report["at_work"] == 8
    damaged = sorted(path.name for path in (Path(root) / "busy" / "damaged").iterdir())
    assert damaged == sorted((torn.name, empty.name))
    shown = run("import", str(old), root, code=1).stdout
    assert "\x1b" not in shown and "notes" in shown


def test_what_is_no_root_of_ddmq(run: Run, tmp_path: Path, root: str) -> None:
    answer = run("import", str(tmp_path), root, code=4)
    assert "no ddmq root" in answer.stderr and not Path(root).exists()
    run("create", "-f", root, "q")
    run("import", root, root, code=2)
    assert "no queue of ddmq" in run("import", root, f"{root}-2", code=4).stderr and not Path(f"{root}-2").exists()


def test_a_queue_that_needs_another_name(run: Run, old: Path, root: str) -> None:
    (old / "busy").rename(old / "my queue.v2")
    report = imported(run, old, root, code=1)
    assert (report["queues"], report["skipped_queues"]) == (["empty", "work_list"], ["my queue.v2"])
    (old / "my queue.v2").rename(old / "busy")
    assert imported(run, old, root)["at_work"] == 1


def test_a_root_of_ddmq_is_not_worked_in(run: Run, old: Path) -> None:
    """Its messages would not be seen."""
    before = everything(old)
    for command in (["create", "-f"], ["publish", "-f"], ["consume"], ["status"]):
        words = [*command, str(old), "busy", *(["text"] if command[0] == "publish" else [])]
        assert "take it over with `ddmq-hpc import" in run(*words, code=2).stderr
    assert everything(old) == before
