"""Run a command while a lock is held."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from ddmq_hpc.child import Child
from ddmq_hpc.errors import CannotRun
from ddmq_hpc.semaphores import Semaphore

#: Seconds between two looks whether the lock is held still; they cost nothing.
_LOOK = 1.0
_TOKEN, _PATH = "DDMQ_HPC_LOCK_TOKEN", "DDMQ_HPC_LOCK"


def run_locked(lock: Semaphore, command: list[str]) -> int:
    """Wait for the lock, run `command` with its token in the environment, and let go: the command's exit code, 128 +
    signal when one ended it.

    Signals are passed on to it. When the lock is lost it is told to stop, and killed half a minute later; when this
    process is killed the command is, with all that it started. Raises `LockBusy`, `LockLost`, `CommandNotFound`,
    `CannotRun`.
    """
    with _leaving_in_order():
        acquired = lock.acquire()
    done, child = Event(), Child()

    def watch() -> None:
        while not done.wait(_LOOK):
            if lock.lost:
                child.end()
                return

    with child:
        try:
            child.start(command, {**os.environ, _TOKEN: str(acquired), _PATH: lock.path})
            Thread(target=watch, daemon=True).start()
            code = child.wait()
        except CannotRun:
            lock.release()
            raise
        finally:
            done.set()
        lock.release()  # tells if it was lost
    return code


@contextmanager
def _leaving_in_order() -> Iterator[None]:
    """Who is ended while it waits takes its ticket along."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
