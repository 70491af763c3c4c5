"""A process of a task: started in a session of its own, signalled as a group, waited for with what it used."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from threading import Lock
from typing import NamedTuple, Protocol

from ddmq_hpc.usage import waited_rss

#: What Python ignores, and what a worker handles, is a task's own again.
DEFAULT_SIGNALS = (
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
)  # fmt: skip


class Exit(NamedTuple):
    """How a process ended: `status` as wait(2) tells it, seconds of CPU and bytes of memory that it and those it waited
    for used; None where that is unknown. Not `seen`: that it ended is all that is known."""

    status: int
    cpu: float | None
    rss: int | None
    seen: bool = True

    @property
    def signal(self) -> int:
        """The signal that ended it, 0 when none did."""
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0

    @property
    def code(self) -> int:
        """Its exit status, 128 + the signal when one ended it, as shells have it."""
        return 128 + self.signal if self.signal else os.WEXITSTATUS(self.status)


class Process(Protocol):
    """A process that leads a session. `pid` is 0 once it is over."""

    pid: int

    def wait(self) -> Exit:
        """Wait until it ends; what it left in the background ends with it. Only one thread may call this."""

    def signal(self, number: int) -> None:
        """Send a signal to all processes of its session's group; nothing when it is over."""


class Spawned:
    """A command, found on PATH. Raises OSError, ValueError when it cannot be started."""

    def __init__(self, argv: list[str], environment: Mapping[str, str], stdin: str, output: int) -> None:
        self.pid = os.posix_spawnp(
            argv[0],
            argv,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigdef=DEFAULT_SIGNALS,
            setsigmask=(),
        )
        self._lock = Lock()

    def wait(self) -> Exit:
        pid = self.pid
        # As long as it is not reaped its number, and so its group's, is nobody else's.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        kill_group(pid)
        with self._lock:
            _, status, usage = os.wait4(pid, 0)
            self.pid = 0
        return Exit(status, usage.ru_utime + usage.ru_stime, waited_rss(usage))

    def signal(self, number: int) -> None:
        with self._lock:
            if self.pid:
                kill_group(self.pid, number)


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal the group that a process leads, as far as it is there."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
