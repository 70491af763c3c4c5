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
from ddmq_hpc.processes import Process, Spawned
from ddmq_hpc.queue import Queue
from ddmq_hpc.tasks import Result, Task, fill, refuse_jobs
from ddmq_hpc.usage import OomCounter, tree_rss

#: Memory is looked at after so many seconds of a task, and again after as long again, at least so often.
_FIRST_LOOK, _LOOK_EVERY = 0.5, 10.0
#: What shells answer for a command that is there and cannot be executed (POSIX, 2.8.2).
CANNOT_RUN = 126


class CannotStart(DdmqError):
    """The command cannot be started at all: the message is not to blame."""


class Running:
    """A command under way."""

    def __init__(self, process: Process, output: int) -> None:
        self.process = process
        self.group = -process.pid
        self.output = output
        self.started = time.monotonic()
        self.rss = 0
        self.look_at = self.started + _FIRST_LOOK
        self.killed = False
        self.over = False


class CommandRunner:
    """Runs one command line for each task. `run` is called by as many threads as there are slots, the rest by one
    thread that watches over them."""

    def __init__(self, command: Sequence[str], output: Output, guardian: Guardian, feed_stdin: bool = False) -> None:
        self._command = list(command)
        self._output = output
        self._guardian = guardian
        self._feed_stdin = feed_stdin
        #: Of each task, besides what tells it of its message.
        self.environment = dict(os.environ)
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
        """The command line. Raises `BadMessage`."""
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
            process = self._launch(task, argv, stdin, output)
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
        running = Running(process, output)
        self._guardian.watch(running.group)
        with self._lock:
            self._running[task.directory] = running
        return running

    def _launch(self, task: Task, argv: list[str], stdin: str, output: int) -> Process:
        """The process of a task. Raises OSError, ValueError when it cannot be started."""
        return Spawned(argv, {**self.environment, **task.environment()}, stdin, output)

    def _wait(self, task: Task, running: Running) -> Result:
        end = running.process.wait()
        wall = time.monotonic() - running.started
        self._guardian.forget(running.group)
        error = task.error() if end.code else ""
        with self._lock:
            running.over = True
        output = self._output.close(task, running.output, end.code != 0)
        task.clear()
        return Result(
            code=end.code,
            signal=end.signal,
            wall=wall,
            cpu=end.cpu,
            rss=max(running.rss, end.rss or 0) or None,
            oom=end.code == 128 + signal.SIGKILL and not running.killed and self._oom.happened(),
            error=error,
            output=output,
            seen=end.seen,
        )

    def signal(self, task: Task, number: int) -> bool:
        """Send a signal to all processes of a task. False when it is about to begin, or over."""
        with self._lock:
            running = self._running.get(task.directory)
        if running is None:
            return False
        running.killed |= number == signal.SIGKILL
        running.process.signal(number)
        return True

    def conclude(self, queue: Queue, task: Task, result: Result) -> None:
        """What has to be done before the message is let go for good; see `outcomes.Conclusion`."""

    def close(self) -> None:
        """There will be no more tasks."""

    def look(self) -> None:
        """See what the running tasks use; called about once a second."""
        now = time.monotonic()
        with self._lock:
            due = [running for running in self._running.values() if running.look_at <= now]
        for running in due:
            age = now - running.started
            running.look_at = now + min(max(age, _FIRST_LOOK), _LOOK_EVERY)
            pid = running.process.pid
            running.rss = max(running.rss, (tree_rss(pid) or 0) if pid else 0)
            with self._lock:
                if not running.over:
                    self._output.trim(running.output)


class ShellRunner(CommandRunner):
    """The message is the command line."""

    def __init__(self, output: Output, guardian: Guardian, feed_stdin: bool = False) -> None:
        from shutil import which

        super().__init__([which("bash") or "/bin/sh", "-c"], output, guardian, feed_stdin)

    def _argv(self, task: Task) -> list[str]:
        refuse_jobs(task.message.message)
        return [*self._command, body_text(task.message.message)]
