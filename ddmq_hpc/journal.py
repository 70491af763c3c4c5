"""Outcomes of messages, appended to one file a host and day: written before a message is let go.

A record is one write(2) on a file opened with O_APPEND, so the death of a process tears none and loses none. With
`durable`, and on a network file system, a background flush follows within a second: a power cut can take the outcomes
of the last second, and the messages they tell of may then come back.

On NFS write(2) only fills a page of this host: that the disk is full, a quota used up or the server gone is what a
flush is told, and the page is dropped then. So the first record of a process and each one after a flush that failed is
flushed before it counts, and what a failed flush was about is written again, so that it may be there twice. Lost is
what a process wrote in the last second before it ended, when that cannot be flushed.

One kernel writes a file (its name has host, boot and user), because appends of several NFS clients to one file
overwrite each other. It does so on one day of the file system's clock, so that `archive` knows by its name when nobody
writes it any more.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from ddmq_hpc.errors import UsageError
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import batch_job, boot, fork_count, host
from ddmq_hpc.messages import parse_object
from ddmq_hpc.names import QueuePaths, is_journal, journal_name

FLUSH_SECONDS = 1.0
#: The state in the record of a worker that ended; those of messages are in `attempts`.
WORKER = "worker"
#: The state in the record of an `on_complete` that was run.
COMPLETED = "completed"
_DAY = 86400
#: A record that took so many seconds to write may have come to a file after that was compressed: it is written again.
_LONGEST = 3600.0
#: How often a record is written anew whose file was removed before it was flushed.
_TRIES = 3
#: How much is read of the ends of files: files looked at, files read, bytes of each.
_LOOKED_AT, _READ_TAILS, _TAIL = 128, 16, 1 << 15
_OWN = {"state", "id", "attempt", "at", "taken"}


class Journal:
    """The writing end, for one queue. Threads may share it."""

    def __init__(self, fs: Filesystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._paths = paths
        self._handle = -1
        self._forks = -1
        self._until = self._until_by_clock = -1e9
        self._tail = ""
        self._unsynced: Any = None
        self._torn = False
        self._wary = False  # what is written is flushed before it counts
        self._in_doubt: list[bytes] = []  # written, and on a network file system not flushed yet

    def write(self, records: list[str], durable: bool) -> None:
        """Append records made by `record`. Raises OSError when they cannot be kept."""
        begun = self._fs.monotonic()
        if self._forks != fork_count() or begun > self._until or self._fs.time() > self._until_by_clock:
            self._open()
        data = (self._tail.join(records) + self._tail).encode()
        if self._wary:
            self._write_and_flush(data)
        else:
            self._write(data, durable)
        if self._fs.monotonic() - begun > _LONGEST:
            self._open()
            self._write_and_flush(data)

    def _write(self, data: bytes, durable: bool) -> None:
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
            again, self._in_doubt = self._in_doubt, []
            try:
                self._open()
                self._fs.append(self._handle, b"".join([*again, data]))
            finally:
                self._in_doubt = again
        self._torn = False

    def _write_and_flush(self, data: bytes) -> None:
        again, self._in_doubt = self._in_doubt, []
        try:
            for _ in range(_TRIES):
                self._append(b"".join([*again, data]))
                self._torn = True
                if self._is_flushed():
                    break
                self._open()
            else:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self._paths.journal)
        except OSError:
            self._in_doubt = again + self._in_doubt
            raise
        self._wary = self._torn = False

    def _is_flushed(self) -> bool:
        """Flush the file; False where it was removed, and the file server does not know it any more. Raises
        OSError."""
        try:
            self._fs.sync_handle(self._handle)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return False
        return True

    @staticmethod
    def record(state: str, ident: str, attempt: int, at: float, taken: float, more: dict[str, Any]) -> str:
        """One line but for its end, which is the same for all that one process writes: `ident` is a message id or
        `<pack>.<first>-<stop>` for several; times are seconds since 1970."""
        extra = _extra(more) if more else ""
        return f'{{"state":"{state}","id":"{ident}","attempt":{attempt},"at":{at:.3f},"taken":{taken:.3f}{extra}'

    def _open(self) -> None:
        mine = self._forks == fork_count()
        self.close()
        now = self._fs.now(self._paths.tmp)
        name = journal_name(host(), boot(), os.getuid(), int(now // _DAY))
        self._handle = self._fs.open_append(f"{self._paths.journal}/{name}")
        self._forks = fork_count()
        left = _DAY - now % _DAY
        # The steady clock stands still while a host is suspended; the other one can be set.
        self._until, self._until_by_clock = self._fs.monotonic() + left, self._fs.time() + left
        self._unsynced = None
        self._wary = self._fs.network
        if not mine:
            self._in_doubt = []  # of a parent
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


def files(fs: Filesystem, paths: QueuePaths) -> list[str]:
    """The paths of all files with records, the compressed ones first; what is in those besides is left out. Raises
    OSError."""
    from ddmq_hpc import ledger

    return [f"{paths.journal}/{name}" for name in ledger.files(fs, paths)]


def records(fs: Filesystem, path: str, pack: str | None = None) -> Iterator[dict[str, Any]]:
    """The records of one file, in order, read in blocks; torn and foreign lines are passed over, and what cannot be
    read. `pack` keeps those that tell of that pack."""
    from ddmq_hpc import ledger

    return _records(ledger.as_far_as_possible(ledger.lines(fs, path)), pack)


def read_each(fs: Filesystem, paths: QueuePaths, pack: str | None = None) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of all files, each once, those of one that clients wrote by themselves and in order; each of these
    has to be read before the next one. Raises OSError when the journal cannot be listed."""
    from ddmq_hpc import ledger

    return (_records(lines, pack) for lines in ledger.sources(fs, paths))


def read(fs: Filesystem, paths: QueuePaths, pack: str | None = None) -> Iterator[dict[str, Any]]:
    """The same in one stream."""
    return chain.from_iterable(read_each(fs, paths, pack))


def _records(lines: Iterable[bytes], pack: str | None) -> Iterator[dict[str, Any]]:
    wanted = pack and pack.encode()
    return parsed(line for line in lines if not wanted or wanted in line)


def growing(fs: Filesystem, paths: QueuePaths) -> list[str]:
    """The paths of the files that are appended to. Raises OSError."""
    return [f"{paths.journal}/{name}" for name in sorted(filter(is_journal, fs.names(paths.journal)))]


class Tail(NamedTuple):
    """A file, when it was changed (seconds since 1970), and the whole lines from its byte `start` up to `end`: those of
    a file that was not read are none."""

    name: str
    changed: float
    start: int
    end: int
    lines: list[bytes]


def tails(fs: Filesystem, paths: QueuePaths, most: int) -> tuple[list[Tail], list[str]]:
    """The ends of files, and the names of all that there are. Costs the same however long the journal is: at most
    `_LOOKED_AT` files are looked at, and of the `_READ_TAILS` newest of these at most `most` bytes read."""
    every = list(filter(is_journal, fs.names(paths.journal)))
    names = every
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
    found: list[Tail] = []
    for at, name, length in sorted(changed, reverse=True):
        start, data = length, b""
        if len(found) < _READ_TAILS:
            try:
                start = max(0, length - most)
                _, data = fs.read_some(f"{paths.journal}/{name}", most, start)
            except OSError:
                start = length
        *whole, _ = data.split(b"\n")
        if start and whole:
            start += len(whole[0]) + 1
            del whole[0]  # cut short
        found.append(Tail(name, at, start, start + sum(map(len, whole)) + len(whole), whole))
    return found, every


def recent(fs: Filesystem, paths: QueuePaths) -> list[dict[str, Any]]:
    """The latest records of the hosts that wrote last, in no order, as `tails` finds them."""
    return [record for tail in tails(fs, paths, _TAIL)[0] for record in parsed(tail.lines)]


def parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The records of lines; torn and foreign ones are passed over."""
    return filter(None, map(_parse, lines))


def _parse(line: bytes) -> dict[str, Any] | None:
    found = parse_object(line)
    return found if found and isinstance(found.get("id"), str) else None
