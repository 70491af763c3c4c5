"""`create --group` and `--mode`: what is made, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pages
import pytest
from members import LAB, OTHERS, User


def modes(top: Path) -> dict[str, int]:
    return {str(path.relative_to(top)): path.stat().st_mode & 0o7777 for path in (top, *top.rglob("*"))}


def test_all_of_a_new_root_and_its_queue_is_the_groups(ann: User, shared: Path) -> None:
    for path in (ann.root, shared, *(path for path in shared.iterdir() if path.is_dir())):
        assert path.stat().st_mode & 0o7777 == 0o2770 and path.stat().st_gid == LAB, path
    for path in (ann.root / "ddmq.yaml", shared / "ddmq.yaml"):
        assert path.stat().st_mode & 0o777 == 0o640 and path.stat().st_gid == LAB, path


def test_a_queue_is_private_unless_that_is_said(ann: User) -> None:
    ann.run("create", "-f", "mine")
    assert (ann.root / "mine").stat().st_mode & 0o7777 == 0o700
    ann.run("create", "-f", "tasks", "--group", str(LAB))
    ann.run("create", "other")
    assert (ann.root / "other").stat().st_mode & 0o777 == 0o700


def test_others_may_look_where_the_mode_says_so(ann: User, stranger: User) -> None:
    os.chmod(ann.root.parent, 0o755)
    ann.run("create", "-f", "tasks", "--group", str(LAB), "--mode", "2775")
    ann.run("publish", "tasks", "text")
    assert "text" in stranger.run("peek", "tasks")
    assert "Permission denied" in stranger.run("publish", "tasks", "text", code=1)
    made = modes(ann.root / "tasks")
    assert not [name for name, mode in made.items() if mode & 0o002], made


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("0777", "everybody could write"),
        ("2777", "everybody could write"),
        ("2772", "everybody could write"),
        ("3770", "sticky"),
        ("4770", "setuid"),
        ("0770", "setgid"),
        ("2720", "must read and enter"),
        ("2070", "its owner must"),
        ("u=rwx", "octal digits"),
        ("99", "octal digits"),
    ],
)
def test_modes_that_are_refused(ann: User, mode: str, told: str) -> None:
    said = ann.run("create", "-f", "tasks", "--group", str(LAB), "--mode", mode, code=2)
    assert told in said and len(said.splitlines()) == 1
    assert not ann.root.exists()


def test_groups_that_are_refused(ann: User) -> None:
    assert "you are not in group '7999'" in ann.run("create", "-f", "tasks", "--group", str(OTHERS), code=2)
    assert "no group 'no-such-group'" in ann.run("create", "-f", "tasks", "--group", "no-such-group", code=2)
    assert not ann.root.exists()


def test_a_queue_that_is_there_is_not_opened_on_the_way(ann: User) -> None:
    ann.run("create", "-f", "tasks")
    said = ann.run("create", "tasks", "--group", str(LAB), code=2)
    assert "is there already, mode 0700 of group 7001" in said and "docs/shared.md" in said
    assert (ann.root / "tasks").stat().st_mode & 0o777 == 0o700


def test_a_queue_that_is_there_is_opened_by_hand(ann: User, ben: User, cleo: User, stranger: User) -> None:
    """As docs/shared.md says."""
    ann.run("create", "-f", "tasks")
    ann.run("publish", "tasks", "first")
    script = pages.printed("docs/shared.md", "chgrp -R lab ROOT/tasks")
    script = script.replace("ROOT", str(ann.root)).replace("lab ", f"{LAB} ")
    assert ann.start("sh", "-ec", script).wait() == 0
    ben.run("publish", "tasks", "second")
    taken = [json.loads(user.run("pull", "tasks")) for user in (cleo, ann)]
    assert [message["message"] for message in taken] == ["first", "second"]
    for user, message in zip((ben, cleo), taken):
        user.run("ack", "tasks", message["receipt"])
    ben.run("publish", "tasks", "third")
    stranger.run("pull", "tasks", code=1)
    cleo.run("work", "tasks", "--trust", str(ann.uid), "--trust", str(ben.uid), "--", "true")
    assert json.loads(ann.run("status", "tasks", "--format", "json"))["queues"][0]["ready"] == 0


def test_the_same_again_changes_nothing(ann: User, ben: User, shared: Path) -> None:
    before = modes(shared)
    assert "there already: queue tasks" in ann.run("create", "tasks", "--group", str(LAB))
    assert "there already: queue tasks" in ben.run("create", "tasks", "--group", str(LAB))
    assert modes(shared) == before


def test_a_member_makes_a_queue_in_a_root_of_another(ann: User, ben: User, cleo: User, shared: Path) -> None:
    ben.run("create", "more", "--group", str(LAB))
    cleo.run("publish", "more", "text")
    assert '"text"' in ann.run("pull", "more")


def test_a_queue_that_the_group_may_look_into(ann: User, ben: User, stranger: User) -> None:
    ann.run("create", "-f", "tasks", "--group", str(LAB), "--mode", "2750")
    ann.run("publish", "tasks", "text", "--priority", "7")
    assert "text" in ben.run("peek", "tasks")
    assert "Permission denied" in ben.run("pull", "tasks", code=1)
    assert "Permission denied" in stranger.run("peek", "tasks", code=1)


def test_one_that_was_not_finished_is_completed(ann: User, ben: User) -> None:
    ann.run("create", "-f", "other", "--group", str(LAB))
    (ann.root / "tasks").mkdir()  # as a kill leaves it
    os.chown(ann.root / "tasks", ann.uid, ann.uid)
    (ann.root / "tasks").chmod(0o700)
    for name in ("tmp", "leased"):
        (ann.root / "tasks" / name).mkdir()
        os.chown(ann.root / "tasks" / name, ann.uid, LAB)
        (ann.root / "tasks" / name).chmod(0o2700)
    ann.run("create", "tasks", "--group", str(LAB))
    ben.run("publish", "tasks", "text")
    ben.run("pull", "tasks")


def test_one_that_another_client_makes_meanwhile_is_no_obstacle(ann: User, ben: User, shared: Path) -> None:
    """As the tasks of a job array do: it is shared already, and `ready` may be there before all is."""
    (shared / "locks").rmdir()
    ann.run("create", "tasks", "--group", str(LAB))
    ben.run("publish", "tasks", "text")


def test_what_another_client_of_hers_has_in_a_new_directory_for_a_moment(ann: User, shared: Path) -> None:
    script = (
        "import threading\n"
        "from ddmq_hpc.calls import Calls\n"
        "mkdir, path = Calls.mkdir, sys.argv[1]\n"
        "def busy(self, path, mode=0o777):\n"
        "    mkdir(self, path, mode); open(path + '/settings-abcdefgh', 'w').close()\n"
        "    threading.Timer(0.02, lambda: os.unlink(path + '/settings-abcdefgh')).start()\n"
        "Calls.mkdir = busy\n"
        "queue.fs.mkdir_granted(path, 0o770)\n"
        "print(oct(os.stat(path).st_mode & 0o777))"
    )
    assert ann.python(script, str(shared / "tmp" / "made-abcdefgh")) == "0o770\n"


def test_a_way_that_is_closed_to_the_group_is_told(ann: User) -> None:
    deep = ann.root.parent / "new" / "root"  # under her umask the one above is for herself
    with ann.start(*ann.command("create", "-f", str(deep), "tasks", "--group", str(LAB)), stderr=-1) as process:
        said = process.communicate()[1].decode()
    assert process.returncode == 0
    assert f"warning: members cannot get past {deep.parent}: " in said


def test_a_root_that_is_closed_to_others_is_told(ann: User, shared: Path) -> None:
    """Of a queue that they are to look into."""
    with ann.start(*ann.command("create", "open", "--group", str(LAB), "--mode", "2775"), stderr=-1) as process:
        said = process.communicate()[1].decode()
    assert process.returncode == 0 and f"warning: others cannot get past {ann.root}: " in said
