"""Reading packs: the lines of a range, as messages, whatever state the file is in."""

from __future__ import annotations

from typing import Any

from ddmq_hpc.errors import BadMessage
from ddmq_hpc.fs import GONE, NO_FILE, Filesystem
from ddmq_hpc.messages import NO_OPTIONS, Options, decode_line
from ddmq_hpc.names import Entry


class PackReader:
    """Reads entries. The pack read last is kept: packs are immutable, and taken one message at a time by their
    readers."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        self._last: tuple[str, list[bytes]] = ("", [])

    def _read(self, path: str, pack: str) -> list[bytes]:
        """All lines of a pack; the last is what follows the last newline."""
        lines = self._fs.read(path).split(b"\n")
        if len(lines) > 2:
            self._last = (pack, lines)
        return lines

    def read(self, path: str, entry: Entry) -> tuple[list[tuple[int, Any, Options]], dict[int, str]]:
        """The readable messages of an entry, (index, body, options), and why each of the others is not. Raises
        OSError."""
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
