"""dead, retry, cancel, pause, resume, drain, wait: how a person steers a queue."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import COMMAND, Run

from ddmq_hpc import Broker
from ddmq_hpc.identity import user_name


@pytest.fixture(autouse=True)
def queue(run: Run, root: str) -> None:
    run("create", "-f", root, "q", "--set", "durable=false")


def counts(root: str) -> dict[str, int]:
    found = Broker(root).stats("q").to_dict()
    return {state: found[state] for state in ("ready", "leased", "delayed", "dead") if found[state]}


@pytest.fixture
def dead(root: str) -> list[str]:
    """Four dead letters: two killed for want of memory, one that failed twice, one rejected."""
    broker = Broker(root)
    broker.publish_many("q", ["align s1", "align s2"])
    killed = broker.consume("q", 2)
    broker.nack(killed, requeue=False, exit=137, signal=9, oom=True)
    broker.publish("q", "call s1", requeue_limit=1)
    for _ in range(2):
        [failed] = broker.consume("q")
        broker.nack(failed, exit=3, error="no \x1b[31mreference")
    broker.publish("q", {"n": 1})
    [rejected] = broker.consume("q")
    broker.nack(rejected, requeue=False)
    return [message.id for message in (*killed, failed, rejected)]


def test_dead_list_tells_why_each_died(run: Run, root: str, dead: list[str]) -> None:
    head, *lines = run("dead", "list", root, "q").stdout.splitlines()
    assert head.split() == "id reason attempts died ended host message".split()
    assert [line.split()[0] for line in lines] == dead
    assert "requeue-limit" in lines[2] and " exit 3 " in lines[2] and "reference" in lines[2]
    assert "\x1b" not in lines[2], "what a message says does not steer the terminal"
    assert " memory " in lines[0] and lines[2].split()[2] == "2" and '{"n":1}' in lines[3]
    rows = [json.loads(line) for line in run("dead", "list", root, "q", "--format", "json").stdout.splitlines()]
    assert [(row["reason"], row["failed"], row["exit"], row["signal"]) for row in rows] == [
        *[("rejected", 1, 137, 9)] * 2, ("requeue-limit", 2, 3, None), ("rejected", 1, None, None)
    ]  # fmt: skip
    assert all(row["host"] and row["died"] for row in rows)
    assert run("dead", "list", root, "q", "-n", "1", "--died-of", "requeue-limit").stdout.count("\n") == 2
    shown = run("dead", "show", root, "q", dead[2]).stdout
    assert "error: " in shown and "exit: 3" in shown and "message: call s1" in shown


def test_list_tells_the_reason_and_the_last_attempt(run: Run, root: str, dead: list[str]) -> None:
    line = run("list", root, "q", "--state", "dead").stdout.splitlines()[2]
    assert line.split() == [dead[2], "dead", "(requeue-limit)", "999", "2", user_name(os.getuid()), "call", "s1"]


def test_retry_of_some(run: Run, root: str, dead: list[str]) -> None:
    dry = run("dead", "retry", root, "q", "--exit-code", "137,3", "--match", "s1", "--dry-run")
    assert dry.stdout.split() == [dead[0], dead[2]] and "would retry 2 messages" in dry.stderr
    assert counts(root) == {"dead": 4}
    assert run("retry", root, "q", "--exit-code", "137", "--priority", "5").stdout == "retried 2 messages\n"
    assert counts(root) == {"dead": 2, "ready": 2}
    assert "retried 1 message\n" in run("retry", root, "q", dead[2][:29]).stdout
    assert "retried 1 message\n" in run("dead", "retry", root, "q", "--all").stdout
    peeked = [json.loads(line) for line in run("peek", "-n", "9", root, "q").stdout.splitlines()]
    assert [(row["message"], row["priority"], row["attempt"]) for row in peeked] == [
        ("align s1", 5, 1), ("align s2", 5, 1), ("call s1", 999, 1), ({"n": 1}, 999, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["retry"], 2, "--all"),
        (["retry", "--all", "--host", "n1"], 2, "--all"),
        (["dead", "purge", "--yes"], 2, "--all"),
        (["cancel"], 2, "--all"),
        (["retry", "--match", "("], 2, "regular expression"),
        (["retry", "--exit-code", "x"], 2, "1,137"),
        (["retry", "1786000000123456789-0abcdefgh.0"], 4, "no message"),
        (["cancel", "--state", "ready", "DEAD"], 4, "is dead, not ready"),
        (["retry", "--state", "done", "DEAD"], 4, "is dead, not done"),
        (["cancel", "--state", "ready", "--state", "leased", "SHORT"], 4, "is dead, not ready or leased"),
        (["cancel", "1786"], 2, "the first 10 characters"),
        (["cancel", "1786000000"], 4, "no message"),
        (["retry", "--died-of", "old-age"], 2, "there are rejected, no-requeue, requeue-limit, loss-limit, lost"),
        (["pause", "--reason", "a\nb"], 2, "one line"),
    ],
)
def test_mistakes_are_told_and_change_nothing(
    run: Run, root: str, dead: list[str], args: list[str], code: int, told: str
) -> None:
    args = [{"DEAD": dead[2], "SHORT": dead[2][:29]}.get(word, word) for word in args]
    verb = args[: 2 if args[0] == "dead" else 1]
    options = [word for word in args[len(verb) :] if not word[0].isdigit()]
    ids = [word for word in args[len(verb) :] if word[0].isdigit()]
    assert told in run(*verb, *options, root, "q", *ids, code=code).stderr
    assert counts(root) == {"dead": 4}


def test_root_and_queue_from_the_environment(run: Run, root: str, dead: list[str]) -> None:
    env = {"DDMQ_HPC_ROOT": root, "DDMQ_HPC_QUEUE": "q"}
    for args in ([], [root], [root, "q"], ["q"]):
        assert run("retry", *args, ",".join(dead[:2]), dead[3], "--dry-run", env=env).stdout.split() == [
            dead[0], dead[1], dead[3]
        ]  # fmt: skip
        assert len(run("retry", *args, "--all", "--dry-run", env=env).stdout.split()) == 4


def test_it_is_told_of_how_many_none_match(run: Run, root: str, dead: list[str]) -> None:
    told = "0 of 4 dead letters match\n"
    assert run("retry", root, "q", "--exit-code", "99").stdout == f"retried 0 messages: {told}"
    assert run("retry", root, "q", "--exit-code", "99", "--dry-run").stderr == f"would retry 0 messages: {told}"
    listed = run("dead", "list", root, "q", "--exit-code", "99", "--format", "json")
    assert (listed.stdout, listed.stderr) == ("", f"ddmq-hpc: {told}")
    assert run("retry", root, "q", "--state", "done", "--all").stdout == "retried 0 messages\n"


def test_purge(run: Run, root: str, dead: list[str]) -> None:
    assert "would purge 1 message\n" in run("dead", "purge", root, "q", dead[0], "--dry-run").stderr
    assert run("dead", "purge", root, "q", "--older-than", "1d").stdout == (
        "purged 0 messages: 0 of 4 dead letters match\n"
    )
    assert run("dead", "purge", root, "q", dead[0], "--yes").stdout == "purged 1 message\n"
    assert counts(root) == {"dead": 3}
    assert run("dead", "purge", root, "q", "--all").stdout == "purged 3 messages\n"  # no terminal: nobody to ask
    assert json.loads(run("show", root, "q", dead[0], "--format", "json").stdout)["state"] == "purged"


@pytest.mark.parametrize(("answer", "left"), [("n", {"dead": 4}), ("y", {})])
@pytest.mark.parametrize(
    ("words", "question"),
    [
        (("dead", "purge", "--all"), b"Remove 4 dead letters of q for good?"),
        (("cancel", "--state", "dead", "--all"), b"Remove 4 messages of q for good?"),
    ],
)
def test_what_removes_asks_on_a_terminal(
    root: str, dead: list[str], words: tuple[str, ...], question: bytes, answer: str, left: dict[str, int]
) -> None:
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [COMMAND, *words, root, "q"], stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.write(outer, f"{answer}\n".encode())
        _, told = process.communicate(timeout=60)
    os.close(inner)
    os.close(outer)
    assert question in told
    assert process.returncode == (0 if answer == "y" else 1)
    assert counts(root) == left


def test_cancel(run: Run, root: str, dead: list[str]) -> None:
    run("publish", root, "q", "sample1")
    late = run("publish", root, "q", "sample2", "--delay", "1h").stdout.split()[-1]
    assert run("cancel", root, "q", "--match", "s", "--dry-run").stdout.count("\n") == 2
    assert "cancelled 1 message\n" in run("cancel", root, "q", "--state", "ready", "--all").stdout
    told = run("cancel", root, "q", late[:29], dead[0], "--reason", "not needed").stdout
    assert sorted(told.splitlines()) == [f"{dead[0]}  align s1", f"{late}  sample2", "cancelled 2 messages"]
    history = json.loads(run("show", root, "q", dead[0], "--format", "json").stdout)["history"]
    assert (history[-1]["state"], history[-1]["reason"]) == ("cancelled", "not needed")
    assert counts(root) == {"dead": 3}


def test_of_many_that_are_cancelled_the_first_are_shown(run: Run, root: str) -> None:
    run("publish", root, "q", "--each-line", "-", stdin="".join(f"a\x1b[31m{number}\n" for number in range(12)))
    *shown, more, count = run("cancel", root, "q", "--all", "--yes").stdout.splitlines()
    assert (len(shown), more, count) == (10, "... and 2 more", "cancelled 12 messages")
    assert shown[0].endswith(".0  a\\x1b[31m0")
    assert run("cancel", root, "q", "--all").stdout == "cancelled 0 messages\n"


def test_a_worker_ends_the_task_that_is_cancelled(run: Run, root: str, tmp_path: Path) -> None:
    run("create", root, "short", "--set", "timeout=1s", "--set", "durable=false")
    run("publish", root, "short", "x")
    worker = subprocess.Popen(
        [COMMAND, "work", root, "short", "--", "sh", "-c", f"touch {tmp_path}/begun; exec sleep 600"],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "begun").exists():
            assert worker.poll() is None
            time.sleep(0.05)
        assert "cancelled 1 message" in run("cancel", root, "short", "--all").stdout
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
    assert Broker(root).stats("short").ready == 0


def test_pause_drain_and_resume(run: Run, root: str) -> None:
    run("create", root, "other")
    run("publish", root, "q", "x")
    assert run("pause", root, "q,other", "--reason", "disk full").stdout == "paused q\npaused other\n"
    assert "disk full" in run("pull", root, "q", code=6).stderr
    shown = run("status", root).stdout
    assert "q (paused)" in shown and "q was paused by " in shown and shown.count(": disk full") == 2
    run("drain", root, "q", "--reason", "maintenance")
    assert "maintenance" in run("publish", root, "q", "y", code=6).stderr
    assert "maintenance" in run("publish", root, "q", "--each-line", "-", stdin="y\n", code=6).stderr
    [row] = json.loads(run("status", root, "q", "--format", "json").stdout)["queues"]
    assert (row["paused"], row["draining"], row["paused_reason"]) == (True, True, "maintenance")
    assert "it was told to drain by " in run("publish", root, "q", "y", code=6).stderr
    assert run("resume", root, "q,other").stdout == "resumed q\nresumed other\n"
    assert run("resume", root, "q").stdout == "q was neither paused nor draining\n"
    assert "(" not in run("status", root, "q").stdout
    run("drain", root, "q")
    assert "q was told to drain by " in run("status", root, "q").stdout
    run("resume", root, "q")
    run("publish", root, "q", "y")
    run("pull", root, "q")
    Path(root, "q", "ddmq.yaml").write_text("{timeout: 5}\n")
    assert "write `paused: true`" in run("pause", root, "q", code=2).stderr


def test_wait(run: Run, root: str) -> None:
    assert run("wait", root, "q").stdout == ""
    run("publish", root, "q", "x")
    told = run("wait", root, "q", "--timeout", "0.2", code=3).stderr
    assert "1 ready, 0 leased, 0 delayed" in told
    process = subprocess.Popen([COMMAND, "wait", root, "q", "--exit-code"], stderr=subprocess.PIPE, text=True)
    run("nack", "--no-requeue", root, "q", json.loads(run("pull", root, "q", "--format", "json").stdout)["receipt"])
    assert process.communicate(timeout=60)[1] == f"ddmq-hpc: 1 dead in q; see `ddmq-hpc dead list {root} q`\n"
    assert process.returncode == 1
    run("wait", root, "q")


def test_wait_tells_once_why_nothing_more_can_come(run: Run, root: str, dead: list[str]) -> None:
    run("publish", root, "q", "sum", "--after", "aling")
    told = run("wait", root, "q", "--exit-code", code=1).stderr
    why = "nothing was ever published with group 'aling', and 1 message comes after it "
    why += f"(see `ddmq-hpc groups {root} q`)"
    assert told == f"ddmq-hpc: queue 'q' is not done, and nothing more comes of it by itself: {why}\n"
    lines = run("wait", root, "q", "--timeout", "5s", code=None).stderr.splitlines()
    assert [line for line in lines if "aling" in line] == told.splitlines(), "once"
    assert "0 ready, 0 leased, 1 delayed" in lines[-1]


def test_wait_for_a_group_of_which_only_dead_letters_are_left(run: Run, root: str) -> None:
    run("publish", root, "q", "x", "--group", "align")
    run("nack", "--no-requeue", root, "q", json.loads(run("pull", root, "q", "--format", "json").stdout)["receipt"])
    see = f"see `ddmq-hpc dead list {root} q --group align`"
    told = f"ddmq-hpc: only dead letters are left of group 'align': 1; {see}\n"
    assert run("wait", root, "q", "--group", "align").stderr == told
    assert run("wait", root, "q", "--group", "align", "--exit-code", code=1).stderr == told


def test_wait_at_a_terminal_tells_what_is_left_until_ctrl_c(run: Run, root: str) -> None:
    run("publish", root, "q", "x")
    outer, inner = pty.openpty()
    with subprocess.Popen([COMMAND, "wait", root, "q"], stderr=inner) as process:
        os.close(inner)
        assert b"q: 1 ready, 0 leased, 0 delayed" in os.read(outer, 1000)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    os.close(outer)


def test_the_same_as_json(run: Run, root: str, dead: list[str]) -> None:
    requests = [
        {"cmd": "retry", "exit_code": 137, "dry_run": True},
        {"cmd": "retry", "id": dead[2], "priority": 3},
        {"cmd": "retry"},
        {"cmd": "cancel", "match": "call", "reason": "no"},
        {"cmd": "cancel", "ids": dead[:1], "state": "ready"},
        {"cmd": "drain", "reason": "stop"},
        {"cmd": "publish", "message": 1},
        {"cmd": "pause"},
        {"cmd": "consume"},
        {"cmd": "resume"},
        {"cmd": "publish", "message": 1},
        {"cmd": "pause", "color": "red"},
    ]
    lines = "".join(json.dumps({"root": root, "queue": "q", **request}) + "\n" for request in requests)
    answers = [json.loads(line) for line in run("json", "-", stdin=lines).stdout.splitlines()]
    results = [answer.get("result") or answer["error"]["type"] for answer in answers]
    assert results[:6] == [
        {"retried": dead[:2]}, {"retried": [dead[2]]}, "UsageError", {"cancelled": [dead[2]]}, "MessageElsewhere",
        {"queues": ["q"]},
    ]  # fmt: skip
    assert results[6] == "QueueDraining" and results[8] == "QueuePaused" and results[11] == "UsageError"
    assert results[10]["message"] == 1


def test_no_dead_letters_is_said_and_an_error_has_no_heading_before_it(run: Run, root: str) -> None:
    run("create", "-f", root, "empty")
    done = run("dead", "list", root, "empty")
    assert (done.stdout, done.stderr) == ("", "ddmq-hpc: there are no dead letters\n")
    assert run("dead", "list", root, "empty", "--format", "json").stdout == ""
    assert run("dead", "list", root, "empty", "1" * 19, code=4).stdout == ""


@pytest.mark.parametrize("group, names", [("dead", "list purge retry show"), ("journal", "compact export")])
def test_a_group_alone_prints_its_help_as_it_is(run: Run, group: str, names: str) -> None:
    done = subprocess.run([COMMAND, group], capture_output=True, text=True, timeout=60)
    shown = done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split()[0] for line in shown.partition("Commands:\n")[2].splitlines()] == names.split()
    assert run(group, "--help").stdout == shown and "..." not in shown.partition("Commands:")[2]


def test_exec_tells_that_its_message_was_cancelled(run: Run, root: str) -> None:
    run("create", "-f", root, "short", "--set", "timeout=3")
    ident = run("publish", root, "short", "text").stdout.strip()
    command = [COMMAND, "exec", root, "short", "--", "sh", "-c", "echo begun; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "begun\n"
        run("cancel", root, "short", ident)
        _, said = process.communicate(timeout=40)
    assert process.returncode == 5 and f"message {ident} was cancelled, its command was ended" in said
