"""Dividing leased entries: what a taker keeps of an entry, and what becomes of the messages of a lease.

One primitive, `carve`, does both. It turns a leased entry into pieces: some stay leased, some go elsewhere. Its calls
are ordered so that a crash between any two leaves either the whole entry, or the whole entry with links inside it (a
sweeper takes the whole one over and drops those), or only pieces. Links are made to names that nobody but this client
takes away, since a retransmitted LINK would make such a name again; whatever leaves `leased` does so by rename.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

from ddmq_hpc.fs import Filesystem, Unanswered
from ddmq_hpc.names import Entry, Lease, QueuePaths, make_receipt, parse_leases

if TYPE_CHECKING:
    from ddmq_hpc.messages import Message

#: Milliseconds after which an entry under division is put back: its divider takes a few round trips, or is gone.
SPLIT_MS = 60_000
_SPLIT_MIN_MS = 10_000


#: A piece that leaves `leased`, and the path it goes to. A plain tuple: takers make one for most messages.
Parting = tuple[Entry, str]


def split_lease(lease: Lease, entry: Entry, now_ms: int) -> Lease:
    """The lease of `entry` while it is being divided for the sake of `lease`."""
    span = split_span(lease.duration)
    return Lease(lease.priority, entry, now_ms + span, span, lease.owner, True)


def split_span(duration: int) -> int:
    """How long an entry may be under division for the sake of a lease of `duration`, in milliseconds."""
    return SPLIT_MS if duration > SPLIT_MS else max(duration, _SPLIT_MIN_MS)


def carve(fs: Filesystem, paths: QueuePaths, whole: str, keep: list[str], go: list[Parting]) -> bool:
    """Turn the lease at the path `whole` into `keep`, the paths of leases, and `go`; what is in neither is settled and
    vanishes.

    False when the lease was gone: nothing of it is the caller's any more. With several pieces `whole` must be marked
    `split`, so that it is nobody else's to divide. Raises OSError when nothing was done, and `Unanswered` when nobody
    knows: then all of it is the sweepers'.
    """
    if not keep and not go:
        return fs.drop(whole)
    if not go:
        return _link_all(fs, whole, keep[1:]) and _finish(fs, whole, keep)
    parked = _parked(paths, whole, go[1:]) if len(go) > 1 else []
    links = keep + parked
    if not _link_all(fs, whole, links):
        return False
    try:
        moved = fs.put(whole, go[0][1])
    except OSError as error:
        _undo(fs, links, error)
        raise
    if not moved and not _still_mine(fs, paths, links):
        return False
    for source, (_, target) in zip(parked, go[1:]):
        try:
            fs.put(source, target)
        except OSError:
            fs.put(source, target)  # half is done: a passing fault must not stop the rest
    return True


def take_over(fs: Filesystem, paths: QueuePaths, whole: Lease, owner: str, now_ms: int) -> Lease | None:
    """Make an entry that was being divided `owner`'s, whole as it was; None when somebody else was first.

    It stays marked until it is put somewhere. Its pieces are void, and no more of them can be made.
    """
    mine = split_lease(whole, whole.entry, now_ms)._replace(owner=owner)
    if not fs.claim(paths.in_leased(whole), paths.in_leased(mine)):
        return None
    fs.refresh(paths.leased)
    for piece in parse_leases(fs.names(paths.leased)):
        if piece != mine and mine.entry.contains(piece.entry):
            fs.drop(paths.in_leased(piece))
    return mine


def _parked(paths: QueuePaths, whole: str, pieces: list[Parting]) -> list[str]:
    """Where pieces stay until `whole` is out of the way."""
    (lease,) = _leases_at([whole])
    return [paths.in_leased(lease._replace(entry=entry)) for entry, _ in pieces]


def _leases_at(paths: Iterable[str]) -> list[Lease]:
    return parse_leases(path.rpartition("/")[2] for path in paths)


def _link_all(fs: Filesystem, source: str, links: list[str]) -> bool:
    for done, link in enumerate(links):
        try:
            if fs.add_link(source, link):
                continue
        except OSError as error:
            _undo(fs, links[:done], error)
            raise
        _drop_all(fs, links[:done])
        return False
    return True


def _finish(fs: Filesystem, source: str, keep: list[str]) -> bool:
    try:
        if fs.claim(source, keep[0]):
            return True
    except OSError as error:
        _undo(fs, keep[1:], error)
        raise
    _drop_all(fs, keep[1:])
    return False


def _still_mine(fs: Filesystem, paths: QueuePaths, pieces: list[str]) -> bool:
    """After the whole was gone: my own rename with its reply lost, or a sweeper that took it over?

    A sweeper that did has either dropped my pieces already or still holds the entry that contains them.
    """
    mine, held = set(_leases_at(pieces)), set(parse_leases(fs.names(paths.leased)))
    over = any(
        other.entry != piece.entry and other.entry.contains(piece.entry) for other in held - mine for piece in mine
    )
    if pieces and fs.network and mine <= held and not over:
        return True
    _drop_all(fs, pieces)
    return False


def _undo(fs: Filesystem, links: list[str], error: OSError) -> None:
    """Drop links inside an entry that `error` says is still whole. Raises `Unanswered` when that is not known, or when
    they cannot be dropped: with them inside nobody but a sweeper may move the whole, or its messages come twice."""
    if isinstance(error, Unanswered):
        raise error
    try:
        _drop_all(fs, links)
    except OSError as failure:
        raise Unanswered(failure.errno, failure.strerror, failure.filename) from error


def _drop_all(fs: Filesystem, links: list[str]) -> None:
    for link in links:
        fs.drop(link)


class Settler(Protocol):
    """What a held message needs of its queue."""

    name: str

    def ack_one(self, message: Message, outcome: dict[str, Any]) -> None: ...

    def nack(self, messages: Iterable[Message]) -> None: ...


class Held:
    """The runs of one pack that a take brought and that are not settled yet; shared by its messages."""

    __slots__ = ("doubtful", "first", "gone", "lock", "path", "queue", "runs", "taken")

    def __init__(self, queue: Settler, lease: Lease, path: str | None = None) -> None:
        self.queue = queue
        self.first = lease  # as it was taken
        self.runs = [lease]
        self.path = path  # of the only run when that is one message, as long as it is held as it was taken
        self.taken = (lease.deadline - lease.duration) / 1000
        self.lock = RLock()
        self.doubtful = False  # a call failed, and nobody knows what stands
        self.gone: set[int] = set()  # settled by a call that failed later, or seemed to: to try again is no loss

    def run_of(self, index: int) -> Lease | None:
        for lease in self.runs:
            if lease.entry.first <= index < lease.entry.stop:
                return lease
        return None

    def find_again(self, fs: Filesystem, paths: QueuePaths) -> None:
        """Find out what stands after a call that failed. Under the lock. Raises OSError."""
        before, now = self.runs, fs.now(paths.tmp) * 1000
        self.runs = standing(fs, paths, self.first)
        if fs.network and all(now < lease.deadline for lease in before):
            # Nobody may have reclaimed what is missing: this client's call let go of it, and the reply was lost.
            were = {index for lease in before for index in range(lease.entry.first, lease.entry.stop)}
            self.gone |= {index for index in were if not self.run_of(index)}
        self.doubtful = False

    def receipt(self, index: int) -> str | None:
        lease = self.run_of(index)
        return make_receipt(self.queue.name, lease.part(index, index + 1)) if lease else None

    def deadline(self, index: int) -> float | None:
        lease = self.run_of(index)
        return lease.deadline / 1000 if lease else None

    def ack_one(self, message: Message) -> None:
        self.queue.ack_one(message, {})

    def nack_one(self, message: Message) -> None:
        self.queue.nack([message])


def standing(fs: Filesystem, paths: QueuePaths, taken: Lease) -> list[Lease]:
    """What stands of a lease after a call on it that failed, in order: a rename may have been executed, or be half of a
    division, which is undone. Found by the owner, which no other take has. Raises OSError."""
    now_ms = int(fs.now(paths.tmp) * 1000)
    if fs.network:
        fs.touch(paths.leased)  # as `refresh`, but a listing that may be incomplete will not do here
    owner, pack = taken.owner, taken.entry.pack
    found = {
        lease for lease in parse_leases(fs.names(paths.leased)) if lease.owner == owner and lease.entry.pack == pack
    }
    for whole in [lease for lease in found if lease.split]:
        found -= {lease for lease in found if whole.entry.contains(lease.entry)}
        mine = take_over(fs, paths, whole, owner, now_ms)
        again = taken._replace(entry=whole.entry, deadline=now_ms + taken.duration)
        if mine and fs.claim(paths.in_leased(mine), paths.in_leased(again)):
            found.add(again)
    return sorted(found, key=lambda lease: lease.entry.first)


def kept_runs(entry: Entry, gone: Iterable[int]) -> list[Entry]:
    """What is left of an entry without some of its messages, as contiguous ranges."""
    runs, first = [], entry.first
    for index in sorted(gone):
        if first < index:
            runs.append(entry.part(first, index))
        first = index + 1
    if first < entry.stop:
        runs.append(entry.part(first, entry.stop))
    return runs


def runs_of(entry: Entry, indexes: Iterable[int]) -> list[Entry]:
    """`indexes` as contiguous ranges of an entry."""
    runs: list[Entry] = []
    for index in sorted(indexes):
        if runs and runs[-1].stop == index:
            runs[-1] = entry.part(runs[-1].first, index + 1)
        else:
            runs.append(entry.part(index, index + 1))
    return runs
