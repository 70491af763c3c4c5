"""The leases that a client holds, and what it does with them: hold on, or let go of messages, one, some or all.

The order is always the same: what stands is looked at where that is in doubt, the outcome is written down, and then the
messages are let go. What turns out to be lost only then is written down as `late`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Callable

from ddmq_hpc.fate import Fate, Rules
from ddmq_hpc.fs import Filesystem, Unanswered
from ddmq_hpc.handles import Handle
from ddmq_hpc.journal import Journal
from ddmq_hpc.messages import Message, Options
from ddmq_hpc.names import Dead, Entry, Lease, QueuePaths, message_range, parse_leases
from ddmq_hpc.packs import PackReader
from ddmq_hpc.settings import Settings
from ddmq_hpc.settling import Held, Parting, carve, kept_runs, runs_of, split_lease


class Leases:
    """Those of one queue. Threads may share it. All methods raise OSError; what stands then is found out by the next
    one."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, journal: Journal, reader: PackReader) -> None:
        self._fs = fs
        self._paths = paths
        self._journal = journal
        self._reader = reader
        #: Messages that were set aside, by the reason.
        self.aside: Counter[str] = Counter()

    # -- hold on

    def extend(self, held: Held, indexes: Collection[int], seconds: float | None) -> list[int]:
        """Hold on to messages, and to what is leased with them, for so long from now, by default as long as they were
        taken for. The indexes of those that were lost."""
        with held.lock:
            self._make_sure(held)
            for lease in {lease for index in indexes if (lease := held.run_of(index))}:
                self._renew(held, lease, lease.duration if seconds is None else max(1, int(seconds * 1000)))
            return [index for index in indexes if not held.run_of(index)]

    def extend_all(self, held: Held, seconds: float) -> None:
        """The same with all of a lease that was just taken."""
        with held.lock:
            for lease in list(held.runs):
                self._renew(held, lease, max(1, int(seconds * 1000)))

    def _renew(self, held: Held, lease: Lease, span: int) -> None:
        longer = lease._replace(deadline=int(self._fs.now(self._paths.tmp) * 1000) + span, duration=span)
        if longer == lease:
            longer = longer._replace(deadline=lease.deadline + 1)  # a heartbeat is seen by its new name
        held.path = None
        try:
            kept = self._fs.claim(self._paths.in_leased(lease), self._paths.in_leased(longer))
        except OSError:
            held.doubtful = True
            raise
        at = held.runs.index(lease)
        held.runs[at : at + 1] = [longer] if kept else []
        if not kept:
            self._has_moved(held, range(lease.entry.first, lease.entry.stop))

    def _make_sure(self, held: Held) -> None:
        """Of a lease that a call failed on it is found out what stands. Under its lock. Raises OSError."""
        if held.doubtful:
            held.find_again(self._fs, self._paths)

    # -- let go

    def ack_whole(self, held: Held, record: str, path: str, now: float, durable: bool) -> Collection[int]:
        """The usual case in few calls: everything of a lease is done, and the lease has not run out. Under its lock.
        The indexes of those that were lost."""
        lease = held.runs[0]
        self._journal.write([record], durable)
        held.path = None
        try:
            done = self._fs.drop(path) or self._reply_was_lost(lease, path)
        except OSError:
            held.doubtful = True
            raise
        held.runs.clear()
        if done:
            return ()
        late = self._settle_moved(held, set(range(lease.entry.first, lease.entry.stop)), None)
        return self._too_late(held, late, now, durable)

    def settle(
        self,
        held: Held,
        handles: Mapping[int, Handle],
        state: str,
        fate_of: Callable[[Rules, Lease], Fate] | None,
        outcome: dict[str, Any],
        settings: Settings,
    ) -> Collection[int]:
        """Settle some messages of one lease: look, write the outcome down, let go. The indexes of those that were
        lost."""
        now = self._fs.now(self._paths.tmp)
        with held.lock:
            self._make_sure(held)
            if fate_of is None and _is_all(held, handles) and now * 1000 <= held.runs[0].deadline:
                record = self._record(state, held.runs[0], held.runs[0].entry, now, held, outcome)
                whole = self._paths.in_leased(held.runs[0])
                return self.ack_whole(held, record, whole, now, settings.durable)
        self._forget_reclaimed(held, now)
        mine = {index for index in handles if held.run_of(index)}
        lost = handles.keys() - mine - held.gone
        if not mine:
            return lost
        # The runs of a lease differ in nothing but their ranges, which other threads may divide meanwhile.
        lease = held.first
        fate = None if fate_of is None else fate_of(Rules(settings, self._options(held, handles)), lease)
        more = outcome if fate is None else {"to": fate.state, **outcome}
        runs = runs_of(lease.entry, mine)
        self._journal.write([self._record(state, lease, run, now, held, more) for run in runs], settings.durable)
        target = None if fate is None else lambda _, part: fate.path(self._paths, part, now)
        late = self._settle(held, mine, target)
        late = self._settle_moved(held, late, target) if late else late
        return lost | self._too_late(held, late, now, settings.durable)

    def set_aside(self, held: Held, bad: dict[int, str], durable: bool) -> None:
        """Move what cannot be read to damaged: the reasons, by index."""
        lease = held.runs[0]
        for reason in sorted(set(bad.values())):
            indexes = {index for index, why in bad.items() if why == reason}
            now = self._fs.time()
            self._journal.write(
                [
                    self._record("damaged", lease, run, now, held, {"reason": reason})
                    for run in runs_of(lease.entry, indexes)
                ],
                durable,
            )

            def target(run: Lease, part: Entry, reason: str = reason) -> str:
                return f"{self._paths.damaged}/{Dead(run.priority, part, reason).name}"

            self._settle(held, indexes, target)
            self.aside[reason] += len(indexes)

    def _settle(self, held: Held, indexes: Collection[int], target: Callable[[Lease, Entry], str] | None) -> set[int]:
        """Let go of messages: to the path that `target` names for each range of them, or for good. Those that were
        lost."""
        lost = set(indexes)
        with held.lock:
            held.path = None
            for lease in list(held.runs):
                mine = [index for index in indexes if lease.entry.first <= index < lease.entry.stop]
                if not mine:
                    continue
                kept = [lease._replace(entry=run) for run in kept_runs(lease.entry, mine)]
                parts = runs_of(lease.entry, mine)
                go = [(part, target(lease, part)) for part in parts] if target else []
                try:
                    done = self._divide(lease, kept, go)
                except OSError:
                    held.doubtful = True
                    held.gone |= set(indexes) - lost
                    raise
                at = held.runs.index(lease)
                held.runs[at : at + 1] = kept if done else []
                if done:
                    lost.difference_update(mine)
        return lost

    def _settle_moved(self, held: Held, indexes: set[int], target: Callable[[Lease, Entry], str] | None) -> set[int]:
        """The same of messages that seemed to be lost, where their lease has only got another name, as when the task
        itself extended it by its receipt. Those that were lost."""
        return self._settle(held, indexes, target) if self._has_moved(held, indexes) else indexes

    def _divide(self, lease: Lease, kept: list[Lease], go: list[Parting]) -> bool:
        whole, taken = lease, self._paths.in_leased(lease)
        path = taken
        if len(kept) + len(go) > 1:
            whole = split_lease(lease, lease.entry, int(self._fs.now(self._paths.tmp) * 1000))
            path = self._paths.in_leased(whole)
            if not self._fs.claim(taken, path):
                return False
        try:
            if carve(self._fs, self._paths, path, [self._paths.in_leased(piece) for piece in kept], go):
                return True
        except Unanswered:
            raise
        except OSError:
            if whole is not lease:
                self._fs.claim(path, taken)  # held on to, as before
            raise
        return not kept and self._reply_was_lost(whole, path)

    # -- look

    def _forget_reclaimed(self, held: Held, now: float) -> None:
        """What may have been reclaimed is looked at before an outcome is written that would not be true."""
        with held.lock:
            for lease in list(held.runs):
                if now * 1000 > lease.deadline and not self._fs.is_there(self._paths.in_leased(lease)):
                    held.runs.remove(lease)
                    held.path = None

    def _has_moved(self, held: Held, indexes: Collection[int]) -> bool:
        """Whether a lease that is not there under its name is under another one, which is noted."""
        with held.lock:
            found = self._same(held.first.owner, held.first.entry.pack, indexes)
            held.runs += [lease for lease in found if lease not in held.runs]
            held.path = None
        return bool(found)

    def _same(self, owner: str, pack: str, indexes: Collection[int]) -> list[Lease]:
        """The leases of one take, which nobody else has that owner of, with any of these messages."""
        return [
            lease
            for lease in parse_leases(self._fs.names(self._paths.leased))
            if (lease.owner, lease.entry.pack, lease.split) == (owner, pack, False)
            if any(lease.entry.first <= index < lease.entry.stop for index in indexes)
        ]

    def _reply_was_lost(self, lease: Lease, path: str) -> bool:
        """Whether a lease is gone although nobody may reclaim it yet: on a network file system that was this client's
        own call, its reply lost, unless it has got another name."""
        if not self._fs.network or self._fs.now(self._paths.tmp) * 1000 >= lease.deadline or self._fs.is_there(path):
            return False
        return not self._same(lease.owner, lease.entry.pack, range(lease.entry.first, lease.entry.stop))

    def _options(self, held: Held, handles: Mapping[int, Handle]) -> Options:
        first = next(iter(handles.values()))
        if isinstance(first, Message):
            return first.options
        lease = held.runs[0] if held.runs else held.first
        options = self._reader.options(self._paths.in_leased(lease), lease.entry)
        return options if options is not None else Options()

    # -- write down

    def _too_late(self, held: Held, indexes: Collection[int], now: float, durable: bool) -> set[int]:
        """Take back outcomes that were written of leases which turned out to be lost: reclaimed before their deadlines,
        since their process or their batch job was known to be gone, or removed."""
        lease = held.first
        late = [self._record("late", lease, run, now, held, {}) for run in runs_of(lease.entry, indexes)]
        if late:
            self._journal.write(late, durable)
        return set(indexes)

    def _record(self, state: str, lease: Lease, run: Entry, now: float, held: Held, more: dict[str, Any]) -> str:
        ident = message_range(run.pack, run.first, run.stop)
        return self._journal.record(state, ident, run.failed + run.lost + 1, now, held.taken, more)


def _is_all(held: Held, indexes: Collection[int]) -> bool:
    """Whether `indexes` are all that is held, in one run."""
    if len(held.runs) != 1:
        return False
    entry = held.runs[0].entry
    return len(indexes) == entry.stop - entry.first and all(map(indexes.__contains__, range(entry.first, entry.stop)))
