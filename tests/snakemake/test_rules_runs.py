"""Real Snakemakes consume tasks: what is done, what fails, what is left for others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rules_tools import COMMAND, PATIENCE, Site, require_snakemake, wait_for

require_snakemake()

TWELVE = range(12)
#: Waits for the file `go` before it is done.
BLOCKED = (
    "trap 'exit 130' INT; "  # or it may outlive Ctrl-C, as told in test_rules_kills.py
    "echo {params.task[n]} >> starts; while [ ! -e go ]; do sleep 0.05; done; echo {params.task[n]} > {output}"
)
FAILING = (
    "echo {params.task[n]} >> starts; "
    "case {params.task[n]} in 3|7|11) exit 1;; *) echo {params.task[n]} > {output};; esac"
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.end()


def test_every_task_is_done_once_and_acked(site: Site) -> None:
    site.write()
    site.publish(*TWELVE)
    assert site.run() == 0, site.log
    assert site.results == sorted(n * n for n in TWELVE)
    assert sorted(site.starts) == list(TWELVE)
    assert site.states() == {}
    assert site.outcomes() == {"acked": 12}
    assert "tasks: 12 acked, 0 nacked, 0 released" in site.log


def test_an_empty_queue_ends_the_run_well(site: Site) -> None:
    site.write()
    site.publish()
    assert site.run() == 0, site.log


def test_tasks_published_while_others_run_are_done_too(site: Site) -> None:
    site.write(command=BLOCKED)
    site.publish(0, 1)
    process = site.start()
    wait_for(lambda: len(site.starts) == 2, "the first tasks")
    site.publish(2, 3)
    wait_for(lambda: len(site.starts) == 4, "those published later")
    (site.directory / "go").touch()
    assert process.wait(120) == 0, site.log
    assert site.results == [0, 1, 2, 3]


def test_the_first_failure_ends_the_run_and_the_rest_is_put_back(site: Site) -> None:
    site.write(command=FAILING)
    site.publish(*TWELVE)
    assert site.run() == 1
    failed = {3, 7, 11} & set(site.starts)
    assert failed
    assert site.results == sorted(set(site.starts) - failed)
    assert site.states() == {"ready": 12 - len(site.results)}
    assert site.attempts() == [(0, 0)] * (12 - len(site.results) - len(failed)) + [(1, 0)] * len(failed)


def test_after_a_failure_no_more_are_taken(site: Site) -> None:
    """While others are running Snakemake asks for more all the same, when one of them ends."""
    site.write("max_inflight=3", f"test {{params.task[n]}} != 0; {BLOCKED.replace('go', 'go.{params.task[n]}')}")
    site.publish(*TWELVE)
    process = site.start()
    wait_for(lambda: len(site.starts) == 2 and (1, 0) in site.attempts(), "the failure to be told")
    asked, moment = site.log.count("Updating jobs with queue input"), time.monotonic()
    wait_for(lambda: time.monotonic() > moment + 2, "the time of the next question")
    (site.directory / "go.1").touch()
    wait_for(lambda: site.log.count("Updating jobs with queue input") > asked, "another question")
    wait_for(lambda: site.outcomes().get("acked"), "the end of a task")
    assert site.states() == {"leased": 1, "ready": 10}
    (site.directory / "go.2").touch()
    assert process.wait(120) == 1
    assert sorted(site.starts) == [1, 2]
    assert site.attempts() == [(0, 0)] * 9 + [(1, 0)]


@pytest.mark.parametrize("until", ["empty", "drained"])
def test_failed_tasks_are_nacked_once_a_run_and_the_others_done(site: Site, until: str) -> None:
    site.write(f"until={until!r}, max_inflight=9", FAILING)
    site.publish(*TWELVE)
    assert site.run("--keep-going") == 1
    assert sorted(site.starts) == list(TWELVE)
    assert site.results == sorted(set(TWELVE) - {3, 7, 11})
    assert site.states() == {"ready": 3}
    assert site.attempts() == [(1, 0)] * 3
    assert site.run("--keep-going") == 1
    assert site.attempts() == [(2, 0)] * 3


def test_retries_come_before_a_nack(site: Site) -> None:
    site.write(command="[ -e tried.{params.task[n]} ] || {{ touch tried.{params.task[n]}; exit 1; }}; " + COMMAND)
    site.publish(*TWELVE)
    assert site.run("--retries", "1") == 0, site.log
    assert site.outcomes() == {"acked": 12}


def test_a_failed_job_that_one_task_needs_is_its_failure(site: Site) -> None:
    site.write(more='input:\n        "work/{task}.in",')
    with open(site.directory / "Snakefile", "a", encoding="utf-8") as file:
        file.write(
            'rule prepare:\n    output: "work/{task}.in"\n    params: task=queue.body\n'
            '    shell: "test {params.task[n]} != 2; touch {output}"\n'
        )
    site.publish(0, 1, 2)
    assert site.run("--keep-going") == 1
    assert site.results == [0, 1]
    assert site.attempts() == [(1, 0)]


def test_a_failed_job_that_all_tasks_need_costs_none_an_attempt(site: Site) -> None:
    site.write("max_inflight=3", more='input:\n        "reference",')
    with open(site.directory / "Snakefile", "a", encoding="utf-8") as file:
        file.write('rule reference:\n    output: "reference"\n    shell: "exit 1"\n')
    site.publish(*TWELVE)
    assert site.run("--keep-going") == 1
    assert site.starts == []
    assert site.attempts() == [(0, 0)] * 12
    assert "3 released" in site.log  # and no more were taken


def test_no_more_are_held_than_allowed(site: Site) -> None:
    site.write("max_inflight=3", BLOCKED)
    site.publish(*range(6))
    process = site.start()
    wait_for(lambda: len(site.starts) == 3, "three tasks")
    assert site.states() == {"leased": 3, "ready": 3}
    (site.directory / "go").touch()
    assert process.wait(120) == 0, site.log
    assert site.results == list(range(6))


def test_max_tasks_ends_a_run_and_leaves_the_rest(site: Site) -> None:
    site.write("max_tasks=5")
    site.publish(*TWELVE)
    assert site.run() == 0, site.log
    assert site.results == [0, 1, 4, 9, 16]
    assert site.states() == {"ready": 7}


def test_a_run_without_end_ends_when_nothing_came_for_a_while(site: Site) -> None:
    site.write("until='forever', idle_exit=2")
    site.publish(*TWELVE)
    assert site.run() == 0, site.log
    assert len(site.results) == 12
    assert "nothing came for a while" in site.log


def test_drained_waits_for_what_is_delayed(site: Site) -> None:
    site.write("until='drained'")
    site.broker.publish("tasks", {"n": 5}, delay=3)
    assert site.run() == 0, site.log
    assert site.results == [25]


@pytest.mark.parametrize(
    "how", ['shell: "cat results/*.txt > {output}"', 'run: shell("cat results/*.txt > {output}")'], ids=["shell", "run"]
)
def test_a_rule_with_the_feed_as_input_runs_when_all_tasks_are_done(site: Site, how: str) -> None:
    site.write()
    text = (site.directory / "Snakefile").read_text(encoding="utf-8")
    text = text.replace(
        "        queue.feed(),\n",
        f'        queue.feed(),\n    output:\n        "table",\n    {how}\n',
    )
    (site.directory / "Snakefile").write_text(text, encoding="utf-8")
    for run in (1, 2):
        site.publish(*range(6 * run - 6, 6 * run))
        assert site.run() == 0, site.log
        table = (site.directory / "table").read_text().split()
        assert sorted(map(int, table)) == [n * n for n in range(6 * run)]


def test_without_progress_lines_tasks_are_acked_too(site: Site) -> None:
    site.write()
    site.publish(*TWELVE)
    assert site.run("--quiet", "all") == 0, site.log
    assert site.outcomes() == {"acked": 12}


def test_without_hooks_tasks_are_settled_too(site: Site) -> None:
    site.write(command=FAILING)
    site.publish(*TWELVE)
    assert site.run("--no-hooks", "--keep-going") == 1
    assert site.states() == {"ready": 3}


@pytest.mark.parametrize("arguments", [["-n"], ["--dag"], ["--lint"], ["--touch"]])
def test_looking_takes_nothing(site: Site, arguments: list[str]) -> None:
    site.write()
    site.publish(*TWELVE)
    code = site.run(*arguments)
    assert code == 0 or arguments == ["--lint"], site.log
    assert site.states() == {"ready": 12}
    assert site.outcomes() == {}
    assert not (site.directory / ".snakemake" / "ddmq-hpc.lock").exists()


def test_a_workflow_can_be_looked_at_before_there_is_a_queue(site: Site) -> None:
    site.write()
    site.broker.delete_queue("tasks")
    assert site.run("-n") == 0, site.log
    assert site.run() == 1
    assert "no queue 'tasks'" in site.log


@pytest.mark.timeout(700)
@pytest.mark.parametrize(("count", "inflight"), [(300, 100), pytest.param(4000, 200, marks=pytest.mark.slow)])
def test_many_tasks_pass_through_a_few_at_a_time(site: Site, count: int, inflight: int) -> None:
    site.write(f"max_inflight={inflight}", "echo {params.task[n]} > {output}")
    site.publish(*range(count))
    assert site.start().wait(timeout=5 * PATIENCE) == 0, site.log[-5000:]
    assert site.results == list(range(count))
    assert site.outcomes() == {"acked": count}


def test_one_workflow_takes_from_two_queues(site: Site) -> None:
    """One of them is empty long before the other."""
    site.write(command=BLOCKED)
    text = (site.directory / "Snakefile").read_text(encoding="utf-8")
    more = text[text.index("queue =") : text.index("onsuccess")] + text[text.index("rule all") :]
    for old, new in (
        ("queue.", "more."),
        ("queue =", "more ="),
        ('config["queue"]', 'config["queue"] + "-2"'),
        ("results/", "more/"),
        ("rule all", "rule all_more"),
        ("rule consume", "rule consume_more"),
        ("starts; while [ ! -e go ]", "starts; while false"),
    ):
        more = more.replace(old, new)
    text = text.replace("queue.settle()", "queue.settle()\n    more.settle()")
    both = "rule both:\n    default_target: True\n    input: 'one', 'two'\n"
    text = text.replace("        queue.feed(),", "        queue.feed(),\n    output: touch('one')")
    more = more.replace("        more.feed(),", "        more.feed(),\n    output: touch('two')")
    (site.directory / "Snakefile").write_text(text + more + both, encoding="utf-8")
    site.publish(1, 2)
    site.broker.publish_many("tasks-2", ({"n": n} for n in (3, 4)))
    process = site.start()
    wait_for(lambda: "no more tasks are taken" in site.log, "the end of the second queue")
    asked = site.log.count("Updating jobs with queue input")
    wait_for(lambda: site.log.count("Updating jobs with queue input") > asked + 1, "more questions")
    (site.directory / "go").touch()
    assert process.wait(120) == 0, site.log
    assert site.results == [1, 2]
    assert len(list(site.directory.glob("more/*"))) == 2
    assert site.log.count("2 acked") == 2


def test_the_feed_outlasts_a_checkpoint(site: Site) -> None:
    """A rule that waits for both; the checkpoint is done last."""
    site.write("max_tasks=2")
    text = (site.directory / "Snakefile").read_text(encoding="utf-8")
    text = text.replace(
        "        queue.feed(),", "        queue.feed(),\n        lambda w: checkpoints.slow.get().output[0],"
    )
    text += (
        "checkpoint slow:\n    output: 'slow'\n    shell: 'while [ ! -e go ]; do sleep 0.05; done; touch {output}'\n"
    )
    (site.directory / "Snakefile").write_text(text, encoding="utf-8")
    site.publish(1, 2)
    process = site.start()
    wait_for(lambda: "no more tasks are taken" in site.log, "the end of the feed")
    (site.directory / "go").touch()
    assert process.wait(120) == 0, site.log
    assert site.results == [1, 4]


def test_two_directories_share_a_queue(site: Site) -> None:
    other = site.beside("other")
    for each in (site, other):
        each.write("max_inflight=4")
    site.publish(*range(24))
    try:
        processes = [site.start(), other.start()]
        assert [process.wait(120) for process in processes] == [0, 0], site.log + other.log
    finally:
        other.end()
    assert sorted(site.starts + other.starts) == list(range(24))
    assert site.outcomes() == {"acked": 24}


def test_jobs_that_read_the_snakefile_again_take_nothing(site: Site) -> None:
    """`run:` and remote jobs do; each finds the body of its own message."""
    site.write(command="")
    text = (site.directory / "Snakefile").read_text(encoding="utf-8")
    text = text.replace(
        "    shell:\n        ''", "    run:\n        open(output[0], 'w').write(str(params.task['n'] ** 2))\n"
    )
    (site.directory / "Snakefile").write_text(text, encoding="utf-8")
    site.publish(*range(4))
    assert site.run() == 0, site.log
    assert site.results == [0, 1, 4, 9]
    assert site.outcomes() == {"acked": 4}


def test_functions_of_a_rule_can_ask_for_the_body(site: Site) -> None:
    site.write(
        command="cat {input} > {output}", more='input:\n        lambda wildcards: queue.body(wildcards)["file"],'
    )
    for number in range(3):
        (site.directory / f"{number}.in").write_text(str(number), encoding="utf-8")
        site.broker.publish("tasks", {"n": number, "file": f"{number}.in"})
    assert site.run() == 0, site.log
    assert site.results == [0, 1, 2]


def test_odd_text_reaches_the_shell_in_quotes(site: Site) -> None:
    text = "a b'\"; touch pwned; $(touch pwned) ä\n{x}"
    site.write(command="printf %s {params.task[text]:q} > {output}")
    site.broker.publish("tasks", {"text": text})
    assert site.run() == 0, site.log
    assert [path.read_text(encoding="utf-8") for path in site.directory.glob("results/*")] == [text]
    assert not (site.directory / "pwned").exists()


def test_what_others_could_have_written_is_not_worked_on(site: Site) -> None:
    site.write()
    site.publish(*TWELVE)
    os.chmod(site.queue.paths.top, 0o777)
    assert site.run() == 1
    assert "can be written by" in site.log or "may be written by" in site.log or "nothing was run" in site.log
    assert site.states() == {"ready": 12}


def test_a_target_that_no_rule_makes_ends_the_run(site: Site) -> None:
    site.write()
    text = (site.directory / "Snakefile").read_text(encoding="utf-8")
    (site.directory / "Snakefile").write_text(text.replace('target="results/', 'target="elsewhere/'), encoding="utf-8")
    site.publish(*TWELVE)
    assert site.run() == 1
    assert "elsewhere/" in site.log
    assert site.attempts() == [(0, 0)] * 12
    assert site.states() == {"ready": 12}


def test_a_done_task_that_comes_again_is_acked_without_work(site: Site) -> None:
    site.write(command=BLOCKED)
    site.publish(7)
    process = site.start()
    wait_for(lambda: site.starts, "the task")
    ident = site.ids()[0]
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 1
    (site.directory / "go").touch()
    # Somebody makes the target by hand, and the message is still there.
    assert site.run(f"results/{ident}.txt") == 0, site.log
    assert site.states() == {"ready": 1}
    assert site.run() == 0, site.log
    assert site.starts == [7, 7]
    assert site.states() == {}
