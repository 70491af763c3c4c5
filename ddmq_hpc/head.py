"""The head of a queue: the first ready entries in their order, found by listings whose size does not grow with the
backlog.

Priorities are listed, then the buckets of the first one, then only as many buckets as it takes to know which entries
are first: those older than the start of the next bucket. Buckets nest in time, so that is one to four listings.

Takers that lose races to each other each turn to a bucket of their own near the front. On a network file system that
spares more than the races: what a client knows of a directory is worthless as soon as another client changes it, and
each name in it is then looked up anew.
"""

from __future__ import annotations

from bisect import bisect_left
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
#: A bucket more within reach for so many entries of the window.
_ENTRIES_A_BUCKET = 16
#: While it contends with others a listing serves a taker for so many times as long: it works where they do not.
_APART = 4
#: For how long a bucket found empty is taken to be so: only what is put back comes into one whose time is over.
_EMPTY_SECONDS, _OVER_EMPTY_SECONDS = 1.0, 4.0
#: A bucket's time is over so long after its end, hardly a publisher being as slow; and so long after it is removed.
_OVER_NS, _OLD_NS = 2_000_000_000, 30_000_000_000
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
        self._empty: dict[str, float] = {}  # bucket path -> until when it is taken to be empty
        self._foreign: set[str] = set()
        self._losses = 0
        self.window = 1
        self._skip = 0  # how many of the first names are left to the other takers
        self._last = ("", "")  # (entry name, bucket) that was tried last

    def next(self) -> Candidate | None:
        """The first candidate, or one near it after lost races; None when ready looks empty."""
        if self._is_outdated():
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

    def _is_outdated(self) -> bool:
        most = self._max_age if self.window == 1 else _APART * self._max_age
        return self._fs.monotonic() - self._read_at > most or self._losses >= LOSSES_A_LISTING

    def look_again(self) -> bool:
        """List everything afresh, nothing remembered; whether there are candidates."""
        return self._read(thorough=True)

    def _choose(self) -> tuple[str, str]:
        names = self._names
        self._last = names.pop(-1 - self._skip if self._skip < len(names) else 0)
        return self._last

    def won(self) -> None:
        """Go on from there: the next one was probably passed over by the others, too."""
        if self.window > 1:
            self.window -= 1 + self.window // 16
            self._skip = min(self._skip, self.window - 1)

    def lost(self) -> None:
        """Somebody else took the candidate: go elsewhere, so that takers stop running after the same names."""
        self.window = min(self.window * 4, MAX_WINDOW)
        self._losses += 1
        if len(self._names) < self.window:
            self._losses = LOSSES_A_LISTING  # too few to get out of each other's way
        self._last = ("", "")
        self._start_anywhere(len(self._names))

    def _start_anywhere(self, names: int) -> None:
        from random import randrange

        self._skip = randrange(min(self.window, names or 1))

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
        self._read_at = fs.monotonic()
        if thorough:
            self._empty.clear()
            self._foreign.clear()
            fs.refresh(ready)
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
        """(name, bucket) of the first entries, last first, or of those where this taker works apart from the others."""
        buckets = sorted(self._fs.names(directory))
        if self.window > 1 and not thorough and (apart := self._read_apart(directory, buckets)):
            return apart
        return self._read_first(directory, buckets, thorough)

    def _read_apart(self, directory: str, buckets: list[str]) -> list[tuple[str, str]]:
        """The entries of one bucket near the front: of the same as before as long as it has any, then of any other."""
        from random import choice

        believed_empty = {path for path, until in self._empty.items() if self._read_at < until}
        near = [bucket for bucket in buckets if is_bucket(bucket) and f"{directory}/{bucket}" not in believed_empty]
        near = near[: 1 + self.window // _ENTRIES_A_BUCKET]
        last, before = self._last
        while near:
            bucket = before if before in near else choice(near)
            if names := self._read_bucket(directory, bucket, thorough=False):
                names.sort()  # as text: who starts anywhere need not know that piece 2 of a pack is before piece 10
                if bucket == before:
                    self._skip = min(bisect_left(names, last), self.window - 1)
                else:
                    self._start_anywhere(len(names))
                return [(name, bucket) for name in reversed(names)]
            near.remove(bucket)
        return []

    def _read_first(self, directory: str, names: list[str], thorough: bool) -> list[tuple[str, str]]:
        """The first entries of all. Wider buckets sort before the ones inside them."""
        listed: list[tuple[str, list[str]]] = []
        horizon = ""
        buckets = filter(is_bucket, names)  # lazily: few of many are looked at
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
        if self._read_at < self._empty.get(path, -1e9):
            return []
        if thorough:
            self._fs.refresh(path)
        found = self._fs.names(path)
        if thorough:  # nothing is ready, as a rule: foreign files must not hide that
            found = list(filter(parse_entry, found))
        if not found:
            self._found_empty(path, bucket)
        return [name for name in found if name not in self._foreign] if self._foreign else found

    def _found_empty(self, path: str, bucket: str) -> None:
        """Remember it; remove it when its time is long over. Rarely, because ESTALE follows (measured on NFS)."""
        over = self._fs.time() * 1e9 - bucket_end_ns(bucket)
        if over > _OLD_NS:
            self._fs.remove_empty(path)
        else:
            self._empty[path] = self._read_at + (_OVER_EMPTY_SECONDS if over > _OVER_NS else _EMPTY_SECONDS)


def _in_order(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(entry name, bucket) in the order of the messages, last first."""
    found.sort(key=itemgetter(0), reverse=True)  # comparing text is several times as fast as comparing pairs
    if len({name[:PACK_LENGTH] for name, _ in found}) < len(found):
        found.sort(key=lambda pair: entry_order(pair[0]), reverse=True)  # pieces of one pack: 2-5 is before 10-20
    return found
