"""Why nothing runs, each situation made for real: what is told first, and that the command with it is one."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from worker_tools import COMMAND, Bench, wait_for

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.main import cli
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.explaining import CAUSES, NOTES, Explanation, Reason, Sight, explain, explain_message
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import host
from ddmq_hpc.names import Entry, Lease, minute_stamp
from ddmq_hpc.schedulers import slurm
from ddmq_hpc.steering import purge, purgeable
from ddmq_hpc.submitted import Record, Request, write
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration

ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount and act for other users")


def why(bench: Bench, **more: Any) -> dict[str, Reason]:
    """The reasons by their codes, in order; all commands of ddmq-hpc that come with them are valid."""
    return checked(explain(Broker(bench.root), "tasks", **more))


def about(bench: Bench, ident: str) -> dict[str, Reason]:
    return checked(explain_message(Broker(bench.root), "tasks", ident))


def checked(found: Explanation) -> dict[str, Reason]:
    assert found.reasons
    json.dumps(found.to_dict(), allow_nan=False)
    for reason in found.reasons:
        for line in filter(None, reason.fix.split("; ")):
            words = shlex.split(line)
            if words[0] == "ddmq-hpc":
                parse(words[1:])
    assert len({reason.code for reason in found.reasons}) == len(found.reasons)
    return {reason.code: reason for reason in found.reasons}


def parse(words: list[str]) -> None:
    """Raises what click has against a command line, which is not run."""
    context = click.Context(cli)
    command = cli.get_command(context, words[0])
    assert command, words
    command.make_context(words[0], words[1:], parent=context)


def first(reasons: dict[str, Any]) -> str:
    return next(iter(reasons))


def registered(bench: Bench, **values: Any) -> WorkerInfo:
    """A worker that this process claims to be."""
    queue = bench.broker.queue("tasks")
    info = WorkerInfo.of_this_process(queue, "here-1-abc", ["tasks"], 1, ["run"])
    info = WorkerInfo(**{**info.__dict__, **values})
    Registration(queue, info).start()
    return info


# -- what the queue holds


def test_a_queue_with_nothing_in_it(bench: Bench) -> None:
    assert list(why(bench)) == ["empty"]


def test_a_paused_queue_says_since_when_and_by_whom(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    bench.settings("paused: true\n")
    found = why(bench)
    assert first(found) == "paused"
    assert found["paused"].fields["by"] == pwd.getpwuid(os.getuid()).pw_name
    assert abs(float(found["paused"].fields["since"]) - time.time()) < 60
    subprocess.run([COMMAND, *shlex.split(found["paused"].fix)[1:]], check=True)
    assert "paused" not in why(bench)
    bench.broker.pause("tasks", "the disk is full")
    found = why(bench)["paused"]
    assert found.fields["reason"] == "the disk is full" and "the disk is full" in found.text
    bench.broker.resume("tasks")
    bench.broker.drain("tasks", "enough")
    assert "enough" in why(bench)["draining"].text


def test_a_root_can_pause_all_queues(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    (Path(bench.root) / "ddmq.yaml").write_text("layout: 1\npaused: true\n")
    assert why(bench)["paused"].fields["path"] == f"{bench.root}/ddmq.yaml"


def test_settings_that_nobody_can_read_come_first(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x").id
    bench.settings("tiemout: 3\n")
    assert first(why(bench)) == "settings"
    assert first(about(bench, ident)) == "settings"


def test_what_is_delayed_says_until_when(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x", delay=3600).id
    bench.broker.publish("tasks", "y", delay=7200)
    found = why(bench)
    assert list(found) == ["delayed", "no-worker"]
    assert found["delayed"].fields["messages"] == 2
    assert 3500 < float(found["delayed"].fields["first"]) - time.time() <= 3601
    assert list(about(bench, ident)) == ["delayed", "no-worker"]


def test_what_failed_and_waits_is_told_apart_from_what_is_delayed(bench: Bench) -> None:
    bench.settings("retry_delay: 1h\n")
    ident = bench.broker.publish("tasks", "x").id
    bench.work("--", "sh", "-c", "echo to no avail >&2; exit 7")
    found = why(bench)
    assert list(found) == ["retrying", "no-worker"]
    assert found["retrying"].fields["id"] == ident
    told = about(bench, ident)["delayed"]
    assert "failed 1 time" in told.text and "exit code 7" in told.text
    assert told.lines == ("to no avail",)


def test_what_comes_after_a_group_says_what_holds_that_up(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    ident = bench.broker.publish("tasks", "later", after=["one", "two"]).id
    reason = why(bench)["after-group"]
    assert "nobody has published to one yet, nobody has published to two yet" in reason.text
    bench.broker.publish("tasks", "m", group="one")
    assert "after-group" not in why(bench)
    bench.broker.nack(bench.broker.consume("tasks"))
    assert "all that is left of one are dead letters" in why(bench)["after-group"].text
    found = about(bench, ident)
    assert first(found) == "after-group" and found["after-group"].fields["groups"] == {"one": "dead", "two": "unknown"}
    assert "delayed" not in found and "retrying" not in found


def test_dead_letters_come_with_their_most_frequent_errors(bench: Bench) -> None:
    bench.settings("requeue: false\n")
    ids = [bench.broker.publish("tasks", text).id for text in ("7", "7", "8")]
    bench.work("--", "sh", "-c", "echo out of luck; exit {}")
    found = why(bench)
    assert list(found) == ["empty", "dead"]
    assert found["dead"].fields["errors"] == {"exit code 7": 2, "exit code 8": 1}
    assert "exit code 7 (2 times)" in found["dead"].text
    told = about(bench, ids[2])["dead"]
    assert "after 1 attempt" in told.text and "exit code 8" in told.text
    assert told.lines == ("out of luck",)


def test_letters_that_were_retried_or_purged_are_counted_no_more(bench: Bench) -> None:
    bench.settings("requeue: false\n")
    ids = [bench.broker.publish("tasks", text).id for text in ("7", "7", "8", "9")]
    bench.work("--", "sh", "-c", "exit {}")
    bench.broker.retry("tasks", Criteria.of(ids=[ids[0]]))
    bench.work("--", "sh", "-c", "exit {}")  # dead again
    queue = bench.broker.queue("tasks")
    purge(queue, purgeable(queue, Criteria.of(exit_code=8)))
    bench.broker.retry("tasks", Criteria.of(exit_code=9))
    assert why(bench)["dead"].fields["errors"] == {"exit code 7": 2}


def test_damaged_and_foreign_files_are_told_of(bench: Bench) -> None:
    top = Path(bench.root) / "tasks"
    ident = bench.broker.publish("tasks", "x").id
    (pack,) = top.glob("ready/*/*/*")
    pack.write_bytes(b"\xff\n")
    (top / "leased" / "a\x1b[31m b").write_text("")
    assert bench.broker.consume("tasks") == []
    found = why(bench)
    assert list(found) == ["empty", "damaged", "foreign"]
    assert first(about(bench, ident)) == "damaged"
    printed = subprocess.run([COMMAND, "explain", bench.root, "tasks"], capture_output=True, check=True).stdout
    assert b"\x1b" not in printed and b"\\x1b[31m" in printed


# -- who works


def test_a_worker_that_was_killed_is_named(bench: Bench) -> None:
    bench.broker.publish("tasks", "60")
    bench.broker.publish("tasks", "61")
    worker = bench.start("--", "sleep", "{}")
    wait_for(lambda: bench.counts().get("leased"), "the task")
    wait_for(lambda: why(bench).get("busy"), "its registration to tell of it", 40)
    (lease,) = Sight(bench.broker.queue("tasks")).leases
    ident = f"{lease.entry.pack}.0"
    assert about(bench, ident)["leased"].fields["alive"] == "yes"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    found = why(bench)
    assert list(found)[:2] == ["lost", "no-worker"]
    assert "its process is gone" in found["no-worker"].text
    told = about(bench, ident)["leased"]
    assert told.fields["alive"] == "no" and told.fields["pid"] == worker.pid and told.fields["host"] == host()
    assert shlex.split(told.fix)[1] == "clean"
    subprocess.run(["bash", "-c", told.fix], check=True, env={**os.environ, "PATH": in_path()}, capture_output=True)
    assert "lost" not in why(bench)


def in_path() -> str:
    return f"{Path(COMMAND).parent}:{os.environ['PATH']}"


def test_everything_leased_says_by_whom(bench: Bench) -> None:
    bench.broker.publish_many("tasks", ["60", "61"])
    bench.start("-j", "2", "--", "sleep", "{}")
    wait_for(lambda: bench.counts().get("leased") == 2, "both tasks")
    found = why(bench)
    assert first(found) == "leased"
    assert found["leased"].fields["messages"] == 2
    wait_for(lambda: "worker " in why(bench)["leased"].text, "its registration")


def test_a_lease_of_a_script_is_bound_to_no_process(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x").id
    subprocess.run([COMMAND, "pull", bench.root, "tasks"], check=True, capture_output=True)
    told = about(bench, ident)["leased"]
    assert told.fields["pid"] == 0 and told.fields["alive"] == "unknown"
    assert "command of a script" in told.text


def test_a_lease_of_another_host_is_judged_by_its_last_sign_of_life(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x").id
    info = registered(bench, id="far-7", host="far", pid=7, start=1, kernel="0000", job="slurm-12=there")
    queue = bench.broker.queue("tasks")
    (pack,) = Path(queue.paths.ready).glob("*/*/*")
    pack_name, index = ident.rsplit(".", 1)
    assert index == "0"
    deadline = int((time.time() + 600) * 1000)
    owner = f"far:7:1:0000:aaaaaaaa.1:{info.job}"
    pack.rename(queue.paths.in_leased(Lease(999, Entry(pack_name, 0, 1, 0, 0), deadline, 600_000, owner)))
    told = about(bench, ident)["leased"]
    assert told.fields["worker"] == "far-7" and told.fields["job"] == "slurm-12=there"
    assert told.fields["alive"] == "yes" and "last sign of life" in told.text
    Path(queue.paths.in_workers("far-7")).unlink()
    assert shlex.split(about(bench, ident)["leased"].fix)[1] == "recover"


def test_workers_that_were_submitted_can_be_asked_for(bench: Bench, tmp_path: Path) -> None:
    bench.broker.publish("tasks", "x")
    request = Request(("tasks",), "slurm", 60.0, None, 4, 1, None, False, (), (), ("run",), False, "/")
    write(bench.broker.queue("tasks"), Record("4711", "slurm", 4, time.time() - 60, "me", "slurm-4711", request))
    found = why(bench)
    assert list(found) == ["submitted"]
    assert "4 workers" in found["submitted"].text
    asked = tmp_path / "asked"
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexit 1\n')
    squeue.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{squeue.parent}:{before}"
    try:
        assert list(why(bench)) == ["submitted"] and not asked.exists()
        told = why(bench, ask_scheduler=True)["submitted"]
    finally:
        os.environ["PATH"] = before
    assert len(asked.read_text().splitlines()) == 1
    assert "does not say" in told.text


@pytest.mark.parametrize(
    "live, words, fix",
    [(3, "Of all these 3 are waiting", "squeue -j 4711"), (0, "have ended", "ddmq-hpc scale {} tasks --max 4")],
)
def test_what_the_scheduler_says_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, live: int, words: str, fix: str
) -> None:
    bench.broker.publish("tasks", "x")
    request = Request(("tasks",), "slurm", 60.0, None, 4, 1, None, False, (), (), ("run",), False, "/")
    write(bench.broker.queue("tasks"), Record("4711", "slurm", 4, time.time() - 60, "me", "slurm-4711", request))
    monkeypatch.setattr(slurm.Slurm, "live_tasks", lambda self, jobs: dict.fromkeys(jobs, live))
    told = why(bench, ask_scheduler=True)["submitted"]
    assert words in told.text and told.fix == fix.format(bench.root) and told.fields["live"] == live


def test_what_needs_more_slots_or_memory_than_any_worker_has(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x", slots=3, memory="4G").id
    worker = bench.start("-j", "2", "--memory", "1G", "--until", "forever", "--", "true")
    looks: list[Any] = []  # for a moment the worker has it, to see what it needs
    wait_for(lambda: looks.append(why(bench).get("too-large")) or looks[-1], "the worker to be there")
    found = looks[-1]
    assert "3 slots, 4G" in found.text and "1G" in found.text
    assert shlex.split(found.fix)[4:8] == ["-j", "3", "--memory", "4G"]
    assert found.fields["id"] == ident
    wait_for(lambda: bench.counts() == {"delayed": 1}, "it to be put off")
    assert list(about(bench, ident)) == ["delayed", "too-large"]
    worker.terminate()


def test_what_needs_more_time_than_any_worker_has(bench: Bench) -> None:
    registered(bench, ends=time.time() + 600)
    bench.broker.publish("tasks", "x", time_request="20m")
    found = why(bench)["too-large"]
    assert shlex.split(found.fix)[1] == "submit" and "--time" in found.fix
    registered(bench, ends=time.time() + 6000)
    assert "too-large" not in why(bench)


def test_a_worker_tells_what_it_has(bench: Bench) -> None:
    bench.start("--memory", "1G", "--walltime", "1h", "--margin", "10m", "--until", "forever", "--", "true")
    wait_for(lambda: Sight(bench.broker.queue("tasks")).live, "the worker")
    (info,) = Sight(bench.broker.queue("tasks")).live
    assert info.memory == 1 << 30
    assert info.ends is not None and 2900 < info.ends - time.time() <= 3000


def test_a_registration_of_an_older_version_is_one(bench: Bench) -> None:
    registered(bench)
    path = Path(bench.broker.queue("tasks").paths.in_workers("here-1-abc"))
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("memory", "ends")}
    path.write_text(json.dumps(old))
    (info,) = Sight(bench.broker.queue("tasks")).live
    assert info.memory is None and info.ends is None


def test_workers_that_were_asked_to_stop(bench: Bench) -> None:
    info = registered(bench)
    bench.broker.publish("tasks", "x")
    assert "stopping" not in why(bench)
    Path(bench.broker.queue("tasks").paths.in_workers(info.id, "stop")).write_text("stop\n")
    assert first(why(bench)) == "stopping"


def test_jobs_of_snakemake_need_workers_that_know_it(bench: Bench) -> None:
    bench.broker.publish("tasks", {"snakemake_job": 1})
    assert shlex.split(why(bench)["no-worker"].fix)[-1] == "--snakemake"
    registered(bench)
    found = why(bench)
    assert first(found) == "snakemake" and found["snakemake"].fix.endswith("--snakemake")
    registered(bench, command=["--snakemake"])
    assert "snakemake" not in why(bench)


def test_a_host_that_was_to_blame_is_named(bench: Bench) -> None:
    queue = bench.broker.queue("tasks")
    minute = int(time.time() // 60) - 5
    Path(queue.paths.in_locks(minute_stamp("breaker", minute))).write_text("node\x1b7 4711\n")
    (Path(queue.paths.locks) / "breaker-12").mkdir()
    found = why(bench)["bad-host"]
    assert found.fields["hosts"] == ["node\x1b7"]
    Path(queue.paths.in_locks(minute_stamp("breaker", minute))).rename(f"{queue.paths.locks}/breaker-{minute - 2000}")
    assert "bad-host" not in why(bench)


def test_nothing_in_the_way_is_said_too(bench: Bench) -> None:
    registered(bench, slots=2)
    bench.broker.publish("tasks", "x")
    assert list(why(bench)) == ["at-work"]


# -- the directory


def test_messages_that_somebody_could_have_written(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    (Path(bench.root)).chmod(0o777)
    found = why(bench)["untrusted"]
    assert "can be written by everybody" in found.text
    subprocess.run(["bash", "-c", found.fix], check=True)
    assert "untrusted" not in why(bench)


@ROOT_ONLY
def test_the_file_of_a_message_that_is_somebody_elses(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    (pack,) = (Path(bench.root) / "tasks").glob("ready/*/*/*")
    os.chown(pack, pwd.getpwnam("bin").pw_uid, -1)
    assert "belongs to user bin" in why(bench)["untrusted"].text


@pytest.fixture
def small(bench: Bench) -> Iterator[Bench]:
    """The same on a file system of its own, of 256 KiB and 100 files."""
    place = bench.place / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=100", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        bench.root = str(place / "root")
        bench.broker = Broker(bench.root, create=True)
        bench.broker.create_queue("tasks")
        bench.broker.publish("tasks", "x")
        yield bench
    finally:
        bench.broker.close()
        subprocess.run(["umount", "-l", place], check=True)


@ROOT_ONLY
def test_a_full_file_system_says_so(small: Bench) -> None:
    assert list(why(small)) == ["no-worker", "scarce"]
    with pytest.raises(OSError), open(f"{small.place}/small/filler", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    found = why(small)
    assert first(found) == "full" and found["full"].fields["bytes"] == 0


@ROOT_ONLY
def test_a_file_system_without_inodes_is_full(small: Bench) -> None:
    with pytest.raises(OSError):
        for number in range(200):
            (small.place / "small" / str(number)).touch()
    found = why(small)
    assert first(found) == "full" and found["full"].fields["files"] == 0


@ROOT_ONLY
def test_a_read_only_file_system_says_so(small: Bench) -> None:
    small.broker.close()
    subprocess.run(["mount", "-o", "remount,ro", f"{small.place}/small"], check=True)
    assert first(why(small)) == "read-only"


@ROOT_ONLY
def test_another_user_is_told_that_he_may_not_write(bench: Bench) -> None:
    place = Path(tempfile.mkdtemp(prefix="ddmq-hpc-explain-", dir="/tmp"))
    try:
        place.chmod(0o755)
        with Broker(place / "root", create=True) as broker:
            broker.create_queue("tasks")
            broker.publish("tasks", "x")
        script = "import sys, json; from ddmq_hpc.broker import Broker; from ddmq_hpc.explaining import explain\n"
        script += "print(json.dumps(explain(Broker(sys.argv[1]), 'tasks').to_dict()))"
        source = shutil.copytree(Path(__file__).parents[2] / "ddmq_hpc", place / "lib" / "ddmq_hpc")
        (place / "node").mkdir(mode=0o777)

        as_daemon = ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "/usr/bin/env"]

        def asked() -> dict[str, Any]:
            done = subprocess.run(
                [*as_daemon, "python3", "-c", script, str(place / "root")],
                env={"PATH": in_path() if readable(COMMAND) else "/usr/bin:/bin", "PYTHONPATH": str(source.parent)},
                capture_output=True,
                text=True,
                cwd="/",
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return {reason["code"]: reason for reason in json.loads(done.stdout)["reasons"]}

        assert list(asked()) == ["unreadable"]  # only its owner may enter a queue
        (place / "root" / "tasks").chmod(0o755)
        found = asked()
        assert first(found) == "forbidden"
        assert found["forbidden"]["fields"]["user"] == "daemon" and found["forbidden"]["fields"]["owner"] == "root"
    finally:
        shutil.rmtree(place)


def readable(path: str) -> bool:
    """Whether the interpreter can be run by anybody."""
    real = Path(os.path.realpath(Path(path).with_name("python")))
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in [*real.parents, *Path(path).parents])


class OverQuota(Filesystem):
    """Of a user who has used up what he was given."""

    def create(self, path: str, data: bytes, sync: bool, mode: int = 0o664) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)


def test_a_quota_that_is_used_up(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    found = explain(Broker(bench.root, filesystem=OverQuota), "tasks").reasons
    assert found[0].code == "quota" and found[0].fix == "quota -s"


class Skewed(Filesystem):
    """On a host whose clock is an hour behind."""

    def time(self) -> float:  # type: ignore[override]
        return time.time() - 3600


def test_a_clock_that_is_far_off(bench: Bench) -> None:
    found = {one.code: one for one in explain(Broker(bench.root, filesystem=Skewed), "tasks").reasons}
    assert "3600 s behind" in found["clock"].text
    assert "clock" not in why(bench)


def test_a_lease_from_the_future_tells_of_the_clock_of_its_host(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x").id
    queue = bench.broker.queue("tasks")
    (pack,) = Path(queue.paths.ready).glob("*/*/*")
    taken = int((time.time() + 500) * 1000)
    lease = Lease(999, Entry(ident.rsplit(".", 1)[0], 0, 1, 0, 0), taken + 1000, 1000, "far:7:1:0000:aaaaaaaa.1")
    pack.rename(queue.paths.in_leased(lease))
    found = why(bench)["clock"]
    assert found.fields["host"] == "far" and "began in the future" in found.text


# -- one message


def test_a_message_that_is_ready_knows_its_place(bench: Bench) -> None:
    bench.broker.publish_many("tasks", map(str, range(300)))
    message = bench.broker.publish("tasks", "mine")
    bench.broker.publish("tasks", "first", priority=1)
    bench.broker.publish("tasks", "behind")
    found = about(bench, message.id)
    assert list(found) == ["ready", "no-worker"]
    assert found["ready"].fields["before"] == 301
    in_pack = [item.message for item in items(bench)][41]
    assert about(bench, in_pack.id)["ready"].fields["before"] == 41


def items(bench: Bench) -> list[Any]:
    from ddmq_hpc import admin

    return list(admin.items(bench.broker.queue("tasks"), ("ready",)))


def test_what_is_said_of_a_message_is_about_that_one(bench: Bench) -> None:
    registered(bench)
    bench.broker.publish("tasks", "small")
    large = bench.broker.publish("tasks", "large", slots=4)
    assert list(about(bench, large.id)) == ["ready", "too-large"]
    assert "too-large" not in why(bench)


def test_a_message_that_is_done_says_when_and_where(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x").id
    bench.work("--", "true")
    found = about(bench, ident)
    assert list(found) == ["done"]
    assert host() in found["done"].text and found["done"].fields["exit"] == 0


@pytest.mark.parametrize("command, code", [("del_msg", "deleted"), ("purge", "purged")])
def test_a_message_that_was_removed_says_by_whom(bench: Bench, command: str, code: str) -> None:
    ident = bench.broker.publish("tasks", "x").id
    arguments = [ident] if command == "del_msg" else []
    subprocess.run([COMMAND, command, bench.root, "tasks", *arguments], check=True, capture_output=True)
    found = about(bench, ident)
    assert list(found) == [code]
    assert found[code].fields["user"] == pwd.getpwuid(os.getuid()).pw_name


def test_an_id_that_nobody_knows(bench: Bench) -> None:
    for ident in ("1718000000000000000-0abcdefgh.0", "nonsense"):
        done = subprocess.run([COMMAND, "explain", bench.root, "tasks", ident], capture_output=True, check=False)
        assert done.returncode == 4, done.stderr


# -- the whole


@pytest.mark.parametrize(
    "name, text",
    [
        (
            "job-slurm-7.json",
            '{"job": "7", "scheduler": "slurm", "tasks": 1, "at": -Infinity, "by": "x", "group": "x"}',
        ),
        ("job-slurm-7.json", '{"job": "7", "scheduler": "slurm", "tasks": 1, "at": NaN, "by": "x", "group": "x"}'),
        (
            "job-slurm-7.json",
            '{"job": "7", "scheduler": "slurm", "tasks": 1, "at": 1e300, "by": "x\\u001b", "group": ""}',
        ),
        ("w.json", '{"id": "w", "ends": 1e308, "memory": 1e308}'),
        ("w.json", "[" * 100_000),
    ],
)
def test_what_others_wrote_there_breaks_nothing(bench: Bench, name: str, text: str) -> None:
    bench.broker.publish("tasks", "x", slots=9)
    queue = bench.broker.queue("tasks")
    if name == "w.json":
        info = registered(bench)
        line = json.loads(Path(queue.paths.in_workers(info.id)).read_text())
        text = text.replace('{"id"', json.dumps(line)[:-1] + ', "id"')
        Path(queue.paths.in_workers(info.id)).unlink()
    (Path(queue.paths.workers) / name).write_text(text)
    (Path(queue.paths.leased) / "9.1718000000000000000-0abcdefgh.0-1.0-0~999999999999999+1@x").write_text("")
    (Path(queue.paths.locks) / "breaker-99999999999999").write_text("a b c")
    assert why(bench)
    done = subprocess.run([COMMAND, "explain", bench.root, "tasks"], capture_output=True, check=True)
    assert b"\x1b" not in done.stdout and b"Traceback" not in done.stderr


class Counted(Filesystem):
    """Counts what is asked of it."""

    calls = 0

    def listdir(self, path: str) -> list[str]:
        Counted.calls += 1
        return super().listdir(path)

    def subdirectories(self, path: str) -> list[str]:
        Counted.calls += 1
        return super().subdirectories(path)

    def read(self, path: str, *most: int) -> bytes:
        Counted.calls += 1
        return super().read(path, *most)

    def read_some(self, path: str, most: int, offset: int = 0) -> tuple[os.stat_result, bytes]:
        Counted.calls += 1
        return super().read_some(path, most, offset)

    def lstat(self, path: str) -> os.stat_result:
        Counted.calls += 1
        return super().lstat(path)


def test_a_hundred_thousand_messages_cost_no_more_than_a_few(bench: Bench) -> None:
    def cost(number: int) -> int:
        bench.broker.publish_many("tasks", ["x"] * number, durable=False)
        broker = Broker(bench.root, filesystem=Counted)
        queue = broker.queue("tasks")
        buckets = sum(1 for _ in Path(queue.paths.ready).glob("*/*"))
        Counted.calls = 0
        found = explain(broker, "tasks")
        assert found.reasons[0].code == "no-worker"
        return Counted.calls - 2 * buckets  # each is listed for its numbers, the first for what is in it

    few = cost(20)
    assert 10 < few < 100
    assert cost(100_000) <= few + 10


def test_what_cannot_be_seen_keeps_nothing_else_from_being_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty(Filesystem):
        def listdir(self, path: str) -> list[str]:
            if path.endswith("/locks"):
                raise OSError(5, "Input/output error", path)
            return super().listdir(path)

    found = explain(Broker(bench.root, filesystem=Faulty), "tasks")
    assert [reason.code for reason in found.reasons] == ["empty", "unreadable"]


def test_the_paths_in_commands_are_quoted(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "a root; with 'quotes'"
    with Broker(root, create=True) as broker:
        broker.create_queue("q")
        broker.publish("q", "x")
        (reason,) = explain(broker, "q").reasons
    assert shlex.split(reason.fix)[:4] == ["ddmq-hpc", "work", str(root), "q"]


def test_the_text_fits_a_terminal_and_json_has_the_same_reasons(bench: Bench) -> None:
    bench.broker.publish("tasks", "x", delay=100)
    run = [COMMAND, "explain", bench.root, "tasks"]
    text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("    ddmq-hpc"))
    answer = json.loads(subprocess.run([*run, "--format", "json"], capture_output=True, check=True).stdout)
    assert [reason["code"] for reason in answer["reasons"]] == ["delayed", "no-worker"]
    assert answer["schema_version"] == 1


def test_places_may_come_from_the_environment(bench: Bench, tmp_path: Path) -> None:
    ident = bench.broker.publish("tasks", "x", delay=100).id
    Path(bench.root).rename(tmp_path / "my.root")

    def said(*words: str, **env: str) -> str:
        environment = {**os.environ, **env}
        return subprocess.run(
            [COMMAND, "explain", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    root = str(tmp_path / "my.root")
    assert said("tasks", DDMQ_HPC_ROOT=root).startswith("Nothing is ready")
    assert said("my.root", DDMQ_HPC_QUEUE="tasks").startswith("Nothing is ready")
    assert said(ident, DDMQ_HPC_ROOT=root, DDMQ_HPC_QUEUE="tasks").startswith("It is delayed")
    assert said("tasks", ident, DDMQ_HPC_ROOT=root).startswith("It is delayed")


def test_every_reason_has_its_own_function() -> None:
    assert len(set(CAUSES) | set(NOTES)) == len(CAUSES) + len(NOTES)
