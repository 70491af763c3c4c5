"""The worker's end of the process that forks jobs of Snakemake; see `forkserver`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from threading import Lock
from typing import Any

from ddmq_hpc.guardian import WORKER
from ddmq_hpc.processes import Exit, kill_group

#: Not by `-m`, nor with "" on the path: what lies in the directory of the worker must not be taken for a module.
_PROGRAM = "import sys; sys.path[:] = filter(None, sys.path); from ddmq_hpc.snakemake.forkserver import main; main()"


class ForkServer:
    """A process with snakemake loaded, started at once and again when it died. Threads may share it. `mark` is the name
    of the worker, by which its guardian finds the process."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._lock = Lock()
        self._pid = 0
        self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_inheritable(theirs.fileno(), True)
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                {**os.environ, WORKER: self._mark},
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                setsid=True,
            )
        finally:
            theirs.close()

    def fork(self, job: Mapping[str, Any], stdin: str, output: int) -> Forked:
        """A process for a job: `directory`, `arguments` and `environment`. Raises OSError."""
        mine, theirs = socket.socketpair()
        handle = os.open(stdin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._send([theirs.fileno(), handle, output])
            theirs.close()
            return Forked(mine, json.dumps(job).encode() + b"\n")
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
            os.close(handle)

    def _send(self, handles: list[int]) -> None:
        with self._lock:
            if not self._is_alive():
                self._control.close()
                self._start()
            socket.send_fds(self._control, [b"j"], handles)

    def _is_alive(self) -> bool:
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._pid = 0
        return self._pid != 0

    def close(self) -> None:
        """End it, and what runs."""
        self._control.close()
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0


class Forked:
    """A job in a fork, as `processes.Process` has it. Where the server died first nobody saw how it ended."""

    def __init__(self, line: socket.socket, request: bytes) -> None:
        self._line = line
        self._lines = line.makefile("rb")
        self._lock = Lock()
        said = self._lines.readline().split()
        if len(said) != 2 or said[0] != b"pid":
            self.close()
            raise ChildProcessError(0, "the process that has snakemake loaded has died")
        self.pid = int(said[1])
        self._group = self.pid
        try:
            line.sendall(request)
        except OSError:
            pass  # it is dead already, as will be told

    def wait(self) -> Exit:
        self._lines.readline()  # "over", or nothing when the server is gone
        with self._lock:
            self.pid = 0
        try:
            self._line.sendall(b"\n")
        except OSError:
            pass
        told = self._lines.readline().split()
        self.close()
        if len(told) != 4:
            kill_group(self._group)  # which nobody else would do
            return Exit(signal.SIGKILL, None, None, seen=False)
        return Exit(int(told[1]), float(told[2]), int(told[3]) or None)

    def signal(self, number: int) -> None:
        with self._lock:
            if self.pid:
                kill_group(self.pid, number)

    def close(self) -> None:
        self._lines.close()
        self._line.close()
