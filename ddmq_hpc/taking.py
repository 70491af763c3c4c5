"""Taking: the rename that makes a ready entry, or the front of one, this client's."""

from __future__ import annotations

from collections.abc import Collection
from stat import S_ISDIR
from threading import Lock

from ddmq_hpc.fs import UNKNOWN, Filesystem
from ddmq_hpc.head import Candidate, Head
from ddmq_hpc.identity import Identity
from ddmq_hpc.names import NO_PACK, SPLIT, Dead, Entry, Lease, QueuePaths, lease_name
from ddmq_hpc.settling import carve, split_span, standing

#: When takers collide, the rest of a pack goes back in this many pieces.
SHATTER = 8
_CONTENDED = 4
#: A lease and its path.
Taken = tuple[Lease, str]


class Taker:
    """Takes from one queue. Threads may share it: they share its view of the head, not its renames."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, identity: Identity) -> None:
        self._fs = fs
        self._paths = paths
        self._identity = identity
        self._lock = Lock()
        self.head = Head(fs, paths)
        #: Leased by calls that failed, for all that is known: nobody works on them.
        self.stranded: list[Lease] = []

    def take(self, count: int, duration_ms: int) -> list[Taken]:
        """Leases, with their paths, of up to `count` messages in all, in order; fewer when ready looks empty. Raises
        OSError only when it has none: what was taken before a failure is returned."""
        leases: list[Taken] = []
        while count > 0:
            try:
                with self._lock:
                    candidate = self.head.next()
                if candidate is None:
                    break
                taken = self._take(candidate, count, duration_ms)
            except OSError:
                if leases:
                    break
                raise
            if taken is None:
                self.head.lost()
                continue
            self.head.won()
            leases.append(taken)
            entry = taken[0].entry
            count -= entry.stop - entry.first
        return leases

    def _take(self, candidate: Candidate, count: int, duration_ms: int) -> Taken | None:
        fs, paths = self._fs, self._paths
        priority, entry, source = candidate
        now_ms = int(fs.now(paths.tmp) * 1000)
        owner = self._identity.owner()
        deadline = now_ms + duration_ms
        cut = entry.first + count
        part = entry if cut >= entry.stop else entry.part(entry.first, cut)
        path = f"{paths.leased}/{lease_name(priority, part.name, deadline, duration_ms, owner)}"
        mine = Lease(priority, part, deadline, duration_ms, owner)
        try:
            if part is entry:
                return (mine, path) if fs.race(source, path) else None
            return (mine, path) if self._divide(candidate, mine, now_ms) else None
        except OSError as error:
            self.stranded.append(mine)
            if error.errno not in UNKNOWN:  # nor would anything else be answered now
                self.give_back()
            raise

    def _divide(self, candidate: Candidate, mine: Lease, now_ms: int) -> bool:
        """Make the front of an entry the lease `mine`, and the rest ready again."""
        fs, paths = self._fs, self._paths
        priority, entry, source = candidate
        bucket, _, name = source.rpartition("/")
        span = split_span(mine.duration)
        whole = f"{paths.leased}/{lease_name(priority, name, now_ms + span, span, mine.owner, SPLIT)}"
        if not fs.race(source, whole):
            return False
        rest = entry.part(mine.entry.stop, entry.stop)
        pieces = [rest] if self.head.window < _CONTENDED else _shattered(rest)
        back = [(piece, f"{bucket}/{piece.name}") for piece in pieces]
        try:
            if not carve(fs, paths, whole, [paths.in_leased(mine)], back):
                return False
        except PermissionError:
            if not self._is_directory(whole):
                raise
            # Somebody planted it (link(2): EPERM): as what is taken whole and found to be no pack.
            fs.claim(whole, f"{paths.damaged}/{Dead(priority, entry, NO_PACK).name}")
            return False
        with self._lock:
            self.head.put_back(priority, back)
        return True

    def _is_directory(self, path: str) -> bool:
        try:
            return S_ISDIR(self._fs.lstat(path).st_mode)
        except OSError:
            return False  # what was refused before says more

    def give_back(self, leases: Collection[Lease] = ()) -> None:
        """Make ready what was leased by calls that failed, these and those before; what cannot be now is next time."""
        left, self.stranded = [*self.stranded, *leases], []
        try:
            while left:
                for lease in standing(self._fs, self._paths, left[-1]):
                    self._fs.put(self._paths.in_leased(lease), self._paths.in_ready(lease.priority, lease.entry))
                left.pop()
                self.forget()
        except OSError:
            self.stranded += left

    def new_owner(self) -> str:
        return self._identity.owner()

    def look_again(self) -> bool:
        """List ready afresh; whether there is anything."""
        with self._lock:
            return self.head.look_again()

    def forget(self) -> None:
        with self._lock:
            self.head.forget()

    def published(self, priority: int) -> None:
        with self._lock:
            self.head.published(priority)


def _shattered(rest: Entry) -> list[Entry]:
    """The rest of a pack in several pieces, because others wait for it; a short one as it is."""
    size = rest.stop - rest.first
    if size < SHATTER:
        return [rest]
    step = -(-size // SHATTER)
    return [rest.part(at, min(at + step, rest.stop)) for at in range(rest.first, rest.stop, step)]
