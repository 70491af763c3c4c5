"""Where the output of tasks goes: nowhere, kept when they fail, one log a worker, or a file a task.

While a task runs its output goes to a file on this node's own disk, one a slot, so that a task costs the file server
nothing until it is over, and no inode.
"""

from __future__ import annotations

import json
import os
from typing import Protocol

from ddmq_hpc.errors import UsageError
from ddmq_hpc.fs import NO_FILE, Filesystem
from ddmq_hpc.names import QueuePaths
from ddmq_hpc.tasks import Task

#: So much of the end of a failed task's output is kept with its attempt, in bytes.
TAIL = 4096
#: A task that wrote more than this loses what came before, while it runs: nobody's disk is filled.
MOST = 64 * 1024 * 1024
KINDS = ("none", "tail", "segment", "files")


class Output(Protocol):
    """One worker's way with output. Threads may share it."""

    def open(self, task: Task) -> int:
        """A handle for stdout and stderr of a task."""

    def trim(self, handle: int) -> None:
        """Called now and then while the task runs."""

    def close(self, task: Task, handle: int, failed: bool) -> str:
        """The task is over; the end of its output when it failed."""


class NoOutput:
    def open(self, task: Task) -> int:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def trim(self, handle: int) -> None:
        pass

    def close(self, task: Task, handle: int, failed: bool) -> str:
        os.close(handle)
        return ""


class TailOutput:
    """Kept until the task is over; of those that fail the end goes into the journal."""

    def open(self, task: Task) -> int:
        path = f"{task.directory}.output"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.unlink(path)
        return handle

    def trim(self, handle: int) -> None:
        if os.fstat(handle).st_size > MOST:
            end = tail(handle)
            os.ftruncate(handle, 0)  # who appends goes on from there
            os.write(handle, b"[... more than %d bytes before this]\n" % MOST + end)

    def close(self, task: Task, handle: int, failed: bool) -> str:
        try:
            return tail(handle).decode("utf-8", "replace") if failed else ""
        finally:
            os.close(handle)


class FileOutput:
    """A file a task: ROOT/QUEUE/logs/<message id>.<attempt>.log."""

    def __init__(self, fs: Filesystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._paths = paths
        fs.make_directory(paths.logs)

    def open(self, task: Task) -> int:
        path = self._paths.in_logs(f"{task.message.id}.{task.message.attempt}")
        try:
            return self._fs.open_log(path)
        except OSError as error:
            is_of_the_name = error.errno in NO_FILE or (isinstance(error, PermissionError) and self._fs.is_there(path))
            if not is_of_the_name:
                raise
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # somebody planted something there

    def trim(self, handle: int) -> None:
        pass

    def close(self, task: Task, handle: int, failed: bool) -> str:
        try:
            return tail(handle).decode("utf-8", "replace") if failed else ""
        finally:
            os.close(handle)


class SegmentOutput(TailOutput):
    """One log a worker, ROOT/QUEUE/logs/<worker>.log, task after task as they end, and an index beside it with a line
    of JSON a task: id, attempt, offset and length in bytes."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, worker: str) -> None:
        from threading import Lock

        fs.make_directory(paths.logs)
        self._fs = fs
        self._lock = Lock()
        self._log = fs.open_log(paths.in_logs(worker))
        self._index = fs.open_append(paths.in_logs(worker, "index"))

    def close(self, task: Task, handle: int, failed: bool) -> str:
        with self._lock:
            offset = os.lseek(self._log, 0, os.SEEK_END)
            length = self._copy(handle)
            line = {"id": task.message.id, "attempt": task.message.attempt, "offset": offset, "length": length}
            self._fs.append(self._index, json.dumps(line).encode() + b"\n")
        return super().close(task, handle, failed)

    def _copy(self, handle: int) -> int:
        length = 0
        while block := os.pread(handle, 1 << 20, length):
            self._fs.append(self._log, block)
            length += len(block)
        return length


def tail(handle: int) -> bytes:
    """The end of what is in an open file."""
    return os.pread(handle, TAIL, max(0, os.fstat(handle).st_size - TAIL))


def choose(kind: str, fs: Filesystem, paths: QueuePaths, worker: str) -> Output:
    """The way named `kind`. Raises `UsageError`, OSError."""
    if kind == "none":
        return NoOutput()
    if kind == "tail":
        return TailOutput()
    if kind == "segment":
        return SegmentOutput(fs, paths, worker)
    if kind == "files":
        return FileOutput(fs, paths)
    raise UsageError(f"bad output {kind!r:.40}: use {', '.join(KINDS)}")
