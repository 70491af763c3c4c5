"""Which words are ROOT and QUEUE: nothing is guessed, and what cannot be a name is told in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command import Run

from ddmq_hpc import Broker


def test_create_says_what_it_made_and_where(run: Run, root: str) -> None:
    done = run("create", "-f", root, "a,b")
    assert done.stdout == f"made queue a in {root}\nmade queue b in {root}\n"
    assert f"made the root {root}" in done.stderr
    done = run("create", "c,a", env={"DDMQ_HPC_ROOT": root})
    assert done.stdout == f"made queue c in {root}\nthere already: queue a in {root}\n"
    assert done.stderr == ""


def test_no_root_is_made_of_a_word_that_may_be_a_queue(run: Run, root: str, tmp_path: Path) -> None:
    env = {"DDMQ_HPC_ROOT": root}
    for words in (["create", "-f", "qa", "qb"], ["publish", "-f", "qa", "qb", "text"], ["consume", "-f", "qa", "qb"]):
        told = run(*words, env=env, cwd=tmp_path, code=2).stderr
        assert "'qa' is no root, and $DDMQ_HPC_ROOT is set; write ./qa for a directory here" in told
        assert ("several queues are written qa,qb" in told) == (words[0] == "create")
    assert not os.path.exists(root) and not os.path.exists(tmp_path / "qa")
    run("create", "-f", "./qa", "qb", env=env, cwd=tmp_path)
    run("create", "qa", "qc", env=env, cwd=tmp_path)  # a root by now
    assert Broker(tmp_path / "qa").list_queues() == ["qb", "qc"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create", "-f", "ROOT", "bad name"], "bad queue name 'bad name'"),
        (["create", "-f", "ROOT", "good,bad%"], "bad queue name 'bad%'"),
        (["create", "-f", "ROOT", "good", "--set", "colour=red"], "colour"),
        (["create", "-f", "ROOT", "good", "--set", "timeout=never"], "timeout"),
        (["publish", "-f", "ROOT", "bad name", "text"], "bad queue name 'bad name'"),
        (["consume", "-f", "ROOT", "bad name"], "bad queue name 'bad name'"),
    ],
)
def test_nothing_is_made_for_what_is_refused(run: Run, root: str, words: list[str], told: str) -> None:
    assert told in run(*(word.replace("ROOT", root) for word in words), code=2).stderr
    assert not os.path.exists(root)


@pytest.mark.parametrize("verb", ["delete", "purge", "pause", "drain", "resume"])
def test_nothing_is_done_to_some_where_another_is_not_there(run: Run, root: str, verb: str) -> None:
    run("create", "-f", root, "tasks")
    run("publish", root, "tasks", "text")
    for queues, code in (("tasks,task", 4), ("tasks,bad%", 2)):
        done = run(verb, root, queues, code=code)
        assert done.stdout == ""
        assert ("did you mean 'tasks'?" in done.stderr) == (code == 4)
    verb = verb.replace("purge", "delete")  # by JSON one queue is purged at a time
    asked = [{"cmd": verb, "root": root, "queue": queues} for queues in ("tasks,task", "tasks,bad%")]
    answers = run("json", "-", stdin="".join(json.dumps(one) + "\n" for one in asked)).stdout.splitlines()
    assert [json.loads(line)["error"]["type"] for line in answers] == ["QueueNotFound", "BadName"]
    [found] = json.loads(run("status", root, "--format", "json").stdout)["queues"]
    assert (found["ready"], found["paused"], found["draining"]) == (1, False, False)


def test_what_is_missing_may_stand_in_variables(run: Run, root: str) -> None:
    told = run("create", "-f", "tasks", code=2).stderr
    assert "QUEUE[,QUEUE...] is missing: expected ROOT QUEUE[,QUEUE...]; set $DDMQ_HPC_ROOT to leave out ROOT" in told
    told = run("create", "-f", code=2, env={"DDMQ_HPC_ROOT": root}).stderr
    assert "$DDMQ_HPC_ROOT" not in told and "set $DDMQ_HPC_QUEUE to leave out QUEUE" in told


def test_a_text_of_several_words_is_quoted_and_a_file_has_all_texts(run: Run, root: str, tmp_path: Path) -> None:
    run("create", "-f", root, "tasks")
    assert (
        "expected ROOT QUEUE TEXT, in quotes where it has blanks"
        in run("publish", root, "tasks", "echo", "1", code=2).stderr
    )
    (tmp_path / "lines").write_text("one\n")
    assert "leave out TEXT" in run("publish", root, "tasks", "x", "--each-line", str(tmp_path / "lines"), code=2).stderr
    assert run("list", root, "tasks").stdout == ""


def test_status_takes_queues_with_commas_each_once(run: Run, root: str) -> None:
    run("create", "-f", root, "one,two,three")
    for words in (("two,one",), ("two", "one", "two"), ("two,two", "one")):
        found = json.loads(run("status", root, *words, "--format", "json").stdout)["queues"]
        assert [row["queue"] for row in found] == ["two", "one"]


NAMED = [
    ("create", "tasks", "more"),
    ("delete", "tasks", "more"),
    ("purge", "tasks", "more"),
    ("clean", "tasks", "more"),
    ("pause", "tasks", "more"),
    ("drain", "tasks", "more"),
    ("resume", "tasks", "more"),
    ("workers", "tasks", "more"),
    ("recover", "tasks", "more"),
    ("work", "tasks", "more", "--", "true"),
    ("pause", "tasks", "more", "third"),
]
SINGLE = [
    ("publish", "tasks", "some", "text"),
    ("pull", "tasks", "more"),
    ("peek", "tasks", "more"),
    ("list", "tasks", "more"),
    ("wait", "tasks", "more"),
    ("groups", "tasks", "more"),
    ("explain", "tasks", "more"),
    ("report", "tasks", "more"),
    ("journal", "export", "tasks", "more"),
    ("logs", "--failed", "tasks", "more"),
    ("exec", "tasks", "more", "--", "true"),
]


@pytest.mark.parametrize("words", [*NAMED, *SINGLE], ids=" ".join)
def test_the_name_of_a_queue_is_not_taken_for_a_root(run: Run, root: str, tmp_path: Path, words: list[str]) -> None:
    run("create", "-f", root, "tasks,more")
    told = run(*words, env={"DDMQ_HPC_ROOT": root}, cwd=tmp_path, code=2).stderr
    assert "'tasks' is a queue of $DDMQ_HPC_ROOT" in told
    assert ("several queues are written tasks,more" in told) == (tuple(words) in NAMED)


@pytest.mark.parametrize("command", ["create", "delete", "purge", "pause", "drain", "resume", "clean", "workers"])
def test_several_queues_have_commas_between(run: Run, root: str, command: str) -> None:
    run("create", "-f", root, "a,b")
    told = run(command, root, "a", "b", code=2).stderr
    assert "too many arguments: 'b'" in told and "several queues are written a,b" in told
    done = run(command, root, "a,b")
    assert command == "workers" or [line for line in done.stdout.splitlines() if " a" in f" {line}"]


BAD = ["a/b", "..", "", "\x1b[31m\n"]
COMMANDS = [
    ("create", "-f"),
    ("publish",),
    ("pull",),
    ("peek",),
    ("list",),
    ("status",),
    ("delete", "-y"),
    ("purge", "-y"),
    ("pause",),
    ("clean",),
    ("groups",),
    ("explain",),
    ("workers",),
    ("recover",),
    ("metrics",),
    ("wait",),
    ("journal", "export"),
    ("dead", "list"),
    ("report",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_names_that_cannot_be(run: Run, root: str, words: tuple[str, ...]) -> None:
    Broker(root, create=True)
    before = sorted(os.walk(root))
    for name in BAD:
        done = run(*words, root, name, *(["text"] if words[0] == "publish" else []), code=2)
        assert "bad queue name" in done.stderr, (name, done.stderr)
        assert "\x1b" not in done.stderr
    assert sorted(os.walk(root)) == before


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_root_that_cannot_be(run: Run, root: str, tmp_path: Path, words: tuple[str, ...]) -> None:
    text = ["text"] if words[0] == "publish" else []
    assert "ROOT is empty" in run(*words, "", "q", *text, cwd=tmp_path, code=2).stderr
    (tmp_path / "file").touch()
    assert run(*words, str(tmp_path / "file"), "q", *text, code=None).returncode in (1, 4)
    assert sorted(os.listdir(tmp_path)) == ["file"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("publish", "--json", "q", "{"), "JSON"),
        (("publish", "--priority", "x", "q", "text"), "priority"),
        (("publish", "--delay", "-1", "q", "text"), "-1"),
        (("publish", "--group", "a/b", "q", "text"), "group"),
        (("publish", "--key", "", "q", "text"), "key"),
        (("show", "q", "nonsense"), "nonsense"),
        (("ack", "q", "nonsense"), "nonsense"),
        (("ack", "q", "q/../../x~y"), "receipt"),
    ],
)
def test_what_cannot_be_published_or_found(run: Run, root: str, words: tuple[str, ...], told: str) -> None:
    run("create", "-f", root, "q")
    done = run(*words, env={"DDMQ_HPC_ROOT": root}, code=None)
    assert done.returncode in (2, 4) and told in done.stderr and len(done.stderr.splitlines()) == 1
