"""What a task tells of itself while it runs: how far it is, to the worker that runs it.

Inside `ddmq-hpc work` that is a small file in the task's directory on its node, which the worker reads now and then; it
costs the file server nothing. After `pull` nobody is there to read it, so the lease is extended instead; inside `exec`,
which extends leases itself, it is only seen to be held.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from threading import Lock
from typing import Callable

from ddmq_hpc.advance import FILE, Progress
from ddmq_hpc.errors import LeaseLost, StorageError, UsageError

#: So often a program is heard, in a second and at once after a silence, where that is a file of its node; and seconds
#: between two signs of life where it takes the file server, less where leases are short.
_A_SECOND, _AT_ONCE = 10.0, 20.0
_LEASE_EVERY, _LEASE_PART = 30.0, 0.25


def tell(progress: Progress, environ: Mapping[str, str] = os.environ) -> None:
    """Tell how far the task of this environment is.

    Raises `UsageError` outside of tasks, `LeaseLost` when the message is known to be somebody else's now,
    `StorageError`, and OSError when the task's own directory cannot be written.
    """
    directory = _directory(environ)
    if directory:
        _write(directory, progress)
    elif environ.get("DDMQ_HPC_RECEIPT"):
        _hold_on(environ)
    else:
        raise UsageError("not inside a task: neither $DDMQ_HPC_TASK_DIR nor $DDMQ_HPC_RECEIPT is set")


def _directory(environ: Mapping[str, str]) -> str:
    """The directory of the task; empty when it is none of the message's, but of a task around this one."""
    directory = environ.get("DDMQ_HPC_TASK_DIR", "")
    of = os.path.basename(directory).partition(".")[2]
    return directory if of and of == environ.get("DDMQ_HPC_ID") else ""


def _write(directory: str, progress: Progress) -> None:
    place = f"{directory}/{FILE}"
    aside = f"{place}.{os.getpid()}"
    with open(aside, "wb") as file:
        file.write(progress.encode())
    os.replace(aside, place)


def _hold_on(environ: Mapping[str, str]) -> None:
    from ddmq_hpc.broker import Broker
    from ddmq_hpc.identity import Detached, Owner
    from ddmq_hpc.names import parse_receipt

    receipt = environ["DDMQ_HPC_RECEIPT"]
    name = environ.get("DDMQ_HPC_QUEUE") or receipt.rpartition("/")[0].rpartition("/")[2]
    root = environ.get("DDMQ_HPC_ROOT")
    if not root:
        raise UsageError("$DDMQ_HPC_RECEIPT is set, but $DDMQ_HPC_ROOT is not")
    broker = Broker(root, identity=Detached())
    queue = broker.queue(name)
    owner = Owner.parse(parse_receipt(receipt, name).owner)
    if owner is None or not owner.pid:
        queue.extend([receipt])
        return
    # A process renews this lease, under the name that it gave it last: extended by others it would be lost to it.
    try:
        ((held, _),) = queue.handles.by_lease([receipt])
    except OSError as error:
        raise queue.trouble(error, "look for a lease") from error
    if not held.runs:
        raise LeaseLost([receipt])


class _Voice:
    """How often a program is heard. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = _AT_ONCE
        self._last = clock()
        self._lock = Lock()

    def may_speak(self, a_second: float, at_once: float) -> bool:
        with self._lock:
            now = self._clock()
            self._left = min(at_once, self._left + (now - self._last) * a_second)
            self._last = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


_voice = _Voice()


def progress(done: float | None = None, total: float | None = None, text: str = "") -> None:
    """Tell that `done` of `total` is done, in whatever the task counts, and a text for people.

    May be called in a loop: it tells ten times a second at most, and leaves out the rest. A sign of life: see the
    setting `progress_timeout`. After `pull` it extends the lease now and then. Outside of tasks, and when a file cannot
    be written, it does nothing. Raises `LeaseLost` when the message is known to be somebody else's now, `UsageError`
    for numbers that are none.
    """
    if "DDMQ_HPC_RECEIPT" not in os.environ or not _voice.may_speak(*_pace(os.environ)):
        return
    try:
        tell(Progress.checked(done, total, text))
    except (StorageError, OSError):
        pass


def _pace(environ: Mapping[str, str]) -> tuple[float, float]:
    """How often it may be told: so often a second, so often at once."""
    if _directory(environ):
        return _A_SECOND, _AT_ONCE
    from ddmq_hpc.names import parse_lease

    lease = parse_lease(environ["DDMQ_HPC_RECEIPT"].rpartition("/")[2])
    every = min(_LEASE_EVERY, lease.duration / 1000 * _LEASE_PART) if lease else _LEASE_EVERY
    return 1 / max(every, 0.01), 1.0
