"""Workers in jobs of a real Grid Engine cell, and what a queue makes of it when their jobs end.

Here all jobs run on the host of the tests, where a dead worker is known by its process id. On a cluster, only the
scheduler can tell. So `recover` runs in a PID namespace of its own: process ids of leases mean nothing to it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cell import APART, Cell, wait_for

from ddmq_hpc import admin
from ddmq_hpc.broker import Broker
from ddmq_hpc.doctor import company

pytestmark = pytest.mark.sge

SCRIPT = str(Path(__file__).parents[2] / "slurm" / "worker.sge")
COMMAND = str(Path(sys.executable).with_name("ddmq-hpc"))
#: A task that is to be killed, unlike any other process of this host.
ENDLESS = f"sleep {100_000 + os.getpid()}"


class Work:
    """One queue in a fresh root, and the jobs that drain it."""

    def __init__(self, cell: Cell, home: Path) -> None:
        self.cell = cell
        self.home = home
        self.root = str(home / "root")
        #: What the tasks did, a line each: a task that is done twice leaves two.
        self.log = home / "log"
        self.path = f"{Path(sys.executable).parent}:{cell.env['PATH']}"
        self.ddmq("create", "-f", self.root, "tasks")

    def ddmq(self, *arguments: str) -> str:
        return self.cell.run(COMMAND, *arguments, directory=self.home, PATH=self.path)

    def publish(self, *messages: object) -> None:
        lines = self.home / "messages.txt"
        lines.write_text("".join(f"{message}\n" for message in messages))
        self.ddmq("publish", self.root, "tasks", "--each-line", str(lines))

    def submit(self, *arguments: str, options: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> str:
        """A job whose process is a worker, or what runs one."""
        usual = ("-V", "-cwd", "-j", "y", "-b", "y", "-shell", "n", *options)
        command = (*before, COMMAND, "work", self.root, "tasks", *arguments)
        return self.cell.submit(*usual, *command, directory=self.home, PATH=self.path)

    def submit_script(self, *arguments: str, options: tuple[str, ...] = ()) -> str:
        """The job script that users get."""
        command = (SCRIPT, self.root, "tasks", *arguments)
        return self.cell.submit(*options, *command, directory=self.home, PATH=self.path)

    def recover(self) -> dict[str, Any]:
        """What `recover` says, as on another host."""
        said = self.cell.run(*APART, COMMAND, "recover", self.root, "tasks", "--format", "json")
        [found] = json.loads(said)["queues"]
        return dict(found)

    def counts(self) -> dict[str, int]:
        [status] = json.loads(self.ddmq("status", self.root, "tasks", "--format", "json"))["queues"]
        return {state: status[state] for state in ("ready", "leased", "delayed", "dead") if status[state]}

    def budgets(self) -> list[tuple[int, int]]:
        """How often each message that is ready has failed, and was lost with its worker."""
        ready = [item.message for item in admin.items(Broker(self.root).queue("tasks"), ("ready",))]
        return [(message.failed, message.lost) for message in ready]

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for_line(self, line: str) -> None:
        wait_for(lambda: line in self.lines(), 60, f"{line!r} in the log", lambda: f"{self.lines()}\n{self.output()}")

    def output(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in sorted(self.home.glob("*.o[0-9]*")))


@pytest.fixture
def work(cell: Cell, tmp_path: Path) -> Iterator[Work]:
    found = Work(cell, tmp_path)
    yield found
    print(found.output(), cell.logs(), sep="\n")  # shown when the test has failed
    cell.clear()


def label(job: str) -> str:
    return f"sge-{job}=localhost"


def judged(**expected: Any) -> dict[str, Any]:
    """What `recover` says but for what it has to."""
    nothing: dict[str, Any] = {"checked": 0, "ended": [], "unknown": [], "held": 0, "requeued": 0, "dead": 0}
    return {"queue": "tasks", **nothing, **expected}


def task(then: str) -> tuple[str, ...]:
    """A command that says when it starts, does something, and says that it is done."""
    return ("--", "sh", "-c", f"echo start {{}} >> log; {then} && echo done {{}} >> log")


def processes(text: str) -> str:
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in found.splitlines() if text in line)


def test_an_array_does_100_tasks_once_each(work: Work) -> None:
    work.publish(*range(100))
    command = ("sh", "-c", "sleep 0.1; echo {} $SGE_TASK_ID >> log")

    job = work.submit("--", *command, options=("-t", "1-4"))
    work.cell.wait(job)

    done = [line.split() for line in work.lines()]
    assert sorted(int(number) for number, _ in done) == list(range(100)), work.output()
    assert {index for _, index in done} == {"1", "2", "3", "4"}
    assert work.counts() == {}


def test_the_script_of_workers_runs_as_it_is(work: Work) -> None:
    work.publish(*range(60))

    work.cell.wait(work.submit_script("-j", "2", "--", "sh", "-c", "echo {} >> log"))

    assert sorted(map(int, work.lines())) == list(range(60)), work.output()
    assert work.counts() == {}


def test_submitted_workers_and_those_that_are_missing(work: Work) -> None:
    """`submit` with two slots a worker; `scale` counts what waits and runs, and tops it up."""
    work.publish(*range(40))
    command = task("while [ ! -e go ]; do sleep 0.1; done")
    usual = ("--scheduler", "sge", "--slots", "2", "--time", "5m")
    [line] = work.ddmq("submit", work.root, "tasks", "--workers", "2", *usual, *command).splitlines()
    first = line.split("\t")[0]
    wait_for(lambda: len(work.lines()) == 4, 60, "two workers to begin two tasks each", work.output)

    assert work.ddmq("scale", work.root, "tasks", "--max", "2") == ""
    second, count = work.ddmq("scale", work.root, "tasks", "--max", "3").split("\t")
    assert count == "1 worker"
    assert work.ddmq("scale", work.root, "tasks", "--max", "3") == ""
    (work.home / "go").touch()
    work.cell.wait(first)
    work.cell.wait(second)

    assert sorted(work.lines()) == sorted(f"{what} {n}" for n in range(40) for what in ("start", "done"))
    assert work.counts() == {}
    assert work.ddmq("scale", work.root, "tasks", "--max", "3") == "", "there is nothing to do"


def test_what_a_deleted_job_held_comes_back_as_lost(work: Work) -> None:
    """`qdel` alone kills at once. The lease has an hour to run."""
    work.publish("one")
    job = work.submit("--lease", "1h", *task(ENDLESS))
    work.wait_for_line("start one")
    assert work.recover() == judged(checked=1)

    work.cell.delete(job)
    work.cell.wait(job)

    assert work.recover() == judged(checked=1, ended=[label(job)], held=1, requeued=1)
    assert work.budgets() == [(0, 1)]
    wait_for(lambda: not processes(ENDLESS), 10, "the task to be killed")


def test_a_job_gives_its_messages_back_at_its_soft_limit(work: Work) -> None:
    """USR1, at s_rt."""
    work.publish("one", "two")

    job = work.submit("--lease", "1h", *task(ENDLESS), options=("-l", "s_rt=00:00:10"))
    work.cell.wait(job)

    assert work.lines() == ["start one"]
    assert work.cell.exit_status(job) == "0", work.output()
    assert work.budgets() == [(0, 0), (0, 0)]
    assert not processes(ENDLESS)


@pytest.mark.parametrize("how", ["command", "script"])
def test_a_job_with_notify_gives_its_messages_back_when_it_is_deleted(work: Work, how: str) -> None:
    """USR2, some time ahead of the kill. The script asks for it by itself."""
    work.publish("one", "two")
    worker = ("--lease", "1h", *task(ENDLESS))
    if how == "script":
        job = work.submit_script(*worker, options=("-t", "1"))
    else:
        job = work.submit(*worker, options=("-notify",))
    work.wait_for_line("start one")

    work.cell.delete(job)
    work.cell.wait(job)

    assert work.cell.exit_status(job) == "0", work.output()
    assert work.budgets() == [(0, 0), (0, 0)]
    assert not processes(ENDLESS)


def test_a_job_goes_on_without_its_execution_daemon(work: Work) -> None:
    """Grid Engine misses the host and calls the job running all the same: nobody else may have its messages."""
    work.publish("one", "two", "three")
    job = work.submit("--lease", "1h", *task("while [ ! -e go ]; do sleep 0.1; done"))
    work.wait_for_line("start one")
    wait_for(lambda: work.cell.state(job) == "r", 60, "the queue master to hear of the start")
    work.cell.kill_execd()
    try:
        wait_for(lambda: "u" in work.cell.host_state(), 60, "the host to be missed")
        assert work.cell.state(job) == "r"
        assert work.recover() == judged(checked=1)
        (work.home / "go").touch()
        wait_for(lambda: not processes(work.root), 60, "the worker to end")
        # a new daemon takes a minute to find out
        work.cell.forget(job)
    finally:
        work.cell.start_execd()

    assert work.lines() == [f"{what} {message}" for message in ("one", "two", "three") for what in ("start", "done")]
    assert work.counts() == {}, work.output()


def test_work_goes_on_without_the_queue_master(work: Work) -> None:
    """When nobody can tell which jobs have ended, none has."""
    work.publish(*range(20))
    job = work.submit("--lease", "1h", *task("while [ ! -e go ]; do sleep 0.1; done"), options=("-t", "1-2"))
    wait_for(lambda: len(work.lines()) == 2, 60, "both workers to begin")
    work.cell.kill_qmaster()
    try:
        labels = [label(f"{job}.{index}") for index in (1, 2)]
        assert work.recover() == judged(checked=2, unknown=labels)
        (work.home / "go").touch()
        wait_for(lambda: work.counts() == {}, 60, "the queue to be drained", work.output)
        wait_for(lambda: not processes(work.root), 60, "the workers to end")
    finally:
        work.cell.start_qmaster()
        # the execution daemon would take half a minute to find its queue master again
        work.cell.kill_execd()
        work.cell.start_execd()
    work.cell.forget(job)

    assert sorted(work.lines()) == sorted(f"{what} {n}" for n in range(20) for what in ("start", "done"))


def test_a_job_that_runs_again_leaves_to_its_former_run_what_that_held(work: Work) -> None:
    """The same job on the same host, perhaps even with the same process id: only RESTARTED tells the runs apart. The
    worker is in a PID namespace so that the second one does not see that the first one is dead."""
    work.publish("one", "two")
    wait = task("while [ ! -e go ]; do sleep 0.1; done")
    job = work.submit("--lease", "1h", "--until", "drained", *wait, options=("-r", "y"), before=APART)
    work.wait_for_line("start one")

    work.cell.run("qmod", "-rj", job)
    work.wait_for_line("start two")
    wait_for(lambda: work.cell.state(job) == "Rr", 60, "the queue master to hear of the second start")
    # unless the second run asks first, as workers do by themselves
    assert work.recover()["ended"] in ([label(job)], [])
    wait_for(lambda: work.budgets() == [(0, 1)], 10, "the message to be ready")
    assert work.recover() == judged(checked=1)
    (work.home / "go").touch()
    work.cell.wait(job)

    assert work.lines() == ["start one", "start two", "done two", "start one", "done one"], work.output()
    assert work.counts() == {}


def test_the_command_that_doctor_advises_brings_two_together(work: Work) -> None:
    advised = company.command(str(work.home), {"JOB_ID": "1", "SGE_ROOT": work.cell.env["SGE_ROOT"]})
    line = advised.replace("qsub ", "qsub -terse ").replace("--peers", "--json --peers")
    job = work.cell.run("sh", "-c", line, directory=work.home, PATH=work.path).partition(".")[0]
    work.cell.wait(job)
    (printed,) = (text for log in work.home.glob("*.o[0-9]*") if (text := log.read_text()).startswith("{"))
    (peers,) = (finding for finding in json.loads(printed)["findings"] if finding["check"] == "peers")
    assert peers["measured"].startswith("2 doctors met"), peers
