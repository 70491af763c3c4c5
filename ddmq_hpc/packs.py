"""Reading packs: the lines of a range, as messages, whatever state the file is in."""

from __future__ import annotations

import errno
import os
from collections.abc import Container
from typing import Any, Callable

from ddmq_hpc.errors import BadMessage
from ddmq_hpc.fs import GONE, NO_FILE, Filesystem
from ddmq_hpc.messages import NO_OPTIONS, Options, decode_line
from ddmq_hpc.names import MAX_PACK, NO_PACK, TOO_LARGE, Entry

#: Bytes of a pack that are read whatever the largest message may be; and of one message besides its body, which has the
#: limit of bodies, too.
_MOST, _PARTS = 64 << 20, 2
#: Bytes of a line that are always looked into: as Python values they may take thirty times as many.
_LINE = 4 << 20


class PackReader:
    """Reads entries. The pack read last is kept: packs are immutable, and taken one message at a time by their
    readers. `largest` is how many bytes a message may have: a pack is one such, or far smaller."""

    def __init__(self, fs: Filesystem, largest: Callable[[], int]) -> None:
        #: Users besides whom everybody has one message a file; None where any file may be a pack.
        self.of_packs: Container[int] | None = None
        self._fs = fs
        self._largest = largest
        self._last: tuple[str, list[bytes]] = ("", [])

    def content(self, path: str) -> bytes:
        """All of a pack. Raises OSError: one of `fs.NO_FILE` for what is none, and for what another user does not let
        anybody read, by its permissions or by a lease of the kernel's (fcntl(2): EAGAIN), who would stop the queue with
        it."""
        try:
            return self._fs.read(path, max(_MOST, _PARTS * self._largest()), self._most_of if self.of_packs else None)
        except (PermissionError, BlockingIOError) as error:
            if self._fs.lstat(path).st_uid == os.geteuid():
                raise
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), path) from error

    def _most_of(self, uid: int) -> int:
        """Bytes of a file of that user: a sparse one costs him nothing, and whoever reads it seconds."""
        return _MOST if self.of_packs is None or uid in self.of_packs else longest_line(self._largest())

    def _read(self, path: str, pack: str) -> list[bytes]:
        """All lines of a pack; the last is what follows the last newline."""
        lines = self.content(path).split(b"\n", MAX_PACK + 1)  # there is no name for a line behind those
        if len(lines) > 2:
            self._last = (pack, lines)
        return lines

    def read(
        self, path: str, entry: Entry, doubt: Callable[[bytes], str | None] | None = None
    ) -> tuple[list[tuple[int, Any, Options]], dict[int, str]]:
        """The readable messages of an entry, (index, body, options), and why each of the others is not, or what `doubt`
        says of its line. Raises OSError."""
        pack, lines = self._last
        if pack != entry.pack:
            lines = self._read(path, entry.pack)
        whole = len(lines) - 1  # a line that no newline ends is torn
        good: list[tuple[int, Any, Options]] = []
        bad: dict[int, str] = {}
        for index in range(entry.first, entry.stop):
            if index >= whole:
                bad[index] = "truncated"
                continue
            if len(lines[index]) > _LINE and len(lines[index]) > longest_line(self._largest()):
                bad[index] = TOO_LARGE
                continue
            if doubt and (why := doubt(lines[index])):
                bad[index] = why
                continue
            try:
                body, options = decode_line(lines[index])
            except BadMessage:
                bad[index] = "corrupt"
                continue
            good.append((index, body, options))
        return good, bad

    def options(self, path: str, entry: Entry) -> Options | None:
        """The options that the messages of an entry share; defaults when none is readable, None when the file is
        gone."""
        try:
            good, _ = self.read(path, entry.part(entry.first, entry.first + 1))
        except OSError as error:
            if error.errno in GONE:
                return None
            if error.errno in NO_FILE:
                return NO_OPTIONS
            raise
        return good[0][2] if good else NO_OPTIONS


def longest_line(largest: int) -> int:
    """Bytes of one message with all that belongs to it, where its body may have `largest`."""
    return max(_LINE, _PARTS * largest)


def unreadable(entry: Entry, error: OSError) -> dict[int, str]:
    """Why each message of an entry cannot be read, when reading it raised one of `fs.NO_FILE`."""
    return dict.fromkeys(range(entry.first, entry.stop), TOO_LARGE if error.errno == errno.EFBIG else NO_PACK)
