"""A private Slurm cluster on this one host: real daemons, virtual nodes, all state in one directory.

Nothing under /etc or /var is read or written and nothing is daemonized: munged, slurmctld and each slurmd are plain
children of the test run, so that they can be stopped by their handle and end with it even when it is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

#: slurmctld and friends are in sbin, which is not on every PATH.
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "setpriv")

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
# cred_expire is also the time that a requeued job waits before it starts again (default 120 s)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={home}/munge/socket,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.%n.pid
SlurmctldLogFile={home}/log/slurmctld
SlurmdLogFile={home}/log/slurmd.%n
# processes are found through their parents: works without cgroups, so also in a container
ProctrackType=proctrack/linuxproc
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU,CR_LLN
# schedule at once, give up on a node or a job soon: but on a busy machine a daemon answers after seconds, and so does a
# worker that is to end
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
SlurmdTimeout=15
KillWait=8
# a partition of a higher tier takes the nodes of a lower one's jobs, which are requeued
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
# a node whose daemon is started again is usable again
ReturnToService=2
MaxArraySize=1001
CompleteWait=0
# the nodes may claim more CPUs than this machine has
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1 State=UP
PartitionName=short Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=1 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=9 State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=1000 State=UNKNOWN"


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "a private Slurm cluster needs root"
    missing = [command for command in COMMANDS if not shutil.which(command, path=PATH)]
    return f"not installed: {', '.join(missing)}; `make test` installs them on Debian and Ubuntu" if missing else None


#: States that a job stays in.
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    }
)


class Cluster:
    """The daemons of one cluster and the commands of its users."""

    def __init__(self, home: Path, nodes: int = 4) -> None:
        self.home = home
        self.nodes = [f"node{n}" for n in range(1, nodes + 1)]
        self.env = {**os.environ, "PATH": PATH, "SLURM_CONF": f"{home}/slurm.conf"}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start munge, the controller and the nodes; return when every node takes jobs."""
        os.umask(0o022)  # munge refuses directories that its group may write
        for name in ("munge", "log", "state", "spool"):
            (self.home / name).mkdir()
        self._configure()
        key = self.home / "munge/key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = [f"--{what}-file={self.home}/munge/{what}" for what in ("key", "pid", "log", "seed")]
        # force: munge wants all users to reach its socket; the directories of tests are closed to others than root
        self._daemon("munged", "munged", "--foreground", "--force", f"--socket={self.home}/munge/socket", *files)
        wait_for(lambda: (self.home / "munge/socket").exists(), 10, "munged")
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        """Until every node takes jobs."""
        wait_for(lambda: self._idle() == len(self.nodes), 60, "the nodes of the cluster")

    def start_controller(self) -> None:
        self._daemon("slurmctld", "slurmctld", "-D", "-i")

    def stop_controller(self) -> None:
        """It saves what it knows, so that it knows it again when it is started."""
        daemon = self.daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(30)

    def start_node(self, node: str) -> None:
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node_daemon(self, node: str) -> None:
        """Only slurmd dies: the jobs of the node go on, and the controller will give the node up for dead."""
        self._kill_daemon(node)

    def crash_node(self, node: str) -> None:
        """The whole node dies at once: slurmd, those that watch over its jobs, and all their processes."""
        self._kill_daemon(node)
        # before their jobs, whose death they would report; they are known by the log file that they hold open
        for pid in _pids_where(lambda pid: _holds_open(pid, f"{self.home}/log/slurmd.{node}")):
            _kill(pid)
        for pid in self.pids_on(node):
            _kill(pid)

    def pids_on(self, node: str) -> list[int]:
        """The processes of jobs on a node."""
        wanted = {f"SLURM_CONF={self.home}/slurm.conf".encode(), f"SLURMD_NODENAME={node}".encode()}
        return _pids_where(lambda pid: wanted <= set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")))

    def _kill_daemon(self, name: str) -> None:
        daemon = self.daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def cancel_all(self) -> None:
        """End all jobs: their processes are not children of the daemons and would outlive them."""
        self.run("scancel", "--user=root")
        wait_for(lambda: not self.run("squeue", "--noheader"), 30, "the last jobs to end")

    def stop(self) -> None:
        """End the daemons, in the reverse order of their start."""
        for daemon in reversed(list(self.daemons.values())):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *command: str, **env: str) -> str:
        """What a command of the user prints."""
        env = {**self.env, **env}
        done = subprocess.run(command, env=env, cwd=self.home, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments: str, **env: str) -> str:
        """The id of a new job; `arguments` and `env` are those of sbatch."""
        return self.run("sbatch", "--parsable", *arguments, **env)

    def requeue(self, job: str) -> None:
        """Have a running job ended and started anew."""
        self.run("scontrol", "requeue", job)

    def limit(self, job: str, minutes: int) -> None:
        """Set the time limit of a job, running or not; Slurm looks at limits every half minute."""
        self.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

    def states(self, job: str) -> dict[str, str]:
        """The state of a job, or of each task of an array, by its id (`8_1`)."""
        lines = self.run("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i %T")
        return dict(line.split() for line in lines.splitlines())

    def wait(self, job: str, timeout: float = 120) -> dict[str, str]:
        """The final states of a job, when it has ended. On the way there are more than PENDING and RUNNING: SIGNALING,
        for a moment, while `--signal` is sent."""
        found: dict[str, str] = {}

        def has_ended() -> bool:
            found.clear()
            found.update(self.states(job))
            return ENDED.issuperset(found.values())

        wait_for(has_ended, timeout, f"job {job}")
        return found

    def processes(self, text: str) -> str:
        """The processes on this host, thus on all nodes, whose command line contains the text."""
        found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        return "\n".join(line for line in found.splitlines() if text in line)

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in sorted(self.home.glob("log/*")))

    def _configure(self) -> None:
        host = socket.gethostname().split(".")[0]
        port, *ports = free_ports(1 + len(self.nodes))
        nodes = [NODE.format(name=name, host=host, port=p) for name, p in zip(self.nodes, ports)]
        conf = CONF.format(host=host, port=port, home=self.home, nodes="\n".join(nodes))
        (self.home / "slurm.conf").write_text(conf)
        # slurmd loads a cgroup plugin in any case: the default one fails without systemd, v1 loads anywhere
        version = float(".".join(self.run("slurmd", "-V").split()[-1].split(".")[:2]))
        (self.home / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if version >= 23.02 else 'cgroup/v1'}\n")

    def _daemon(self, name: str, *command: str) -> None:
        # setpriv: the kernel ends the daemon when the test run dies without having stopped it. In a session of its own:
        # Linux shares processors out by sessions (autogroup, sched(7)), and the others of the test run leave none.
        guarded = ("setpriv", "--pdeathsig", "KILL", *command)
        with open(self.home / "log" / "output", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                guarded, env=self.env, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )

    def _idle(self) -> int:
        dead = [daemon.args for daemon in self.daemons.values() if daemon.poll() is not None]
        assert not dead, f"ended at once: {dead}\n{self.logs()}"
        sinfo = ("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N")
        # not run(): it fails until the controller answers
        return len(set(subprocess.run(sinfo, env=self.env, capture_output=True, timeout=60).stdout.split()))


@contextmanager
def running(home: Path) -> Iterator[Cluster]:
    """A cluster for the length of a `with` block."""
    cluster = Cluster(home)
    try:
        cluster.start()
        yield cluster
        cluster.cancel_all()
    finally:
        cluster.stop()


def _pids_where(condition: Callable[[int], bool]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and condition(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _holds_open(pid: int, path: str) -> bool:
    return any(os.readlink(handle) == path for handle in Path(f"/proc/{pid}/fd").iterdir())


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def wait_for(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout:g} s for {what}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last one is found, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()
