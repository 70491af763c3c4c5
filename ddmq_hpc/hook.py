"""The command of a queue's `on_complete`, run once when everything in the queue is done.

A worker that hands out a message sees to it that locks/complete-armed is there, before the message is let go. Whoever
finds the queue drained renames it to a name of its own, which one of them can, and runs the command. It is run once for
each time that the queue is worked off; should its worker die meanwhile it is not run again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from shutil import which
from tempfile import TemporaryFile
from threading import Lock, Thread
from typing import Callable

from ddmq_hpc.errors import DdmqError
from ddmq_hpc.guardian import Guardian
from ddmq_hpc.identity import token
from ddmq_hpc.idle import Backoff
from ddmq_hpc.journal import COMPLETED
from ddmq_hpc.locks import first_to_make
from ddmq_hpc.names import HOOK_ARMED, hook_fired_name
from ddmq_hpc.output import tail
from ddmq_hpc.processes import Spawned
from ddmq_hpc.queue import Queue
from ddmq_hpc.trust import Trust


def arm(queue: Queue) -> None:
    """The next time that the queue is drained its command is to be run. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    if not fs.is_there(paths.in_locks(HOOK_ARMED)):
        first_to_make(fs, paths, HOOK_ARMED)


def is_armed(queue: Queue) -> bool:
    """Whether its command is to be run when it is drained. Raises OSError."""
    return queue.fs.is_there(queue.paths.in_locks(HOOK_ARMED))


def fire(queue: Queue) -> bool:
    """Whether the caller is the one that has to run the command. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    mine = paths.in_locks(hook_fired_name(token()))
    if not fs.claim(paths.in_locks(HOOK_ARMED), mine):
        return False
    fs.drop(mine)
    return True


class Hook:
    """What one worker does about the commands of its queues. Slots call `handed_out`, the watching thread `look`."""

    def __init__(
        self, queues: Sequence[Queue], trusted: Sequence[str], guardian: Guardian, tell: Callable[[str], None]
    ) -> None:
        self._queues = queues
        self._trusted = trusted
        self._guardian = guardian
        self._tell = tell
        self._lock = Lock()
        self._due: dict[str, Queue] = {}
        self._backoff = Backoff(1.0, 30.0)
        self._next = 0.0
        self._threads: list[Thread] = []

    def handed_out(self, queue: Queue) -> None:
        """A message of this queue is about to be worked on. Raises `StorageError`."""
        if queue.settings.on_complete is None:
            return
        try:
            arm(queue)
        except OSError as error:
            raise queue.trouble(error, "note what is to be run when all is done") from error
        with self._lock:
            self._due[queue.name] = queue
            self._backoff.reset()
            self._next = 0.0

    def look(self, clock: float) -> None:
        """Run the commands of queues that are drained: called now and then while the worker has nothing to do, at
        `clock` seconds."""
        with self._lock:
            due = list(self._due.values()) if clock >= self._next else []
            if due:
                self._next = clock + self._backoff.next()
        for queue in due:
            if self._is_over(queue):
                with self._lock:
                    self._due.pop(queue.name, None)

    def close(self) -> None:
        """The worker ends: look once more, and wait for what runs."""
        for queue in self._queues:
            if queue.settings.on_complete is not None:
                self._is_over(queue)
        for thread in self._threads:
            thread.join()

    def _is_over(self, queue: Queue) -> bool:
        """Whether there is nothing to run any more; it is being run when it was this worker's to do so."""
        command = queue.settings.on_complete
        try:
            if command is None or not is_armed(queue):
                return True
            if not queue.is_drained():
                return False
            Trust(queue, shell=True, users=self._trusted).check_place()
            if not fire(queue):
                return True
        except (DdmqError, OSError) as error:
            self._tell(f"on_complete of {queue.name} was not run: {error}")
            return isinstance(error, DdmqError)
        thread = Thread(target=self._run, args=(queue, command), daemon=True)
        self._threads.append(thread)
        thread.start()
        return True

    def _run(self, queue: Queue, command: str) -> None:
        self._tell(f"all of {queue.name} is done: running its on_complete")
        environment = {**os.environ, "DDMQ_HPC_ROOT": queue.paths.root, "DDMQ_HPC_QUEUE": queue.name}
        began = queue.fs.time()
        with TemporaryFile() as output:
            try:
                process = Spawned([which("bash") or "/bin/sh", "-c", command], environment, os.devnull, output.fileno())
            except (OSError, ValueError) as error:
                self._tell(f"on_complete of {queue.name} cannot be run: {error}")
                return
            group = -process.pid
            self._guardian.watch(group)
            end = process.wait()
            self._guardian.forget(group)
            said = tail(output.fileno()).decode("utf-8", "replace")
        record = queue.journal.record(
            COMPLETED, "on_complete", 0, queue.fs.time(), began, {"exit": end.code, "output": said}
        )
        try:
            queue.journal.write([record], queue.settings.durable)
        except OSError as error:
            self._tell(f"the end of on_complete cannot be noted: {error.strerror}")
        last = said.strip().rpartition("\n")[2][:200]
        self._tell(f"on_complete of {queue.name} ended with exit code {end.code}" + f": {last}" * bool(last))
