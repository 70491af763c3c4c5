"""A command in the foreground that gets the signals that this process gets, and does not outlive it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from threading import Thread
from types import TracebackType

from ddmq_hpc.errors import CannotRun, CommandNotFound
from ddmq_hpc.guardian import CHILD, Guardian
from ddmq_hpc.identity import token
from ddmq_hpc.stopping import STOPPING

#: A child that was told to stop is killed after this many seconds.
_GRACE = 30.0


class Child:
    """As a context manager it passes signals on; one that comes before the start is passed on at the start. When this
    process is killed the command is, with all that it started."""

    def __init__(self) -> None:
        self._mark = token()
        #: The last signal that was passed on, 0 for none.
        self.stopped_by = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        self._before = {number: signal.signal(number, self._pass_on) for number in STOPPING}
        self._guardian = Guardian("", self._mark, CHILD)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._guardian.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def start(self, command: Sequence[str], environment: Mapping[str, str], has_input: bool = False) -> None:
        """Raises `CommandNotFound`, `CannotRun`."""
        stdin = subprocess.PIPE if has_input else None
        try:
            self._process = subprocess.Popen(command, stdin=stdin, env={**environment, CHILD: self._mark})
        except FileNotFoundError as error:
            raise CommandNotFound(command[0], str(error.strerror)) from None
        except (OSError, ValueError) as error:
            raise CannotRun(command[0], str(getattr(error, "strerror", None) or error)) from None
        self._guardian.watch(self._process.pid)
        if self.stopped_by:
            self._process.send_signal(self.stopped_by)

    def wait(self, given: bytes | None = None) -> int:
        """Feed it `given` and wait: its exit code, 128 + signal when one ended it."""
        assert self._process is not None, "not started"
        if given is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(given)
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # the command does not want its input: that is its business
        code = self._process.wait()
        self._guardian.forget(self._process.pid)
        return code if code >= 0 else 128 - code

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ask it to stop; it is killed if it does not for half a minute."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)
            Thread(target=self._kill_later, args=(process,), daemon=True).start()

    def _pass_on(self, number: int, _: object) -> None:
        self.stopped_by = number
        self.end(number)

    @staticmethod
    def _kill_later(process: subprocess.Popen[bytes]) -> None:
        time.sleep(_GRACE)
        if process.poll() is None:
            process.kill()
