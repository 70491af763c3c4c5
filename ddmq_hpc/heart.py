"""What is held for long gives signs of life: one thread a process starts those that do so, when it is time."""

from __future__ import annotations

import time
from threading import Condition, Thread
from typing import Callable

from ddmq_hpc.identity import fork_count

#: The thread ends when there was nothing to wait for for so many seconds.
_LINGER = 10.0


class Heart:
    """Starts what is held long enough. Threads may share it; a forked child has nothing to start.

    To start a thread for each hold at once, and to wait for its end, would take longer than to hand on a lock
    (measured). To give the signs of life of all holds in one thread would let one file server that hangs cost the locks
    on another.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._forks = fork_count()
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._changed = Condition()
        self._wakes = 0.0
        self._runs = False

    def add(self, what: object, start: Callable[[], None], seconds: float) -> None:
        """Call `start`, which must not take long, in so many seconds, unless `what` is removed before."""
        if self._forks != fork_count():
            self._reset()
        with self._changed:
            due = time.monotonic() + seconds
            self._due[what] = (due, start)
            if not self._runs:
                self._runs = True
                Thread(target=self._run, name="ddmq-hpc-heart", daemon=True).start()
            elif due < self._wakes:
                self._changed.notify()

    def remove(self, what: object) -> None:
        """When this returns it was started before, or will not be."""
        if self._forks == fork_count():
            with self._changed:
                self._due.pop(what, None)

    def _run(self) -> None:
        with self._changed:
            idle_until = 0.0
            while self._due or time.monotonic() < idle_until:
                now = time.monotonic()
                if self._due:
                    idle_until = now + _LINGER
                self._wakes = min((due for due, _ in self._due.values()), default=idle_until)
                if self._wakes > now:
                    self._changed.wait(self._wakes - now)
                    continue
                for what, (due, start) in list(self._due.items()):
                    if due <= now:
                        del self._due[what]
                        start()
            self._runs = False


HEART = Heart()
