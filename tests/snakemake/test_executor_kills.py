"""What is killed: workers, jobs, the process that forks them, and the Snakemake that waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest
from executor_tools import Lab, of_state, wait_for
from rules_tools import require_snakemake

from ddmq_hpc import admin

require_snakemake()

#: Each job tells that it began, and goes on once there is a file `go`.
HELD = '''
rule all:
    input:
        expand("out/{n}.txt", n=range(6)),


rule one:
    output:
        "out/{n}.txt",
    shell:
        """
        echo {wildcards.n} >> starts
        echo half > {output}
        while [ ! -e go ]; do sleep 0.1; done
        echo {wildcards.n} > {output}
        """
'''


@pytest.fixture(autouse=True)
def held(lab: Lab) -> Iterator[None]:
    lab.write("Snakefile", HELD)
    yield
    lab.write("go", "")


def _starts(lab: Lab) -> list[str]:
    return lab.read("starts").split()


def _kill(lab: Lab, controller: subprocess.Popen[str]) -> None:
    """As a user does: what Snakemake then wants before it starts again is `--unlock`."""
    controller.kill()
    controller.wait()
    lab.run("--unlock")


def _results(lab: Lab) -> list[str]:
    return sorted(path.read_text().strip() for path in (lab.directory / "out").glob("*.txt"))


def _below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _fork_server(worker: subprocess.Popen[str]) -> psutil.Process:
    return next(p for p in psutil.Process(worker.pid).children() if "forkserver" in " ".join(p.cmdline()))


@pytest.mark.parametrize("mode", ["fork", "direct"])
def test_jobs_of_a_killed_worker_are_run_by_another_and_nothing_of_them_stays(lab: Lab, mode: str) -> None:
    worker = lab.worker("-j", "2")
    controller = lab.snakemake(mode=mode)
    wait_for(lambda: len(_starts(lab)) == 2, "two jobs to begin")
    below = _below(worker)
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not [process for process in below if process.is_running()], "its processes to end")
    lab.write("go", "")
    lab.worker("-j", "2")
    assert controller.wait(120) == 0, lab.log(controller)
    assert _results(lab) == list("012345")
    assert len(_starts(lab)) == 8
    assert len(of_state(lab.records(), "lost")) == 2 and len(of_state(lab.records(), "acked")) == 6


def test_a_killed_job_has_failed_and_is_tried_again_as_often_as_the_rule_says(lab: Lab) -> None:
    lab.write("Snakefile", HELD.replace("    shell:", "    retries: 1\n    shell:"))
    worker = lab.worker()
    controller = lab.snakemake()
    wait_for(lambda: len(_starts(lab)) == 1, "a job to begin")
    [job] = _fork_server(worker).children()
    job.kill()
    lab.write("go", "")
    assert controller.wait(120) == 0, lab.log(controller)
    assert _results(lab) == list("012345") and len(_starts(lab)) == 7
    [failed] = of_state(lab.records(), "nacked")
    assert failed["signal"] == signal.SIGKILL and failed["exit"] == 137


def test_when_the_process_that_forks_is_killed_its_jobs_are_run_again_from_a_new_one(lab: Lab) -> None:
    worker = lab.worker("-j", "2")
    controller = lab.snakemake()
    wait_for(lambda: len(_starts(lab)) == 2, "two jobs to begin")
    server = _fork_server(worker)
    jobs = server.children(recursive=True)
    server.kill()
    wait_for(lambda: not [process for process in jobs if process.is_running()], "its jobs to end")
    lab.write("go", "")
    assert controller.wait(120) == 0, lab.log(controller)
    assert _results(lab) == list("012345") and worker.poll() is None
    assert len(of_state(lab.records(), "nacked")) == 2


@pytest.mark.parametrize("mode", ["fork", "direct", "plain"])
def test_who_starts_again_after_a_kill_takes_over_what_waits_runs_and_is_done(lab: Lab, mode: str) -> None:
    """Each job begins once, whatever became of it while nobody looked."""
    lab.worker("-j", "3")
    first = lab.snakemake(mode=mode)
    wait_for(lambda: len(_starts(lab)) == 3 and sum(lab.counts().values()) == 6, "three jobs to begin, three to wait")
    _kill(lab, first)
    queue = lab.broker.queue("jobs")
    if mode == "direct":
        lab.write("go", "")  # they are all done before anybody looks
        wait_for(lambda: lab.counts() == {}, "the jobs to end")
    ids = {found.entry.pack for found in admin.entries(queue)}
    second = lab.snakemake("--rerun-incomplete", mode=mode)
    wait_for(lambda: "earlier run" in lab.log(second), "the jobs to be taken over")
    lab.write("go", "")
    assert second.wait(120) == 0, lab.log(second)
    assert lab.log(second).count("earlier run") == 6
    assert sorted(_starts(lab)) == list("012345") and _results(lab) == list("012345")
    assert not {found.entry.pack for found in admin.entries(queue)} - ids
    assert lab.leftovers() == []


def test_what_waits_is_published_anew_when_the_rule_says_something_else_now(lab: Lab) -> None:
    first = lab.snakemake(mode="direct")
    wait_for(lambda: len(lab.bodies()) == 6, "the jobs")
    _kill(lab, first)
    lab.write("Snakefile", HELD.replace("echo half", "echo other"))
    lab.write("go", "")
    second = lab.snakemake("--rerun-incomplete", mode="direct")
    wait_for(lambda: len([job for job in lab.bodies() if "echo other" in job["shell"]]) == 6, "the new jobs")
    assert len(lab.bodies()) == 6
    lab.worker("-j", "3")
    assert second.wait(120) == 0, lab.log(second)
    assert _results(lab) == list("012345") and len(_starts(lab)) == 6


def test_ctrl_c_removes_what_waits_and_ends_what_runs(lab: Lab) -> None:
    (lab.root / "jobs" / "ddmq.yaml").write_text("durable: false\ntimeout: 3\n")
    worker = lab.worker("-j", "2")
    controller = lab.snakemake()
    wait_for(lambda: len(_starts(lab)) == 2 and sum(lab.counts().values()) == 6, "the jobs")
    controller.send_signal(signal.SIGINT)
    assert controller.wait(60) != 0
    assert lab.counts() == {} and lab.leftovers() == []
    wait_for(lambda: not _fork_server(worker).children(), "the jobs that ran to be ended")
    assert len(of_state(lab.records(), "cancelled")) == 6
    # The next run finds nothing in its way.
    lab.write("go", "")
    again = lab.snakemake("--rerun-incomplete")
    assert again.wait(120) == 0, lab.log(again)
    assert _results(lab) == list("012345")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert ", 2 cancelled in " in lab.log(worker).splitlines()[-1]


def test_a_worker_whose_job_ends_gives_its_jobs_back_and_tells_nobody_that_they_failed(lab: Lab) -> None:
    worker = lab.worker("-j", "2", "--grace", "5s")
    controller = lab.snakemake()
    wait_for(lambda: len(_starts(lab)) == 2, "two jobs to begin")
    worker.terminate()
    assert worker.wait(60) == 0
    assert "2 released" in lab.log(worker)
    lab.write("go", "")
    lab.worker("-j", "2")
    assert controller.wait(120) == 0, lab.log(controller)
    assert len(of_state(lab.records(), "acked")) == 6 and not of_state(lab.records(), "nacked")


def test_a_job_that_is_reported_is_not_run_again_when_its_ack_was_missing(lab: Lab) -> None:
    """Downstream may read its output by then."""
    from ddmq_hpc.messages import NO_OPTIONS
    from ddmq_hpc.snakemake import reports
    from ddmq_hpc.snakemake.dispatch import Dispatch
    from ddmq_hpc.snakemake.jobs import Job

    directory = "a" * 16
    dispatch = Dispatch(lab.broker.queue("jobs"), directory)
    job = Job(directory, "one", str(lab.directory), shell="echo again >> starts")
    ident = dispatch.publish("key", job, NO_OPTIONS)
    [message] = lab.broker.consume("jobs")
    reports.write(lab.broker.queue("jobs"), directory, reports.Report(ident, 0))
    assert [ended.code for ended in dispatch.ended()] == [0]
    lab.broker.nack(message)  # as if its worker had died before the ack
    assert dispatch.ended() == [] and reports.listed(lab.broker.queue("jobs"), directory)
    worker = lab.worker("--until", "empty")
    assert worker.wait(60) == 0, lab.log(worker)
    assert _starts(lab) == [] and lab.counts() == {}
    dispatch.close()
    assert lab.leftovers() == []


def test_jobs_whose_workers_always_die_and_jobs_that_somebody_purged_are_told_of(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddmq_hpc.messages import Options
    from ddmq_hpc.snakemake import dispatch as module
    from ddmq_hpc.snakemake.jobs import Job

    monkeypatch.setattr(module, "_MISSING_EVERY", 0.0)
    directory, queue = "a" * 16, lab.broker.queue("jobs")
    dispatch = module.Dispatch(queue, directory)
    deadly = dispatch.publish("one", Job(directory, "one", "/"), Options(loss_limit=0))
    kept = dispatch.publish("two", Job(directory, "two", "/"), Options())
    lab.broker.consume("jobs", lease=0.001)
    (lab.root / "jobs" / "ddmq.yaml").write_text("grace: 0\n")
    wait_for(lambda: queue.sweep().dead or lab.counts().get("dead"), "the lease to run out")
    [ended] = dispatch.ended()
    assert ended.ident == deadly and ended.code != 0 and "1 workers died or lost it" in ended.text
    lab.broker.purge_queue("jobs")
    told = [each for _ in range(3) for each in dispatch.ended()]
    assert [(each.ident, "removed" in each.text) for each in told] == [(kept, True)]
