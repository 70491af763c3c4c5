"""The daily commands, as black boxes: what they do, what they print, how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import COMMAND, Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.main import COMMANDS
from ddmq_hpc.operations import _TABLE


@pytest.fixture(autouse=True)
def queue(run: Run, root: str) -> None:
    run("create", "-f", root, "q")


def pulled(run: Run, root: str, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("pull", root, "q", *args).stdout)
    return found


def counts(run: Run, root: str) -> dict[str, int]:
    row = json.loads(run("status", root, "q", "--format", "json").stdout)["queues"][0]
    return {state: row[state] for state in ("ready", "leased", "delayed", "dead")}


def test_the_forms_of_ddmq(run: Run, root: str) -> None:
    run("create", "-f", root, "a,b")
    run("publish", *"-f -p 10 -t 60 -r -l 2 --requeue_prio 3 -C -s -v".split(), root, "a", "ten")
    run("publish", "-p", "9", root, "a", "nine")
    assert run("view", root, "a").stdout.splitlines()[1] == "| a | 2 | 0 |"
    assert run("view", "-n", root).stdout.split() == ["a", "b", "q"]
    first = json.loads(run("consume", "--format", "json", root, "a").stdout)
    assert (first["message"], first["priority"]) == ("nine", 9)
    run("nack", "-r", root, "a", first["filename"])
    plain = run("consume", "-n", "2", "--format", "plain", root, "a").stdout
    assert "message = nine" in plain and "message = ten" in plain
    view = json.dumps({"cmd": "view", "root": root, "queue": "a"})
    assert json.loads(run("json", view).stdout)["result"] == {"a": [0, 2]}
    receipts = [line.split(" = ")[1] for line in plain.splitlines() if line.startswith("filename")]
    assert run("ack", root, "a", ",".join(receipts)).stdout.count("acked") == 2
    run("consume", root, "a", code=3)
    assert "purged 0" in run("purge", root, "b").stdout
    run("clean", root, "b")
    run("delete", root, "a,b")
    run("view", root, "a", code=4)


@pytest.mark.parametrize("shape", ["json", "plain", "yaml", "body", "shell"])
def test_pull_prints_in_every_format(run: Run, root: str, shape: str) -> None:
    run("publish", root, "q", "hello")
    out = run("pull", root, "q", "--format", shape).stdout
    assert "hello" in out
    if shape == "yaml":
        assert yaml.safe_load(out)[0]["message"] == "hello"


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(), max_size=60))
def test_the_shell_format_is_safe_for_eval(run: Run, root: str, text: str) -> None:
    """Quotes, newlines, `$( )`, other people's commands: what comes out of eval is the message, or its JSON form."""
    with Broker(root) as broker:
        broker.publish("q", text)
    exports = run("pull", root, "q", "--format", "shell").stdout
    script = exports + '\nprintf "%s" "$DDMQ_HPC_MESSAGE"'
    data = script.encode("utf-8", "surrogateescape")
    got = subprocess.run(["bash"], input=data, capture_output=True, check=True).stdout
    try:
        plain = text.encode("utf-8", "surrogateescape")  # a shell has bytes, not letters
    except UnicodeEncodeError:
        plain = b""
    assert got == plain or json.loads(got) == text


def test_a_job_script_needs_no_arguments(run: Run, root: str) -> None:
    run("publish", root, "q", "task")
    env = {"DDMQ_HPC_ROOT": root, "DDMQ_HPC_QUEUE": "q"}
    env["DDMQ_HPC_RECEIPT"] = json.loads(run("pull", env=env).stdout)["receipt"]
    run("touch", "--lease", "1h", env=env)
    run("ack", env=env)
    assert "lease lost" in run("ack", code=5, env=env).stderr
    run("pull", code=3, env=env)


def test_settling(run: Run, root: str) -> None:
    run("publish", root, "q", "x")
    run("release", root, "q", pulled(run, root)["receipt"])
    message = pulled(run, root)
    assert message["attempt"] == 1
    run("nack", root, "q", message["receipt"])
    message = pulled(run, root)
    assert message["attempt"] == 2
    run("nack", "--delay", "1h", root, "q", message["receipt"])
    assert counts(run, root) == {"ready": 0, "leased": 0, "delayed": 1, "dead": 0}
    run("publish", root, "q", "y")
    run("nack", "--no-requeue", root, "q", pulled(run, root)["receipt"])
    assert counts(run, root)["dead"] == 1
    listed = run("list", root, "q", "--state", "dead").stdout
    shown = json.loads(run("show", root, "q", listed.split()[0], "--format", "json").stdout)
    assert (shown["state"], shown["reason"], shown["history"][0]["state"]) == ("dead", "rejected", "nacked")
    run("del_msg", root, "q", listed.split()[0])
    assert counts(run, root)["dead"] == 0


def test_bulk_sources(run: Run, root: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("seed,size\n1,a b\n2,c\n")
    (tmp_path / "t.jsonl").write_text('{"message": {"n": 1}, "priority": 1}\n"two"\n')
    assert "published 3 messages" in run("publish", root, "q", "--each-line", "-", stdin="one\ntwo\n\nthree").stdout
    run("publish", root, "q", "--from-csv", str(tmp_path / "t.csv"), "--template", "run {seed} {{}} {size}")
    run("publish", root, "q", "--from-jsonl", str(tmp_path / "t.jsonl"))
    run("publish", root, "q", "--glob", str(tmp_path / "t.*"))
    bodies = [json.loads(line)["message"] for line in run("peek", root, "q", "-n", "99").stdout.splitlines()]
    assert bodies[:7] == [{"n": 1}, "one", "two", "three", "run 1 {} a b", "run 2 {} c", "two"]
    assert [Path(body).name for body in bodies[7:]] == ["t.csv", "t.jsonl"]


def test_one_message_from_standard_input(run: Run, root: str) -> None:
    run("publish", root, "q", "-", stdin="two\nlines\n")
    run("publish", root, "q", "--json", "-", stdin='{"a": 1}\n')
    run("publish", root, "q", "--json", '"-"')
    run("publish", root, "q", "--json", '""')
    found = [json.loads(line)["message"] for line in run("peek", root, "q", "-n", "9").stdout.splitlines()]
    assert found == ["two\nlines", {"a": 1}, "-", ""]


def test_an_empty_text_is_most_likely_a_slip(run: Run, root: str) -> None:
    assert "TEXT is empty; an empty message that is meant is" in run("publish", root, "q", "", code=2).stderr
    assert "nothing came on standard input" in run("publish", root, "q", "-", stdin="\n", code=2).stderr
    assert "TEXT is empty" in run("publish", root, "q", "--json", "", code=2).stderr
    run("peek", root, "q", code=3)


@pytest.mark.parametrize(
    "args",
    [
        ["pull", "-n", "-1"],
        ["pull", "-n", "0"],
        ["consume", "-n", "-1"],
        ["peek", "-n", "-1"],
        ["list", "-n", "-1"],
        ["dead", "list", "-n", "-1"],
        ["logs", "--failed", "-n", "0"],
        ["publish", "--requeue-limit", "-1"],
        ["publish", "--loss-limit", "-1"],
        ["publish", "--slots", "0"],
        ["publish", "--skip", "-1"],
    ],
    ids=" ".join,
)
def test_what_counts_has_a_range(run: Run, root: str, args: list[str]) -> None:
    assert "is not in the range" in run(*args, root, "q", code=2).stderr


def test_a_root_that_is_made_on_the_way_is_told_of(run: Run, tmp_path: Path) -> None:
    slip = f"{tmp_path}/slip"
    assert run("publish", "-f", slip, "q", "x").stderr == f"ddmq-hpc: made the root {slip}\n"
    assert run("publish", "-f", slip, "q", "x").stderr == ""


def test_files_of_spreadsheets(run: Run, root: str, tmp_path: Path) -> None:
    """With the mark that they put in front; and other separators than commas are told, not taken for a name."""
    table, lines = tmp_path / "t.csv", tmp_path / "lines"
    table.write_bytes(b"\xef\xbb\xbfseed,size\r\n1,10\r\n")
    lines.write_bytes(b"\xef\xbb\xbfecho one\r\n")
    run("publish", root, "q", "--from-csv", str(table))
    run("publish", root, "q", "--each-line", str(lines))
    assert [json.loads(line)["message"] for line in run("peek", root, "q", "-n", "9").stdout.splitlines()] == [
        {"seed": "1", "size": "10"},
        "echo one",
    ]
    table.write_text("seed;size\n1;10\n")
    assert "separate them by commas" in run("publish", root, "q", "--from-csv", str(table), code=2).stderr
    table.write_text("seed,size,seed,,\n1,2,3,,\n")
    assert "several columns are called 'seed'" in run("publish", root, "q", "--from-csv", str(table), code=2).stderr


def test_a_file_with_a_bad_line_can_be_gone_on_with(run: Run, root: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("seed,size\n1,10\n2,20\n3\n4,40\n")
    said = run("publish", root, "q", "--from-csv", str(table), code=2).stderr
    assert "line 4" in said and "(2 messages published before it; to go on from there: --skip 2)" in said
    table.write_text("seed,size\n1,10\n2,20\n3,30\n4,40\n")
    assert "published 2 messages" in run("publish", root, "q", "--from-csv", str(table), "--skip", "2").stdout
    seeds = [json.loads(line)["message"]["seed"] for line in run("peek", root, "q", "-n", "9").stdout.splitlines()]
    assert seeds == ["1", "2", "3", "4"]


def test_a_receipt_after_a_queue_with_the_root_in_the_environment(run: Run, root: str) -> None:
    env = {"DDMQ_HPC_ROOT": root}
    for words in (["q"], [], [root], [root, "q"]):
        run("publish", "q", "x", env=env)
        receipt = json.loads(run("pull", "q", env=env).stdout)["receipt"]
        assert run("ack", *words, receipt, env=env).stdout.startswith("acked")
    assert "'bogus' is no receipt" in run("ack", "q", "bogus", env=env, code=2).stderr


def test_a_field_that_a_message_does_not_have_runs_nothing(run: Run, root: str, tmp_path: Path) -> None:
    run("publish", root, "q", "--json", '{"seed": 1}')
    done = run("exec", root, "q", "--", "touch", f"{tmp_path}/{{sed}}", code=2)
    assert "the command says {sed}, but the message has seed" in done.stderr
    run("exec", root, "q", "--", "sh", "-c", f"A=b; touch {tmp_path}/${{A}}{{seed}}")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["b1"]


def test_without_standard_output_nothing_is_done(root: str) -> None:
    done = subprocess.run(["sh", "-c", f"{COMMAND} publish {root} q x >&-"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "ddmq-hpc: standard output is closed; send it to /dev/null when you do not want it\n",
    )


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["publish", "ROOT", "q", "x", "-p", "-1"], 2),
        (["publish", "ROOT", "q", "--json", "NaN"], 2),
        (["publish", "ROOT", "q", "--json", "[" * 500 + "]" * 500], 2),
        (["publish", "ROOT", "q", "x" * 100_000 + "y", "--header", "bad"], 2),
        (["publish", "ROOT", "..", "x"], 2),
        (["publish", "ROOT", "nope", "x"], 4),
        (["pull", "ROOT", "q", "--lease", "0"], 2),
        (["pull", "ROOT", "q", "--wait", "soon"], 2),
        (["pull", "ROOT", "q", "-n", "0"], 2),
        (["ack", "ROOT", "q", "q/forged~1"], 2),
        (["show", "ROOT", "q", "nope"], 4),
        (["exec", "ROOT", "q"], 2),
        (["json", "{"], 2),
        (["status", "/nonexistent"], 4),
        (["frobnicate"], 2),
    ],
)
def test_wrong_input_is_told_in_one_line_and_changes_nothing(run: Run, root: str, args: list[str], code: int) -> None:
    done = run(*(root if arg == "ROOT" else arg for arg in args), code=None if args[0] == "json" else code)
    assert args[0] != "json" or (done.returncode, json.loads(done.stdout)["ok"]) == (code, False)
    assert counts(run, root) == {"ready": 0, "leased": 0, "delayed": 0, "dead": 0}


def test_debug_shows_where_an_error_came_from_and_changes_no_exit_code(root: str) -> None:
    for words, code in ((["status", root, "nope"], 4), (["publish", root, "q", "x", "--header", "bad"], 2)):
        command = [COMMAND, "--debug", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code
        assert "Traceback" in done.stderr and done.stderr.splitlines()[-1].startswith("ddmq-hpc: ")


def test_what_comes_after_a_group_that_nobody_knows_is_told(run: Run, root: str) -> None:
    told = run("publish", root, "q", "sum", "--after", "algin", "--after", "other").stderr
    assert [line.split("'")[1] for line in told.splitlines()] == ["algin", "other"] and "nothing was published" in told
    run("publish", root, "q", "one", "--group", "align")
    assert run("publish", root, "q", "sum", "--after", "align").stderr == ""
    assert run("publish", root, "q", "sum", "--after", "algin", "-q").stderr == ""


def test_a_message_is_shown_by_the_beginning_of_its_id(run: Run, root: str) -> None:
    ident = run("publish", root, "q", "x").stdout.strip()
    for short in (ident, ident[:25]):
        asked = json.dumps({"cmd": "show", "root": root, "queue": "q", "id": short})
        assert json.loads(run("json", asked).stdout)["result"]["id"] == ident
        assert json.loads(run("show", root, "q", short, "--format", "json").stdout)["id"] == ident
    for bad, code in ((3, 2), ("nope", 4), (f"0{ident[1:]}", 4)):
        asked = json.dumps({"cmd": "show", "root": root, "queue": "q", "id": bad})
        assert run("json", asked, code=None).returncode == code


def test_the_help_names_all_operations_by_json(run: Run) -> None:
    told = " ".join(run("json", "--help").stdout.split()).partition("The commands: ")[2].partition(". ")[0]
    assert told.split(", ") == sorted(_TABLE)


def test_a_receipt_of_another_queue_is_refused(run: Run, root: str) -> None:
    run("create", root, "other")
    run("publish", root, "q", "x")
    run("ack", root, "other", pulled(run, root)["receipt"], code=2)
    assert counts(run, root)["leased"] == 1


def test_a_paused_queue_says_so(run: Run, root: str) -> None:
    Path(root, "q", "ddmq.yaml").write_text("paused: true\n")
    run("publish", root, "q", "x")
    run("pull", root, "q", code=6)


def test_exec(run: Run, root: str) -> None:
    for text in ("a b", "bad", "in"):
        run("publish", root, "q", text)
    assert run("exec", root, "q", "--", "echo", "<{}>").stdout == "<a b>\n"
    run("exec", root, "q", "--", "sh", "-c", 'test "$DDMQ_HPC_MESSAGE" != bad', code=1)
    run("nack", "--no-requeue", root, "q", pulled(run, root)["receipt"])
    assert run("exec", root, "q", "--stdin", "--", "cat").stdout == "in"
    run("exec", root, "q", "--", "true", code=3)
    run("publish", root, "q", "back")
    assert "released" in run("exec", root, "q", "--", "/no/such/command", code=127).stderr
    assert "released" in run("exec", root, "q", "--", root, code=126).stderr
    assert run("exec", root, "q", "--", "echo", "{}").stdout == "back\n"
    assert counts(run, root) == {"ready": 0, "leased": 0, "delayed": 0, "dead": 1}


def test_exec_keeps_its_lease_and_gives_it_back_when_told_to_stop(run: Run, root: str) -> None:
    run("publish", root, "q", "x")
    child = subprocess.Popen([COMMAND, "exec", root, "q", "--lease", "1s", "--", "sleep", "60"])
    try:
        time.sleep(3.5)
        run("clean", root, "q")
        assert counts(run, root)["leased"] == 1
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=10) == 128 + signal.SIGTERM
    finally:
        child.kill()
    assert pulled(run, root)["attempt"] == 1


@pytest.mark.parametrize(("told", "attempt"), [(True, 1), (False, 2)])
def test_what_exec_runs_may_hear_of_the_end_of_the_job_first(
    run: Run, root: str, tmp_path: Path, told: bool, attempt: int
) -> None:
    run("publish", root, "q", "x")
    command = ["sh", "-c", f"echo > {tmp_path}/up; kill -TERM $$"]
    with subprocess.Popen([COMMAND, "exec", root, "q", "--", *command]) as child:
        while not (tmp_path / "up").exists():
            time.sleep(0.02)
        if told:
            time.sleep(0.5)
            child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == 128 + signal.SIGTERM
    assert pulled(run, root)["attempt"] == attempt


def test_a_killed_exec_gives_its_message_back_at_once(run: Run, root: str) -> None:
    run("publish", root, "q", "x")
    child = subprocess.Popen([COMMAND, "exec", root, "q", "--", "sleep", "2"])
    while counts(run, root)["leased"] == 0:
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert pulled(run, root)["attempt"] == 2


def test_a_stream_of_json(run: Run, root: str) -> None:
    requests = [
        {"cmd": "publish", "queue": "q", "message": {"n": 1}, "headers": {"h": "v"}},
        {"cmd": "publish_many", "queue": "q", "messages": [2, 3]},
        {"cmd": "peek", "queue": "q"},
        {"cmd": "nonsense"},
        {"cmd": "publish", "queue": "../x", "message": 1},
        {"cmd": "status", "queue": "q"},
    ]
    lines = "".join(json.dumps({"root": root, **request}) + "\n" for request in requests) + "not json\n"
    answers = [json.loads(line) for line in run("json", "-", stdin=lines).stdout.splitlines()]
    assert [answer["ok"] for answer in answers] == [True, True, True, False, False, True, False]
    assert all(answer["schema_version"] == 1 for answer in answers)
    assert answers[2]["result"][0]["message"] == {"n": 1}
    assert answers[4]["error"]["type"] == "BadName"
    assert answers[5]["result"][0]["ready"] == 3


def test_a_state_that_there_is_not(run: Run, root: str) -> None:
    request = json.dumps({"root": root, "cmd": "list", "queue": "q", "state": "redy"})
    answer = json.loads(run("json", request, code=None).stdout)
    assert "use ready, leased, delayed, dead, damaged, done" in answer["error"]["message"]
    assert answer["error"]["exit_code"] == 2


def test_keys(run: Run, root: str) -> None:
    first = run("publish", root, "q", "x", "--key", "k").stdout
    assert run("publish", root, "q", "y", "--key", "k").stdout == first
    run("publish", root, "q", "y", "--key", "k", "--if-exists", "error", code=1)
    run("publish", root, "q", "z", "--key", "k", "--if-exists", "replace")
    assert counts(run, root)["ready"] == 1
    assert pulled(run, root)["message"] == "z"


def test_foreign_files_are_reported_and_left_alone(run: Run, root: str) -> None:
    strange = Path(root, "q", "leased", "notes\x1b[31m.txt")
    strange.write_text("mine")
    done = run("status", root)
    assert "1 foreign" in done.stderr and "\x1b" not in done.stderr
    run("clean", root)
    assert strange.read_text() == "mine"


def test_a_linked_queue_is_refused(run: Run, root: str, tmp_path: Path) -> None:
    os.symlink(f"{root}/q", f"{root}/linked")
    run("publish", root, "linked", "x", code=4)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    assert "Usage: ddmq-hpc" in run(command, "--help").stdout


def test_a_pull_imports_nothing_that_it_does_not_use(run: Run, root: str) -> None:
    """On a network file system each imported file costs round trips."""
    script = (
        "import sys; sys.argv = ['ddmq-hpc', 'pull', sys.argv[1], 'q']\n"
        "from ddmq_hpc.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules))"
    )
    run("publish", root, "q", "x")
    python = Path(COMMAND).with_name("python")
    done = subprocess.run([python, "-c", script, root], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    unwanted = {"yaml", "psutil", "filelock", "rich", "subprocess", "random", "hashlib", "csv", "socket", "tempfile"}
    assert not loaded & unwanted
    assert len({name for name in loaded if name.startswith("ddmq_hpc")}) <= 32


def test_one_broken_queue_does_not_hide_the_others(run: Run, root: str) -> None:
    run("create", root, "broken")
    Path(root, "broken", "ddmq.yaml").write_text("priority: [\n")
    done = run("status", root, code=2)
    assert done.stdout.splitlines()[1].split()[0] == "q"
    assert "broken/ddmq.yaml: not valid YAML" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_queues_of_others_are_told_of() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        Broker(f"{place}/root", create=True).create_queue("private")
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            broker = Broker(f"{place}/root")
            os.write(writing, json.dumps([broker.list_queues(), broker.closed]).encode())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert json.loads(os.read(reading, 1000)) == [[], ["private"]]


def test_what_cannot_be_printed_is_not_held(run: Run, root: str) -> None:
    run("publish", root, "q", "x")
    with open("/dev/full", "w") as full:
        done = subprocess.run([COMMAND, "pull", root, "q"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 75 and done.stderr.startswith("ddmq-hpc: cannot print: No space left on device; ")
    assert counts(run, root) == {"ready": 1, "leased": 0, "delayed": 0, "dead": 0}
    with open("/dev/full", "w") as full:
        words = [COMMAND, "publish", root, "q", "y"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "is published, but this could not be printed: No space left" in done.stderr


def test_the_command_of_a_killed_exec_does_not_go_on(run: Run, root: str, tmp_path: Path) -> None:
    """Its message is somebody else's at once."""
    run("publish", root, "q", "x")
    beat = f"while :; do date +%s%N >>{tmp_path}/beats; sleep 0.02; done"
    process = subprocess.Popen([COMMAND, "exec", root, "q", "--", "sh", "-c", beat])
    beats, until = tmp_path / "beats", time.monotonic() + 20
    while not beats.exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(1.5)
    size = beats.stat().st_size
    time.sleep(0.5)
    assert beats.stat().st_size == size
    assert pulled(run, root)["message"] == "x"


def test_groups(run: Run, root: str) -> None:
    run("publish", root, "q", "a0", "--group", "a")
    run("publish", root, "q", "a1", "--group", "a")
    run("publish", root, "q", "late", "--after", "a", "--after", "never")
    assert run("groups", root, "q").stdout.splitlines() == [
        "group  state       ready  leased  delayed  dead  waiting",
        "a      unfinished      2       0        0     0        1",
        "never  unknown         0       0        0     0        1",
    ]
    waiting = json.loads(run("list", root, "q", "--state", "delayed", "--format", "json").stdout)
    assert waiting["after"] == ["a", "never"]
    run("purge", root, "q")
    (group,) = json.loads(run("groups", root, "q", "--format", "json").stdout)["groups"]
    assert (group["name"], group["state"]) == ("a", "finished")
    assert run("publish", root, "q", "m", "--group", "not/this", code=2).stderr.startswith("ddmq-hpc: bad group: ")
