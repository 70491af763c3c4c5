"""The files that the journal consists of, and every line of them once.

Those that clients write are plain; `archive` makes compressed ones of them. In a compressed file the lines of each file
that it was made of are a section. Several clients can compress at once, or die before they removed what they
compressed, so that a file's lines may stand in several places: they are the same there, and told once. While somebody
reads, files come and go: what a reader finds to be gone it finds again where it went to.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.names import QueuePaths, is_journal, parse_packed_journal, retired_from

_GZIP = ".gz"
#: The keys of the first line of a compressed file, which names what it contains, and of that before each section.
_CONTAINS, _SECTION = "contains", "section"
_HEADING = f'{{"{_SECTION}"'.encode()
#: Bytes that are read at once.
_BLOCK = 4 << 20
#: A file that is not there is looked for again so often: compressing takes longer than looking.
_LOOKS = 20


def files(fs: Filesystem, paths: QueuePaths) -> list[str]:
    """The names of all files with lines, the compressed ones first, without those that are contained in others. Raises
    OSError."""
    names = fs.names(paths.journal)
    return _in_order(set(names) - contained(fs, paths, names, set(names)))


def _in_order(names: Collection[str]) -> list[str]:
    packed = sorted(name for name in names if parse_packed_journal(name))
    return [*packed, *sorted(filter(retired_from, names)), *sorted(filter(is_journal, names))]


def contained(fs: Filesystem, paths: QueuePaths, names: Iterable[str], there: set[str]) -> set[str]:
    """The names of the files that are `there` and that those of `names` contain which are compressed."""
    found: set[str] = set()
    for name in filter(parse_packed_journal, names):
        told = _value(next(as_far_as_possible(lines(fs, f"{paths.journal}/{name}")), b""), _CONTAINS)
        found.update(there.intersection(map(str, told)) if isinstance(told, list) else ())
    return found


def as_far_as_possible(found: Iterable[bytes]) -> Iterator[bytes]:
    """Lines up to what cannot be read."""
    try:
        yield from found
    except OSError:
        return


def lines(fs: Filesystem, path: str) -> Iterator[bytes]:
    """The lines of one file. Raises OSError; EIO is also what is said of a compressed one that is damaged."""
    blocks = fs.blocks(path, _BLOCK)
    rest = b""
    for data in _unpacked(blocks) if path.endswith(_GZIP) else blocks:
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        if len(rest) > _BLOCK:
            rest = b""  # nobody of ours writes such a line
            if path.endswith(_GZIP):  # and they were left out here: it could be zeros for hours
                raise OSError(errno.EIO, "a line without end")
    if rest:
        yield rest


def _unpacked(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """In pieces that are bounded whatever the file says."""
    import zlib

    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for data in blocks:
            while data and not reader.eof:
                yield reader.decompress(data, _BLOCK)
                data = reader.unconsumed_tail
    except zlib.error as error:
        raise OSError(errno.EIO, str(error)) from None
    if not reader.eof:
        raise OSError(errno.EIO, "cut short")


def first_line(names: Collection[str]) -> bytes:
    """The first line of a compressed file."""
    return json.dumps({_CONTAINS: sorted(names)}).encode() + b"\n"


def heading(name: str) -> bytes:
    """The line before the lines of a file in a compressed one."""
    return json.dumps({_SECTION: name}).encode() + b"\n"


class _Line(NamedTuple):
    source: str  # the name that the file had when it was written no more, or has still
    line: bytes


def sections(fs: Filesystem, paths: QueuePaths, name: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What a file has of which file: a plain one is its own only section. Each has to be read before the next one.
    Raises OSError."""
    path = f"{paths.journal}/{name}"
    found = _of_sections(lines(fs, path)) if path.endswith(_GZIP) else (_Line(name, line) for line in lines(fs, path))
    for source, group in groupby(found, key=lambda line: line.source):
        yield source, (line.line for line in group)


def _of_sections(packed: Iterable[bytes]) -> Iterator[_Line]:
    source = None
    for line in packed:
        if line.startswith(_HEADING):
            told = _value(line, _SECTION)
            source = told if isinstance(told, str) else None
        elif source is not None:
            yield _Line(source, line)


def sources(fs: Filesystem, paths: QueuePaths) -> Iterator[Iterator[bytes]]:
    """All lines, those of each file that clients wrote by themselves, in the order in which they were written. Each has
    to be read before the next one. What is written, or cannot be read, while this goes on is left out. Raises OSError
    when the journal cannot be listed."""
    told: set[str] = set()  # of which sources
    done: set[str] = set()  # with which files
    at_first = set(fs.names(paths.journal))
    for _ in range(_LOOKS):
        for name in _in_order(set(fs.names(paths.journal)) - done):
            try:
                for source, found in sections(fs, paths, name):
                    # What was plain a moment ago is retired now, and its lines were told.
                    was = retired_from(source) if source not in at_first else None
                    if source not in told and was not in told:
                        told.add(source)
                        yield as_far_as_possible(found)
            except OSError as error:
                if error.errno in GONE and name not in told:
                    break  # before anything else is read: where it went to tells of it
            done.add(name)
        else:
            return


def _value(line: bytes, key: str) -> object:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found.get(key) if isinstance(found, dict) else None
