"""Messages from files: lines, JSON lines, CSV rows, paths. Streams of (body, options), read as they are published."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

from ddmq_hpc.errors import BadMessage, UsageError
from ddmq_hpc.messages import parse_record

Record = tuple[Any, dict[str, Any]]


def _open(path: str) -> IO[str]:
    try:
        # utf-8-sig: the mark that spreadsheets put in front is no part of the first message.
        source = sys.stdin.fileno() if path == "-" else path
        return open(source, encoding="utf-8-sig", errors="surrogateescape", newline="", closefd=path != "-")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def text(path: str) -> str:
    """All of a file as one message, without the end of its last line, as a shell's `$(...)` has it."""
    with _open(path) as file:
        found = file.read()
    return found[:-2] if found.endswith("\r\n") else found[:-1] if found.endswith("\n") else found


def count_of(path: str) -> int | None:
    """Lines of a regular file, for estimates; None for pipes."""
    if path == "-" or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None


def lines(path: str) -> Iterator[Record]:
    """A message for each line that is not empty, without its end."""
    with _open(path) as file:
        for line in file:
            if text := line.rstrip("\r\n"):
                yield text, {}


def jsonl(path: str) -> Iterator[Record]:
    """A message for each line of JSON; an object with `message` may carry the properties of that message."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield parse_record(line)
            except BadMessage as error:
                raise BadMessage(f"{path}, line {number}: {error}") from None


def csv_rows(path: str, template: str | None) -> Iterator[Record]:
    """A message for each row: `template` with its {column}s filled in, or the row as a JSON object."""
    import csv

    with _open(path) as file:
        reader = csv.DictReader(file, restkey=None, strict=True)
        try:
            _check_columns(reader.fieldnames or (), path)
            for row in reader:
                if None in row or None in row.values():
                    raise BadMessage(f"{path}, line {reader.line_num}: not as many fields as columns")
                yield (_filled(template, row, path) if template is not None else dict(row)), {}
        except csv.Error as error:
            raise BadMessage(f"{path}, line {reader.line_num}: {error}") from None


def _check_columns(names: Sequence[str], path: str) -> None:
    """One column of several names is a table with other separators; of two of one name the first would be lost."""
    if len(names) == 1 and (found := next((other for other in ";\t" if other in names[0]), None)):
        raise BadMessage(f"{path}: its columns are separated by {found!r}; separate them by commas")
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise BadMessage(f"{path}: several columns are called {twice!r}; give each a name of its own")


def _filled(template: str, row: dict[str, str], path: str) -> str:
    """Only plain {column}s: format strings could reach into objects."""
    import re

    def value(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        try:
            return row[found[1]]
        except KeyError:
            raise UsageError(f"{path} has no column {found[1]!r}; it has {', '.join(row)}") from None

    return re.sub(r"\{\{|\}\}|\{([^{}]*)\}", value, template)


def paths(pattern: str) -> Iterator[Record]:
    """A message for each path that matches, sorted."""
    from glob import glob

    found = sorted(glob(pattern, recursive=True))
    if not found:
        raise UsageError(f"nothing matches {pattern!r}")
    for path in found:
        yield path, {}
