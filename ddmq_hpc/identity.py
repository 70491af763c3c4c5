"""Who holds a lease: host, process and its start, so that the dead are recognised and nobody else is.

A process id alone means nothing: ids are used again, and every host and every container counts its own. An owner is
therefore `<host>:<pid>:<start>:<kernel>:<token>.<number>[:<job>]`, where <start> is the process's start time in clock
ticks and <kernel> names this boot of this kernel and this PID namespace.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from ddmq_hpc.errors import UsageError

_LONGEST_LABEL = 30
_TOKEN_BYTES = 5  # 40 bits: eight base32 letters
_NUMBER = re.compile(r"\d{1,19}", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+", re.ASCII)


def token() -> str:
    """Eight random letters; unlike the module `random`, never the same in two forks of one process."""
    number = int.from_bytes(os.urandom(_TOKEN_BYTES), "big")
    return "".join("abcdefghijklmnopqrstuvwxyz234567"[number >> shift & 31] for shift in range(0, 40, 5))


@cache
def host() -> str:
    """The host's name, made safe for file names and at most 48 letters."""
    return _UNSAFE.sub("-", os.uname().nodename)[:48] or "host"


@cache
def boot() -> str:
    """Eight hex digits that name this boot of this kernel; containers of one kernel share it."""
    return _digest(_text("/proc/sys/kernel/random/boot_id") or host())


def user_name(uid: int) -> str:
    """The name of a user, or the number where this host knows none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group, or the number where this host knows none."""
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def user_id(name: str) -> int:
    """The id of a user, also when it is given itself. Raises `UsageError` for one that this host does not know."""
    import pwd

    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise UsageError(f"no user {name[:60]!r} on this host") from None


def group_id(name: str) -> int:
    """The id of a group. Raises `UsageError` for one that this host does not know."""
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise UsageError(f"no group {name[:60]!r} on this host") from None


def _digest(text: str) -> str:
    from zlib import crc32

    return f"{crc32(text.encode()):08x}"


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


@cache
def kernel() -> str:
    """Names the PID namespace of this boot: only inside it do process ids mean anything."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return _digest(boot() + namespace)


def process_start(pid: int) -> int | None:
    """Clock ticks after boot when the process started, None when it is gone (or a zombie). proc(5): field 22 of
    stat."""
    text = _text(f"/proc/{pid}/stat")
    if text:
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    if os.path.exists("/proc/self/stat"):
        return None
    import psutil

    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


def is_gone(on: str, pid: int, start: int, on_kernel: str) -> bool:
    """Whether a process is known to be gone; False for those of other hosts, kernels and PID namespaces."""
    return on == host() and on_kernel == kernel() and process_start(pid) != start and not _is_hidden(pid)


def _is_hidden(pid: int) -> bool:
    """Whether a process of another user is there of which /proc shows nothing (mounted with hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not _text(f"/proc/{pid}/stat")
    except (OSError, OverflowError):
        pass
    return False


class Owner(NamedTuple):
    """An owner as read from the name of a lease."""

    host: str
    pid: int  # 0: not bound to a process
    start: int
    kernel: str
    serial: str
    job: str

    @property
    def holder(self) -> tuple[str, int, int, str, str]:
        """The same for all owners of one `Identity` in one process, and for no others."""
        return self.host, self.pid, self.start, self.kernel, self.serial.partition(".")[0]

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        parts = text.split(":")
        if len(parts) not in (5, 6) or not all(map(_NUMBER.fullmatch, parts[1:3])):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]), parts[3], parts[4], parts[5] if len(parts) == 6 else "")


def batch_job(environ: Mapping[str, str] = os.environ) -> str:
    """The label of the batch job that this process runs in, else nothing; `schedulers.parse_label` reads it.

    `slurm-123_7=cluster` or `slurm-123=cluster`, `pbs-7=2==server` or `pbs-7=server` ("=" stands for the brackets),
    `sge-5.3=master` or `sge-5=master`; with `-r1` after the id when the job was started once before, as far as its
    environment tells. Job ids count on one cluster alone, hence its name, cut to 12 letters.
    """
    if job := environ.get("SLURM_JOB_ID"):
        if array := environ.get("SLURM_ARRAY_JOB_ID"):
            job = f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', '')}"
        return _label("slurm", job, environ.get("SLURM_RESTART_COUNT"), environ.get("SLURM_CLUSTER_NAME"))
    if job := environ.get("PBS_JOBID"):
        number, _, server = job.partition(".")
        return _label("pbs", number, None, server)
    if (job := environ.get("JOB_ID")) and (root := environ.get("SGE_ROOT")):
        task = environ.get("SGE_TASK_ID", "undefined")
        master = _text(f"{root}/{environ.get('SGE_CELL') or 'default'}/common/act_qmaster")
        return _label("sge", job if task == "undefined" else f"{job}.{task}", environ.get("RESTARTED"), master)
    return ""


def _label(scheduler: str, job: str, restarts: str | None, cluster: str | None) -> str:
    again = f"-r{restarts}" if restarts and restarts.isdigit() and int(restarts) else ""
    where = re.sub(r"[^A-Za-z0-9-]+", "-", (cluster or "").partition(".")[0])[:12]
    label = f"{scheduler}-{re.sub(r'[^A-Za-z0-9._-]', '=', job)}{again}"
    if len(label) > _LONGEST_LABEL:
        return ""  # cut off, it would name another job
    return f"{label}={where}" if where else label


class Identity:
    """The owner under which this process leases: bound to its life, so its leases come back as soon as it dies."""

    def __init__(self) -> None:
        self._prefix = ""
        self._serial = ""
        self._count = 0
        self._job = batch_job()
        self._forks = -1

    def _bind(self) -> tuple[int, int]:
        pid = os.getpid()
        return pid, process_start(pid) or 0

    def _renew(self) -> None:
        pid, start = self._bind()
        self._prefix = f"{host()}:{pid}:{start}:{kernel()}:{token()}"
        self._suffix = f":{self._job}" if self._job else ""
        self._forks = _forks

    @property
    def job(self) -> str:
        """The label of the batch job that this process runs in; empty outside of jobs."""
        return self._job

    def owner(self) -> str:
        """A new owner name, different for each call in each process: what is found under it was put there by this
        call."""
        if self._forks != _forks:
            self._renew()
        self._count += 1
        return f"{self._prefix}.{self._count}{self._suffix}"

    def is_dead(self, text: str) -> bool:
        """Whether the process of another owner is known to be gone: same host, same kernel, same PID namespace."""
        owner = Owner.parse(text)
        return owner is not None and owner.pid != 0 and is_gone(owner.host, owner.pid, owner.start, owner.kernel)


class Detached(Identity):
    """The owner for one command of a script: the lease outlives the process and ends by its deadline alone."""

    def _bind(self) -> tuple[int, int]:
        return 0, 0


_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


def fork_count() -> int:
    """How often this process descends by fork from the one that imported this; what must not be shared compares it."""
    return _forks
