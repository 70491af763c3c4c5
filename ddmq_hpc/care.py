"""Queues seen after, rather than worked on: counted, swept, purged, steered, waited for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ddmq_hpc.errors import storage_error
from ddmq_hpc.queues import Queues
from ddmq_hpc.units import seconds

if TYPE_CHECKING:
    from ddmq_hpc.archive import Compacted
    from ddmq_hpc.criteria import Criteria
    from ddmq_hpc.grouping import Group
    from ddmq_hpc.recovery import Recovered
    from ddmq_hpc.stats import Stats
    from ddmq_hpc.waiting import Numbers

_Answer = TypeVar("_Answer")


class Care(Queues):
    """What `Broker` does for queues as a whole. Each method imports what it takes: most programs call none of them."""

    def purge_queue(self, queue: str) -> int:
        """Remove every message that is ready, delayed or leased; dead letters stay. How many."""
        from ddmq_hpc.admin import purge

        return self._looking(queue, lambda: purge(self.queue(queue)))

    def cancel(self, queue: str, ident: str) -> str | None:
        """Remove a message wherever it stands; the state it was in, None when it was in none. Who works on it finds its
        lease lost. Raises `MessageNotFound` for what is no id, `QueueNotFound`, `StorageError`."""
        from ddmq_hpc import removing

        target = self._known(queue)
        try:
            return removing.cancel(target, ident)
        except OSError as error:
            raise target.trouble(error, f"cancel a message of queue {queue!r}") from error

    def retry(
        self, queue: str, which: Criteria, priority: int | None = None, dry_run: bool = False, state: str = "dead"
    ) -> list[str]:
        """Make dead letters ready again, or with `state` "done" finished messages that were kept, in their place or at
        another priority, their attempts counted anew: their ids. With `dry_run` only tell which. Raises `UsageError`,
        `MessageNotFound`, `QueueNotFound`, `StorageError`."""
        from ddmq_hpc import steering

        return steering.retry_chosen(self._known(queue), which, priority, dry_run, state)

    def cancel_chosen(
        self, queue: str, which: Criteria, states: tuple[str, ...] = (), reason: str = "", dry_run: bool = False
    ) -> list[str]:
        """Remove messages wherever they stand, or in `states`: their ids. Without `states` only ids find what is dead.
        The `reason` is kept in the journal. Raises as `retry`."""
        from ddmq_hpc import steering

        return steering.cancel_chosen(self._known(queue), which, states, reason, dry_run)

    def unpublished_groups(self, queue: str, names: Iterable[str]) -> list[str]:
        """Those of the groups that nobody has published to yet: what comes after them waits until somebody does. Raises
        `QueueNotFound`, `StorageError`."""
        from ddmq_hpc import groups

        target = self._known(queue)
        unknown = groups.UNKNOWN
        return self._looking(
            queue, lambda: [name for name in names if groups.state(target.fs, target.paths, name) == unknown]
        )

    def pause(self, queue: str, reason: str = "") -> None:
        """Hand out nothing until `resume`; all clients heed it within half a minute. Without a `reason` one that was
        given before stays. Raises `SettingsError` when the queue's settings file is too intricate to be changed,
        `QueueNotFound`, `StorageError`."""
        from ddmq_hpc import pausing

        pausing.pause(self._known(queue), reason)
        self._readers[queue].forget()

    def drain(self, queue: str, reason: str = "") -> None:
        """Refuse new messages until `resume`, and work off what is there. Raises as `pause`."""
        from ddmq_hpc import pausing

        pausing.drain(self._known(queue), reason)
        self._readers[queue].forget()

    def resume(self, queue: str) -> bool:
        """End both; False when there was nothing to end. Raises as `pause`."""
        from ddmq_hpc import pausing

        target = self._known(queue)
        self._readers[queue].forget()
        ended = pausing.resume(target)
        self._readers[queue].forget()
        return ended

    def wait(self, queue: str, timeout: float | str | None = None, group: str | None = None) -> Numbers:
        """Wait until nothing, or nothing of a `group`, is ready, leased or delayed: the numbers then. Raises
        `NothingThere` when `timeout` is over, `QueueNotFound`, `StorageError`."""
        from ddmq_hpc.waiting import wait_for_group, wait_until_done

        target, limit = self._known(queue), None if timeout is None else seconds(timeout)
        return wait_until_done(target, limit) if group is None else wait_for_group(target, group, limit)

    def clean(self, queue: str | None = None) -> dict[str, Any]:
        """Do the housekeeping of a queue, or of all, now: {queue: what was done}."""
        from ddmq_hpc.admin import clean

        names = self.list_queues() if queue is None else [queue]
        return {name: self._looking(name, partial(clean, self.queue(name))) for name in names}

    def recover(self, queue: str | None = None, dry_run: bool = False) -> dict[str, Recovered]:
        """Reclaim the leases of batch jobs that have ended, of a queue or of all, now: {queue: `Recovered`}.

        One query to each scheduler whose jobs hold leases; a job of which it says nothing clear keeps them. With
        `dry_run` nothing is reclaimed. Clients do this as they work, at most once a minute over the cluster.
        """
        from ddmq_hpc.recovery import recover_all

        names = self.list_queues() if queue is None else [queue]
        return recover_all([self.queue(name) for name in names], dry_run)

    def stats(self, queue: str) -> Stats:
        """`Stats` of a queue, from directory listings alone."""
        from ddmq_hpc.stats import stats

        return self._looking(queue, lambda: stats(self.queue(queue)))

    def compact(self, queue: str) -> Compacted:
        """Make compressed files of those of the journal that are two days old, and forget what is too old or
        too much by the settings `journal_keep` and `journal_size`."""
        from ddmq_hpc import archive

        target = self.queue(queue)
        return self._looking(queue, lambda: archive.compact(target.fs, target.paths, target.settings))

    def groups(self, queue: str) -> list[Group]:
        """The groups of a queue, and how far each is."""
        from ddmq_hpc.grouping import overview

        return self._looking(queue, lambda: overview(self.queue(queue)))

    @staticmethod
    def _looking(queue: str, act: Callable[[], _Answer]) -> _Answer:
        try:
            return act()
        except OSError as error:
            raise storage_error(error, f"look into queue {queue!r}") from error
