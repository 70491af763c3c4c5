"""Runs that are cancelled or killed, and the ones after them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rules_tools import Site, require_snakemake, wait_for

require_snakemake()

TWELVE = range(12)
#: Tells its start, writes half of its result, and waits for the file `go` before it writes the other half. Without the
#: trap a shell outlives Ctrl-C if what it waited for had just ended by itself (3 of 600 did).
HALVES = (
    "trap 'exit 130' INT; echo {params.task[n]} >> starts; printf 1 > {output}; "
    "while [ ! -e go ]; do sleep 0.05; done; printf %03d {params.task[n]} >> {output}"
)
WHOLE = [1000 + n for n in TWELVE]
#: The host's name and the moment of death as a test wants them: read by every Python of a run.
SITECUSTOMIZE = """
import os, signal

if name := os.environ.get("TEST_HOST"):
    from collections import namedtuple

    found = tuple(os.uname())
    Uname = namedtuple("Uname", "sysname nodename release version machine")
    os.uname = lambda: Uname(found[0], name, *found[2:])

if os.environ.get("TEST_DIES_AT_ACK"):
    from ddmq_hpc.queue import Queue

    Queue.ack_one = lambda self, message, outcome: os.kill(os.getpid(), signal.SIGKILL)

if os.environ.get("TEST_REFUSED_ACKS"):
    import errno

    from ddmq_hpc.errors import storage_error
    from ddmq_hpc.queue import Queue

    refusals = [errno.ENOSPC] * 3

    def ack_one(self, message, outcome, ack_one=Queue.ack_one):
        if refusals:
            raise storage_error(OSError(refusals.pop(), "full"), "settle a message")
        ack_one(self, message, outcome)

    Queue.ack_one = ack_one
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    made.environment["PYTHONPATH"] = f"{tmp_path / 'python'}:{os.environ.get('PYTHONPATH', '')}"
    yield made
    made.end()


def begun(site: Site, count: int, *arguments: str) -> subprocess.Popen[str]:
    """A run in which so many tasks are half done."""
    process = site.start(*arguments)
    wait_for(lambda: len(site.starts) == count, f"{count} tasks")
    wait_for(lambda: len(list(site.directory.glob("results/*"))) == count, "their half results")
    return process


def let_go(site: Site) -> None:
    (site.directory / "go").touch()


def test_ctrl_c_puts_everything_back_at_once(site: Site) -> None:
    """No timer of Snakemake's is waited for: this one would ring in ten minutes."""
    site.write("max_inflight=4", command=HALVES)
    site.publish(*TWELVE)
    process = begun(site, 4, "--queue-input-wait-time", "600")
    wait_for(lambda: "Waiting for queue input" in site.log, "a timer")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 1
    assert site.attempts() == [(0, 0)] * 12
    assert site.states() == {"ready": 12}
    let_go(site)
    assert site.run() == 0, site.log
    assert site.results == WHOLE


def test_sigterm_lets_running_jobs_finish(site: Site) -> None:
    site.write(command=HALVES)
    site.publish(*TWELVE)
    process = begun(site, 4)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: "Will exit after finishing" in site.log, "the signal to be seen")
    let_go(site)
    assert process.wait(60) == 1
    assert site.results == sorted(1000 + n for n in site.starts)
    assert site.outcomes()["acked"] == 4
    assert site.attempts() == [(0, 0)] * 8
    assert site.states() == {"ready": 8}


def test_jobs_that_a_signal_ended_did_not_fail(site: Site) -> None:
    """As when a batch job ends: all of its processes get SIGTERM."""
    site.write(command=HALVES)
    site.publish(*TWELVE)
    process = begun(site, 4)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: "Will exit after finishing" in site.log, "the signal to be seen")
    for child in children(process.pid):
        with suppress(ProcessLookupError):  # they come and go
            os.kill(child, signal.SIGTERM)
    assert process.wait(60) == 1
    assert site.attempts() == [(0, 0)] * 12
    assert site.states() == {"ready": 12}


def test_sigterm_while_the_scheduler_is_busy_hangs_nobody(site: Site) -> None:
    """Snakemake's handler wants a lock that the interrupted thread holds."""
    site.write(command=HALVES)
    busy = (
        "import time\nfrom snakemake.scheduling.job_scheduler import JobScheduler\n"
        "def busy(self, finish=JobScheduler._finish_jobs):\n"
        "    open('busy', 'w').close()\n    time.sleep(2)\n    finish(self)\n"
        "JobScheduler._finish_jobs = busy\n"
    )
    text = (site.directory / "Snakefile").read_text(encoding="utf-8")
    (site.directory / "Snakefile").write_text(busy + text, encoding="utf-8")
    site.publish(*TWELVE)
    process = site.start()
    wait_for(lambda: (site.directory / "busy").exists(), "the scheduler")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    assert site.states() == {"ready": 12}
    assert site.attempts() == [(0, 0)] * 12


def test_an_ack_that_is_refused_is_tried_again(site: Site) -> None:
    site.write(command=HALVES)
    let_go(site)
    site.publish(*TWELVE)
    site.environment["TEST_REFUSED_ACKS"] = "1"
    assert site.run() == 0, site.log
    assert "the disk is full" in site.log
    assert site.outcomes() == {"acked": 12}
    assert sorted(site.starts) == list(TWELVE)


def children(parent: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(parent).children(recursive=True)]


def test_a_killed_run_is_taken_up_by_a_plain_restart(site: Site) -> None:
    """Half-written results are made again, no attempt is counted, and nothing is to be unlocked."""
    site.write(command=HALVES)
    site.publish(*TWELVE)
    process = begun(site, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    assert site.states() == {"leased": 12}
    let_go(site)
    assert site.run() == 0, site.log
    assert "12 tasks of a run that was killed are put back" in site.log
    assert site.results == WHOLE
    assert site.states() == {}
    assert site.outcomes() == {"released": 1, "acked": 12}


def test_a_restart_on_another_host_does_not_wait_for_the_lease(site: Site) -> None:
    """There nobody can see that the process is gone: only its lock on the directory is waited for."""
    site.write("lease=3600", command=HALVES)
    shorten_the_lock(site)
    site.publish(*TWELVE)
    site.environment["TEST_HOST"] = "alpha"
    process = begun(site, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    let_go(site)
    site.environment["TEST_HOST"] = "beta"
    assert site.run() == 0, site.log
    assert "on alpha" in site.log
    assert site.results == WHOLE
    assert site.states() == {}
    assert site.outcomes() == {"released": 1, "acked": 12}


def shorten_the_lock(site: Site) -> None:
    """For tests that wait for it."""
    with open(site.directory.parent / "python" / "sitecustomize.py", "a", encoding="utf-8") as file:
        file.write("\nimport ddmq_hpc.snakemake.workdir as workdir\nworkdir.LEASE = 5.0\nworkdir._LOCK_GRACE = 5.0\n")


def test_what_was_done_and_not_acked_is_acked_by_the_next_run(site: Site) -> None:
    site.write(command=HALVES)
    let_go(site)
    site.publish(5)
    site.environment["TEST_DIES_AT_ACK"] = "1"
    assert site.run() == -signal.SIGKILL
    assert site.results == [1005]
    del site.environment["TEST_DIES_AT_ACK"]
    assert site.run() == 0, site.log
    assert site.starts == [5]
    assert site.states() == {}


def test_half_written_files_on_the_way_are_made_again_too(site: Site) -> None:
    site.write(command="cp {input} {output}", more='input:\n        "work/{task}.in",')
    with open(site.directory / "Snakefile", "a", encoding="utf-8") as file:
        half = HALVES.replace("{output}", "{output[0]}")
        file.write(f'rule half:\n    output: "work/{{task}}.in"\n    params: task=queue.body\n    shell: {half!r}\n')
    site.publish(5)
    process = site.start()
    wait_for(lambda: list(site.directory.glob("work/*")), "half a file")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    let_go(site)
    assert site.run() == 0, site.log
    assert site.results == [1005]


def test_a_second_run_in_the_same_directory_is_refused(site: Site) -> None:
    site.write(command=HALVES)
    site.publish(*TWELVE)
    process = begun(site, 4)
    assert site.run() == 1
    assert "another run takes tasks in this directory" in site.log
    assert site.states() == {"leased": 12}
    let_go(site)
    assert process.wait(60) == 0, site.log
    assert sorted(site.starts) == list(TWELVE)


def test_a_copy_of_a_directory_takes_nothing_from_its_original(site: Site) -> None:
    site.write("max_inflight=4", command=HALVES)
    site.publish(*TWELVE)
    process = begun(site, 4)
    # As it looks on another host: there nobody sees that the first run is alive.
    site.environment["TEST_HOST"] = "beta"
    copy = site.directory.parent / "copy"
    shutil.copytree(site.directory, copy)
    shutil.rmtree(copy / ".snakemake" / "ddmq-hpc.lock")
    (copy / "go").touch()
    command = [*process.args]
    done = subprocess.run(command, cwd=copy, env=site.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    let_go(site)
    assert process.wait(60) == 0, site.log
    assert "is not acked" not in site.log
    assert site.outcomes() == {"acked": 12}


def test_heartbeats_hold_what_takes_longer_than_its_lease(site: Site) -> None:
    site.write("lease=2", command=HALVES)
    site.publish(*TWELVE)
    process = begun(site, 4)
    deadline = time.monotonic() + 6
    wait_for(lambda: time.monotonic() > deadline, "the leases to be over but for heartbeats")
    assert site.broker.consume("tasks") == []
    let_go(site)
    assert process.wait(60) == 0, site.log
    assert site.outcomes() == {"acked": 12}


def test_idle_runs_do_not_gather_threads(site: Site) -> None:
    """Each job that ended left a timer, a thread, for as long as the run waited for tasks."""
    site.write("until='forever', max_inflight=20")
    site.publish(*range(40))
    process = site.start()
    wait_for(lambda: site.states() == {}, "all to be done")
    threads = len(os.listdir(f"/proc/{process.pid}/task"))
    assert threads < 20, site.log
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
