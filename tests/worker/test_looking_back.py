"""history and logs, after real workers: what happened to a message, and what its task printed, however it was kept."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
import yaml
from worker_tools import COMMAND, Bench, wait_for

from ddmq_hpc import Broker, logs
from ddmq_hpc.exporting import COLUMNS
from ddmq_hpc.identity import Detached
from ddmq_hpc.lookback import look_back
from ddmq_hpc.workers import list_workers


def ask(bench: Bench, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [COMMAND, *arguments[:1], bench.root, "tasks", *arguments[1:]], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout or done.stderr


def on_terminal(*arguments: str) -> list[str]:
    """The lines that a command shows on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    subprocess.run([COMMAND, *arguments], stdout=follower, timeout=60, check=True, env=environment)
    os.close(follower)
    shown = b""
    with open(leader, "rb", buffering=0) as terminal:
        try:
            while block := terminal.read(65536):
                shown += block
        except OSError:
            pass  # EIO: the other end is closed
    return shown.decode().splitlines()


def publish(bench: Bench, *texts: str) -> list[str]:
    return [bench.broker.publish("tasks", text).id for text in texts]


TALK = ["sh", "-c", 'echo "{} speaks"; test {} != bad || exit 3']


def test_the_history_of_a_message(bench: Bench) -> None:
    bench.settings("requeue_limit: 1\n")
    (ident,) = publish(bench, "bad")
    assert "never tried" in ask(bench, "history", ident)
    bench.work("--", *TALK)
    first, text, head, *attempts = ask(bench, "history", ident).splitlines()
    assert (first, text.strip()) == (f"{ident}  dead: requeue-limit", "bad")
    assert head.split() == ["#", "began", "waited", "ran", "memory", "ended"]
    assert [line.split()[0] for line in attempts[::3]] == ["1", "2"]
    assert all(line.endswith("nacked, exit code 3") for line in attempts[::3])
    assert all(", worker " in line for line in attempts[1::3])
    assert [line.strip() for line in attempts[2::3]] == ["bad speaks"] * 2
    found = json.loads(ask(bench, "history", ident, "--format", "json"))
    assert [(one["attempt"], one["exit"], one["to"]) for one in found["attempts"]] == [(1, 3, "ready"), (2, 3, "dead")]
    assert yaml.safe_load(ask(bench, "history", ident, "--format", "yaml")) == found
    rows = list(csv.DictReader(ask(bench, "history", ident, "--format", "csv").splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["id"], row["attempt"], row["exit"]) for row in rows] == [(ident, "1", "3"), (ident, "2", "3")]


def test_what_was_done_to_a_message_is_no_attempt(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    (late, bad, held) = (
        bench.broker.publish("tasks", "late", delay=600).id,
        *publish(bench, "bad", "good"),
    )
    bench.work("--max-tasks", "1", "--", *TALK)
    bench.broker.consume("tasks")
    assert "tried for the first time" in ask(bench, "history", held)
    for verb, ident in (("cancel", late), ("retry", bad), ("cancel", held)):
        subprocess.run([COMMAND, verb, bench.root, "tasks", ident], check=True, stdout=subprocess.DEVNULL)
    lines = {ident: list(map(str.split, ask(bench, "history", ident).splitlines()[1:])) for ident in (late, bad, held)}
    for ident, ended in ((late, "cancelled"), (bad, "retried"), (held, "cancelled")):
        [told] = [line for line in lines[ident] if line[-1:] == [ended]]
        assert told[0] == "-"
    assert [line[0] for line in lines[bad] if line[-2:] == ["code", "3"]] == ["1"]


def test_how_long_a_message_waited(tmp_path: Path) -> None:
    """Since it was published, or since the attempt before; nobody knows when one began whose worker died."""
    queue = Broker(tmp_path / "root", create=True).queue("q")
    pack = queue.publisher.new_pack()
    published = int(pack[:19]) / 1e9
    times = [(10.0, 12.0), (0.0, 20.0), (25.0, 26.0)]
    with open(f"{queue.paths.journal}/host.jsonl", "w") as file:
        for number, (began, ended) in enumerate(times, 1):
            taken = published + began if began else 0.0
            more = {"wall": 1.5} if began else {}
            state = "nacked" if began else "lost"
            record = queue.journal.record(state, f"{pack}.2-9", number, published + ended, taken, more)
            file.write(f"{record}}}\n")
    found = look_back(queue, f"{pack}.7")
    assert [wait if wait is None else round(wait) for wait in found.waits] == [10, None, 5]
    assert found.state == "gone"


def test_a_history_fits_a_terminal(bench: Bench) -> None:
    (ident,) = publish(bench, "word " * 100)
    queue = bench.broker.queue("tasks")
    for state, more in (
        ("nacked", {"exit": 137, "signal": 9, "oom": True, "rss": 1023 << 20, "error": "e" * 500, "worker": "w" * 100}),
        ("lost", {"to": "ready", "owner": "o" * 100}),
    ):
        queue.journal.write([queue.journal.record(state, ident, 999, 1e9, 9e8, more)], False)
    bench.broker.consume("tasks")
    shown = on_terminal("history", bench.root, "tasks", ident)
    assert len(shown) >= 8
    assert [line for line in shown if len(line) > 80] == []
    assert "999  1998-07-09" in shown[4] and shown[4].endswith("nacked, signal 9, oom")
    assert f"     {'e' * 500}" in ask(bench, "history", ident).splitlines(), "a pipe gets all of it"


def test_the_state_of_a_message_that_is_there_or_gone(bench: Bench) -> None:
    done, late, held, cancelled = publish(bench, "done", "late", "held", "cancelled")
    messages = bench.broker.consume("tasks", 3)
    bench.broker.ack(messages[0])
    bench.broker.nack(messages[1], delay=3600)
    bench.broker.cancel("tasks", cancelled)
    waiting = bench.broker.publish("tasks", "m", after="x").id
    says = {"  done": done, "delayed until 20": late, "leased until 20": held, "cancelled": cancelled}
    for words, ident in {**says, "delayed until x are done": waiting}.items():
        assert words in ask(bench, "history", ident).splitlines()[0]
    assert f"  by {os.uname().nodename}"[:20] in ask(bench, "history", held).splitlines()[1]
    assert "no message" in ask(bench, "history", done.replace(".0", ".9"), code=4)
    assert "no message" in ask(bench, "history", "nonsense", code=4)


@pytest.mark.parametrize("kind", ["tail", "segment", "files"])
def test_what_a_failed_task_printed(bench: Bench, kind: str) -> None:
    bench.settings("requeue_limit: 1\n")
    good, bad, other = publish(bench, "good", "bad", "other")
    bench.work("--output", kind, "-j", "2", "--", *TALK)
    for arguments in ([bad], [bad, "--attempt", "1"], [bad, "--attempt", "2"], [bad, "-f"]):
        assert ask(bench, "logs", *arguments) == "bad speaks\n"
    assert "no output" in ask(bench, "logs", bad, "--attempt", "3", code=4)
    failed = ask(bench, "logs", "--failed").splitlines()
    assert (failed[0].split(",")[0], failed[1:]) == (f"==> {bad} attempt 2", ["bad speaks"])
    if kind == "tail":
        assert "--output" in ask(bench, "logs", good, code=4)
    else:
        assert [ask(bench, "logs", ident) for ident in (good, other)] == ["good speaks\n", "other speaks\n"]


def test_a_heading_says_all_of_it_but_on_a_narrow_terminal(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    (ident,) = publish(bench, "bad")
    bench.work("--", "sh", "-c", "echo 'no reads in a sample of a very long name, and so on and on'; exit 3")
    heading = f"==> {ident} attempt 1, nacked, exit code 3: no reads in a sample of a very long name, and so on and on"
    assert ask(bench, "logs", "--failed").splitlines()[0] == heading
    assert on_terminal("logs", bench.root, "tasks", "--failed")[0] == heading[:77] + "..."


def test_failures_are_not_followed(bench: Bench) -> None:
    for other in (["-f"], ["--attempt", "1"]):
        said = ask(bench, "logs", "--failed", *other, code=2)
        assert f"leave out {other[0]}\n" in said and said.count("\n") == 1


def test_an_id_may_be_cut_short(bench: Bench) -> None:
    bad, other = publish(bench, "bad", "other")
    bench.settings("requeue_limit: 0\n")
    bench.work("--output", "segment", "--", *TALK)
    assert ask(bench, "logs", other[:25]) == "other speaks\n"
    assert ask(bench, "logs", bad[:25], "-f") == "bad speaks\n"
    common = max((bad[:length] for length in range(len(bad)) if other.startswith(bad[:length])), key=len)
    for verb in ("history", "show", "explain"):
        assert bad in ask(bench, verb, bad[:25])
        assert "no message" in ask(bench, verb, "9" * 12, code=4)
        said = ask(bench, verb, common, code=2)
        assert f"{bad}, {other}; give more of the id" in said and said.count("\n") == 1


def test_of_a_task_that_runs_is_told_where_it_does(bench: Bench) -> None:
    (ident,) = publish(bench, "m")
    end = bench.place / "end"
    worker = bench.start("--", "sh", "-c", f"echo one; until [ -e {end} ]; do sleep 0.05; done")
    wait_for(lambda: bool(running(bench)), "the task", 60)
    said = ask(bench, "logs", ident, code=4)
    assert f"{ident} yet: it runs on {os.uname().nodename} for " in said and "work --output files" in said, said
    end.touch()
    worker.communicate(timeout=30)
    (ident,) = publish(bench, "m")
    bench.broker.consume("tasks")
    assert "by no worker" in ask(bench, "logs", ident, code=4)
    assert "was kept" in ask(bench, "logs", ident, "--attempt", "7", code=4)


def test_what_a_task_printed_before_is_told_to_be_of_before(bench: Bench) -> None:
    bench.settings("requeue_limit: 1\n")
    (ident,) = publish(bench, "m")
    end = bench.place / "end"
    script = f"echo $DDMQ_HPC_ATTEMPT; [ $DDMQ_HPC_ATTEMPT = 2 ] || exit 1; until [ -e {end} ]; do sleep 0.05; done"
    worker = bench.start("--", "sh", "-c", script)
    wait_for(lambda: "nacked" in ask(bench, "history", ident), "the first attempt", 60)
    wait_for(lambda: bool(running(bench)), "it again", 60)
    for options, told in (([], f"that was attempt 1; attempt 2 runs on {os.uname().nodename} "), (["--attempt=1"], "")):
        command = [COMMAND, "logs", bench.root, "tasks", ident, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "1\n"
        assert done.stderr.startswith(f"ddmq-hpc: {told}") if told else not done.stderr, done.stderr
    end.touch()
    worker.communicate(timeout=30)


def running(bench: Bench) -> list[str]:
    """The tasks that workers are listed with."""
    return [task.id for info in list_workers(bench.broker.queue("tasks")) for task in info.tasks]


def test_the_last_failures(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    idents = publish(bench, "a", "b", "c", "bad")
    bench.work("--", "sh", "-c", "echo {}; exit 1")
    headings = [line.split()[1] for line in ask(bench, "logs", "--failed", "-n", "2").splitlines() if line[:3] == "==>"]
    assert headings == idents[2:]


def test_what_failed_and_was_done_later_is_no_failure(bench: Bench) -> None:
    publish(bench, "a", "b")
    bench.work("--", "sh", "-c", f"test {{}} = a || mkdir {bench.place}/tried")
    bench.work("--", "sh", "-c", f"test {{}} = a || mkdir {bench.place}/tried-again")
    assert ask(bench, "logs", "--failed") == "ddmq-hpc: there is no message whose last attempt failed\n"


def test_a_running_task_is_followed(bench: Bench) -> None:
    (ident,) = publish(bench, "m")
    more, end = bench.place / "more", bench.place / "end"
    script = f"echo one; until [ -e {more} ]; do sleep 0.05; done; echo two; until [ -e {end} ]; do sleep 0.05; done"
    worker = bench.start("--output", "files", "--", "sh", "-c", script)
    command = [COMMAND, "logs", bench.root, "tasks", ident, "-f"]
    wait_for(lambda: Broker(bench.root).stats("tasks").leased == 1, "the task")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout and follower.stdout.readline() == "one\n"
        more.touch()
        assert follower.stdout.readline() == "two\n"
        end.touch()
        worker.communicate(timeout=30)
        assert (follower.stdout.read(), follower.wait(30)) == ("", 0)


def test_a_running_task_that_prints_elsewhere_is_waited_for(bench: Bench) -> None:
    (ident,) = publish(bench, "m")
    end = bench.place / "end"
    worker = bench.start("--output", "segment", "--", "sh", "-c", f"echo one; until [ -e {end} ]; do sleep 0.05; done")
    wait_for(lambda: Broker(bench.root).stats("tasks").leased == 1, "the task")
    follower = subprocess.Popen(
        [COMMAND, "logs", bench.root, "tasks", ident, "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert follower.stderr and "until it ends" in follower.stderr.readline()
    end.touch()
    worker.communicate(timeout=30)
    assert follower.communicate(timeout=30)[0] == "one\n"


def test_a_lease_that_goes_on_is_followed_on(bench: Bench) -> None:
    """Renewed, divided, and seen by listings that miss it now and then: the follower stays until the end."""
    publish(bench, *"abc")
    messages = bench.broker.consume("tasks", 3)
    ident = messages[1].id
    Path(bench.root, "tasks", "logs").mkdir()
    log = Path(bench.root, "tasks", "logs", f"{ident}.1.log")
    log.write_text("one")
    queue = Broker(bench.root).queue("tasks")
    names, misses = queue.fs.names, iter([True, False] * 3)

    def missing_some(directory: str) -> list[str]:
        return [] if directory == queue.paths.leased and next(misses, False) else names(directory)

    pieces = logs.follow(queue, ident, lambda text: None)
    assert next(pieces) == b"one"
    queue.fs.names = missing_some  # type: ignore[method-assign]
    renewed, divided = (lambda: bench.broker.extend(messages[1])), (lambda: bench.broker.ack(messages[0]))
    steps = iter([renewed, divided, lambda: log.write_text("onetwo")])
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if (step := next(steps, None)) is not None:
            step()
        elif len(slept) == 8:
            log.write_text("onetwothree")
            bench.broker.ack(messages[1])

    queue.fs.sleep = sleep  # type: ignore[method-assign]
    assert b"".join(pieces) == b"twothree"
    assert len(slept) >= 8


def test_nothing_that_tasks_print_steers_a_terminal(bench: Bench) -> None:
    evil = r"\033]0;title\007\033[2J\rx\tumlaut \303\274 half \303"
    (ident,) = publish(bench, "m")
    bench.work("--output", "files", "--", "printf", evil + r"\n")
    plain = subprocess.run([COMMAND, "logs", bench.root, "tasks", ident], capture_output=True, timeout=60).stdout
    assert plain == b"\033]0;title\007\033[2J\rx\tumlaut \303\274 half \303\n"
    leader, follower = pty.openpty()
    with open(leader, "rb", buffering=0) as terminal:
        for arguments in ([ident], [ident, "-f"]):
            subprocess.run([COMMAND, "logs", bench.root, "tasks", *arguments], stdout=follower, timeout=60, check=True)
            shown = terminal.read(1000).replace(b"\r\n", b"\n")
            assert not {*shown} & {*range(32), 127} - {*b"\n\t"}
            assert b"x\tumlaut \303\274 half" in shown and b"title" in shown
        os.close(follower)


def test_a_long_output_is_passed_on_in_pieces(bench: Bench) -> None:
    (ident,) = publish(bench, "m")
    bench.work("--output", "segment", "--", "sh", "-c", "head -c 50000000 /dev/zero")
    script = f"ulimit -v 400000; {COMMAND} logs {bench.root} tasks {ident} | wc -c"
    assert subprocess.run(["sh", "-c", script], capture_output=True, timeout=60).stdout.strip() == b"50000000"


def test_what_others_put_there_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    """Links, and an index that points outside its log."""
    (tmp_path / "secret").write_text("secret")
    broker = Broker(bench.root, identity=Detached())
    (ident,) = publish(bench, "m")
    broker.nack(broker.consume("tasks"), worker="w", exit=1)
    top = Path(bench.root, "tasks", "logs")
    top.mkdir()
    os.symlink(tmp_path / "secret", top / f"{ident}.1.log")
    (top / "w.log").write_text("short")
    line = {"id": ident, "attempt": 1, "offset": 2, "length": 1 << 40}
    lines = [json.dumps(line), "{", "[]", json.dumps({**line, "offset": -1}), json.dumps({**line, "length": "x"})]
    (top / "w.index").write_text("\n".join(lines))
    said = ask(bench, "logs", ident, code=1)
    assert "secret" not in said.replace(str(tmp_path), "")
    (top / f"{ident}.1.log").unlink()
    assert "no output" in ask(bench, "logs", ident, code=4)
    top.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / f"{ident}.1.log").write_text("secret")
    top.symlink_to(tmp_path / "elsewhere")
    for words in ([ident], ["--failed"]):
        said = ask(bench, "logs", *words, code=1)
        assert "a symbolic link is in the way" in said and "secret" not in said.replace(str(tmp_path), "")
