"""Drop boxes: what those may do who can only publish, what the enemies among them cannot, how the owner gets it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pages
import pytest
from members import LAB, OTHERS, User

from ddmq_hpc.names import is_pack

#: What stands in drop/ of a message at once, with the queue's priority, published long ago.
OLD = "000000000000000.-.1000000000000000000-0abcdefg"


def pulled(user: User, *args: str) -> list[str]:
    """The texts of all messages that are ready, as they are taken; they are acked."""
    script = "while found := queue.take(): print(found[0].message); queue.ack(found)"
    return user.python(script, *args).splitlines()


def row(user: User) -> dict[str, object]:
    (found,) = json.loads(user.run("status", "tasks", "--format", "json"))["queues"]
    assert isinstance(found, dict)
    return found


def tampering(user: User, box: Path) -> User:
    """One whose scripts find in `$BOX` the directory to drop into."""
    user.environ["BOX"] = str(box / "drop")
    return user


def tamper(user: User, script: str) -> str:
    """What a script prints in which `box` is the directory to drop into."""
    return user.tamper("box = os.environ['BOX']\n" + script)


# -- publishing and pulling


def test_strangers_publish_and_the_owner_pulls_in_order(ann: User, stranger: User, enemy: User, box: Path) -> None:
    said = stranger.run("publish", "tasks", "one")
    assert not said  # no id is printed that does not stay
    enemy.run("publish", "tasks", "two", "--header", "a=b")
    stranger.run("publish", "tasks", "--each-line", "-", stdin="three\nfour\n")
    enemy.run("publish", "tasks", "urgent", "--priority", "1")
    stranger.run("publish", "tasks", "late", "--delay", "1h")
    assert row(ann)["dropped"] == 6 and row(ann)["ready"] == 0
    assert "6 dropped that are brought in with the next pull" in ann.run("status", "tasks")
    taken = json.loads(ann.run("pull", "tasks"))
    assert taken["message"] == "urgent"
    ann.run("ack", "tasks", taken["receipt"])
    assert {word for word in ann.run("list", "tasks").split() if word in ("7001", "7009", "7010")} == {"7009", "7010"}
    assert row(ann)["dropped"] == 0 and row(ann)["delayed"] == 1
    assert json.loads(ann.run("peek", "tasks", "-n", "2").splitlines()[1])["headers"] == {"a": "b"}
    assert pulled(ann) == ["one", "two", "three", "four"]


def test_programs_are_told_that_there_is_no_id_yet(ann: User, stranger: User, box: Path) -> None:
    request = {"cmd": "publish", "root": str(ann.root), "queue": "tasks", "message": "text"}
    answer = json.loads(stranger.run("json", "-", stdin=json.dumps(request) + "\n"))
    assert answer["ok"] and answer["result"]["id"] == "" and answer["result"]["message"] == "text"


def test_a_message_without_priority_gets_the_queues(ann: User, stranger: User) -> None:
    ann.run("create", "-f", "tasks", "--mode", "0711", "--set", "priority=5")
    stranger.run("publish", "tasks", "dropped")
    ann.run("publish", "tasks", "later", "--priority", "6")
    assert pulled(ann) == ["dropped", "later"]


def test_what_is_dropped_while_others_wait_is_taken_within_seconds(ann: User, stranger: User, box: Path) -> None:
    ann.run("publish", "tasks", "--each-line", "-", stdin="text\n" * 200)
    stranger.run("publish", "tasks", "urgent", "--priority", "1")
    script = """
import time
for number in range(200):
    found = queue.take()
    if found[0].message == "urgent": break
    queue.ack(found); time.sleep(0.03)
print(found[0].message, number < 120)
"""
    assert ann.python(script) == "urgent True\n"


def test_a_worker_that_waits_gets_it(ann: User, stranger: User, box: Path) -> None:
    given = ["--trust", "7009", "--until", "forever", "--max-tasks", "1", "--", "test", "{}", "=", "text"]
    words = ann.command("work", "tasks", *given)
    with ann.start(*words, stdout=-1, stderr=-1) as process:
        time.sleep(2)
        stranger.run("publish", "tasks", "text")
        try:
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and b"1 done" in told, told


def test_nothing_is_drained_while_something_waits_there(ann: User, stranger: User, box: Path) -> None:
    assert "0 ready" not in ann.run("wait", "tasks", "--timeout", "0")
    stranger.run("publish", "tasks", "text")
    assert "is not done" in ann.run("wait", "tasks", "--timeout", "0", code=3)
    assert ann.python("print(queue.is_drained())") == "False\n"
    assert "is not done: 1 ready" in ann.run("wait", "tasks", "--timeout", "0", code=3)


def test_a_queue_that_takes_nothing_new_brings_nothing_in(ann: User, stranger: User, box: Path) -> None:
    ann.run("drain", "tasks")
    stranger.run("publish", "tasks", "text")
    ann.run("pull", "tasks", code=3)
    ann.run("wait", "tasks", "--timeout", "0")
    ann.run("resume", "tasks")
    assert pulled(ann) == ["text"]


def test_purge_and_clean_bring_it_in(ann: User, stranger: User, box: Path) -> None:
    stranger.run("publish", "tasks", "one")
    assert "1 fetched" in ann.run("clean", "tasks")
    stranger.run("publish", "tasks", "two")
    assert "purged 2 messages" in ann.run("purge", "tasks", "--yes")


def test_the_owners_deletes_all_of_it(ann: User, stranger: User, box: Path) -> None:
    stranger.run("publish", "tasks", "one")
    ann.run("delete", "tasks", "--yes")
    assert not box.exists() and not list(ann.root.glob(".deleted*"))


def test_a_box_for_a_group(ann: User, ben: User, stranger: User) -> None:
    ann.run("create", "-f", "tasks", "--group", str(LAB), "--mode", "2710")
    box = ann.root / "tasks"
    for path, mode in ((ann.root, 0o2710), (box, 0o2710), (box / "drop", 0o3730)):
        assert path.stat().st_mode & 0o7777 == mode and path.stat().st_gid == LAB, path
    ben.run("publish", "tasks", "of a member")
    stranger.run("publish", "tasks", "of a stranger", code=1)
    assert "may only publish" in ben.run("pull", "tasks", code=1)
    assert pulled(ann) == ["of a member"]


# -- what they cannot do


def test_whoever_may_only_publish_is_told_so(stranger: User, box: Path) -> None:
    ident = "1718000000000000000-0abcdefgh.0"
    commands = [
        *(["pull"], ["peek"], ["list"], ["status"], ["show", ident], ["groups"], ["wait"], ["history", ident]),
        *(["purge", "--yes"], ["delete", "--yes"], ["clean"], ["pause"], ["drain"], ["resume"]),
        *(["create"], ["workers"], ["cancel", ident, "--yes"], ["retry", "--all"], ["dead", "list"], ["metrics"]),
        *(["exec", "--", "true"], ["work", "--", "true"], ["publish", "text", "--key", "k"]),
    ]
    for command in commands:
        name, rest = (command[:2], command[2:]) if command[0] == "dead" else (command[:1], command[1:])
        told = [line for line in stranger.run(*name, "tasks", *rest, code=1).splitlines() if "sweep" not in line]
        assert len(told) == 1 and "you may only publish to queue 'tasks'" in told[0], (command, told)


@pytest.mark.parametrize("options", [["--group", "g"], ["--after", "g"]], ids=" ".join)
def test_what_cannot_travel_is_refused(ann: User, stranger: User, box: Path, options: list[str]) -> None:
    told = stranger.run("publish", "tasks", "text", *options, code=2)
    assert "is a drop box for you: no group" in told and len(told.splitlines()) == 1
    told = stranger.run("publish", "tasks", "--each-line", "-", *options, code=2, stdin="text\n")
    assert "no group" in told and "no messages published before it" in told
    assert not os.listdir(box / "drop")


def test_what_others_dropped_is_not_theirs(ann: User, stranger: User, enemy: User, box: Path) -> None:
    stranger.run("publish", "tasks", "text")
    (name,) = os.listdir(box / "drop")  # by chance, or by root: nobody else is told
    tampering(enemy, box).environ["NAME"] = name
    script = """
name = os.environ["NAME"]
open(f"{box}/mine", "w").close()
for act in (
    lambda: os.listdir(box),
    lambda: os.listdir(os.path.dirname(box)),
    lambda: os.unlink(f"{box}/{name}"),
    lambda: os.rename(f"{box}/{name}", f"{box}/other"),
    lambda: os.rename(f"{box}/mine", f"{box}/{name}"),
    lambda: open(f"{box}/{name}", "a"),
    lambda: os.chmod(f"{box}/{name}", 0o666),
    lambda: os.listdir(f"{box}/../ready"),
    lambda: open(f"{box}/../tmp/new", "w"),
    lambda: open(f"{box}/../ddmq.yaml"),
    lambda: os.mkdir(f"{box}/../new"),
):
    try:
        act()
        print("done")
    except PermissionError:
        print("denied")
"""
    assert set(tamper(enemy, script).split()) == {"denied"}
    assert pulled(ann) == ["text"]


def test_modes_whatever_the_umask_of_anybody(ann: User, stranger: User, enemy: User, box: Path) -> None:
    closed = User(ann.place, 7011, 0o077, OTHERS)
    for user in (stranger, enemy, closed):
        user.run("publish", "tasks", "text")
    assert {path.stat().st_mode & 0o7777 for path in (box / "drop").iterdir()} == {0o644}
    for umask in (0o000, 0o077):
        owner = User(ann.place, ann.uid, umask)
        owner.run("publish", "tasks", "own", "--group", "g")
        owner.run("publish", "tasks", "own", "--key", str(umask))
        owner.run("publish", "tasks", "own", "--delay", "1h")
        owner.run("nack", "tasks", json.loads(owner.run("pull", "tasks"))["receipt"], "--no-requeue")
    assert ann.root.stat().st_mode & 0o7777 == 0o711
    assert (ann.root / "ddmq.yaml").stat().st_mode & 0o777 == 0o644
    found = {path: path.lstat().st_mode & 0o7777 for path in (box, *box.rglob("*"))}
    assert found.pop(box) == 0o711 and found.pop(box / "drop") == 0o1733
    theirs = [path for path in found if path.lstat().st_uid != ann.uid]
    assert len(theirs) == 3
    assert not [path for path, mode in found.items() if mode & 0o077 and path not in theirs]


def test_commands_of_strangers_run_for_those_who_trust_them(ann: User, stranger: User, box: Path) -> None:
    stranger.run("publish", "tasks", "--each-line", "-", stdin="one\ntwo\n")
    for command in (["exec", "tasks", "--", "echo"], ["work", "tasks", "--", "echo"]):
        assert "belongs to user 7009" in ann.run(*command, code=1)
    assert "belongs to user 7009" in ann.run("work", "tasks", "--shell", code=1)
    assert "ran one" in ann.run("exec", "tasks", "--trust", "7009", "--", "echo", "ran", "{}")
    assert "belongs to user 7009" in ann.run("exec", "tasks", "--", "echo", code=1)


# -- enemies

PLANT = f"""
old = f"{{box}}/{OLD}"
good = b'{{"message":"planted"}}\\n'
def write(name, data=good, mode=0o644):
    with open(name, "wb") as file: file.write(data)
    os.chmod(name, mode)
os.symlink("/etc/passwd", old + "a")
os.mkfifo(old + "b")
socket.socket(socket.AF_UNIX).bind(old + "c") if len(old) < 100 else os.mkfifo(old + "c")
write(old + "d"); os.link(old + "d", f"{{box}}/second")
write(old + "e", mode=0o600)
os.mkdir(old + "f", 0o755)
os.mkdir(old + "g", 0o755); write(old + "g/inside")
os.symlink("../../..", old + "h")
for name in ("x", "tmp", "000000000000000.5.1000000000000000000-0abcdefgh.0-3.0-0", "-1.5." + "9" * 19 + "-0abcdefgh"):
    write(f"{{box}}/{{name}}")
write(old + "i", b"no json")
write(old + "j", b"")
"""


def test_a_box_for_those_who_have_a_key(ann: User, stranger: User, enemy: User, place: Path, signed_box: Path) -> None:
    """What they drop is run without trusting anybody else by name for what is not signed."""
    stranger.run("publish", "tasks", "good")
    enemy.run("publish", "tasks", "evil")
    command = ("--", "sh", "-c", "echo $DDMQ_HPC_MESSAGE >> $HOME/done")
    ann.run("work", "tasks", *command)
    assert (place / "home/done").read_text() == "good\n"
    assert "unsigned" in ann.run("list", "tasks", "--state", "damaged")
    stranger.run("publish", "tasks", "echo shell")
    ann.run("work", "tasks", "--shell", code=1)


def test_what_an_enemy_plants_hangs_nobody_and_hides_nothing(ann: User, stranger: User, enemy: User, box: Path) -> None:
    tamper(tampering(enemy, box), PLANT)
    stranger.run("publish", "tasks", "text")
    assert pulled(ann) == ["text"]
    found = row(ann)
    assert found["damaged"] == 8  # links, FIFOs, what nobody may read, and two that are no messages
    stuck = [name for name in os.listdir(box / "drop") if (box / "drop" / name).is_dir() and is_pack(name)]
    assert len(stuck) == 1, "a directory with something in it can only its owner, or root, move elsewhere or remove"
    assert found["dropped"] == 0, "nor is it looked at again"
    assert ann.python("print(queue.is_drained())") == "True\n"
    assert "foreign" in ann.run("status", "tasks") or found["foreign"]
    assert os.path.exists("/etc/passwd")


def test_what_is_no_message_goes_after_an_hour(ann: User, enemy: User, box: Path) -> None:
    tamper(tampering(enemy, box), PLANT)
    later = time.time() - 7200
    for path in (box / "drop").iterdir():
        os.utime(path, (later, later), follow_symlinks=False)
    ann.run("clean", "tasks")
    assert [(is_pack(name), os.path.isdir(box / "drop" / name)) for name in os.listdir(box / "drop")] == [(True, True)]


@pytest.mark.parametrize("act", ["os.fchmod(handle, 0)", "os.ftruncate(handle, 0)", "os.write(handle, b'[' * 9999)"])
def test_what_a_publisher_does_to_his_file_later_stops_nobody(
    ann: User, stranger: User, enemy: User, box: Path, act: str
) -> None:
    script = f"""
handle = os.open(f"{{box}}/{OLD}a", os.O_CREAT | os.O_RDWR, 0o644)
os.write(handle, b'{{"message":"mine"}}\\n')
os.fchmod(handle, 0o644)
print("there", flush=True)
sys.stdin.readline()
{act}
print("done", flush=True)
"""
    head = "import os, sys; box = os.environ['BOX']\n"
    tampering(enemy, box)
    with enemy.start(enemy.command()[0], "-c", head + script, stdin=-1, stdout=-1) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == b"there\n"
        stranger.run("publish", "tasks", "text")
        ann.run("clean", "tasks")
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"done\n"
        ann.run("list", "tasks")
        assert pulled(ann)[-1] == "text"
    assert row(ann)["damaged"] == (not act.startswith("os.write"))


def test_files_of_the_owner_that_others_move_there_are_not_hers(ann: User, enemy: User, box: Path) -> None:
    """Any directory that both may write to has some: they would be run as hers."""
    common = ann.place / "home" / "common"
    common.mkdir()
    common.chmod(0o777)
    for name, uid in (("a", ann.uid), ("b", 0)):
        (common / name).write_text('{"message":"not meant for this queue"}\n')
        os.chown(common / name, uid, uid)
    tampering(enemy, box)
    tamper(enemy, f"for name in 'ab': os.rename(f'{common}/{{name}}', f'{{box}}/{OLD}{{name}}')")
    assert not pulled(ann)
    assert row(ann)["damaged"] == 2 and not os.listdir(box / "drop")


def test_a_name_that_was_used_before_overwrites_nothing(ann: User, enemy: User, box: Path) -> None:
    script = f"""
with open(f"{{box}}/{OLD}a", "wb") as file: file.write(b'{{"message":"mine"}}\\n')
os.chmod(f"{{box}}/{OLD}a", 0o644)
"""
    for _ in range(3):
        tamper(tampering(enemy, box), script)
        ann.run("clean", "tasks")
    assert pulled(ann) == ["mine"] * 3


# -- deaths

DEADLY = """
import signal
from ddmq_hpc import calls
from ddmq_hpc.fs import Filesystem

left = 0

def deadly(raw):
    def call(*args, **more):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return raw(*args, **more)
    return call

class Deadly(Filesystem):
    rename, link, unlink, lstat = (staticmethod(deadly(getattr(os, n))) for n in ("rename", "link", "unlink", "lstat"))
    mkdir, rmdir, append = (deadly(getattr(Filesystem, name)) for name in ("mkdir", "rmdir", "append"))
    create_open, sync_file = deadly(Filesystem.create_open), deadly(Filesystem.sync_file)

calls._grant = deadly(calls._grant)
os.write = deadly(os.write)

def act():
    with Broker(os.environ["DDMQ_HPC_ROOT"], filesystem=Deadly) as broker:
        %s

for line in sys.stdin:
    left = int(line)
    if not (pid := os.fork()):
        act()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def ask(process: subprocess.Popen[bytes], line: str) -> str:
    assert process.stdin and process.stdout
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()
    return process.stdout.readline().decode().strip()


TAKE = """
import os, sys
from ddmq_hpc.broker import Broker
broker = Broker(os.environ["DDMQ_HPC_ROOT"])
for line in sys.stdin:
    broker.clean("tasks")
    taken = []
    while messages := broker.consume("tasks", n=10):
        broker.ack(messages)
        taken += [message.message for message in messages]
    found = broker.stats("tasks")
    print(*sorted(taken), found.damaged, found.dead, flush=True)
"""


PUBLISH = """
import os, sys
from ddmq_hpc.broker import Broker
broker = Broker(os.environ["DDMQ_HPC_ROOT"])
for line in sys.stdin:
    broker.publish_many("tasks", ["a", "b"])
    broker.publish("tasks", "c", 1)
    print(flush=True)
"""


def test_a_publisher_that_is_killed_leaves_all_or_nothing(ann: User, stranger: User, box: Path) -> None:
    script = (
        "import os, sys; from ddmq_hpc.broker import Broker\n" + DEADLY % "broker.publish('tasks', 'm', durable=True)"
    )
    python = stranger.command()[0]
    with (
        stranger.start(python, "-c", script, stdin=-1, stdout=-1) as dying,
        ann.start(python, "-c", TAKE, stdin=-1, stdout=-1) as taker,
    ):
        for step in range(1, 100):
            end = ask(dying, str(step))
            assert end in ("0", str(-signal.SIGKILL)), step
            found = ask(taker, "go on")
            assert found in (("m 0 0",) if end == "0" else ("m 0 0", "0 0")), (step, found)
            if end == "0":
                break
        for process in (dying, taker):
            assert process.stdin
            process.stdin.close()
    assert step > 4


def test_a_client_that_is_killed_while_it_brings_in_loses_and_doubles_nothing(
    ann: User, stranger: User, box: Path
) -> None:
    script = "import os, sys; from ddmq_hpc.broker import Broker\n" + DEADLY % "broker.queue('tasks').sweep()"
    python = stranger.command()[0]
    with (
        ann.start(python, "-c", script, stdin=-1, stdout=-1) as dying,
        ann.start(python, "-c", TAKE, stdin=-1, stdout=-1) as taker,
        stranger.start(python, "-c", PUBLISH, stdin=-1, stdout=-1) as publisher,
    ):
        for step in range(1, 200):
            ask(publisher, "go on")
            end = ask(dying, str(step))
            assert end in ("0", str(-signal.SIGKILL)), step
            assert ask(taker, "go on") == "a b c 0 0", step
            if end == "0":
                break
        for process in (dying, taker, publisher):
            assert process.stdin
            process.stdin.close()
    assert step > 6


def test_clients_that_bring_in_at_once_double_nothing(ann: User, stranger: User, box: Path) -> None:
    stranger.run("publish", "tasks", "--each-line", "-", stdin="".join(f"{n:04}\n" for n in range(400)))
    script = "while found := queue.take(5): print(*[m.message for m in found], sep='\\n'); queue.ack(found)"
    clients = [ann.start_python(script) for _ in range(4)]
    taken = [line for client in clients for line in client.communicate(timeout=60)[0].decode().splitlines()]
    assert sorted(taken) == [f"{n:04}" for n in range(400)]


# -- making one


@pytest.mark.parametrize("mode", ["2771", "2751", "2711", "0710", "0701", "2715", "0751", "2741"])
def test_mixtures_are_refused(ann: User, mode: str) -> None:
    told = ann.run("create", "-f", "tasks", "--group", str(LAB), "--mode", mode, code=2)
    assert "may only drop messages" in told and len(told.splitlines()) == 1
    assert not ann.root.exists()


def test_modes_with_which_everybody_could_write_are_refused_still(ann: User) -> None:
    for mode in ("0733", "1733", "0713", "3730", "2730"):
        ann.run("create", "-f", "tasks", "--mode", mode, code=2)
    assert not ann.root.exists()


def test_a_way_that_is_closed_to_others_is_told(ann: User) -> None:
    deep = ann.root.parent / "new" / "root"  # under her umask the one above is for herself
    with ann.start(*ann.command("create", "-f", str(deep), "tasks", "--mode", "0711"), stderr=-1) as process:
        said = process.communicate()[1].decode()
    assert process.returncode == 0
    assert f"warning: others cannot get past {deep.parent}: " in said


def test_the_same_again_changes_nothing(ann: User, stranger: User, box: Path) -> None:
    stranger.run("publish", "tasks", "text")
    assert "there already: queue tasks" in ann.run("create", "tasks", "--mode", "0711")
    assert pulled(ann) == ["text"]


def test_a_queue_that_is_there_is_opened_by_hand(ann: User, stranger: User) -> None:
    """As docs/shared.md says."""
    ann.run("create", "-f", "tasks")
    script = pages.printed("docs/shared.md", "chmod 1733 ROOT/tasks/drop").replace("ROOT", str(ann.root))
    assert ann.start("sh", "-ec", script).wait() == 0
    stranger.run("publish", "tasks", "text")
    assert pulled(ann) == ["text"]


def test_a_queue_that_is_removed_meanwhile(stranger: User, box: Path) -> None:
    script = "broker.publish('tasks', 'x')\ninput()\nbroker.publish('tasks', 'x')"
    head = "import os; from ddmq_hpc.broker import Broker; broker = Broker(os.environ['DDMQ_HPC_ROOT'])\n"
    with stranger.start(stranger.command()[0], "-c", head + script, stdin=-1, stderr=-1) as process:
        end = time.monotonic() + 30
        while not os.listdir(box / "drop") and time.monotonic() < end:
            time.sleep(0.02)
        os.rename(box, box.with_name("gone"))
        errors = process.communicate(b"\n", timeout=30)[1].decode()
    assert f"[Errno {errno.ENOENT}]" not in errors.splitlines()[-1] and "publish to queue 'tasks'" in errors
