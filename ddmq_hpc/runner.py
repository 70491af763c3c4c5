"""Runs commands for tasks: each in a session of its own, so that all its processes can be reached at once."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from threading import Lock

from ddmq_hpc.errors import BadMessage, DdmqError
from ddmq_hpc.guardian import Guardian
from ddmq_hpc.messages import body_text
from ddmq_hpc.output import Output
from ddmq_hpc.tasks import Result, Task, fill
from ddmq_hpc.usage import OomCounter, tree_rss, waited_rss

#: What Python ignores, and what a worker handles, is a task's own again.
_DEFAULT_SIGNALS = [
    signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
]  # fmt: skip
#: Memory is looked at after so many seconds of a task, and again after as long again, at least so often.
_FIRST_LOOK, _LOOK_EVERY = 0.5, 10.0
#: What shells answer for a command that is there and cannot be executed (POSIX, 2.8.2).
CANNOT_RUN = 126


class CannotStart(DdmqError):
    """The command cannot be started at all: the message is not to blame."""


class Running:
    """A command under way."""

    def __init__(self, pid: int, output: int) -> None:
        self.pid = pid
        self.output = output
        self.started = time.monotonic()
        self.rss = 0
        self.look_at = self.started + _FIRST_LOOK
        self.killed = False


class CommandRunner:
    """Runs one command line for each task. `run` is called by as many threads as there are slots, the rest by one
    thread that watches over them."""

    def __init__(self, command: Sequence[str], output: Output, guardian: Guardian, feed_stdin: bool = False) -> None:
        self._command = list(command)
        self._output = output
        self._guardian = guardian
        self._feed_stdin = feed_stdin
        self._environment = dict(os.environ)
        self._oom = OomCounter()
        self._running: dict[str, Running] = {}  # by directory of the task
        self._lock = Lock()
        #: Whether it could be made of a message: when not even of the first it is misspelt, and would use up the queue.
        self._fits = False

    def run(self, task: Task) -> Result:
        """Run the command to its end. Raises `CannotStart` when it cannot be started, `BadMessage` when already of the
        first message no command can be made."""
        running = self._start(task)
        if isinstance(running, Result):
            return running
        try:
            return self._wait(task, running)
        finally:
            with self._lock:
                del self._running[task.directory]

    def _argv(self, task: Task) -> list[str]:
        return fill(self._command, task.message.message)

    def _start(self, task: Task) -> Running | Result:
        """The started command, or how a message failed of which no command can be made."""
        try:
            argv = self._argv(task)
        except BadMessage as error:
            if not self._fits:
                raise BadMessage(f"{error} (message {task.message.id}, put back)") from None
            return Result(code=CANNOT_RUN, error=str(error))
        self._fits = True
        stdin = task.payload_file if self._feed_stdin else os.devnull
        try:
            task.prepare()
            output = self._output.open(task)
        except OSError as error:
            raise CannotStart(f"cannot prepare a task: {error.strerror} ({error.filename})") from None
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                {**self._environment, **task.environment()},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setsid=True,
                setsigdef=_DEFAULT_SIGNALS,
                setsigmask=(),
            )
        except (OSError, ValueError) as error:
            self._output.close(task, output, False)
            task.clear()
            why = f"cannot run {argv[0]!r:.100}: {getattr(error, 'strerror', None) or error}"
            if isinstance(error, OSError) and error.errno == errno.E2BIG:
                how = "too long for a command line, pass it by --stdin or $DDMQ_HPC_PAYLOAD_FILE"
                return Result(code=CANNOT_RUN, error=how, hopeless=True)
            if isinstance(error, ValueError) or argv[0] != self._command[0]:
                return Result(code=CANNOT_RUN, error=why)
            raise CannotStart(why) from None
        self._guardian.watch(-pid)
        running = Running(pid, output)
        with self._lock:
            self._running[task.directory] = running
        return running

    def _wait(self, task: Task, running: Running) -> Result:
        pid = running.pid
        # As long as it is not reaped its number, and so its group's, is nobody else's.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        wall = time.monotonic() - running.started
        try:
            os.killpg(pid, signal.SIGKILL)  # what it left in the background ends with it
        except (ProcessLookupError, PermissionError):
            pass
        with self._lock:
            _, status, usage = os.wait4(pid, 0)
            running.pid = 0
        self._guardian.forget(-pid)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = 128 + number if number else os.WEXITSTATUS(status)
        error = task.error() if code else ""
        output = self._output.close(task, running.output, code != 0)
        task.clear()
        return Result(
            code=code,
            signal=number,
            wall=wall,
            cpu=usage.ru_utime + usage.ru_stime,
            rss=max(running.rss, waited_rss(usage) or 0) or None,
            oom=code == 128 + signal.SIGKILL and not running.killed and self._oom.happened(),
            error=error,
            output=output,
        )

    def signal(self, task: Task, number: int) -> None:
        """Send a signal to all processes of a task; nothing when it has not begun or is over."""
        with self._lock:
            running = self._running.get(task.directory)
            if running is None or not running.pid:
                return
            running.killed |= number == signal.SIGKILL
            try:
                os.killpg(running.pid, number)
            except ProcessLookupError:
                pass

    def look(self) -> None:
        """See what the running tasks use; called about once a second."""
        now = time.monotonic()
        with self._lock:
            due = [running for running in self._running.values() if running.pid and running.look_at <= now]
        for running in due:
            age = now - running.started
            running.look_at = now + min(max(age, _FIRST_LOOK), _LOOK_EVERY)
            running.rss = max(running.rss, tree_rss(running.pid) or 0)
            with self._lock:
                if running.pid:
                    self._output.trim(running.output)


class ShellRunner(CommandRunner):
    """The message is the command line."""

    def __init__(self, output: Output, guardian: Guardian, feed_stdin: bool = False) -> None:
        from shutil import which

        super().__init__([which("bash") or "/bin/sh", "-c"], output, guardian, feed_stdin)

    def _argv(self, task: Task) -> list[str]:
        return [*self._command, body_text(task.message.message)]
