"""A member of a group, or one who may only publish, who wants commands of his run as somebody else, files of others
changed, or a queue stopped: real users, each with what he can do to real files."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from members import LAB, User

#: What a message is dropped as, ahead of all others.
FIRST = "000000000000000.0.1000000000000000000-0abcdefga"


def plant_settings(member: User, queue: Path, text: str, mode: int = 0o644) -> None:
    """A settings file of a member takes the place of the one that is there."""
    script = f"with open('{queue}/tmp/x', 'w') as file: file.write(sys.argv[1])\n"
    script += f"os.chmod('{queue}/tmp/x', {mode}); os.rename('{queue}/tmp/x', '{queue}/ddmq.yaml')"
    member.tamper(script, text)


# -- a member of the group


@pytest.mark.parametrize(
    "line",
    [
        "trusted_users: [root]",
        "trusted_group: root",
        "on_complete: touch owned",
        "exit_codes: {1: stop-worker}",
        "key_file: /home/enemy/key",
    ],
)
def test_nobody_vouches_for_settings_of_another_on_the_way(ann: User, ben: User, shared: Path, line: str) -> None:
    """Who pauses a queue writes its file anew: it is his then, and what it says counts for his workers."""
    plant_settings(ben, shared, f"{line}\n")
    for command in (["pause", "tasks"], ["drain", "tasks"], ["create", "tasks", "--set", "timeout=1h"]):
        told = ann.run(*command, code=2)
        assert f"belongs to user {ben.uid} and has {line.partition(':')[0]}" in told
        assert (shared / "ddmq.yaml").stat().st_uid == ben.uid
    ben.run("pause", "tasks")
    assert "paused: true" in (shared / "ddmq.yaml").read_text()


def test_root_leaves_settings_whose_they_are(ann: User, ben: User, place: Path, shared: Path) -> None:
    plant_settings(ben, shared, "on_complete: touch owned\n")
    User(place, 0, 0o022).run("pause", "tasks", "--reason", "of root")
    assert (shared / "ddmq.yaml").stat().st_uid == ben.uid
    assert "of root" in ann.run("status", "tasks")


def test_settings_of_ones_own_that_others_can_write_are_not_vouched_for(ann: User, shared: Path) -> None:
    plant_settings(ann, shared, "on_complete: touch owned\n", 0o664)
    assert "can be written by others and has on_complete" in ann.run("pause", "tasks", code=2)
    (shared / "ddmq.yaml").chmod(0o644)
    ann.run("pause", "tasks")


def test_a_mode_that_a_member_chose_is_not_taken_over(ann: User, ben: User, shared: Path) -> None:
    plant_settings(ben, shared, "timeout: 1h\n", 0o666)
    ann.run("pause", "tasks")
    found = (shared / "ddmq.yaml").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (ann.uid, 0o644)


#: Puts links to a file of Ann's in the place of whatever she makes in a directory.
SWAP = """
where, target, end = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
print("there", flush=True)
while time.monotonic() < end:
    for name in os.listdir(where):
        if not os.path.islink(f"{where}/{name}"):
            try:
                os.symlink(target, f"{where}/z"); os.rename(f"{where}/z", f"{where}/{name}")
            except OSError:
                pass
"""


def test_no_file_elsewhere_gets_another_mode(ann: User, ben: User, shared: Path) -> None:
    private = ann.place / "home" / "private"
    private.write_text("secret")
    private.chmod(0o600)
    os.chown(private, ann.uid, ann.uid)
    plant_settings(ben, shared, "timeout: 1h\n", 0o666)
    with subprocess.Popen(
        ben.script(SWAP, shared / "tmp", private, 6), env=ben.environ, stdout=subprocess.PIPE
    ) as swapping:
        assert swapping.stdout and swapping.stdout.readline() == b"there\n"
        while swapping.poll() is None:
            for word in ("pause", "resume"):
                ann.start(*ann.command(word, "tasks"), stdout=-1, stderr=-1).communicate()
    assert private.stat().st_mode & 0o777 == 0o600 and private.read_text() == "secret"


@pytest.mark.parametrize("names", [["secret"], [".env"], ["keys", "report-2023.txt"], ["keys", "logs"]])
def test_no_directory_that_has_something_of_hers_is_opened(ann: User, shared: Path, names: list[str]) -> None:
    private = ann.root / "private"
    private.mkdir(0o700)
    for name in names:
        (private / name).touch()
    os.chown(private, ann.uid, LAB)
    assert "File exists" in ann.run("create", "private", "--group", str(LAB), code=1)
    assert private.stat().st_mode & 0o777 == 0o700


def test_no_queue_is_made_through_a_link(ann: User, ben: User, shared: Path) -> None:
    elsewhere = ann.place / "home" / "project"
    elsewhere.mkdir()
    os.chown(elsewhere, ann.uid, ann.uid)
    ann.run("create", "victim")
    for target in (elsewhere, ann.root / "victim"):
        ben.tamper("os.symlink(sys.argv[1], sys.argv[2])", target, ann.root / "link")
        assert "symbolic link" in ann.run("create", "link", "--set", "requeue=false", code=1).replace("levels of ", "")
        (ann.root / "link").unlink()
    assert not list(elsewhere.iterdir()) and "requeue: false" not in (ann.root / "victim/ddmq.yaml").read_text()


@pytest.mark.parametrize("inside", [[], ["ready", "tmp", "ddmq.yaml"]])
def test_no_queue_is_made_in_a_directory_of_another(ann: User, ben: User, shared: Path, inside: list[str]) -> None:
    script = "os.mkdir(sys.argv[1]); [os.mkdir(f'{sys.argv[1]}/{name}') for name in sys.argv[2:]]"
    ben.tamper(script, ann.root / "trap", *inside)
    assert f"belongs to user {ben.uid}: nothing was made" in ann.run("create", "trap", code=2)
    assert sorted(os.listdir(ann.root / "trap")) == sorted(inside)


def test_what_is_imported_overwrites_nothing_elsewhere_and_asks_for_no_jobs(
    ann: User, ben: User, place: Path, shared: Path
) -> None:
    """The old root is one that others could write to, and so is the new queue."""
    old = place / "home" / "old"
    (old / "tasks" / "work").mkdir(parents=True)
    (old / "ddmq.yaml").write_text("")
    profile = place / "home" / "profile"
    profile.write_text("hers")
    os.chown(profile, ann.uid, ann.uid)
    (old / "tasks" / "999.1700000000001.ddmqa").write_text("touch owned\n")
    asked = {"queues": ["tasks"], "scheduler": "slurm", "time": 60, "margin": None, "most": 1, "slots": 1}
    asked |= {"throttle": None, "chain": False, "extra": [], "work": [], "command": ["touch", "owned"]}
    asked |= {"snakemake": False, "directory": "/"}
    record = {"job": "7", "scheduler": "slurm", "tasks": 1, "at": 0, "by": "ann", "group": "slurm-7", "request": asked}
    record["place"] = shared.stat().st_ino
    (old / "tasks" / "999.1700000000002.ddmqb").write_text(json.dumps(record))
    ben.tamper("os.symlink(sys.argv[1], sys.argv[2])", profile, shared / "damaged" / "999.1700000000001.ddmqa")
    ann.run("import", str(old), str(ann.root), code=1)
    assert profile.read_text() == "hers"
    assert (shared / "damaged" / "999.1700000000001.ddmqa").read_text() == "touch owned\n"
    script = "os.rename(sys.argv[1], sys.argv[2])"
    ben.tamper(script, shared / "damaged" / "999.1700000000002.ddmqb", shared / "workers" / "job-slurm-7.json")
    read = "from ddmq_hpc.submitted import records; print([bool(one.request) for one in records(queue)])"
    assert ann.python(read) == "[False]\n"


def test_what_is_cleaned_is_in_the_directory_that_was_listed(ann: User, ben: User, shared: Path) -> None:
    """While that is done a link to another directory takes its name."""
    project = ann.place / "home" / "project"
    project.mkdir()
    old = time.time() - 1e5
    for name in ("report-2023", "daemon.json"):
        (project / name).touch()
        for place in ("tmp", "workers"):
            (shared / place / name).touch()
            os.utime(shared / place / name, (old, old))
        os.utime(project / name, (old, old))
    for path in (project, *project.iterdir(), *(shared / "tmp").iterdir(), *(shared / "workers").iterdir()):
        os.chown(path, ann.uid, LAB)
    script = (
        "from ddmq_hpc.calls import Calls\n"
        "listdir = Calls.listdir\n"
        "def swapped(self, path):\n"
        "    names = listdir(self, path)\n"
        "    if 'report-2023' in names and not os.path.islink(broken):\n"
        "        os.rename(broken, broken + '.old'); os.symlink(sys.argv[1], broken)\n"
        "    return names\n"
        "Calls.listdir = swapped\n"
        "from ddmq_hpc import workers\n"
        "acts = {queue.paths.tmp: queue.sweeper.remove_leftovers, queue.paths.workers: lambda: workers.forget(queue)}\n"
        "for broken, act in acts.items():\n"
        "    print(act())\n"
        "    os.path.islink(broken) and (os.unlink(broken), os.rename(broken + '.old', broken))\n"
    )
    assert ann.python(script, str(project)) == "1\n1\n"
    assert sorted(os.listdir(project)) == ["daemon.json", "report-2023"]


def test_no_file_elsewhere_gets_the_mode_of_a_page(ann: User, ben: User, shared: Path) -> None:
    """A report is written into a directory that the group can write to; what ben does is done in the right moment."""
    common = ann.place / "home" / "common"
    common.mkdir()
    os.chown(common, ann.uid, LAB)
    common.chmod(0o2770)
    secret = ann.place / "home" / "secret"
    secret.write_text("secret")
    os.chown(secret, ann.uid, ann.uid)
    secret.chmod(0o600)
    ben.tamper("open(sys.argv[1], 'w').close(); os.chmod(sys.argv[1], 0o666)", common / "page")
    script = (
        "from ddmq_hpc.replacing import replaced\n"
        "from ddmq_hpc.errors import StorageError\n"
        "where, secret = sys.argv[1:]\n"
        "try:\n"
        "    with replaced(f'{where}/page') as file:\n"
        "        file.write('x')\n"
        "        [aside] = [name for name in os.listdir(where) if name != 'page']\n"
        "        os.unlink(f'{where}/{aside}'); os.symlink(secret, f'{where}/{aside}')\n"
        "except StorageError as error: print('refused')\n"
    )
    assert ann.python(script, str(common), str(secret)) == "refused\n"
    assert secret.stat().st_mode & 0o777 == 0o600
    script = "from ddmq_hpc.replacing import replaced\nwith replaced(sys.argv[1]) as file: file.write('x')"
    ann.python(script, str(common / "page"))
    assert (common / "page").stat().st_mode & 0o022 == 0, "his file could be written by everybody"


def test_no_directory_is_removed_that_another_gave_its_name(ann: User, ben: User, shared: Path) -> None:
    """In a directory of the group `doctor` removes nothing that is named like what it left."""
    thesis = ann.root / "thesis"
    thesis.mkdir(0o700)
    (thesis / "chapter").touch()
    old = time.time() - 1e5
    os.utime(thesis, (old, old))
    os.chown(thesis, ann.uid, LAB)
    ben.tamper("os.rename(sys.argv[1], sys.argv[2])", thesis, ann.root / ".ddmq-hpc-doctor-abcdefgh")
    with ann.start(*ann.command("doctor", str(ann.root)), stdout=-1, stderr=-1) as process:
        said = process.communicate(timeout=60)[0].decode()
    assert "1 names like those of this check, left alone" in said
    assert (ann.root / ".ddmq-hpc-doctor-abcdefgh" / "chapter").exists()


@pytest.mark.parametrize(
    "plant", ["os.mkfifo(path); os.chmod(path, 0o660)", "open(path, 'x').close()", "os.mkdir(path)"]
)
def test_a_log_that_cannot_be_written_stops_no_worker(ann: User, ben: User, shared: Path, plant: str) -> None:
    ident = ann.run("publish", "tasks", "text").strip()
    head = "path = sys.argv[1]; os.makedirs(os.path.dirname(path), exist_ok=True); "
    ben.tamper(head + plant, shared / "logs" / f"{ident}.1.log")
    ann.run("work", "tasks", "--output", "files", "--", "echo", "{}")
    assert '"acked"' in ann.run("show", "tasks", ident, "--format", "json")


def test_no_directory_that_takes_the_place_of_a_new_one_is_opened(ann: User, ben: User, shared: Path) -> None:
    """Say a private queue of hers in the same root, while she makes a directory for messages."""
    ann.run("create", "private")
    private = ann.root / "private"
    moved = shared / "tmp" / "made-abcdefgh"
    script = (
        "from ddmq_hpc.calls import Calls\n"
        "mkdir = Calls.mkdir\n"
        "def swapped(self, path, mode=0o777):\n"
        "    mkdir(self, path, mode)\n"
        "    os.rmdir(path); os.rename(sys.argv[1], path); print(path)\n"  # as any member could at this moment
        "Calls.mkdir = swapped\n"
        "try: queue.fs.mkdir_granted(sys.argv[2], 0o770)\n"
        "except FileExistsError: pass\n"
    )
    assert ann.python(script, str(private), str(moved)) == f"{moved}\n"
    assert moved.stat().st_mode & 0o777 == 0o700 and (moved / "ddmq.yaml").exists()


def test_records_of_jobs_are_never_for_others_to_write(
    ann: User, shared: Path, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """Not even for a moment: a file that was opened then can be written later."""
    seen = ann.python(
        "from ddmq_hpc.submitted import Record, write\n"
        "from ddmq_hpc.calls import Calls\n"
        "create = Calls.create_open\n"
        "def watched(self, *args):\n"
        "    umask = os.umask(0); handle = create(self, *args); os.umask(umask)\n"
        "    print(oct(os.fstat(handle).st_mode & 0o777)); return handle\n"
        "Calls.create_open = watched\n"
        "write(queue, Record('7', 'slurm', 1, 0.0, 'ann', 'slurm-7', None))"
    )
    assert int(seen, 8) & 0o022 == 0


@pytest.mark.parametrize("where", ["root/more", "another/tasks"])
def test_a_record_of_another_queue_says_nothing_for_this_one(ann: User, ben: User, shared: Path, where: str) -> None:
    other = ann.place / "home" / where
    ann.run("create", "-f", str(other.parent), other.name, "--group", str(LAB))
    write = (
        "from ddmq_hpc.submitted import Record, Request, write\n"
        "root, name = sys.argv[1].rsplit('/', 1)\n"
        "asked = Request((name,), 'slurm', 60.0, None, 1, 1, None, False, (), (), ('true',), False, '/')\n"
        "write(Broker(root).queue(name), Record('7', 'slurm', 1, 0.0, 'ann', 'slurm-7', asked))"
    )
    ann.python(write, str(other))
    read = "from ddmq_hpc.submitted import records; root, name = sys.argv[1].rsplit('/', 1)\n"
    read += "print([bool(one.request) for one in records(Broker(root).queue(name))])"
    assert ann.python(read, str(other)) == "[True]\n"
    assert ben.python(read, str(other)) == "[False]\n", "it is not his"
    (record,) = (other / "workers").glob("job-*")
    ben.tamper("os.rename(sys.argv[1], sys.argv[2])", record, shared / "workers" / record.name)
    assert ann.python(read, str(shared)) == "[False]\n"


def test_signs_of_life_are_given_to_no_file_elsewhere(ann: User, ben: User, shared: Path) -> None:
    old = ann.place / "home" / "old"
    old.touch()
    os.chown(old, ann.uid, ann.uid)
    os.utime(old, (1e9, 1e9))
    ben.tamper("os.symlink(sys.argv[1], sys.argv[2])", old, shared / "workers" / "x.json")
    ann.python("queue.fs.touch(f'{queue.paths.workers}/x.json')")
    assert old.stat().st_mtime == 1e9


# -- one who may only publish


LEASED = (
    """
path = f"{sys.argv[1]}/x"
handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
os.write(handle, b'{"message":"evil"}\\n')
fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.rename(path, f"{sys.argv[1]}/%s")
print("there", flush=True)
sys.stdin.readline()
"""
    % FIRST
)


def test_a_lease_of_the_kernel_on_a_file_stops_nobody(ann: User, stranger: User, enemy: User, box: Path) -> None:
    stranger.run("publish", "tasks", "good")
    with subprocess.Popen(enemy.script(LEASED, box / "drop"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"there\n"
        assert ann.run("pull", "tasks", "--format", "body").strip() == "good"
        assert "damaged" in ann.run("list", "tasks", "--state", "damaged")
        process.communicate(b"\n", timeout=60)


def test_messages_that_look_signed_end_no_worker(
    ann: User, stranger: User, enemy: User, place: Path, signed_box: Path
) -> None:
    stranger.run("publish", "tasks", "good")
    line = '{"message":"x","signature":"deadbeef.' + "0" * 64 + '"}\n'
    script = "for number in range(30):\n    path = f'{sys.argv[1]}/x'\n    open(path, 'w').write(sys.argv[2])\n"
    script += f"    os.rename(path, f'{{sys.argv[1]}}/{FIRST[:-2]}' + 'abcdefghijklmnopqrstuvwxyz234567'[number] + 'a')"
    enemy.tamper(script, signed_box / "drop", line)
    ann.run("work", "tasks", "--", "sh", "-c", "echo $DDMQ_HPC_MESSAGE >> $HOME/done")
    assert (place / "home/done").read_text() == "good\n"
    assert len(list((signed_box / "damaged").iterdir())) == 30


@pytest.fixture
def mounted(enemy: User, box: Path) -> Iterator[Path]:
    """Something is mounted where the enemy dropped a directory, as he can have FUSE do."""
    path = box / "drop" / FIRST
    enemy.tamper("os.mkdir(sys.argv[1])", path)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_name_that_cannot_be_moved_keeps_no_other(ann: User, stranger: User, box: Path, mounted: Path) -> None:
    stranger.run("publish", "tasks", "dropped")
    ann.run("publish", "tasks", "own")
    assert {ann.run("pull", "tasks", "--format", "body").strip() for _ in range(2)} == {"own", "dropped"}
    ann.run("clean", "tasks")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sparse_file_costs_no_time(ann: User, stranger: User, enemy: User, box: Path, when: str) -> None:
    """Before it is brought in, and after that."""
    path = box / "drop" / "x"
    grow = "os.truncate(handle, (64 << 20) - 1)"
    script = f"""
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.write(handle, b'{{"message":"x"}}\\n')
{grow if when == "before" else ""}
os.rename(sys.argv[1], f"{{os.path.dirname(sys.argv[1])}}/{FIRST}")
print("there", flush=True)
sys.stdin.readline()
{grow if when == "after" else ""}
"""
    with subprocess.Popen(enemy.script(script, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"there\n"
        ann.run("clean", "tasks")
        process.communicate(b"\n", timeout=60)
    stranger.run("publish", "tasks", "good")
    assert ann.run("pull", "tasks", "--format", "body").strip() == "good"
    assert "too-large" in ann.run("list", "tasks", "--state", "damaged")


def test_the_owners_packs_may_be_large_in_a_box(ann: User, box: Path) -> None:
    """What she publishes herself is no drop."""
    ann.python("broker.publish_many('tasks', ['x' * 100_000] * 100)")
    found = "n = 0\nwhile found := queue.take(32): n += len(found); queue.ack(found)\nprint(n)"
    assert ann.python(found) == "100\n"
    assert not list((box / "damaged").iterdir())
