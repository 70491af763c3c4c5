"""What is appended to the journal of a queue, each line read once by one reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ddmq_hpc import journal
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.names import QueuePaths

#: How much one look reads: bytes at once, and how often.
_CHUNK, _MOST_CHUNKS = 1 << 20, 16
#: How many files one look asks about.
_LOOKED_AT = 128
#: Where a file ends that was there at the beginning and was not looked at yet.
_UNKNOWN = -1


class Follower:
    """Where one reader is in each file. Its calls are made by one thread. All raise OSError."""

    def __init__(self, fs: Filesystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._paths = paths
        self._ends: dict[str, int] = {}  # file -> up to where it was read
        self._next = 0

    def begin_at_ends(self) -> None:
        """What is there now is not read."""
        self._ends = {path: self._fs.lstat(path).st_size for path in journal.growing(self._fs, self._paths)}

    def begin_at_tails(self, most: int) -> tuple[list[journal.Tail], int]:
        """What is there now is not read but for the ends of files, `most` bytes of each; and how many files there
        are."""
        tails, names = journal.tails(self._fs, self._paths, most)
        self._ends = dict.fromkeys((f"{self._paths.journal}/{name}" for name in names), _UNKNOWN)
        self._ends.update((f"{self._paths.journal}/{tail.name}", tail.end) for tail in tails)
        return tails, len(names)

    def appended(self, paths: Iterable[str]) -> Iterator[bytes]:
        """Whole lines that came to these files since, a block at a time. What is more than one look reads is left to
        the next."""
        left = _MOST_CHUNKS
        for path in paths:
            while left:
                at = self._ends.get(path, 0)
                try:
                    found, data = self._fs.read_some(path, _CHUNK, at)
                except OSError as error:
                    if error.errno not in GONE:
                        raise
                    break
                whole = data.rfind(b"\n") + 1
                self._ends[path] = at + whole if found.st_size >= at else 0
                yield data[:whole]
                left -= 1
                if len(data) < _CHUNK or not whole:
                    break

    def grown(self) -> list[str]:
        """The files that have more than was read, as far as this client knows: on a network file system it may learn
        that a minute late. Of more than `_LOOKED_AT` files some are left to the next look."""
        paths = journal.growing(self._fs, self._paths)
        for path in self._ends.keys() - set(paths):
            del self._ends[path]
        self._next = self._next % len(paths) if paths else 0
        turn = (paths[self._next :] + paths[: self._next])[:_LOOKED_AT]
        self._next += len(turn)
        return [path for path in turn if self._has_grown(path)]

    def _has_grown(self, path: str) -> bool:
        try:
            size = self._fs.lstat(path).st_size
        except OSError as error:
            if error.errno not in GONE:
                raise
            return False
        if self._ends.get(path, 0) == _UNKNOWN:
            self._ends[path] = size
        return size != self._ends.get(path, 0)
