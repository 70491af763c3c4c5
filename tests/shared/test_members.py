"""What members of a group do with each other's messages, and what a stranger cannot do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from members import LAB, User


def wrong(queue: Path) -> list[str]:
    """What in a queue members could not read, write, or enter. Settings and records of submitted jobs are for their
    owners to write: they say what others run."""
    found = []
    for path in (queue, *queue.rglob("*")):
        told, wanted = path.lstat(), 0o2070 if path.is_dir() else 0o060
        if path.name == "ddmq.yaml" or path.name.startswith("job-"):
            wanted = 0o040
        if told.st_gid != LAB or told.st_mode & wanted != wanted or (told.st_mode & 0o007 and path == queue):
            found.append(f"{path.relative_to(queue)} {told.st_mode:o} {told.st_gid}")
    return found


def receipt(user: User, *args: str) -> tuple[str, str]:
    taken = json.loads(user.run("pull", "tasks", *args))
    return taken["message"], taken["receipt"]


def counts(user: User) -> dict[str, int]:
    (row,) = json.loads(user.run("status", "tasks", "--format", "json"))["queues"]
    return {state: row[state] for state in ("ready", "leased", "delayed", "dead", "damaged") if row[state]}


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def test_one_publishes_another_pulls_a_third_acks(ann: User, ben: User, cleo: User, shared: Path) -> None:
    ann.run("publish", "tasks", "of ann")
    ben.run("publish", "tasks", "--each-line", "-", stdin="of ben 1\nof ben 2\nof ben 3\n")
    for publisher, taker, third in ((ann, ben, cleo), (ben, ann, cleo), (ben, cleo, ann), (ben, ann, ben)):
        body, held = receipt(taker)
        assert body.startswith("of ann" if publisher is ann else "of ben")
        third.run("ack", "tasks", held)
        assert not wrong(shared)
    assert not counts(ann)


def test_messages_that_come_back_can_be_taken_by_any_member(ann: User, ben: User, cleo: User, shared: Path) -> None:
    ann.run("publish", "tasks", "--each-line", "-", stdin="a\nb\nc\nd\n")
    _, first = receipt(ben)
    cleo.run("nack", "tasks", first)
    _, again = receipt(cleo)
    ann.run("release", "tasks", again)
    _, held = receipt(ben)
    ann.run("nack", "tasks", held)
    assert not wrong(shared)
    cleo.run("purge", "tasks", "--yes")
    assert not counts(ann)


HOLD = """
messages = queue.take(2, duration=600.0)
open(sys.argv[1], "w").close()
import time; time.sleep(60)
"""


@pytest.mark.parametrize("umasks", ["077 022", "022 077"])
def test_what_a_killed_member_held_is_recovered_by_another(
    umasks: str, ann: User, ben: User, cleo: User, shared: Path
) -> None:
    dying, other = (ann, ben) if umasks.startswith("077") else (ben, ann)
    cleo.run("publish", "tasks", "--each-line", "-", stdin="a\nb\nc\nd\ne\n")
    mark = ann.place / "node" / "holds"
    with dying.start_python(HOLD, str(mark)) as process:
        wait_for(mark)
        assert counts(other) == {"ready": 3, "leased": 2}
        assert "requeued" not in other.run("clean", "tasks")  # it lives, and that is seen across users
        assert counts(other) == {"ready": 3, "leased": 2}
        process.kill()
    assert "2 requeued" in other.run("clean", "tasks")
    assert counts(other) == {"ready": 5}
    assert [receipt(user)[0] for user in (other, cleo, other)] == ["a", "b", "c"]
    assert not wrong(shared)


#: For each number that it reads: a process that dies before it makes so many changes. Prints how that ended.
DIE = """
import signal
from ddmq_hpc import calls
from ddmq_hpc.fs import Filesystem

left = 0

def step():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

def deadly(raw):
    def call(*args, **more):
        step()
        return raw(*args, **more)
    return call

class Deadly(Filesystem):
    rename, link, unlink = (staticmethod(deadly(getattr(Filesystem, name))) for name in ("rename", "link", "unlink"))
    mkdir, rmdir, append = (deadly(getattr(Filesystem, name)) for name in ("mkdir", "rmdir", "append"))
    create_open, open_append = (deadly(getattr(Filesystem, name)) for name in ("create_open", "open_append"))

calls._grant = deadly(calls._grant)

def act():
    broker = Broker(os.environ["DDMQ_HPC_ROOT"], filesystem=Deadly)
    broker.publish("tasks", "single", priority=7, group="g")
    broker.publish_many("tasks", ["many"] * 3)
    broker.publish("tasks", "later", delay=3600)
    broker.publish("tasks", "once", key="k")
    first, second, third = broker.consume("tasks", n=3)
    broker.nack([first])
    broker.ack([second])
    broker.extend(third)
    broker.release([third])

for line in sys.stdin:
    left = int(line)
    if not (pid := os.fork()):
        act()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

#: For each line that it reads: takes and acks all there is, and publishes where the others did. Prints what it took.
GO_ON = """
for line in sys.stdin:
    broker.clean("tasks")
    broker.publish("tasks", "mine", priority=7, group="g")
    taken = 0
    while messages := broker.consume("tasks", n=10):
        broker.ack(messages)
        taken += len(messages)
    print(taken, broker.stats("tasks").leased, flush=True)
"""


def ask(process: subprocess.Popen[bytes], line: str) -> str:
    assert process.stdin and process.stdout
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()
    return process.stdout.readline().decode().strip()


@pytest.mark.slow
def test_whatever_a_member_leaves_in_the_middle_others_go_on(ann: User, ben: User, shared: Path) -> None:
    """Killed before each change that it makes, with the umask that closes most."""
    places = ("ready", "leased", "delayed", "dead", "groups", "keys")
    with ann.start_python(DIE) as dying, ben.start_python(GO_ON) as other:
        for step in range(1, 1000):
            end = ask(dying, str(step))
            assert end in ("0", str(-signal.SIGKILL)), step
            taken, leased = ask(other, "go on").split()
            assert int(taken) >= 1 and leased == "0", step
            assert not [text for text in wrong(shared) if text.startswith(places)], step
            if end == "0":
                break
        for process in (dying, other):
            assert process.stdin and process.stderr
            process.stdin.close()
            assert not process.stderr.read()
    assert step > 20


def test_half_written_files_of_a_dead_member_are_removed(ann: User, ben: User, shared: Path) -> None:
    old = time.time() - 7200
    for name in ("1718000000000000000-0abcdefgh", "lock-abcdefgh", "made-abcdefgh", "group-abcdefgh"):
        path = shared / "tmp" / name
        path.mkdir() if name.startswith(("made", "group")) else path.touch()
        path.chmod(0o700 if path.is_dir() else 0o600)  # killed before it was opened to the group
        os.chown(path, ann.uid, ann.uid)
        os.utime(path, (old, old))
    assert "4 leftovers" in ben.run("clean", "tasks")
    assert not os.listdir(shared / "tmp")


def test_a_member_who_died_before_a_file_was_open_to_the_group(ann: User, ben: User, shared: Path) -> None:
    """Between open(2) and fchmod(2) it is as the umask has it, and empty."""
    ann.run("publish", "tasks", "--each-line", "-", "--group", "g", stdin="a\nb\n")
    for name in (
        "journal/node.0a1b2c3d.7001.1.jsonl",
        "journal/node.0a1b2c3d.7001.99999.jsonl",
        "groups/g/open.abcdefgh",
    ):
        (shared / name).touch()
        (shared / name).chmod(0o600)
        os.chown(shared / name, ann.uid, LAB)
    assert "open" in ben.run("groups", "tasks")
    old = time.time() - 400
    os.utime(shared / "groups/g/open.abcdefgh", (old, old))
    assert "unfinished" in ben.run("groups", "tasks", "--format", "json")
    for words in (("metrics",), ("explain", "tasks"), ("journal", "export", "tasks"), ("clean", "tasks")):
        ben.run(*words)
    ben.run("journal", "compact", "tasks")
    ben.run("exec", "tasks", "--trust", "7001", "--", "true")


def test_locks(ann: User, ben: User, shared: Path) -> None:
    path = str(ann.root / "resource")
    mark = ann.place / "node" / "locked"
    process = ann.start(*ann.command("lock", path, "--", "sh", "-c", f"touch {mark}; sleep 60"), start_new_session=True)
    wait_for(mark)
    ben.run("lock", "--wait", "0", path, "--", "true", code=75)
    assert "7001" in ben.run("lock", "list", path)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert ben.run("lock", "--wait", "30", path, "--", "echo", "mine") == "mine\n"
    assert ann.run("lock", "--wait", "30", path, "--", "echo", "mine again") == "mine again\n"


def test_locks_of_a_queue_that_a_dead_member_held(ann: User, ben: User, shared: Path) -> None:
    lock = "from ddmq_hpc.locks import acquire; print(bool(acquire(queue.fs, queue.paths, 'journal')))"
    assert ann.python(lock) == "True\n"
    assert ben.python(lock) == "True\n"  # at once: its holder is gone
    assert not wrong(shared)


def test_workers_of_several_users(ann: User, ben: User, cleo: User, shared: Path) -> None:
    seen = ann.place / "node"
    cleo.run("publish", "tasks", "--each-line", "-", stdin="".join(f"{number}\n" for number in range(8)))
    trusted = [word for user in (ann, ben, cleo) for word in ("--trust", str(user.uid))]
    script = f"touch {seen}/{{}}.$(id -u); while [ ! -e {seen}/go ]; do sleep 0.05; done"
    # Numbers have no entries in the directory of users, so each is named; nor has the group, so it is the queue's.
    working = [
        user.start(*user.command("work", "tasks", *trusted, "-j", "2", "--output", "files", "--", "sh", "-c", script))
        for user in (ann, ben)
    ]
    end = time.monotonic() + 60
    while len(list(seen.glob("*.700?"))) < 4:
        assert time.monotonic() < end
        time.sleep(0.05)
    told = json.loads(cleo.run("workers", "--format", "json"))["workers"]
    assert {worker["user"] for worker in told} == {"7001", "7002"}
    (row,) = json.loads(cleo.run("status", "tasks", "--user", "7002", "--format", "json"))["queues"]
    assert row["holds"] >= 2 and row["unknown"] == 0 and row["leased"] == 0
    (row,) = json.loads(ann.run("status", "tasks", "--user", "7003", "--format", "json"))["queues"]
    assert row["holds"] == 0 and row["leased"] + row["ready"] == 8
    assert not wrong(shared)
    (seen / "go").touch()
    assert [process.wait(60) for process in working] == [0, 0]
    assert not counts(cleo) and not wrong(shared)
    assert len(cleo.run("journal", "export", "tasks", "--format", "jsonl").splitlines()) == 8


def test_a_member_stops_the_worker_of_another(ann: User, ben: User, shared: Path) -> None:
    mark = ann.place / "node" / "works"
    ben.run("publish", "tasks", "text")
    process = ann.start(*ann.command("work", "tasks", "--trust", "7002", "--", "sh", "-c", f"touch {mark}; sleep 60"))
    wait_for(mark)
    ben.run("workers", "stop", "tasks", "all", "--now")
    assert process.wait(60) == 0
    assert counts(ben) == {"ready": 1}


def test_a_stranger_can_neither_read_nor_write(ann: User, stranger: User, shared: Path) -> None:
    ann.run("publish", "tasks", "secret")
    for command in (("status",), ("list", "tasks"), ("peek", "tasks"), ("pull", "tasks"), ("publish", "tasks", "x")):
        said = stranger.run(*command, code=1)
        assert "Permission denied" in said and "secret" not in said
    (found,) = shared.glob("ready/*/*/*")
    for script in (f"cat {found}", f"ls {shared}", f"touch {shared}/tmp/x", f"rm -r {shared}"):
        with stranger.start("sh", "-c", script, stdout=-1, stderr=-1) as process:
            answer, _ = process.communicate()
        assert process.returncode and b"secret" not in answer, script
    assert counts(ann) == {"ready": 1}


def test_a_stranger_who_may_look_can_only_look(ann: User, stranger: User, shared: Path) -> None:
    """Also when its owner opens it to all: files and directories below are not for strangers to write."""
    for path in (ann.root, shared):
        path.chmod(0o2775)
    ann.run("publish", "tasks", "text", "--group", "g", "--priority", "5")
    for path in (path for path in shared.rglob("*")):
        assert not path.stat().st_mode & 0o002, path
    assert "Permission denied" in stranger.run("publish", "tasks", "x", code=1)


def test_delete_by_a_member(ann: User, ben: User, shared: Path) -> None:
    ann.run("publish", "tasks", "--each-line", "-", "--group", "g", stdin="a\nb\n")
    ben.run("delete", "tasks", "--yes")
    assert not [name for name in os.listdir(ann.root) if "tasks" in name]
