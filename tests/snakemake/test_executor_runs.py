"""Workflows on workers: everything that a rule can be, failures, resources, what a user sees."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from executor_tools import BIN, Lab, of_state, wait_for
from rules_tools import require_snakemake

require_snakemake()

RICH = r"""
import os

envvars:
    "SECRET_TOKEN",


NAMES = ["plain", "with space", "quote'it", "dollar$HOME", "semi;colon", "ünïcode"]


rule all:
    input:
        expand("named/{name}.txt", name=NAMES),
        "script.txt",
        "run.txt",
        "env.txt",
        "bench.txt",
        "grouped.txt",
        "checked.txt",
        "from_temp.txt",
        "retried.txt",
        "piped.txt",
        "threads.txt",


rule named:
    output:
        "named/{name}.txt",
    params:
        text=lambda wildcards: f"it's \"{wildcards.name}\" $HOME `id` \\n",
    shell:
        "printf '%s' {params.text:q} > {output:q}"


rule script:
    output:
        "script.txt",
    script:
        "scripts/write.py"


rule run:
    output:
        "run.txt",
    run:
        with open(output[0], "w") as file:
            file.write(f"{os.path.basename(os.getcwd())} {config['word']}")


rule env:
    output:
        "env.txt",
    shell:
        "echo $SECRET_TOKEN > {output}"


rule bench:
    output:
        "bench.txt",
    benchmark:
        "bench.tsv"
    shell:
        "echo done > {output}"


rule first:
    output:
        "first/{n}.txt",
    group:
        "pair"
    shell:
        "echo {wildcards.n} > {output}"


rule second:
    input:
        "first/{n}.txt",
    output:
        "second/{n}.txt",
    group:
        "pair"
    shell:
        "cat {input} {input} > {output}"


rule grouped:
    input:
        expand("second/{n}.txt", n=[1, 2]),
    output:
        "grouped.txt",
    shell:
        "cat {input} > {output}"


checkpoint split:
    output:
        directory("parts"),
    shell:
        "mkdir {output}; for n in 1 2 3; do echo $n > {output}/$n.part; done"


rule double:
    input:
        "parts/{n}.part",
    output:
        "doubled/{n}.txt",
    shell:
        "echo $(( $(cat {input}) * 2 )) > {output}"


def doubled(wildcards):
    place = checkpoints.split.get().output[0]
    return expand("doubled/{n}.txt", n=sorted(glob_wildcards(f"{place}/{{n}}.part").n))


rule checked:
    input:
        doubled,
    output:
        "checked.txt",
    shell:
        "cat {input} > {output}"


rule temporary:
    output:
        temp("temporary.txt"),
    shell:
        "echo temporary > {output}"


rule from_temp:
    input:
        "temporary.txt",
    output:
        "from_temp.txt",
    shell:
        "cat {input} > {output}"


rule retried:
    output:
        "retried.txt",
    retries: 2
    resources:
        mem_mb=lambda wildcards, attempt: attempt * 10,
    shell:
        "echo {resources.mem_mb} >> tries; test {resources.mem_mb} = 30 && echo {resources.mem_mb} > {output}"


rule pipe_in:
    output:
        pipe("a.pipe"),
    shell:
        "seq 3 > {output}"


rule pipe_out:
    input:
        "a.pipe",
    output:
        "piped.txt",
    shell:
        "cat {input} > {output}"


rule threads:
    output:
        "threads.txt",
    threads: 2
    shell:
        "echo {threads} $OMP_NUM_THREADS > {output}"
"""


@pytest.mark.parametrize("mode", ["fork", "direct", "plain"])
def test_everything_that_a_rule_can_be(lab: Lab, mode: str) -> None:
    lab.write("Snakefile", RICH)
    lab.write("scripts/write.py", "open(snakemake.output[0], 'w').write(snakemake.rule)\n")
    lab.worker("-j", "3")
    lab.run("--config", "word=it's", mode=mode, SECRET_TOKEN="s3cret")
    home = "dollar$HOME"
    for name in ("plain", "with space", "quote'it", home, "semi;colon", "ünïcode"):
        assert lab.read(f"named/{name}.txt") == f'it\'s "{name}" $HOME `id` \\n'
    assert lab.read("script.txt") == "script"
    assert lab.read("run.txt") == "work it's"
    assert lab.read("env.txt") == "s3cret\n"
    assert "mean_load" in lab.read("bench.tsv")
    assert lab.read("grouped.txt") == "1\n1\n2\n2\n"
    assert lab.read("checked.txt") == "2\n4\n6\n"
    assert lab.read("from_temp.txt") == "temporary\n" and not lab.read("temporary.txt")
    assert lab.read("tries").split() == ["10", "20", "30"] and lab.read("retried.txt") == "30\n"
    assert lab.read("piped.txt") == "1\n2\n3\n"
    assert lab.read("threads.txt") == "2 2\n"
    wait_for(lambda: lab.counts() == {}, "the last message to be let go")
    # Twice nothing is done, and a dry run publishes nothing.
    before = len(lab.records())
    assert "Nothing to be done" in lab.run("--config", "word=it's", mode=mode, SECRET_TOKEN="s3cret")
    lab.run("-n", "-F", "--cores", "4", "--config", "word=it's", mode=mode, SECRET_TOKEN="s3cret")
    assert len(lab.records()) == before


FAILING = """
rule all:
    input:
        expand("out/{n}.txt", n=range(6)),


rule one:
    output:
        "out/{n}.txt",
    shell:
        "echo {wildcards.n} | tee {output}; echo told by {wildcards.n} >&2; test {wildcards.n} != 3"
"""


def test_a_failure_is_told_with_the_end_of_its_output_and_the_rest_goes_on(lab: Lab) -> None:
    lab.write("Snakefile", FAILING)
    lab.worker("-j", "2")
    said = lab.run("-k", code=1)
    assert "told by 3" in said and "told by 2" not in said
    assert sorted(path.name for path in (lab.directory / "out").iterdir()) == [f"{n}.txt" for n in (0, 1, 2, 4, 5)]
    wait_for(lambda: lab.counts() == {"dead": 1}, "the failed job to be a dead letter")
    assert len(of_state(lab.records(), "acked")) == 5
    # What failed is tried again by the next run, and its dead letter goes.
    lab.write("Snakefile", FAILING.replace("!= 3", "!= 7"))
    lab.run()
    wait_for(lambda: lab.counts() == {}, "the dead letter to be replaced")
    assert lab.leftovers() == []


def test_without_k_the_first_failure_ends_the_run_and_nothing_stays_behind(lab: Lab) -> None:
    lab.write("Snakefile", FAILING)
    lab.worker()
    assert "told by 3" in lab.run(code=1)
    wait_for(lambda: set(lab.counts()) == {"dead"}, "what was under way to end")


SIZES = """
rule all:
    input:
        expand("out/{n}.txt", n=range(4)),
        "big.txt",
        "slow.txt",


rule small:
    output:
        "out/{n}.txt",
    threads: 2
    resources:
        mem_mb=100,
    shell:
        "echo +{threads} >> used; sleep 0.5; echo -{threads} >> used; touch {output}"


rule big:
    output:
        "big.txt",
    threads: 3
    resources:
        mem_mb=500,
        runtime=7,
    shell:
        "echo +{threads} >> used; sleep 0.5; echo -{threads} >> used; touch {output}"


rule elsewhere:
    output:
        "slow.txt",
    resources:
        ddmq_queue="slow",
    shell:
        "touch {output}"
"""


def test_jobs_say_what_they_need_and_workers_heed_it(lab: Lab) -> None:
    lab.write("Snakefile", SIZES)
    controller = lab.snakemake()
    wait_for(lambda: len(lab.bodies()) == 5, "the jobs")
    needs = {message.message["name"]: message for message in lab.waiting()}
    assert needs["big"].slots == 3 and needs["big"].memory == 500 * 10**6 and needs["big"].time_request == 420
    assert needs["small[n=2]"].slots == 2 and needs["small[n=2]"].memory == 100 * 10**6
    wait_for(lambda: [message.message["name"] for message in lab.waiting("slow")] == ["elsewhere"], "the other queue")
    lab.worker("-j", "4", "--memory", "550M")
    lab.worker(queue="slow")
    assert controller.wait(120) == 0, lab.log(controller)
    used = most = 0
    for line in lab.read("used").split():
        used += int(line)
        most = max(most, used)
    assert used == 0 and 3 <= most <= 4


def test_rules_that_workers_cannot_do_alone_are_run_by_snakemake_in_direct_mode(lab: Lab) -> None:
    lab.write("Snakefile", RICH)
    lab.write("scripts/write.py", "")
    controller = lab.snakemake("--config", "word=x", mode="direct", jobs=100, SECRET_TOKEN="x")
    direct = {"named", "env", "first", "temporary", "retried", "threads"}
    wait_for(lambda: len(lab.bodies()) == 17, "the jobs")
    kinds = {job["name"].partition("[")[0]: bool(job["shell"]) for job in lab.bodies()}
    assert {name for name, alone in kinds.items() if alone} == direct - {"first"}
    assert not kinds["script"] and not kinds["run"] and not kinds["bench"] and not kinds["split"]
    controller.kill()


def test_a_setup_for_a_shell_is_run_by_one(lab: Lab) -> None:
    lab.write("Snakefile", "rule one:\n    output:\n        'x'\n    shell:\n        'echo $FROM_BEFORE > {output}'\n")
    lab.worker()
    lab.run("--precommand", "export FROM_BEFORE='it is set'")
    assert lab.read("x") == "it is set\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--ddmq-queue", "jobs"), "write --ddmq-queue ROOT/QUEUE"),
        (("--ddmq-queue", "/tmp/a b/c d"), "bad queue name"),
        (("--ddmq-queue", "{root}/jobs", "--ddmq-mode", "quick"), "use fork, direct, plain"),
        (("--ddmq-queue", "/proc/nothing/jobs"), "/proc/nothing"),
    ],
)
def test_wrong_settings_end_the_run_in_a_line(lab: Lab, options: tuple[str, ...], told: str) -> None:
    lab.write("Snakefile", FAILING)
    given = [option.format(root=lab.root) for option in options]
    ended = subprocess.run(
        [BIN / "snakemake", "--executor", "ddmq", "-j", "1", *given],
        cwd=lab.directory, env=lab.environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 1 and told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_who_has_no_worker_or_none_with_room_is_told_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddmq_hpc.messages import NO_OPTIONS, Options
    from ddmq_hpc.snakemake import dispatch
    from ddmq_hpc.snakemake.jobs import Job

    monkeypatch.setattr(dispatch, "_WORKERS_FIRST", 0.0)
    jobs = dispatch.Dispatch(lab.broker.queue("jobs"), "a" * 16)
    monkeypatch.setattr(dispatch, "_WORKERS_LONGER", 0.0)
    assert jobs.hindrance() is None
    ident = jobs.publish("key", Job("a" * 16, "one", "/", shell="while [ ! -e go ]; do sleep 0.1; done"), NO_OPTIONS)
    assert jobs.hindrance() == "no worker is there"
    large = jobs.publish("large", Job("a" * 16, "two", "/", shell="true"), Options(slots=99))
    lab.worker()
    wait_for(lambda: jobs.hindrance() is None, "the worker")
    jobs.cancel([ident])
    wait_for(lambda: jobs.hindrance() == "the workers that are there take none of them", "what nobody has room for")
    assert [each.ident for each in jobs.withdraw()] == [large] and lab.counts() == {}


def test_a_worker_of_jobs_waits_for_more_where_another_one_would_end(lab: Lab) -> None:
    worker = lab.worker_as_it_comes()
    wait_for(lambda: list((lab.root / "jobs" / "workers").glob("*.json")), "the worker")
    lab.write("Snakefile", "rule one:\n    output:\n        'x'\n    shell:\n        'touch {output}'\n")
    lab.run()
    assert worker.poll() is None


def test_a_worker_without_snakemake_names_the_extra(lab: Lab) -> None:
    script = (
        "import importlib.metadata as m; find = m.version\n"
        "def version(name):\n    if name == 'snakemake': raise m.PackageNotFoundError(name)\n    return find(name)\n"
        "m.version = version\nfrom ddmq_hpc.cli.main import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "work", str(lab.root), "jobs", "--snakemake"],
        env=lab.environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1 and "pip install 'ddmq-hpc[snakemake]'" in ended.stderr


@pytest.mark.parametrize("how", [("--shell",), ("--", "touch", "{}")])
def test_a_worker_for_commands_runs_no_jobs_and_puts_them_back(lab: Lab, how: tuple[str, ...]) -> None:
    from ddmq_hpc.snakemake.jobs import Job

    lab.broker.publish("jobs", Job("a" * 16, "one", "/", shell="true").body())
    ended = subprocess.run(
        [BIN / "ddmq-hpc", "work", lab.root, "jobs", *how],
        env=lab.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2 and "for `ddmq-hpc work --snakemake` alone" in ended.stderr
    assert lab.counts() == {"ready": 1}


@pytest.mark.parametrize("mode", ["fork", "direct"])
def test_a_job_that_says_nothing_is_told_of_by_how_it_ended(lab: Lab, mode: str) -> None:
    lab.write("Snakefile", "rule one:\n    output:\n        'x'\n    shell:\n        'exit 9'\n")
    lab.worker()
    said = lab.run(mode=mode, code=1)
    assert ("exit code 9" if mode == "direct" else "exit code 1") in said
    error = said[said.index("Error in rule one") :]
    assert "scheduler-solver-path" not in error and len(error.splitlines()) < 40, error


def test_sigterm_waits_for_what_runs_and_withdraws_the_rest(lab: Lab) -> None:
    lab.write("Snakefile", FAILING.replace("test {wildcards.n} != 3", "while [ ! -e go ]; do sleep 0.1; done"))
    controller = lab.snakemake()
    wait_for(lambda: lab.counts() == {"ready": 6}, "the jobs")
    lab.worker()
    wait_for(lambda: lab.counts().get("leased") == 1, "one to begin")
    controller.terminate()
    wait_for(lambda: lab.counts() == {"leased": 1}, "the others to be withdrawn")
    lab.write("go", "")
    assert controller.wait(60) != 0
    assert len(of_state(lab.records(), "acked")) == 1 and lab.counts() == {}


def test_other_messages_are_not_run_and_put_back(lab: Lab) -> None:
    lab.broker.publish("jobs", "touch danger")
    worker = lab.worker()
    assert worker.wait(60) == 2
    assert "not a job of Snakemake's executor" in lab.log(worker)
    assert lab.counts() == {"ready": 1}
    assert not os.path.exists(lab.directory / "danger")
