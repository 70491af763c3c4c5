"""A private cell of Son of Grid Engine on this one host: real daemons, all state in one directory.

Nothing under /etc or /var is written and nothing is daemonized: the queue master and the execution daemon are plain
children of the test run, so that they can be killed by their handle and end with it even when it is killed. One
execution host only: Grid Engine knows a host by its address.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable
from xml.etree import ElementTree

import psutil

#: Where Debian's packages put the programs and what comes with them.
LIB, SHARE = Path("/usr/lib/gridengine"), Path("/usr/share/gridengine")
COMMANDS = {
    "setpriv": "util-linux",
    str(LIB / "sge_qmaster"): "gridengine-master",
    str(LIB / "sge_execd"): "gridengine-exec",
    str(LIB / "qsub"): "gridengine-client",
}

#: Runs a command in a PID namespace of its own, in which the processes of others mean nothing; all in it end together.
APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

# The administrator is root, who started it: daemons that change to another user lose the tie to the test run's life,
# and others than root cannot reach the directories of tests.
BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn false
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {home}/spooldb
binary_path {lib}
qmaster_spool_dir {home}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
GLOBAL = {
    "execd_spool_dir": "{home}/execd",
    "mailer": "/bin/true",
    # jobs run as root
    "min_uid": "0",
    "min_gid": "0",
    # the groups by which a job's processes are known, and killed: other cells on this host have other ones
    "gid_range": "{gids}",
    # an execution daemon that is gone is soon noticed; its jobs stay where they are
    "load_report_time": "00:00:02",
    "max_unheard": "00:00:05",
    "reschedule_unknown": "00:00:00",
    # the accounting lags less
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00",
}
SCHEDULER = {
    "schedule_interval": "0:0:2",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
}
QUEUE = {
    "qname": "all.q",
    "hostlist": "localhost",
    "slots": "16",
    # what else runs on this machine is no reason not to start a job
    "load_thresholds": "NONE",
    "rerun": "FALSE",
    "notify": "00:00:10",
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
    "tmpdir": "{home}/tmp",
    "pe_list": "smp",
}
#: For jobs of several slots: as many as they ask for, on one host.
PARALLEL_ENVIRONMENT = """\
pe_name smp
slots 9999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


def why_not() -> str | None:
    """Why no cell can be started here, or None."""
    if os.geteuid() != 0:
        return "a private Grid Engine cell needs root"
    missing = [package for command, package in COMMANDS.items() if not shutil.which(command)]
    if missing:
        return f"not installed: {', '.join(missing)}; `make test` installs them on Debian and Ubuntu"
    tried = subprocess.run([*APART, "true"], capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode else None


class Cell:
    """The daemons of one cell and the commands of its users."""

    def __init__(self, home: Path) -> None:
        self.home = home
        ports = dict(zip(("SGE_QMASTER_PORT", "SGE_EXECD_PORT"), map(str, free_ports(2))))
        arch = subprocess.run([SHARE / "util/arch"], capture_output=True, text=True, check=True).stdout.strip()
        #: What the commands need to find this cell.
        self.variables = {"SGE_ROOT": str(home), "SGE_CELL": "default", "SGE_ARCH": arch, **ports}
        self.env = {**os.environ, **self.variables}
        self.qmaster: subprocess.Popen[bytes] | None = None
        self.execd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the cell and start its daemons; return when its queue takes jobs."""
        self._make()
        self.start_qmaster()
        # a host that may run jobs is one that may submit them
        self.run("qconf", "-as", "localhost")
        self._change("conf", "global", GLOBAL)
        self._change("sconf", "", SCHEDULER)
        self._add("p", PARALLEL_ENVIRONMENT)
        self._add("q", self._edited(self.run("qconf", "-sq"), QUEUE))
        self.start_execd()

    def start_qmaster(self) -> None:
        self.qmaster = self._daemon("sge_qmaster")
        wait_for(lambda: self._answers("qconf", "-sh"), 30, "the queue master", self.logs)

    def start_execd(self) -> None:
        self.execd = self._daemon("sge_execd")
        wait_for(lambda: self.host_state() == "", 60, "the execution daemon", self.logs)

    def kill_qmaster(self) -> None:
        """As a crash does."""
        _kill(self.qmaster)
        self.qmaster = None

    def kill_execd(self) -> None:
        """As a crash does; the jobs go on."""
        _kill(self.execd)
        self.execd = None

    def clear(self) -> None:
        """End what jobs there are at once, in whatever state they and the daemons are."""
        for process in self._processes():
            # a killed shepherd would be taken for a fault of the host
            with suppress(psutil.NoSuchProcess):
                if not process.name().startswith("sge_"):
                    process.kill()
        if jobs := {name.partition(".")[0] for name in self.states()}:
            self._delete_at_once(*jobs)
            wait_for(lambda: not self.states(), 30, "the jobs to be forgotten", self.logs)

    def stop(self) -> None:
        """End the daemons, and the processes of jobs, which would outlive them."""
        self.kill_execd()
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.kill_qmaster()

    def run(self, *command: str, directory: Path | None = None, **env: str) -> str:
        """What a command of the user prints."""
        env = {**self.env, **env}
        done = subprocess.run(command, env=env, cwd=directory or self.home, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def submit(self, *arguments: str, directory: Path | None = None, **env: str) -> str:
        """The id of a new job; `arguments` and `env` are those of qsub."""
        return self.run("qsub", "-terse", *arguments, directory=directory, **env).partition(".")[0]

    def delete(self, *jobs: str) -> None:
        self.run("qdel", *jobs)

    def forget(self, job: str) -> None:
        """Delete a job whose processes have ended, without a word from the execution daemon."""
        self._delete_at_once(job)
        self.wait(job)

    def states(self) -> dict[str, str]:
        """The states of all jobs that are not over, by job, or job and tasks as qstat has them (`8`, `8.1-4:1`)."""
        top = ElementTree.fromstring(self.run("qstat", "-u", "*", "-xml"))
        found = {}
        for row in top.iter("job_list"):
            job, tasks = row.findtext("JB_job_number", ""), row.findtext("tasks")
            found[f"{job}.{tasks}" if tasks else job] = row.findtext("state", "")
        return found

    def state(self, job: str) -> str:
        """Of a job that is no array; empty when it is over."""
        return self.states().get(job, "")

    def wait(self, job: str, timeout: float = 60) -> None:
        """Until no task of the job waits or runs."""
        wait_for(lambda: all(name.partition(".")[0] != job for name in self.states()), timeout, f"job {job}", self.logs)

    def exit_status(self, job: str) -> str:
        """What the accounting, which lags a little, says of a job that has ended."""
        found: list[str] = []

        def said() -> bool:
            done = subprocess.run(["qacct", "-j", job], env=self.env, capture_output=True, text=True, timeout=60)
            found[:] = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("exit_status")]
            return bool(found)

        wait_for(said, 30, f"the accounting of job {job}", self.logs)
        return found[-1]

    def host_state(self) -> str:
        """`au` when the queue master misses the execution daemon, empty when all is well."""
        top = ElementTree.fromstring(self.run("qstat", "-f", "-xml"))
        states = [queue.findtext("state", "") for queue in top.iter("Queue-List")]
        return "".join(states)

    def _delete_at_once(self, *jobs: str) -> None:
        # not run(): those that have ended by now are an error
        subprocess.run(("qdel", "-f", *jobs), env=self.env, capture_output=True, timeout=60)

    def _processes(self) -> list[psutil.Process]:
        """Those of jobs, known by the environment that they have from the execution daemon."""
        daemons = {daemon.pid for daemon in (self.qmaster, self.execd) if daemon}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SGE_ROOT") == str(self.home) and process.pid not in daemons:
                    found.append(process)
        return found

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        logs = [self.home / "output", *self.home.glob("*/messages"), *self.home.glob("execd/*/messages")]
        return "\n".join(f"{log}:\n{log.read_text()[-2000:]}" for log in logs if log.exists())

    def _make(self) -> None:
        common = self.home / "default" / "common"
        for directory in (common, *(self.home / name for name in ("qmaster/job_scripts", "spooldb", "execd", "tmp"))):
            directory.mkdir(parents=True)
        for name in ("bin", "utilbin"):
            (self.home / name).mkdir()
            (self.home / name / self.variables["SGE_ARCH"]).symlink_to(LIB)
        (self.home / "util").symlink_to(SHARE / "util")
        (common / "bootstrap").write_text(BOOTSTRAP.format(home=self.home, lib=LIB))
        (common / "act_qmaster").write_text("localhost\n")
        # All names that this host has for itself are one.
        names = dict.fromkeys(["localhost", socket.gethostname(), *_names_of("127.0.0.1")])
        (common / "host_aliases").write_text(" ".join(names) + "\n")
        init = (SHARE / "scripts/init_cluster", self.home, "default", self.home / "spooldb", "root")
        self.run(*map(str, init))

    def _change(self, what: str, name: str, values: Mapping[str, str]) -> None:
        shown = self.run("qconf", f"-s{what}", *([name] if name else []))
        file = self.home / (name or what)
        file.write_text(self._edited(shown, values))
        self.run("qconf", f"-M{what}", str(file))

    def _add(self, what: str, text: str) -> None:
        file = self.home / f"new-{what}"
        file.write_text(text)
        self.run("qconf", f"-A{what}", str(file))

    def _edited(self, shown: str, values: Mapping[str, str]) -> str:
        """A configuration as qconf shows it, which continues long lines by a backslash, with other values."""
        lines = shown.replace("\\\n", " ").splitlines()
        old = dict(line.split(maxsplit=1) for line in lines if line and line[0] != "#")
        first = 20_000 + int(self.variables["SGE_QMASTER_PORT"]) % 400 * 100
        new = {name: value.format(home=self.home, gids=f"{first}-{first + 99}") for name, value in values.items()}
        assert old.keys() >= new.keys(), new.keys() - old.keys()
        return "".join(f"{name} {value}\n" for name, value in {**old, **new}.items())

    def _daemon(self, name: str) -> subprocess.Popen[bytes]:
        # Jobs inherit the environment of the execution daemon. SGE_ND: stay in the foreground.
        env = {"PATH": os.defpath, **self.variables, "SGE_ND": "1"}
        # setpriv: the kernel ends the daemon when the test run dies without having stopped it. In a session of its own:
        # Linux shares processors out by sessions (autogroup, sched(7)), and the others of the test run leave none.
        with open(self.home / "output", "ab") as log:
            guarded = ("setpriv", "--pdeathsig", "KILL", str(LIB / name))
            return subprocess.Popen(guarded, env=env, cwd=self.home, stdout=log, stderr=log, start_new_session=True)

    def _answers(self, *command: str) -> bool:
        assert self.qmaster and self.qmaster.poll() is None, f"the queue master ended at once\n{self.logs()}"
        return subprocess.run(command, env=self.env, capture_output=True, timeout=60).returncode == 0


@contextmanager
def running(home: Path) -> Iterator[Cell]:
    """A cell for the length of a `with` block."""
    cell = Cell(home)
    try:
        cell.start()
        yield cell
    finally:
        cell.stop()


def wait_for(condition: Callable[[], bool], timeout: float, what: str, why: Callable[[], str] = str) -> None:
    """Wait until the condition holds; `why` tells what is known when it does not."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout:g} s for {what}\n{why()}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last one is found, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _kill(daemon: subprocess.Popen[bytes] | None) -> None:
    if daemon is not None:
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()


def _names_of(address: str) -> list[str]:
    try:
        name, aliases, _ = socket.gethostbyaddr(address)
    except OSError:
        return []
    return [name, *aliases]
