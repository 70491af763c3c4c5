"""A queue with valid content and then with anything else in it: each command ends as documented, in bounded time and
memory, prints nothing that steers a terminal, and touches nothing outside the root."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_tools import (
    CHANGES,
    DAMAGE,
    ESCAPES,
    FOREIGN,
    GOOD,
    JOURNALS,
    KINDS,
    LINES,
    LOOKS,
    NAMES,
    NEW_KINDS,
    OWNER,
    PACK,
    SETTINGS,
    WORKERS,
    Damage,
    checked,
    copy,
    every_command,
    outside,
    picture,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddmq_hpc import ledger
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import BadMessage, StorageError
from ddmq_hpc.fs import Filesystem


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(damages=st.lists(DAMAGE, min_size=1, max_size=9))
def test_nothing_that_is_put_into_a_queue_does_harm(prepared: Path, damages: list[Damage]) -> None:
    top = Path(tempfile.mkdtemp(prefix="ddmq-hpc-hostile-"))
    before, here = os.environ.get("TMPDIR"), os.getcwd()
    os.environ["TMPDIR"] = str(top)
    os.chdir(top)
    try:
        copy(prepared, top / "root")
        precious = picture(outside(top))
        for damage in damages:
            damage.do(top / "root")
        every_command(top / "root", LOOKS + CHANGES)
        assert picture(top / "outside") == precious
        assert not (top / "owned").exists()
    finally:
        os.chdir(here)
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
        shutil.rmtree(top)


def _packs() -> Iterator[str]:
    return (f"17000000000000000{number:02d}-0aaaaaaaa" for number in itertools.count(10))


def test_every_hostile_text_at_once(root: Path, tmp_path: Path) -> None:
    for number, record in enumerate(JOURNALS):
        Damage("journal", b"h%d.00.0.1.jsonl" % number, record).do(root)
    for number, info in enumerate(WORKERS):
        Damage("workers", b"w%d.json" % number, info).do(root)
        Damage("workers", b"job-slurm-%d.json" % number, info.replace(b'"job":"1"', b'"job":"%d"' % number)).do(root)
    for pack, line in zip(_packs(), LINES):
        for where, name in (
            ("ready/5/000108796296-0", f"{pack}.0-2.0-0"),
            ("leased", f"5.{pack}.5-6.0-0~1700000600000+600000@{OWNER}"),
            ("dead", f"5.{pack}.7-8.1-0~rejected"),
            ("delayed/000000000001", f"000000000000001.5.{pack}.8-9.0-0"),
            ("tmp", pack),
            ("keys/aa", pack),
        ):
            Damage(where, name.encode(), line + b"\n" + line + b"\n").do(root)
    precious = picture(tmp_path / "outside")
    commands = [["report", "R", "q", "-o", "page.html"], ["logs", "R", "q", "--failed"], ["doctor", "R"]]
    every_command(root, [*commands, *LOOKS, *CHANGES])
    assert picture(tmp_path / "outside") == precious


@pytest.mark.parametrize("turn", range(3))
def test_every_kind_of_thing_at_every_place(root: Path, tmp_path: Path, turn: int) -> None:
    kinds = sorted(KINDS)
    for at, (where, names) in enumerate(sorted(NAMES.items())):
        for number, name in enumerate([*map(str.encode, names), *FOREIGN]):
            if where != "." or number >= len(names):
                Damage(where, name, None, kinds[(at + number * 5 + turn * 7) % len(kinds)]).do(root)
    precious = picture(tmp_path / "outside")
    every_command(root, [*LOOKS, *CHANGES])
    assert picture(tmp_path / "outside") == precious


def _pulled(root: Path) -> list[object]:
    """What is handed out until nothing is left."""
    found: list[object] = []
    while (done := checked("pull", str(root), "q", "--format", "json")).code == 0:
        found += [json.loads(line)["message"] for line in done.out.splitlines()]
    assert done.code == 3, done
    return found


# The directories that clients list for each message.
@pytest.mark.parametrize(
    "where", ["ready", "ready/999", "leased", "delayed", "delayed/after.g", "groups", "groups/g", "locks", "drop"]
)
def test_foreign_files_hide_no_message_and_no_end(root: Path, where: str) -> None:
    kinds = sorted(KINDS)
    for number, name in enumerate(FOREIGN):
        Damage(where, name, None, kinds[number % len(kinds)]).do(root)
    assert set(GOOD) <= set(_pulled(root))
    begin = time.process_time()
    assert checked("pull", str(root), "q").code == 3
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("where", ["ready/999/000108796296-0", "leased", "delayed/000000000001", "drop"])
def test_a_queue_with_nothing_but_foreign_files_is_drained(root: Path, where: str) -> None:
    with Broker(root) as broker:
        broker.create_queue("p")
    for name in (b"core", ESCAPES.encode(), b"x!split", b".nfs0000"):
        Damage(f"../p/{where}", name, b"").do(root)
    assert checked("wait", str(root), "p", "--timeout", "10").code == 0


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_what_is_no_file_is_set_aside_and_the_rest_goes_on(root: Path, kind: str) -> None:
    for name in NAMES["ready/5/000108796296-0"][:2]:
        Damage("ready/5/000108796296-0", name.encode(), None, kind).do(root)
    assert checked("peek", str(root), "q", "-n", "9").code == 0
    assert set(GOOD) <= set(_pulled(root))
    assert len(os.listdir(root / "q" / "damaged")) >= 1
    assert checked("list", str(root), "q", "--state", "damaged").out.count(PACK) >= 1


def test_a_fifo_that_somebody_writes_to_is_no_message(root: Path) -> None:
    Damage("ready/5/000108796296-0", f"{PACK}.0-1.0-0".encode(), None, "FIFO").do(root)
    handle = os.open(root / "q" / "ready" / "5" / "000108796296-0" / f"{PACK}.0-1.0-0", os.O_RDWR)
    try:
        assert set(GOOD) <= set(_pulled(root))
        assert len(os.listdir(root / "q" / "damaged")) == 1
    finally:
        os.close(handle)


# -- out of the root


@pytest.mark.parametrize(
    "name",
    [
        "ready",
        "leased",
        "delayed",
        "dead",
        "tmp",
        "locks",
        "groups",
        "done",
        "reports",
        "logs",
        "state",
        "keys",
        "drop",
    ],
)
def test_no_directory_of_a_queue_may_be_a_link(root: Path, tmp_path: Path, name: str) -> None:
    precious = picture(tmp_path / "outside")
    Damage(".", name.encode(), None, "link out").do(root)
    for command in (["clean"], ["pull"], ["publish", "x"], ["groups"]):
        done = checked(command[0], str(root), "q", *command[1:])
        assert done.code == 1 and "symbolic link is in the way" in done.err and f"q/{name}" in done.err
    every_command(root, LOOKS + CHANGES)
    assert picture(tmp_path / "outside") == precious
    assert not (root / "q").exists()  # it could be deleted all the same


@pytest.mark.parametrize(
    "where, name", [("ready", "999"), ("delayed", "after.g"), ("groups", "g"), ("done", "000000000001")]
)
def test_nothing_is_put_behind_a_link(root: Path, tmp_path: Path, where: str, name: str) -> None:
    precious = picture(tmp_path / "outside")
    Damage(where, name.encode(), None, "link out").do(root)
    every_command(root, LOOKS + CHANGES[:-2])
    assert picture(tmp_path / "outside") == precious


def test_a_message_is_not_published_behind_a_link(root: Path, tmp_path: Path) -> None:
    Damage("ready", b"999", None, "link out").do(root)
    with Broker(root) as broker, pytest.raises(StorageError, match="symbolic link"):
        broker.publish("q", "x")
    assert os.listdir(root / "q" / "tmp") == []


def test_the_record_of_a_key_leads_nowhere(root: Path, tmp_path: Path) -> None:
    """It names a file that a publisher moves into its place."""
    victim = "0" * 19 + "-0aaaaaaaa"
    (tmp_path / victim).write_text("precious\n")
    for ident in (f"../../../{victim}.0", f"{victim}/../../../{victim}.0"):
        (kept,) = (root / "q" / "keys").glob("*/*")
        kept.write_text(json.dumps({"message": 1, "id": ident}) + "\n")
        with Broker(root) as broker, pytest.raises(BadMessage, match="damaged"):
            broker.publish("q", "x", key="k")
    assert (tmp_path / victim).read_text() == "precious\n"


@pytest.mark.parametrize("kind", NEW_KINDS)
@pytest.mark.parametrize("name", ["lock.0000000001", f"lock.9999999999@{OWNER}", "want.0000000001.aaaaaaaa"])
def test_a_lock_that_is_no_file_is_told_in_a_line(root: Path, tmp_path: Path, name: str, kind: str) -> None:
    precious = picture(tmp_path / "outside")
    Damage("../q.lock", name.encode(), None, kind).do(root)
    Damage("../q.lock", ESCAPES.encode(), None, kind).do(root)
    path = str(root / "q")
    for command in (["list", path], ["--wait", "0", path, "--", "true"], ["break", path]):
        done = checked("lock", *command)
        assert done.code in (0, 75) or (done.code == 1 and "root/q.lock/" in done.err)
    assert picture(tmp_path / "outside") == precious


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_what_is_no_message_of_ddmq_is_reported(tmp_path: Path, root: Path, kind: str) -> None:
    old = tmp_path / "old"
    (old / "q/work").mkdir(parents=True)
    (old / "ddmq.yaml").write_text("")
    for number, name in enumerate(("1.1500000000.ddmqa", "1.1500000001.ddmqb")):
        Damage("../../old/q", name.encode(), LINES[number * 7]).do(root)
    deep = b'{"message": 1, "timeout": ' + b"[" * 63 + b"]" * 63 + b"}"
    Damage("../../old/q", b"1.1500000002.ddmqc", deep).do(root)
    for name in (b"1.1500000003.ddmqd", b"ddmq.yaml"):
        Damage("../../old/q", name, None, kind).do(root)
    Damage("../../old/q", ESCAPES.encode(), None, kind).do(root)
    done = checked("import", str(old), str(tmp_path / "new"))
    assert done.code == 1 and "ddmqd" in done.out


# -- time and memory

_BOUND = 400 << 20


def _bounded(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process that may have no more memory than this."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({_BOUND}, {_BOUND}))"
    start = f"{limit}; import sys; sys.argv[0] = 'ddmq-hpc'; from ddmq_hpc.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", start, *arguments], capture_output=True, timeout=200)
    assert b"Traceback" not in done.stderr and b"MemoryError" not in done.stderr, done.stderr
    return done


def test_what_is_larger_than_memory_costs_none(root: Path) -> None:
    queue = root / "q"
    places = [
        queue / "ready/5/000108796296-0" / f"{PACK}.0-3.0-0",
        queue / "dead" / f"5.{PACK}.0-1.1-0~rejected",
        queue / "workers/w.json",
        queue / "workers/job-slurm-1.json",
        queue / "workers/w.stop",
        queue / "locks/compact.0000000001",
        queue / "journal/h.00.0.1.jsonl",
        queue / "tmp" / PACK,
        root / "ddmq-checkup.json",
    ]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.truncate(2 * _BOUND)
    os.link(places[-2], queue / "second")
    for command in (["list"], ["pull", "-n", "9"], ["clean"], ["workers"], ["dead", "list"], ["explain"]):
        done = _bounded(*command, str(root), "q")
        assert done.returncode == 0, (command, done.stderr)
    assert checked("list", str(root), "q", "--state", "damaged").out.count("(too-large)") == 3
    with open(queue / "ddmq.yaml", "wb") as file:
        file.truncate(2 * _BOUND)
    done = _bounded("pull", str(root), "q")
    assert done.returncode == 1 and b"no file of a queue is that large" in done.stderr


def test_sixty_million_lines_cost_little_memory(root: Path) -> None:
    Damage("ready/5/000108796296-0", f"{PACK}.0-3.0-0".encode(), b"\n" * (60 << 20)).do(root)
    Damage("dead", f"5.{PACK}.7-9.1-0~rejected".encode(), b"\n" * (60 << 20)).do(root)
    for command in ("list", "pull"):
        assert _bounded(command, str(root), "q").returncode == 0
    assert checked("list", str(root), "q", "--state", "damaged").out.count("(corrupt)") == 3


def test_a_journal_that_unpacks_to_nothing_but_zeros_is_left_alone(root: Path) -> None:
    path = root / "q/journal/packed-000000000000001-999999999999999-aaaaaaaa.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(40):
            file.write(bytes(1 << 22))
    fs = Filesystem(str(root))
    with pytest.raises(OSError, match="without end"):
        next(ledger.lines(fs, str(path)))
    assert checked("journal", "export", str(root), "q").out.count("\n") > 1
    assert checked("clean", str(root), "q").code == 0 and path.exists()


def test_one_name_does_not_stand_for_a_billion_messages(root: Path) -> None:
    for where, name in (
        ("ready/5/000108796296-0", f"{PACK}.0-999999999.0-0"),
        ("dead", f"5.{PACK}.0-999999999.0-0~rejected"),
        ("leased", f"5.{PACK}.0-999999999.0-0~1+1@h:1:1:k:t.1"),
    ):
        Damage(where, name.encode(), b'{"message":1}\n').do(root)
    record = b'{"state":"nacked","id":"%s.0-999999999","attempt":1,"at":5,"taken":1}\n' % PACK.encode()
    Damage("journal", b"h.00.0.1.jsonl", record).do(root)
    for command in (["list"], ["status"], ["pull", "-n", "9"], ["logs", "--failed"], ["journal", "export"]):
        words = [command[0], *command[1:2]] if command[0] == "journal" else command[:1]
        done = _bounded(*words, str(root), "q", *command[len(words) :])
        assert done.returncode == 0, (command, done.stderr)
    assert "3 foreign files" in checked("status", str(root), "q").err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make devices")
@pytest.mark.parametrize(
    "where, name", [("workers", "w.json"), ("journal", "h.jsonl"), (".", "ddmq.yaml"), ("locks", "compact.0000000001")]
)
def test_endless_devices_end(root: Path, where: str, name: str) -> None:
    Damage(where, name.encode(), None, "zero").do(root)
    for command in ("pull", "clean", "workers", "explain"):
        assert _bounded(command, str(root), "q").returncode in (0, 1)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    fs = Filesystem(str(tmp_path))
    assert len(fs.read(str(path))) == 1 << 20
    with pytest.raises(OSError, match="too large"):
        fs.read(str(path), (1 << 20) - 1)


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_hostile_settings_are_told_in_a_line(root: Path, number: int) -> None:
    Damage(".", b"ddmq.yaml", SETTINGS[number]).do(root)
    begin = time.process_time()
    done = checked("status", str(root), "q")
    assert done.code in (0, 1, 2, 6)
    if done.code:
        assert "ddmq.yaml" in done.err and len(done.err) < 3000
    assert not Path("owned").exists()
    assert time.process_time() - begin < 10
