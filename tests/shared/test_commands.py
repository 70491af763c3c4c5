"""Every command, once, by a member who did not make the queue."""

from __future__ import annotations

from pathlib import Path

import pytest
from members import User
from test_members import wrong

from ddmq_hpc.cli.main import COMMANDS

#: Commands of which what a member may do is not the matter, or is tested elsewhere.
ELSEWHERE = {
    "completion": "touches no queue",
    "help": "touches no queue",
    "create": "test_create.py",
    "delete": "test_members.py",
    "lock": "test_members.py",
    "work": "test_members.py",
    "report": "reads as `journal export` does, and needs a library for charts",
    "import": "reads a root of ddmq, which is nobody's to share",
    "progress": "writes to a directory of a task",
    "submit": "needs a scheduler: the record that it leaves is tested below",
    "scale": "needs a scheduler",
}

#: (what is typed, what it must print); {receipt} and {id} are of a message that another member published.
TYPED = {
    "publish": (["publish", "tasks", "text"], ".0\n"),
    "status": (["status", "tasks"], "tasks "),
    "groups": (["groups", "tasks"], "mail"),
    "list": (["list", "tasks"], " 7001 "),
    "show": (["show", "tasks", "{id}"], "user: '7001'"),
    "history": (["history", "tasks", "{id}"], ""),
    "logs": (["logs", "tasks", "{id}"], None),
    "peek": (["peek", "tasks"], '"user": "7001"'),
    "explain": (["explain", "tasks"], ""),
    "retry": (["retry", "tasks", "--all"], "retried"),
    "wait": (["wait", "tasks", "--timeout", "0"], None),
    "exec": (["exec", "tasks", "--trust", "7001", "--", "true"], ""),
    "pull": (["pull", "tasks"], '"receipt"'),
    "consume": (["consume", "tasks"], ""),
    "ack": (["ack", "tasks", "{receipt}"], ""),
    "nack": (["nack", "tasks", "{receipt}"], ""),
    "release": (["release", "tasks", "{receipt}"], ""),
    "touch": (["touch", "tasks", "{receipt}"], ""),
    "extend": (["extend", "tasks", "{receipt}"], ""),
    "workers": (["workers"], "no workers"),
    "recover": (["recover"], "0 jobs"),
    "dead": (["dead", "list", "tasks"], ""),
    "cancel": (["cancel", "tasks", "{id}", "--yes"], ""),
    "pause": (["pause", "tasks"], ""),
    "resume": (["resume", "tasks"], ""),
    "drain": (["drain", "tasks"], ""),
    "doctor": (["doctor"], ""),
    "journal": (["journal", "compact", "tasks"], ""),
    "metrics": (["metrics"], 'state="ready"'),
    "clean": (["clean", "tasks"], ""),
    "purge": (["purge", "tasks", "--yes"], "purged"),
    "json": (["json", '{"cmd": "publish", "queue": "tasks", "message": 1}'], '"ok": true'),
    "view": (["view", "tasks"], "| tasks |"),
    "del_msg": (["del_msg", "tasks", "{id}"], "deleted"),
}


def test_all_commands_are_here() -> None:
    assert {*TYPED, *ELSEWHERE} == {*COMMANDS} and not {*TYPED} & {*ELSEWHERE}


#: Of a member: three messages that are ready and one that is held, of which it prints the id of one, and the receipt.
PREPARE = """
from ddmq_hpc.identity import Detached
broker = Broker(broker.root, identity=Detached())
broker.purge_queue("tasks")
broker.publish_many("tasks", ["one", "two", "three", "four"], group="mail")
(held,) = broker.consume("tasks")
print(held.id[:-1] + "1", held.receipt)
"""


@pytest.mark.slow
def test_every_command_by_a_member(ann: User, ben: User, cleo: User, shared: Path) -> None:
    for name, (words, expected) in TYPED.items():
        ident, held = ann.python(PREPARE).split()
        typed = [{"{id}": ident, "{receipt}": held}.get(word, word) for word in words]
        with ben.start(*ben.command(*typed), stdout=-1, stderr=-1) as process:
            said, errors = process.communicate(timeout=60)
        assert process.returncode == 0 or expected is None, (name, said, errors)
        assert b"Traceback" not in errors and b"ermission" not in errors, (name, errors)
        assert expected is None or expected in said.decode(), (name, said)
        if name in ("pause", "drain"):
            cleo.run("resume", "tasks")
        assert not wrong(shared), name


def test_commands_of_a_submission_are_its_owners_to_change(ann: User, ben: User, shared: Path) -> None:
    """What others run is written for its owner alone, read by all."""
    ann.python(
        "from ddmq_hpc.submitted import Record, write\n"
        "write(queue, Record('7', 'slurm', 1, 0.0, 'ann', 'slurm-7', None))"
    )
    (record,) = shared.glob("workers/job-*")
    assert record.stat().st_mode & 0o777 == 0o640 and record.stat().st_uid == ann.uid
    assert ben.python("from ddmq_hpc.submitted import records; print(len(records(queue)))") == "1\n"


def test_settings_that_a_member_changed_are_read_by_all(ann: User, ben: User, cleo: User, shared: Path) -> None:
    for user in (ann, ben, cleo, ann):
        user.run("pause", "tasks", "--reason", f"of {user.uid}")
        assert (shared / "ddmq.yaml").stat().st_uid == user.uid
        for other in (ann, ben, cleo):
            assert f"of {user.uid}" in other.run("status", "tasks")
    assert not wrong(shared)
