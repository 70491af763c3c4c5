"""The time that a worker has, and the pace of its tasks: what can still be begun."""

from __future__ import annotations

import statistics
import time
from collections import deque
from threading import Lock, Thread
from typing import Callable

#: No batch job is shorter (seconds), so a worker that is done by then need not ask its scheduler when its job ends:
#: an array of a thousand short-lived workers would ask a thousand times.
NO_JOB_IS_SHORTER = 30.0
#: Time left free at the end unless told otherwise: so many seconds, or this part of the time there is if that is less.
_MARGIN, _MARGIN_PART = 300.0, 0.1


class Pace:
    """How long tasks took so far. Threads may share it."""

    def __init__(self) -> None:
        self._walls: deque[float] = deque(maxlen=101)

    def add(self, wall: float) -> None:
        self._walls.append(wall)

    @property
    def known(self) -> bool:
        return len(self._walls) >= 3

    @property
    def median(self) -> float:
        """Seconds; 0 when no task has ended yet."""
        return statistics.median(list(self._walls)) if self._walls else 0.0


class Window:
    """From now until `margin` seconds before `ask` says that the job ends (seconds since 1970; None: it does not end).

    `ask` is called once, when the answer can matter. Threads may share it.
    """

    def __init__(self, ask: Callable[[], float | None] = lambda: None, margin: float | None = None) -> None:
        self._start = time.time()
        self._ask = ask
        self._margin = margin
        self._asked = False
        self._end: float | None = None
        self._lock = Lock()

    def has(self, seconds: float) -> bool:
        """Whether a task that takes so long would be done in time."""
        if not self._asked and time.time() + seconds < self._start + NO_JOB_IS_SHORTER:
            return True
        end = self.end()
        return end is None or time.time() + seconds <= end

    def end(self) -> float | None:
        """When the last task has to be done."""
        job_end = self.job_end()
        if job_end is None:
            return None
        margin = min(_MARGIN, (job_end - self._start) * _MARGIN_PART) if self._margin is None else self._margin
        return job_end - margin

    def job_end(self) -> float | None:
        """When the job will be ended; asks if nobody has yet."""
        with self._lock:
            if not self._asked:
                self._end = self._ask()
                self._asked = True
            return self._end

    def known_end(self) -> float | None:
        """When the job will be ended, as far as it is known; asking, if it is time for that, does not hold up the
        caller."""
        if self._asked:
            return self._end
        if time.time() > self._start + NO_JOB_IS_SHORTER and not self._lock.locked():
            Thread(target=self.job_end, daemon=True).start()
        return None
