"""The head of a queue: the first ready entries in their order, found by listings whose size does not grow with the
backlog.

Priorities are listed, then the buckets of the first one, then only as many buckets as it takes to know which entries
are first: those older than the start of the next bucket. Buckets nest in time, so that is one to four listings.
"""

from __future__ import annotations

from operator import itemgetter

from ddmq_hpc.fs import Filesystem
from ddmq_hpc.names import (
    PACK_LENGTH,
    Entry,
    QueuePaths,
    bucket_end_ns,
    bucket_start,
    entry_order,
    is_bucket,
    is_priority,
    parse_entry,
)

#: How long a listing of the head serves, in seconds: nearly nothing where listing costs no round trip.
MAX_AGE_LOCAL, MAX_AGE_NETWORK = 0.05, 0.25
#: Takers that lose a race start anew at random among up to this many entries, and list again after this many losses.
MAX_WINDOW, LOSSES_A_LISTING = 256, 8
_EMPTY_SECONDS = 1.0
_OLD_NS = 30_000_000_000
_NO_HORIZON = "~"  # sorts behind every name of an entry


#: An entry that was ready when last looked: its priority, itself and its path.
Candidate = tuple[int, Entry, str]


class Head:
    """Candidates for the next take of one client. Not for threads to share without a lock."""

    def __init__(self, fs: Filesystem, paths: QueuePaths) -> None:
        self._fs = fs
        self._paths = paths
        self._max_age = MAX_AGE_NETWORK if fs.network else MAX_AGE_LOCAL
        self._front: list[tuple[Entry, str]] = []  # rests of what this client took, first last
        self._names: list[tuple[str, str]] = []  # (entry name, bucket), first last
        self._priority = -1
        self._read_at = -1e9
        self._empty: dict[str, float] = {}  # bucket path -> when it was found empty
        self._foreign: set[str] = set()
        self._losses = 0
        self.window = 1
        self._skip = 0  # how many of the first names are left to the other takers

    def next(self) -> Candidate | None:
        """The first candidate, or one near it after lost races; None when ready looks empty."""
        if self._fs.monotonic() - self._read_at > self._max_age or self._losses >= LOSSES_A_LISTING:
            self._read(thorough=False)
        if self._front:
            return self._priority, *self._front.pop()
        while True:
            while self._names:
                name, bucket = self._choose()
                entry = parse_entry(name)
                if entry is not None:
                    return self._priority, entry, f"{self._paths.ready}/{self._priority}/{bucket}/{name}"
                self._foreign.add(name)
            if not self._read(thorough=False):
                return None

    def look_again(self) -> bool:
        """List everything afresh, nothing remembered; whether there are candidates."""
        return self._read(thorough=True)

    def _choose(self) -> tuple[str, str]:
        names = self._names
        return names.pop(-1 - self._skip if self._skip < len(names) else 0)

    def won(self) -> None:
        """Go on from there: the next one was probably passed over by the others, too."""
        if self.window > 1:
            self.window -= 1 + self.window // 16
            self._skip = min(self._skip, self.window - 1)

    def lost(self) -> None:
        """Somebody else took the candidate: go elsewhere, so that takers stop running after the same names."""
        from random import randrange

        self.window = min(self.window * 4, MAX_WINDOW)
        self._skip = randrange(self.window)
        self._losses += 1

    def put_back(self, priority: int, rest: list[tuple[Entry, str]]) -> None:
        """The caller put the rest of a candidate back in its place, in these pieces."""
        if priority == self._priority:
            self._front += rest[::-1]

    def published(self, priority: int) -> None:
        """The caller published behind the candidates, unless there are none or the priority is a better one."""
        if priority < self._priority or not (self._names or self._front):
            self.forget()

    def forget(self) -> None:
        self._read_at = -1e9
        self._empty.clear()

    def _read(self, thorough: bool) -> bool:
        fs, ready = self._fs, self._paths.ready
        self._losses = 0
        self._front.clear()
        if thorough:
            self._empty.clear()
            self._foreign.clear()
            fs.refresh(ready)
        self._read_at = fs.monotonic()
        for priority in sorted(int(name) for name in fs.names(ready) if is_priority(name)):
            if thorough:
                fs.refresh(f"{ready}/{priority}")
            found = self._read_priority(f"{ready}/{priority}", thorough)
            if found:
                self._names, self._priority = found, priority
                return True
        self._names, self._priority = [], -1
        return False

    def _read_priority(self, directory: str, thorough: bool) -> list[tuple[str, str]]:
        """(name, bucket) of the first entries, last first. Wider buckets sort before the ones inside them."""
        listed: list[tuple[str, list[str]]] = []
        horizon = ""
        buckets = filter(is_bucket, sorted(self._fs.names(directory)))  # lazily: few of many are looked at
        following = next(buckets, "")
        while bucket := following:
            following = next(buckets, "")
            if names := self._read_bucket(directory, bucket, thorough):
                listed.append((bucket, names))
            horizon = bucket_start(following) if following else _NO_HORIZON
            if any(min(names) < horizon for _, names in listed):
                break
        return _in_order([(name, bucket) for bucket, names in listed for name in names if name < horizon])

    def _read_bucket(self, directory: str, bucket: str, thorough: bool) -> list[str]:
        path = f"{directory}/{bucket}"
        if self._read_at - self._empty.get(path, -1e9) < _EMPTY_SECONDS:
            return []
        if thorough:
            self._fs.refresh(path)
        found = self._fs.names(path)
        if not found:
            self._found_empty(path, bucket)
        return [name for name in found if name not in self._foreign] if self._foreign else found

    def _found_empty(self, path: str, bucket: str) -> None:
        """Remember it; remove it when its time is long over. Rarely, because ESTALE follows (measured on NFS)."""
        if bucket_end_ns(bucket) + _OLD_NS < self._fs.time() * 1e9:
            self._fs.remove_empty(path)
        else:
            self._empty[path] = self._read_at


def _in_order(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(entry name, bucket) in the order of the messages, last first."""
    found.sort(key=itemgetter(0), reverse=True)  # comparing text is several times as fast as comparing pairs
    if len({name[:PACK_LENGTH] for name, _ in found}) < len(found):
        found.sort(key=lambda pair: entry_order(pair[0]), reverse=True)  # pieces of one pack: 2-5 is before 10-20
    return found
