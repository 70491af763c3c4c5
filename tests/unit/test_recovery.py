"""Leases of batch jobs that have ended come back at once, those of all others stay, and schedulers are asked seldom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scheduler_commands import Commands, squeue_row

from ddmq_hpc import recovery, schedulers
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import LeaseLost
from ddmq_hpc.identity import Identity
from ddmq_hpc.messages import Message
from ddmq_hpc.names import stamped_minute

INVALID = "slurm_load_jobs error: Invalid job id specified\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> str:
    """A queue with leases of an hour; `commands` so that no real scheduler is asked."""
    (tmp_path / "node").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    made = Broker(tmp_path / "root", create=True)
    made.create_queue("q", durable=False, timeout="1h", loss_limit=3)
    return made.root


def in_job(root: str, monkeypatch: pytest.MonkeyPatch, task: str, restarts: int = 0) -> Broker:
    """A client in the task `array_task`, or in the job, of that name; this process is it, so no sweep takes its
    leases."""
    array, _, number = task.partition("_")
    variables = {"SLURM_JOB_ID": array, "SLURM_CLUSTER_NAME": "testbed"}
    if number:
        variables.update(SLURM_ARRAY_JOB_ID=array, SLURM_ARRAY_TASK_ID=number)
    if restarts:
        variables["SLURM_RESTART_COUNT"] = str(restarts)
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return Broker(root, identity=Identity())


def lease(broker: Broker) -> Message:
    (found,) = broker.consume("q")
    return found


def ack(message: Message) -> None:
    """By whoever leased it."""
    assert message.held is not None
    message.held.queue.ack([message])


def test_what_a_job_held_that_has_ended_comes_back(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    client = Broker(root)
    client.publish_many("q", ["one", "two", "three"])
    ended, running = in_job(root, monkeypatch, "12_1"), in_job(root, monkeypatch, "12_2")
    held, kept = lease(ended), lease(running)
    commands.say("squeue", squeue_row("12_2", number=14) + squeue_row("12_1", "TIMEOUT", number=13))
    dry = client.recover("q", dry_run=True)["q"]
    assert (dry.ended, dry.held, dry.requeued) == (("slurm-12_1=testbed",), 1, 0)
    assert client.stats("q").leased == 2
    done = client.recover("q")["q"]
    assert (done.checked, done.ended, done.unknown) == (2, ("slurm-12_1=testbed",), ())
    assert (done.requeued, done.dead) == (1, 0)
    assert len(commands.calls("squeue")) == 2
    with pytest.raises(LeaseLost):
        ack(held)
    again = lease(client)
    assert (again.id, again.attempt, again.lost) == (held.id, 2, 1)
    ack(kept)


@pytest.mark.parametrize(
    "out, err, code",
    [
        ("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1),
        ("", "slurm_load_jobs error: Socket timed out on send/recv operation\n", 1),
        ("strange\n", "", 0),
        (squeue_row("12", "RUNNING"), "", 0),
        (squeue_row("12", "COMPLETING"), "", 0),
        (squeue_row("12", "SUSPENDED"), "", 0),
        (squeue_row("12", "A_NEW_STATE"), "", 0),
    ],
)
def test_a_job_keeps_its_lease_when_nothing_clear_is_said(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands, out: str, err: str, code: int
) -> None:
    client = Broker(root)
    client.publish("q", "one")
    held = lease(in_job(root, monkeypatch, "12"))
    commands.say("squeue", out, err, code)
    assert client.recover()["q"].requeued == 0
    assert client.consume("q") == []
    ack(held)


def test_a_scheduler_that_hangs_costs_its_timeout_and_no_lease(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    client = Broker(root)
    client.publish("q", "one")
    held = lease(in_job(root, monkeypatch, "12"))
    commands.say("squeue", sleep=60)
    monkeypatch.setattr(schedulers, "ANSWER_SECONDS", 0.3)
    began = time.monotonic()
    assert client.recover("q")["q"].unknown == ("slurm-12=testbed",)
    assert time.monotonic() - began < 5
    ack(held)


@pytest.mark.parametrize("row", [squeue_row("12", "PENDING", 1), squeue_row("12", "RUNNING", 1)])
def test_a_run_is_over_when_its_job_was_requeued(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands, row: str
) -> None:
    client = Broker(root)
    client.publish_many("q", ["one", "two"])
    first = lease(in_job(root, monkeypatch, "12"))
    second = lease(in_job(root, monkeypatch, "12", restarts=1))
    commands.say("squeue", row)
    done = client.recover("q")["q"]
    assert "slurm-12=testbed" in done.ended
    with pytest.raises(LeaseLost):
        ack(first)
    if "RUNNING" in row:
        ack(second)


def test_a_requeued_job_takes_back_what_its_run_before_held(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    """Nobody need be asked: the run before is over, since this one runs."""
    Broker(root).publish("q", "one")
    lease(in_job(root, monkeypatch, "12"))
    commands.say("squeue", code=1)
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "1", "SLURM_CLUSTER_NAME": "testbed"}.items():
        monkeypatch.setenv(name, value)
    assert lease(Broker(root)).attempt == 2
    assert commands.calls("squeue") == []


def test_a_job_that_loses_too_many_runs_makes_a_dead_letter(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    client = Broker(root)
    client.publish("q", "one")
    commands.say("squeue", err=INVALID, code=1)
    for _ in range(3):
        lease(in_job(root, monkeypatch, "12"))
        assert client.recover("q")["q"].requeued == 1
    lease(in_job(root, monkeypatch, "12"))
    assert client.recover("q")["q"].dead == 1
    assert client.stats("q").dead == 1


def test_a_pack_under_division_is_put_back_whole(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    """A job that dies while it takes one message of many leaves a marked entry with a piece of its own inside."""
    client = Broker(root)
    client.publish_many("q", range(10))
    dying = in_job(root, monkeypatch, "12")

    class Died(BaseException):
        pass

    def put(source: str, target: str) -> bool:
        raise Died

    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(dying.fs, "put", put)
        dying.consume("q")
    assert client.stats("q").ready == 0
    commands.say("squeue", err=INVALID, code=1)
    client.recover("q")
    taken = [message for _ in range(10) for message in client.consume("q")]
    assert sorted(message.message for message in taken) == list(range(10))
    assert client.consume("q") == []


def test_other_clusters_and_hidden_jobs_are_left_alone(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    client = Broker(root)
    client.publish("q", "one")
    lease(in_job(root, monkeypatch, "12"))
    commands.say("squeue", err=INVALID, code=1)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "other")
    assert client.recover("q")["q"].unknown == ("slurm-12=testbed",)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "testbed")
    monkeypatch.setattr(schedulers.get("slurm").__class__, "hides_jobs", lambda self: True)
    os.chmod(f"{root}/q/leased", 0o770)  # a group's queue: the job may be another user's
    assert client.recover("q")["q"].unknown == ("slurm-12=testbed",)
    os.chmod(f"{root}/q/leased", 0o700)
    assert client.recover("q")["q"].requeued == 1


def test_clients_recover_by_themselves_when_nothing_is_ready(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    client = Broker(root)
    client.publish_many("q", ["one", "two"])
    workers = [in_job(root, monkeypatch, "12_1"), in_job(root, monkeypatch, "12_2")]
    held = [lease(worker) for worker in workers]
    commands.say("squeue", squeue_row("12_2", number=13))
    found = [message for _ in range(20) for message in client.consume("q")]
    assert [message.id for message in found] == [held[0].id]
    assert len(commands.calls("squeue")) == 1
    assert client.queue("q").settings.timeout == 3600


def test_one_query_a_minute_over_the_cluster(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands, tmp_path: Path
) -> None:
    """Eight clients, each on a node of its own, that look all the time."""
    Broker(root).publish("q", "one")
    lease(in_job(root, monkeypatch, "12"))
    commands.say("squeue", squeue_row("12"))
    script = (
        "import sys, time\nfrom ddmq_hpc.broker import Broker\nfrom ddmq_hpc.recovery import maybe\n"
        "broker = Broker(sys.argv[1])\nend = time.monotonic() + 2\n"
        "while time.monotonic() < end:\n    maybe(broker.queue('q')); time.sleep(0.01)\n"
    )
    environ = {**os.environ, "SLURM_CLUSTER_NAME": "testbed"}
    nodes = [tmp_path / f"node{number}" for number in range(8)]
    for node in nodes:
        node.mkdir()
    clients = [
        subprocess.Popen([sys.executable, "-c", script, root], env={**environ, "TMPDIR": str(node)}) for node in nodes
    ]
    assert [client.wait(60) for client in clients] == [0] * 8
    minutes = [name for name in os.listdir(f"{root}/q/locks") if stamped_minute("recover", name) is not None]
    assert 1 <= len(commands.calls("squeue")) == len(minutes) <= 2
    assert os.listdir(f"{root}/q/tmp") == []


def test_stamps_of_old_minutes_go(root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
    client = Broker(root)
    client.publish("q", "one")
    lease(in_job(root, monkeypatch, "12"))
    commands.say("squeue", squeue_row("12"))
    for name in ("recover-1", "recover-x", "chain-1"):
        Path(f"{root}/q/locks/{name}").touch()
    assert recovery.maybe(client.queue("q")) is not None
    assert recovery.maybe(client.queue("q")) is None
    left = os.listdir(f"{root}/q/locks")
    assert len(left) == 3 and "recover-1" not in left and "chain-1" in left


def test_nothing_is_asked_when_no_other_job_holds_a_lease(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    commands.say("squeue")
    client = Broker(root)
    client.publish("q", "one")
    held = client.consume("q")
    assert recovery.maybe(client.queue("q")) is None
    assert client.recover("q")["q"].checked == 0
    assert held and commands.calls("squeue") == []


def test_what_recovers_is_imported_only_when_another_job_is_seen(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    script = (
        "import sys\nfrom ddmq_hpc.broker import Broker\nbroker = Broker(sys.argv[1])\nbroker.consume('q')\n"
        "print(sorted(name for name in sys.modules if 'schedulers' in name or 'recovery' in name or name == "
        "'subprocess'))"
    )

    def imported(job: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script, root],
            env={**os.environ, "SLURM_JOB_ID": job, "SLURM_CLUSTER_NAME": "testbed"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    commands.say("squeue", squeue_row("12"))
    Broker(root).publish("q", "one")
    lease(in_job(root, monkeypatch, "12"))
    assert imported("12") == "[]"
    assert "ddmq_hpc.recovery" in imported("13")


def test_storage_that_fails_does_not_reach_the_taker(
    root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands
) -> None:
    client = Broker(root)
    client.publish("q", "one")
    lease(in_job(root, monkeypatch, "12"))
    commands.say("squeue", err=INVALID, code=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client.fs, "create", full)
    assert client.consume("q") == []


def test_the_command(root: str, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
    client = Broker(root)
    client.create_queue("other")
    client.publish_many("q", ["one", "two"])
    lease(in_job(root, monkeypatch, "12_1"))
    lease(in_job(root, monkeypatch, "12_2"))
    commands.say("squeue", squeue_row("12_2", "BEYOND", number=13) + squeue_row("12_1", "FAILED", number=14))

    def run(*arguments: str) -> str:
        command = str(Path(sys.executable).with_name("ddmq-hpc"))
        environ = {**os.environ, "SLURM_CLUSTER_NAME": "testbed"}
        return subprocess.run(
            [command, "recover", root, *arguments], env=environ, capture_output=True, text=True, check=True
        ).stdout

    assert run("q", "--dry-run").splitlines() == [
        "q: 2 jobs hold leases, 1 have ended: 1 messages held by them",
        "  slurm-12_1=testbed  ended",
        "  slurm-12_2=testbed  unknown: no clear answer from its scheduler",
    ]
    answer = json.loads(run("--format", "json"))
    assert [row["queue"] for row in answer["queues"]] == ["other", "q"]
    assert answer["queues"][1]["requeued"] == 1
    assert len(commands.calls("squeue")) == 2
    assert run("q").startswith("q: 1 jobs hold leases, 0 have ended: 0 messages requeued, 0 dead")
