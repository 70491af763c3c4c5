"""Housekeeping by the clients: leases that ran out are requeued, what was delayed becomes ready, leftovers go.

The containment rule: a leased entry that another one of the same pack and attempt contains is the half-done division of
a client that died. The containing one is taken over first, then what it contains is listed and dropped, then it is
requeued. Every other order loses or doubles messages, as `tests/engine/test_model.py` shows. That needs listings to be
read with care: a client may go on until it is judged dead, and readdir(3) may miss what is renamed meanwhile under both
of its names. So whoever was judged by one listing is acted upon by another, and what contains a lease in either of them
contains it.
"""

from __future__ import annotations

from itertools import chain
from stat import S_ISDIR
from typing import Callable, NamedTuple

from ddmq_hpc import groups
from ddmq_hpc.expiry import Expiry, NodeFiles
from ddmq_hpc.fate import Rules
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import Identity
from ddmq_hpc.journal import Journal
from ddmq_hpc.names import (
    Entry,
    Lease,
    QueuePaths,
    done_window_end_ms,
    is_delay_window,
    is_done_window,
    is_leftover,
    is_pack,
    parse_after,
    parse_delayed,
    parse_done,
    parse_leases,
)
from ddmq_hpc.packs import PackReader
from ddmq_hpc.settings import Settings
from ddmq_hpc.settling import take_over

#: Seconds between sweeps of one client, and of all clients of a node together.
SWEEP_SECONDS = 10.0
#: Seconds between looks for delayed messages that are due.
DUE_SECONDS = 1.0
#: After these nobody works any more on what somebody began to write.
LEFTOVER_SECONDS = 3600


class Swept(NamedTuple):
    """What a sweep did, in messages."""

    requeued: int = 0
    dead: int = 0
    due: int = 0
    fetched: int = 0  # by the queue: from drop/


class Sweeper:
    """Sweeps one queue. Any number of clients may sweep at the same time."""

    def __init__(
        self, fs: Filesystem, paths: QueuePaths, identity: Identity, reader: PackReader, journal: Journal
    ) -> None:
        self._fs = fs
        self._paths = paths
        self._identity = identity
        self._reader = reader
        self._journal = journal
        self._node: NodeFiles | None = None
        self._expiry: Expiry | None = None
        self._swept = -1e9
        self._looked = -1e9

    def maybe(self, settings: Settings) -> None:
        """Sweep if nobody on this node did lately."""
        clock = self._fs.monotonic()
        if clock - self._looked < DUE_SECONDS:
            return
        self._looked = clock
        if clock - self._swept < SWEEP_SECONDS:
            self.promote()
            return
        self._swept = clock
        now = self._fs.time()
        node = self._node_files()
        if node.stamp_age(now) < SWEEP_SECONDS:
            return
        node.stamp(now)
        self.sweep(settings)

    def sweep(self, settings: Settings) -> Swept:
        """Requeue every lease that ran out or whose owner is known to be dead; make ready what is due."""
        self._fs.refresh(self._paths.leased)
        if settings.keep_done > 0:
            self.forget_done(settings)
        return self.sweep_names(self._fs.names(self._paths.leased), settings)

    def _held(self) -> list[Lease]:
        self._fs.refresh(self._paths.leased)
        return parse_leases(self._fs.names(self._paths.leased))

    def sweep_names(self, names: list[str], settings: Settings) -> Swept:
        """The same with a listing of `leased` at hand."""
        held = parse_leases(names)
        swept = self._reclaim(held, self._over(held, settings), settings) if held else Swept()
        return swept._replace(due=self.promote() + self._promote_groups())

    def reclaim(self, names: list[str], settings: Settings, ended: Callable[[Lease], bool]) -> Swept:
        """Of a fresh listing of `leased`, treat the leases whose holders have `ended` as those that ran out."""
        held = parse_leases(names)
        return self._reclaim(held, set(filter(ended, held)), settings)

    def other_jobs_hold(self, names: list[str]) -> bool:
        """Whether, by a listing of `leased`, another batch job than the one of this process holds a lease."""
        own = f":{self._identity.job}"
        return any(name.count(":") == 5 and not name.partition("!")[0].endswith(own) for name in names)

    def _reclaim(self, held: list[Lease], over: set[Lease], settings: Settings) -> Swept:
        """Requeue the leases in `over`, of all those that were `held` when they were judged."""
        if not over:
            return Swept()
        requeued = dead = 0
        later = self._held()
        for lease in _outermost({*held, *later}, over.intersection(later)):
            fate = self._undo_division(lease) if lease.split else self._requeue(lease, settings)
            size = lease.entry.stop - lease.entry.first
            requeued += size if fate in ("ready", "delayed") else 0
            dead += size if fate == "dead" else 0
        return Swept(requeued, dead)

    def _over(self, held: list[Lease], settings: Settings) -> set[Lease]:
        """The leases that ran out, or whose owner is known to be dead."""
        now = self._fs.now(self._paths.tmp)
        if self._expiry is None:
            self._expiry = Expiry(self._fs, self._node_files())
        ended = set(self._expiry.expired(held, now, settings))
        dead_owner: dict[str, bool] = {}
        for lease in held:
            process = lease.owner.rpartition(".")[0]
            if process not in dead_owner:
                dead_owner[process] = self._identity.is_dead(lease.owner)
            if dead_owner[process]:
                ended.add(lease)
        return ended

    def _undo_division(self, whole: Lease) -> str:
        """Make an entry that was being divided ready again; its state then, or nothing when somebody else was first."""
        fs, paths = self._fs, self._paths
        mine = take_over(fs, paths, whole, self._identity.owner(), int(fs.now(paths.tmp) * 1000))
        return "ready" if mine and fs.put(paths.in_leased(mine), paths.in_ready(mine.priority, mine.entry)) else ""

    def _requeue(self, lease: Lease, settings: Settings) -> str:
        """Put an ended lease where it belongs; the state it got, or nothing when somebody else was first."""
        fs, paths = self._fs, self._paths
        now = fs.now(paths.tmp)
        path = paths.in_leased(lease)
        options = self._reader.options(path, lease.entry)
        if options is None:
            return ""
        fate = Rules(settings, options).after_loss(lease.priority, lease.entry)
        ident = f"{lease.entry.pack}.{lease.entry.first}-{lease.entry.stop}"
        attempt = lease.entry.failed + lease.entry.lost + 1
        record = self._journal.record("lost", ident, attempt, now, 0.0, {"to": fate.state, "owner": lease.owner})
        if not fs.put(path, fate.path(paths, fate.entry, now)):
            return ""
        self._journal.write([record], settings.durable)
        return fate.state

    def promote(self) -> int:
        """Make ready what is due; the number of messages."""
        fs, paths = self._fs, self._paths
        fs.refresh(paths.delayed)
        windows = sorted(filter(is_delay_window, fs.directories(paths.delayed)))
        if not windows:
            return 0
        now_ms = int(fs.now(paths.tmp) * 1000)
        moved = 0
        for window in windows:
            if int(window) * 64_000 > now_ms:
                break
            directory = f"{paths.delayed}/{window}"
            fs.refresh(directory)
            names = fs.names(directory)
            if not names and int(window) * 64_000 + 128_000 < now_ms:
                fs.remove_empty(directory)
            for name in sorted(names):
                found = parse_delayed(name)
                if not found or found.due > now_ms:
                    continue
                if fs.put(f"{directory}/{name}", paths.in_ready(found.priority, found.entry)):
                    moved += found.entry.stop - found.entry.first
        return moved

    def _promote_groups(self) -> int:
        """Make ready, or wait for its time, what waited for groups that are finished; the number of messages."""
        fs, paths = self._fs, self._paths
        waiting = {name: after for name in fs.directories(paths.delayed) if (after := parse_after(name))}
        finished = {group: groups.is_finished(fs, paths, group) for group in {*chain(*waiting.values())}}
        moved = 0
        for name in [name for name, after in waiting.items() if all(finished[group] for group in after)]:
            directory = f"{paths.delayed}/{name}"
            fs.refresh(directory)
            now_ms = int(fs.now(paths.tmp) * 1000)
            for late in filter(None, map(parse_delayed, sorted(fs.names(directory)))):
                is_due = late.due <= now_ms
                target = paths.in_ready(late.priority, late.entry) if is_due else paths.in_delayed(late)
                if fs.put(f"{directory}/{late.name}", target) and is_due:
                    moved += late.entry.stop - late.entry.first
            fs.remove_empty(directory)
        return moved

    def forget_done(self, settings: Settings) -> int:
        """Remove finished messages that were kept for long enough; how many."""
        fs, paths = self._fs, self._paths
        removed = 0
        now_ms = fs.now(paths.tmp) * 1000
        for window in sorted(filter(is_done_window, fs.directories(paths.done))):
            if done_window_end_ms(window) + settings.keep_done * 1000 > now_ms:
                break
            directory = f"{paths.done}/{window}"
            for done in filter(None, map(parse_done, fs.names(directory))):
                if fs.drop(f"{directory}/{done.name}"):
                    removed += done.entry.stop - done.entry.first
            fs.remove_empty(directory)
        return removed

    def remove_leftovers(self) -> int:
        """Remove what clients that died left in tmp more than an hour ago; how many files. A published key's pack that
        was not yet placed is none: the caller of `clean` places it."""
        now = self._fs.now(self._paths.tmp)
        with self._fs.held(self._paths.tmp) as tmp:  # a link to elsewhere could take its name
            return sum(self._remove_leftover(tmp, name, now) for name in filter(is_leftover, self._fs.names(tmp)))

    def _remove_leftover(self, tmp: str, name: str, now: float) -> bool:
        fs, path = self._fs, f"{tmp}/{name}"
        try:
            found = fs.lstat(path)
        except OSError:
            return False
        if now - found.st_mtime < LEFTOVER_SECONDS:
            return False
        if S_ISDIR(found.st_mode):
            fs.remove_tree(path)
            return True
        of_nobody = found.st_nlink == 1 or (found.st_nlink == 2 and self._is_of_group(path, name))
        return of_nobody and fs.drop(path)

    def _is_of_group(self, path: str, name: str) -> bool:
        """Whether a pack that was never put in its place was to be one of a group, which has a link to it."""
        if not is_pack(name):
            return False
        options = self._reader.options(path, Entry(name, 0, 1, 0, 0))
        return options is not None and options.group is not None

    def _node_files(self) -> NodeFiles:
        if self._node is None:
            self._node = NodeFiles(self._paths.top)
        return self._node


def _outermost(held: set[Lease], over: set[Lease]) -> list[Lease]:
    """The leases of `over` that no other one contains: a contained entry is the business of whoever judges the one that
    contains it."""
    by_pack: dict[str, list[Lease]] = {}
    for lease in held:
        by_pack.setdefault(lease.entry.pack, []).append(lease)
    return [
        lease
        for lease in over
        if not any(
            other.entry.contains(lease.entry) and (other.entry != lease.entry or other.name < lease.name)
            for other in by_pack[lease.entry.pack]
            if other != lease
        )
    ]
