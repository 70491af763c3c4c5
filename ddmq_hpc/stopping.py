"""How a job is told to end: by a signal that a scheduler sends to all of its processes, one after the other."""

from __future__ import annotations

import signal
import time
from typing import Callable

#: Those that a job is told by, and that end in good order who works in it.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Seconds within which all processes of a job have heard it, on a busy node, too (0.2 were not enough for Slurm's).
_HEARSAY_SECONDS = 2.0
_LOOK_SECONDS = 0.02


def was_stopped(code: int, is_told: Callable[[], bool]) -> bool:
    """Whether this process `is_told` to end, by the time that what it ran has ended with this exit code. Who dies of
    such a signal may have been told first: then a moment is waited."""
    end = time.monotonic() + (_HEARSAY_SECONDS if code - 128 in STOPPING else 0.0)
    while not is_told() and time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
    return is_told()
