"""What becomes of a message that was not acked: back to its place, later, or to the dead letters. Pure."""

from __future__ import annotations

from typing import NamedTuple

from ddmq_hpc.messages import Options
from ddmq_hpc.names import (
    LOSS_LIMIT,
    LOST,
    NO_REQUEUE,
    REJECTED,
    REQUEUE_LIMIT,
    Dead,
    Delayed,
    Done,
    Entry,
    QueuePaths,
)
from ddmq_hpc.settings import Settings


class Fate(NamedTuple):
    """Where an entry goes next."""

    state: str  # ready, delayed, dead or done
    priority: int
    entry: Entry
    detail: float = 0.0  # seconds of delay
    reason: str = ""

    def path(self, paths: QueuePaths, part: Entry, now: float) -> str:
        """The path of one piece `part` of the entry."""
        entry = self.entry.part(part.first, part.stop)
        if self.state == "dead":
            return paths.in_dead(Dead(self.priority, entry, self.reason))
        if self.state == "delayed":
            return paths.in_delayed(Delayed(int((now + self.detail) * 1000), self.priority, entry))
        if self.state == "done":
            return paths.in_done(Done(int(now * 1000), self.priority, entry))
        return paths.in_ready(self.priority, entry)


class Rules(NamedTuple):
    """The settings of a queue with the options of a pack over them."""

    settings: Settings
    options: Options

    def after_success(self, priority: int, entry: Entry) -> Fate:
        """Finished messages that are kept."""
        return Fate("done", priority, entry)

    def after_release(self, priority: int, entry: Entry, delay: float = 0.0) -> Fate:
        """Back in its place, and no attempt counted."""
        return Fate("delayed" if delay > 0 else "ready", priority, entry, delay)

    def after_failure(
        self, priority: int, entry: Entry, requeue: bool | None = None, delay: float | None = None
    ) -> Fate:
        """After a nack. `requeue` True requeues in spite of every limit, False makes a dead letter."""
        counted = entry._replace(failed=entry.failed + 1)
        if requeue is False:
            return Fate("dead", priority, counted, reason=REJECTED)
        if requeue is None and (reason := self._end(counted)):
            return Fate("dead", priority, counted, reason=reason)
        wait = self._backoff(counted.failed) if delay is None else delay
        return Fate("delayed" if wait > 0 else "ready", self._priority(priority), counted, wait)

    def after_loss(self, priority: int, entry: Entry) -> Fate:
        """After its worker died or its lease ran out."""
        counted = entry._replace(lost=entry.lost + 1)
        if reason := self._end(counted):
            return Fate("dead", priority, counted, reason=LOST if reason == NO_REQUEUE else reason)
        return Fate("ready", self._priority(priority), counted)

    def _end(self, entry: Entry) -> str:
        own = self.options
        if not (self.settings.requeue if own.requeue is None else own.requeue):
            return NO_REQUEUE
        limit = self.settings.requeue_limit if own.requeue_limit is None else own.requeue_limit
        losses = self.settings.loss_limit if own.loss_limit is None else own.loss_limit
        if losses is None:
            return REQUEUE_LIMIT if entry.failed + entry.lost > limit else ""
        if entry.failed > limit:
            return REQUEUE_LIMIT
        return LOSS_LIMIT if entry.lost > losses else ""

    def _priority(self, priority: int) -> int:
        own = self.options.requeue_prio
        changed = self.settings.requeue_prio if own is None else own
        return priority if changed is None else changed

    def _backoff(self, failures: int) -> float:
        first = self.settings.retry_delay
        if first <= 0:
            return 0.0
        from random import uniform

        longest = min(first * 2.0 ** min(failures - 1, 60), self.settings.retry_delay_max)
        return longest * uniform(0.75, 1.0)  # spread, so that what failed together does not come back together
