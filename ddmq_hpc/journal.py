"""Outcomes of messages, appended to one file a host: written before a message is let go.

A record is one write(2) on a file opened with O_APPEND, so the death of a process tears none and loses none. With
`durable`, and on a network file system, a background flush follows within a second: a power cut can take the outcomes
of the last second, and the messages they tell of may then come back.

On NFS write(2) only fills a page of this host: that the disk is full, a quota used up or the server gone is what a
flush is told, and the page is dropped then. So the first record of a process and each one after a flush that failed is
flushed before it counts, and what a failed flush was about is written again, so that it may be there twice. Lost is
what a process wrote in the last second before it ended, when that cannot be flushed.

One kernel writes a file (its name has host, boot and user), because appends of several NFS clients to one file
overwrite each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from ddmq_hpc.errors import UsageError
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import batch_job, boot, fork_count, host
from ddmq_hpc.names import QueuePaths

FLUSH_SECONDS = 1.0
#: How much `recent` reads: files looked at, files read, bytes of each.
_LOOKED_AT, _READ_TAILS, _TAIL = 128, 16, 1 << 15
_OWN = {"state", "id", "attempt", "at", "taken"}


class Journal:
    """The writing end, for one queue. Threads may share it."""

    def __init__(self, fs: Filesystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._path = f"{paths.journal}/{host()}.{boot()}.{os.getuid()}.jsonl"
        self._handle = -1
        self._forks = -1
        self._tail = ""
        self._unsynced: Any = None
        self._torn = False
        self._wary = False  # what is written is flushed before it counts
        self._in_doubt: list[bytes] = []  # written, and on a network file system not flushed yet

    def write(self, records: list[str], durable: bool) -> None:
        """Append records made by `record`. Raises OSError when they cannot be kept."""
        if self._forks != fork_count():
            self._open()
        data = (self._tail.join(records) + self._tail).encode()
        if self._wary:
            self._write_and_flush(data)
            return
        try:
            self._append(data)
        except OSError:
            self._wary = True  # on NFS it is of pages written before that this was told, and no flush will be
            raise
        if self._fs.network:
            self._in_doubt.append(data)
        if (durable or self._fs.network) and self._unsynced is None:
            self._flush_soon()

    def _append(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data  # a full disk took half a record: it must not take this one with it
        self._torn = True
        try:
            self._fs.append(self._handle, data)
        except OSError as error:
            if error.errno not in GONE:
                raise
            self._open()
            self._fs.append(self._handle, data)
        self._torn = False

    def _write_and_flush(self, data: bytes) -> None:
        again, self._in_doubt = self._in_doubt, []
        try:
            self._append(b"".join([*again, data]))
            self._torn = True
            self._fs.sync_handle(self._handle)
        except OSError:
            self._in_doubt = again + self._in_doubt
            raise
        self._wary = self._torn = False

    @staticmethod
    def record(state: str, ident: str, attempt: int, at: float, taken: float, more: dict[str, Any]) -> str:
        """One line but for its end, which is the same for all that one process writes: `ident` is a message id or
        `<pack>.<first>-<stop>` for several; times are seconds since 1970."""
        extra = _extra(more) if more else ""
        return f'{{"state":"{state}","id":"{ident}","attempt":{attempt},"at":{at:.3f},"taken":{taken:.3f}{extra}'

    def _open(self) -> None:
        self.close()
        self._handle = self._fs.open_append(self._path)
        self._forks = fork_count()
        self._unsynced = None
        self._wary = self._fs.network
        self._in_doubt = []  # of a parent, or of a file that was removed
        job = batch_job()
        self._tail = f',"host":"{host()}","pid":{os.getpid()}' + (f',"job":"{job}"' if job else "") + "}\n"

    def _flush_soon(self) -> None:
        from threading import Timer

        self._unsynced = Timer(FLUSH_SECONDS, self.flush)
        self._unsynced.daemon = True
        self._unsynced.start()

    def flush(self) -> None:
        """Bring what was written to the disk. A failure here is no outcome's failure: the next record is told of it."""
        timer, self._unsynced = self._unsynced, None
        if timer is None or self._handle < 0:
            return
        timer.cancel()
        if self._wary:
            return  # what is in doubt is to be written again
        flushed, self._in_doubt = self._in_doubt, []
        try:
            self._fs.sync_handle(self._handle)
        except OSError:
            self._wary = self._torn = True
        if self._wary:
            self._in_doubt = flushed + self._in_doubt

    def close(self) -> None:
        if self._handle < 0:
            return
        if self._forks == fork_count():
            self.flush()
            self._write_again()
        handle, self._handle = self._handle, -1
        self._forks = -1
        try:
            os.close(handle)
        except OSError:
            pass  # EIO of a soft mount: as in `flush`, what it was about is settled

    def _write_again(self) -> None:
        try:
            if self._in_doubt:
                self._write_and_flush(b"")
        except OSError:
            pass


def _extra(more: dict[str, Any]) -> str:
    if taken := _OWN & more.keys():
        raise UsageError(f"an outcome cannot be called {min(taken)!r}: every record has that")
    return f",{json.dumps(more)[1:-1]}"


def read(fs: Filesystem, paths: QueuePaths, pack: str | None = None) -> Iterator[dict[str, Any]]:
    """All records, file by file; torn and foreign lines are passed over. `pack` keeps those that tell of that pack."""
    for name in sorted(fs.names(paths.journal)):
        if not name.endswith(".jsonl"):
            continue
        try:
            data = fs.read(f"{paths.journal}/{name}")
        except OSError:
            continue
        for line in data.splitlines():
            if pack is not None and pack.encode() not in line:
                continue
            if found := _parse(line):
                yield found


def recent(fs: Filesystem, paths: QueuePaths) -> list[dict[str, Any]]:
    """The latest records of the hosts that wrote last, in no order. Costs the same however long the journal is: of at
    most `_LOOKED_AT` files the ends of the `_READ_TAILS` newest are read."""
    names = [name for name in fs.names(paths.journal) if name.endswith(".jsonl")]
    if len(names) > _LOOKED_AT:
        from random import sample

        names = sample(names, _LOOKED_AT)
    changed: list[tuple[float, str, int]] = []
    for name in names:
        try:
            status = fs.lstat(f"{paths.journal}/{name}")
        except OSError:
            continue
        changed.append((status.st_mtime, name, status.st_size))
    found: list[dict[str, Any]] = []
    for _, name, length in sorted(changed, reverse=True)[:_READ_TAILS]:
        try:
            _, data = fs.read_some(f"{paths.journal}/{name}", _TAIL, max(0, length - _TAIL))
        except OSError:
            continue
        found += [record for line in data.split(b"\n") if (record := _parse(line))]  # the first one, cut short, is none
    return found


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("id"), str) else None
