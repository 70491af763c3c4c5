"""The journal made small, and forgotten in time: files that nobody writes any more become a few compressed ones.

In three steps, each of which a crash leaves repairable, and none of which hides a record from a reader or tells it
twice (see `ledger`):

1. Files that are two days old by their names, and were silent for a day, are renamed. Clients write to the file of
   the day (`journal.Journal`), so that nobody writes to them any more, whatever a client believes to see of them.
2. They are written into a compressed one, aside, which is renamed into place. Left out is what is repeated, and what
   was taken back.
3. They are removed.

Compressed files that are small are made one in the same way. The name of one says when the first and the last file in
it were written last, so that it is forgotten without being read.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from stat import S_ISREG
from typing import Any, NamedTuple

from ddmq_hpc import ledger
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import token
from ddmq_hpc.locks import first_in_minute, locked
from ddmq_hpc.names import (
    PackedJournal,
    QueuePaths,
    is_journal,
    journal_day,
    parse_packed_journal,
    retired_from,
    retired_journal_name,
)
from ddmq_hpc.settings import Settings

#: Seconds for which a file must have been silent, and for which its day must have been over.
SILENT_SECONDS = 86400.0
_DAY_MS = 86_400_000
#: Minutes between two times that clients do this by themselves, over all hosts.
_EVERY_MINUTES = 360
_LOCK = "compact"
#: Compressed files of fewer bytes are made one when there are so many of them.
_SMALL, _MANY = 16 << 20, 8
#: How much smaller compressed records are at least, to guess.
_RATIO = 8
#: Of what is to be kept for a while, or up to a size, one file has at most this part, so that little is kept too long.
_PART = 8
#: Records among which one that was written again is found, as in `attempts`.
_WINDOW = 4096
#: And bytes: lines of ours have hundreds.
_WINDOW_BYTES = 64 << 20
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Compacted:
    """What was done: files made one, bytes that they had and have; files forgotten, and their bytes."""

    files: int = 0
    before: int = 0
    after: int = 0
    forgotten: int = 0
    forgotten_bytes: int = 0


class _File(NamedTuple):
    """A file of the journal; when it, or what it contains, was written last: the first and the last, in
    milliseconds; `size` is in bytes of compressed records."""

    oldest: int
    newest: int
    name: str
    size: int
    bytes: int


def maybe(fs: Filesystem, paths: QueuePaths, settings: Settings) -> Compacted | None:
    """Compact and forget, unless a client of any host did in the last hours. Raises OSError."""
    minute = int(fs.now(paths.tmp) // 60) // _EVERY_MINUTES * _EVERY_MINUTES
    return compact(fs, paths, settings) if first_in_minute(fs, paths, _LOCK, minute) else None


def compact(fs: Filesystem, paths: QueuePaths, settings: Settings, silent: float = SILENT_SECONDS) -> Compacted:
    """Make compressed files of those that were `silent` for so many seconds, and forget what is too old, or too much,
    by the settings. Nothing when another client does it. The file that was written last stays as it is: its end tells
    how long tasks take. Raises OSError."""
    with locked(fs, paths, _LOCK) as taken:
        if taken is None:
            return Compacted()
        _finish(fs, paths)
        too_old = _too_old(fs, paths, settings)
        retired = list(_retired(fs, paths, silent, too_old))
        forgotten = _forget(fs, paths, [file for file in retired if file.newest < too_old])
        retired = [file for file in retired if file.newest >= too_old]
        after = sum(_pack(fs, paths, group) for group in _groups(retired, settings, 1))
        small = [file for file in _packed(fs, paths) if file.size <= _small(settings)]
        for group in _groups(small, settings, _MANY):
            _pack(fs, paths, [file for file in group if _is_whole(fs, paths, file)])
        forgotten += _forget(fs, paths, _too_much(_packed(fs, paths), settings, too_old))
    return Compacted(len(retired), sum(file.bytes for file in retired), after, len(forgotten), sum(forgotten))


def _too_old(fs: Filesystem, paths: QueuePaths, settings: Settings) -> int:
    """The time, in milliseconds, before which nothing is kept."""
    if settings.journal_keep is None:
        return 0
    return int((fs.now(paths.tmp) - settings.journal_keep) * 1000)


def _small(settings: Settings) -> int:
    return _SMALL if settings.journal_size is None else min(_SMALL, settings.journal_size // _PART)


def _finish(fs: Filesystem, paths: QueuePaths) -> None:
    """The third step of somebody who died before it."""
    names = fs.names(paths.journal)
    for name in ledger.contained(fs, paths, names, set(names)):
        if retired_from(name) or parse_packed_journal(name):
            fs.drop(f"{paths.journal}/{name}")


def _retired(fs: Filesystem, paths: QueuePaths, silent: float, too_old: int) -> Iterator[_File]:
    """The first step; and the files of those who died after it."""
    files = _plain(fs, paths)
    until = int((fs.now(paths.tmp) - silent) * 1000)
    last = files[-1:]
    for file in files:
        day = journal_day(file.name)
        if day is not None and (day + 1) * _DAY_MS > until:
            continue
        if file.newest > until or ([file] == last and file.newest >= too_old and not retired_from(file.name)):
            continue
        if retired_from(file.name):
            yield file
            continue
        name = retired_journal_name(file.name, token())
        if fs.claim(f"{paths.journal}/{file.name}", f"{paths.journal}/{name}"):
            yield file._replace(name=name)


def _plain(fs: Filesystem, paths: QueuePaths) -> list[_File]:
    """Files that are not compressed and can be read, the oldest first."""
    found = []
    for name in fs.names(paths.journal):
        if not (is_journal(name) or retired_from(name)):
            continue
        try:
            status, _ = fs.read_some(f"{paths.journal}/{name}", 1)
        except OSError:
            continue  # gone, of somebody who lets nobody read it, or no file at all
        if S_ISREG(status.st_mode):
            at = int(status.st_mtime * 1000)
            found.append(_File(at, at, name, status.st_size // _RATIO, status.st_size))
    return sorted(found)


def _packed(fs: Filesystem, paths: QueuePaths) -> list[_File]:
    """Compressed files, the oldest first."""
    found = []
    for name in fs.names(paths.journal):
        packed = parse_packed_journal(name)
        if packed is None:
            continue
        try:
            status = fs.lstat(f"{paths.journal}/{name}")
        except OSError as error:
            if error.errno in GONE:
                continue
            raise
        if S_ISREG(status.st_mode):
            found.append(_File(packed.oldest, packed.newest, name, status.st_size, status.st_size))
    return sorted(found)


def _is_whole(fs: Filesystem, paths: QueuePaths, file: _File) -> bool:
    """Whether all of a compressed file can be read: what is left of one that is damaged stays where it is."""
    try:
        for _ in ledger.lines(fs, f"{paths.journal}/{file.name}"):
            pass
    except OSError:
        return False
    return True


def _groups(files: Iterable[_File], settings: Settings, least: int) -> list[list[_File]]:
    """Files that become one, `least` at least: by their time, which is not to be long, nor they large."""
    span = float("inf") if settings.journal_keep is None else settings.journal_keep * 1000 / _PART
    most = _small(settings)
    groups: list[list[_File]] = []
    size = 0
    for file in files:
        if groups and file.newest - groups[-1][0].oldest <= span and size + file.size <= most:
            groups[-1].append(file)
            size += file.size
        else:
            groups.append([file])
            size = file.size
    return [group for group in groups if len(group) >= least]


def _pack(fs: Filesystem, paths: QueuePaths, files: Sequence[_File]) -> int:
    """The second step and the third; how many bytes the new file has, 0 when there is none: somebody else was
    faster."""
    if not files:
        return 0
    name = PackedJournal(files[0].oldest, max(file.newest for file in files), token()).name
    aside = paths.in_tmp(f"journal-{token()}")
    try:
        _write(fs, paths, aside, [file.name for file in files])
        size = fs.lstat(aside).st_size
        if not fs.claim(aside, f"{paths.journal}/{name}"):
            return 0
    except OSError as error:
        with suppress(OSError):
            fs.drop(aside)
        if error.errno in GONE:
            return 0
        raise
    fs.sync_directory(paths.journal)
    for file in files:
        fs.drop(f"{paths.journal}/{file.name}")
    return size


def _write(fs: Filesystem, paths: QueuePaths, aside: str, names: Sequence[str]) -> None:
    """What these files have as one, on the disk. Raises OSError, when a part of them cannot be read, too."""
    there = set(fs.names(paths.journal))
    contains = {*names, *ledger.contained(fs, paths, names, there)}
    handle = fs.create_open(aside, b"")
    try:
        with io.BufferedWriter(_Appending(fs, handle), _BUFFER) as to, gzip.GzipFile("", "wb", 6, to, 0) as packed:
            packed.write(ledger.first_line(contains))
            packed.writelines(_content(fs, paths, names))
        fs.sync_file(handle)
    finally:
        fs.close(handle)


class _Appending(io.RawIOBase):
    """What is written to an open file, as calls of `fs`."""

    def __init__(self, fs: Filesystem, handle: int) -> None:
        self._fs = fs
        self._handle = handle

    def writable(self) -> bool:
        """Yes: what compresses asks."""
        return True

    def write(self, data: Any) -> int:
        """All of `data`: how many bytes. Raises OSError."""
        self._fs.append(self._handle, bytes(data))
        return len(data)


def _content(fs: Filesystem, paths: QueuePaths, names: Sequence[str]) -> Iterator[bytes]:
    told = set()
    for name in names:
        for source, lines in ledger.sections(fs, paths, name):
            if source not in told:
                told.add(source)
                yield ledger.heading(source)
                for line in _once(lines):
                    yield line + b"\n"  # the last one may be torn


def _once(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without those that are repeated, and without outcomes that were taken back as they were told. What takes
    back a part of one stays for readers to see."""
    waiting: OrderedDict[tuple[str, ...], dict[bytes, None]] = OrderedDict()
    count = size = 0  # of what waits
    for line in lines:
        told, is_late = _what(line)
        if is_late and (taken_back := waiting.pop(told, {})):
            count, size = count - len(taken_back), size - sum(map(len, taken_back))
            continue
        same = waiting.setdefault((*told, "late") if is_late else told, {})
        if line not in same:
            same[line] = None
            count, size = count + 1, size + len(line)
        while count > _WINDOW or size > _WINDOW_BYTES:
            _, ready = waiting.popitem(last=False)
            count, size = count - len(ready), size - sum(map(len, ready))
            yield from ready
    yield from chain.from_iterable(waiting.values())


def _what(line: bytes) -> tuple[tuple[str, ...], bool]:
    """Which attempt at what a line tells of, and whether it takes that back."""
    try:
        found = json.loads(line)
        return tuple(repr(found[key]) for key in ("id", "attempt", "taken")), found["state"] == "late"
    except (ValueError, TypeError, KeyError, RecursionError):
        return (repr(line),), False


def _too_much(packed: Sequence[_File], settings: Settings, too_old: int) -> Iterator[_File]:
    """Those that are too old, and the oldest of what is more than there may be."""
    left = sum(file.bytes for file in packed)
    for file in packed:
        if file.newest < too_old or (settings.journal_size is not None and left > settings.journal_size):
            left -= file.bytes
            yield file


def _forget(fs: Filesystem, paths: QueuePaths, files: Iterable[_File]) -> list[int]:
    """Remove files; the sizes of those that were there."""
    return [file.bytes for file in files if fs.drop(f"{paths.journal}/{file.name}")]
