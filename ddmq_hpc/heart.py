"""One thread a process that keeps giving signs of life for what the process holds."""

from __future__ import annotations

import time
from threading import Condition, Thread
from typing import Protocol

from ddmq_hpc.identity import fork_count

#: The thread ends when there was nothing to do for so many seconds.
_LINGER = 10.0


class Beating(Protocol):
    """What needs a beat: the first after `first` seconds, later ones every `pause` seconds."""

    first: float
    pause: float

    def beat(self) -> None:
        """Give a sign of life. Raises nothing."""
        ...


class Heart:
    """Threads may share it. A forked child has nothing to beat for.

    To start a thread for each hold, and to wait for its end, would take longer than to hand on a lock (measured).
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._forks = fork_count()
        self._due: dict[Beating, float] = {}
        self._changed = Condition()
        self._wakes = 0.0
        self._runs = False
        self._beats: Beating | None = None

    def add(self, what: Beating) -> None:
        if self._forks != fork_count():
            self._reset()
        with self._changed:
            due = self._due[what] = time.monotonic() + what.first
            if not self._runs:
                self._runs = True
                Thread(target=self._run, name="ddmq-hpc-heart", daemon=True).start()
            elif due < self._wakes:
                self._changed.notify_all()

    def remove(self, what: Beating) -> None:
        """When this returns there is no beat under way, nor will there be."""
        if self._forks != fork_count():
            return
        with self._changed:
            self._due.pop(what, None)
            while self._beats is what:
                self._changed.wait()

    def _run(self) -> None:
        with self._changed:
            idle = 0.0
            while self._due or time.monotonic() < idle:
                now = time.monotonic()
                if self._due:
                    idle = now + _LINGER
                self._wakes = min(self._due.values(), default=idle)
                if self._wakes > now:
                    self._changed.wait(self._wakes - now)
                    continue
                for what in [what for what, at in self._due.items() if at <= now]:
                    self._beat(what)
            self._runs = False

    def _beat(self, what: Beating) -> None:
        if what not in self._due:
            return
        self._beats = what
        self._changed.release()
        try:
            what.beat()
        finally:
            self._changed.acquire()
            self._beats = None
            self._changed.notify_all()
            if what in self._due:
                self._due[what] = time.monotonic() + what.pause


HEART = Heart()
