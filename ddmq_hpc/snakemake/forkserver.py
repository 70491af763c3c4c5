"""A process that has snakemake loaded and forks for each job.

To import snakemake takes a second of CPU, a fork of a process that has done so a few milliseconds. A worker cannot fork
itself, since it has threads. It sends three handles for each job over a socket that the server was started with: those
of a socket for this job alone, of stdin and of the output. The job's own process reads there what it shall do:

    worker -> job     {"directory": ..., "arguments": [...], "environment": {...}}, a line
    job -> worker     "pid N", once it leads a session of its own
    server -> worker  "over", when the job has ended and nothing of its session is left
    worker -> server  anything: from here on it sends no signals to the process N, so that the number may be reused
    server -> worker  "exit STATUS CPU RSS", of wait4(2), seconds and bytes

When the worker is gone its socket closes, and the server kills what runs and ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from typing import Any, NoReturn

from ddmq_hpc.processes import DEFAULT_SIGNALS, kill_group
from ddmq_hpc.usage import waited_rss

_HANDLES = 3
_LONGEST_LINE = 1 << 24
#: What a pipe holds (pipe(7)): names of modules that would not fit are left out.
_PIPE = 1 << 16
_REHEARSAL_SECONDS = 60
#: A job as the executor has it.
_REHEARSAL = [
    "--target-jobs", "one:", "--allowed-rules", "one", "--cores", "1", "--force", "--force-use-threads", "--nocolor",
    "--nolock", "--no-hooks", "--mode", "remote", "--default-resources", "tmpdir=system_tmpdir",
    "--max-jobs-per-timespan", "100000/0s",
]  # fmt: skip


def main() -> None:
    """The handle of the worker's socket is the last argument of the process."""
    control = socket.socket(fileno=int(sys.argv[-1]))
    for number in DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the worker tells when it is over
    _load()
    # What is there now is never garbage: a collection in a job would write to, and so copy, all of its pages.
    gc.collect()
    gc.freeze()
    Server(control).serve()


def _load() -> None:
    """Import snakemake and what it imports later, for a job: that is found out by one that does nothing."""
    import snakemake.cli

    with suppress(AttributeError):  # should there be none in a later version: it saves a tenth of a second a job
        snakemake.cli.get_argument_parser()  # which looks for plugins on the whole path
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _rehearse()
            os.write(writer, " ".join(sys.modules).encode()[:_PIPE])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as modules:
        for name in modules.read().split():
            try:
                importlib.import_module(name)
            except Exception:  # cut short, or of no file: then a job imports it, or does without
                continue
    os.waitpid(pid, 0)


def _rehearse() -> None:
    signal.alarm(_REHEARSAL_SECONDS)  # jobs wait for it
    silence = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(silence, handle)
    with tempfile.TemporaryDirectory() as place:
        with open(f"{place}/Snakefile", "w") as file:
            file.write('rule one:\n    output:\n        "done",\n    shell:\n        "touch done"\n')
        _run(
            {
                "directory": place,
                "arguments": _REHEARSAL,
                "environment": {**os.environ, "HOME": place, "XDG_CACHE_HOME": place},
            }
        )


class Server:
    """Forks jobs, and tells how they ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._jobs: dict[int, socket.socket] = {}  # by process
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Until the worker is gone."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    if not self._accept():
                        return
                elif key.fileobj == self._wake:
                    self._look_for_ended()
                else:
                    self._reap(key.data)

    def _accept(self) -> bool:
        """Fork for a new job; False when there will be no more."""
        _, handles, _, _ = socket.recv_fds(self._control, 1, _HANDLES)
        if len(handles) != _HANDLES:
            for pid in self._jobs:
                kill_group(pid)
            return False
        line = socket.socket(fileno=handles[0])
        pid = os.fork()
        if pid == 0:
            self._become_a_job(line, handles[1], handles[2])
        for handle in handles[1:]:
            os.close(handle)
        self._jobs[pid] = line
        return True

    def _become_a_job(self, line: socket.socket, stdin: int, output: int) -> NoReturn:
        """In the fork: nothing of the server's is left to it."""
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (*DEFAULT_SIGNALS, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python has it
            os.dup2(stdin, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            self._selector.close()
            others = [self._control.fileno(), self._wake, stdin, output]
            others += [other.fileno() for other in self._jobs.values()]
            for handle in others:
                os.close(handle)
            line.sendall(b"pid %d\n" % os.getpid())
            request = _read_line(line)
            line.close()
            code = _run(json.loads(request))
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except (OSError, ValueError):
                    pass
            os._exit(code)

    def _look_for_ended(self) -> None:
        try:
            while os.read(self._wake, 4096):
                pass
        except BlockingIOError:
            pass
        watched = self._selector.get_map().values()
        told = {key.data for key in watched if key.data is not None}
        for pid, line in self._jobs.items():
            if pid not in told and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                kill_group(pid)
                _tell(line, b"over\n")
                self._selector.register(line, selectors.EVENT_READ, pid)

    def _reap(self, pid: int) -> None:
        _, status, usage = os.wait4(pid, 0)
        line = self._jobs.pop(pid)
        self._selector.unregister(line)
        _tell(line, b"exit %d %.6f %d\n" % (status, usage.ru_utime + usage.ru_stime, waited_rss(usage) or 0))
        line.close()


def _run(request: dict[str, Any]) -> int:
    """What `python -m snakemake ARGUMENTS` in that directory would do; its exit status."""
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    arguments: list[str] = request["arguments"]
    sys.argv[:] = ["snakemake", *arguments]
    sys.path.insert(0, os.getcwd())
    from snakemake.cli import main as snakemake

    try:
        snakemake(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _read_line(line: socket.socket) -> bytes:
    found = bytearray()
    while not found.endswith(b"\n"):
        part = line.recv(1 << 16)
        if not part or len(found) > _LONGEST_LINE:
            raise EOFError("the worker is gone")
        found += part
    return bytes(found)


def _tell(line: socket.socket, text: bytes) -> None:
    try:
        line.sendall(text)
    except OSError:
        pass  # the worker is gone, which the other socket will tell
