"""The Python interface: a root directory, its queues, and every operation on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Callable, Union

from ddmq_hpc import settings as _settings
from ddmq_hpc.care import Care
from ddmq_hpc.errors import BadMessage, UsageError
from ddmq_hpc.handles import Handle
from ddmq_hpc.messages import NO_OPTIONS, OPTION_NAMES, Message, Options
from ddmq_hpc.publishing import AT_ONCE, Start
from ddmq_hpc.queue import Queue
from ddmq_hpc.units import seconds

Handles = Union[Handle, Iterable[Handle]]
_MISSING: Any = object()
_NONE_GIVEN = (None,) * len(OPTION_NAMES)


class Broker(Care):
    """The queues below `root`. Threads may share one; a forked child may go on with it.

    `create=True` makes the root, and queues when they are first published to. Raises `RootNotFound` when there is no
    root. `identity` says whose the leases are: by default this process's, so that they come back when it dies.

    A root that is made is looked at before, and the findings are kept in it (`doctor.look`). `admission` may refuse:
    by default it raises `UnfitDirectory` where queues cannot work at all. `sharing`, see there, says for whom roots and
    queues are that this makes: by default a queue is its owner's alone.
    """

    # -- publish

    def publish(
        self,
        queue: str,
        message: Any = _MISSING,
        priority: int | None = None,
        timeout: float | None = None,
        requeue: bool | None = None,
        requeue_limit: int | None = None,
        requeue_prio: int | None = None,
        delay: float | str | None = None,
        key: str | None = None,
        headers: dict[str, Any] | None = None,
        durable: bool | None = None,
        if_exists: str = "skip",
        loss_limit: int | None = None,
        time_request: float | str | None = None,
        slots: int | None = None,
        memory: int | str | None = None,
        group: str | None = None,
        after: str | Iterable[str] | None = None,
        **legacy: Any,
    ) -> Message:
        """Publish one message: any JSON value. It is in the queue, on disk when `durable`, once this returns.

        Before it is ready `delay` seconds pass, and all messages of the group or groups `after` are finished: acked or
        removed. A `key` publishes a message once however often this is called: with `if_exists` "skip" the one
        published first is returned, "replace" replaces it unless it is being worked on, "error" raises `KeyExists`. It
        cannot be of a `group`. A message that is dropped, see docs/shared.md, has an empty id until it is brought in,
        and neither key nor groups. Raises `BadMessage`, `QueueNotFound`, `QueueDraining`, `StorageError`; then nothing
        was published, unless the error says that it `may_be_done`.
        """
        if legacy or message is _MISSING:
            from ddmq_hpc import legacy_names

            message = legacy_names.message_of(message, _MISSING, legacy)
        options = NO_OPTIONS
        given = (
            priority, timeout, requeue, requeue_limit, requeue_prio, headers, loss_limit, time_request, slots, memory,
            group,
        )  # fmt: skip
        if given != _NONE_GIVEN:
            options = Options.checked(
                priority=priority,
                timeout=timeout,
                requeue=requeue,
                requeue_limit=requeue_limit,
                requeue_prio=requeue_prio,
                headers=headers,
                loss_limit=loss_limit,
                time_request=time_request,
                slots=slots,
                memory=memory,
                group=group,
            )
        start = Start.of(delay, after, group) if delay or after else AT_ONCE
        if key is None:
            return self._publishing(queue).publish(message, options, start, durable)
        from ddmq_hpc.keyed import publish_once

        target = self._known(queue)
        try:
            ident = publish_once(target, message, options, key, if_exists, start)
        except OSError as error:
            raise target.trouble(error, f"publish to queue {queue!r}") from error
        return Message(ident, message, queue, options, target.settings)

    def publish_many(
        self,
        queue: str,
        messages: Iterable[Any],
        priority: int | None = None,
        timeout: float | None = None,
        requeue: bool | None = None,
        requeue_limit: int | None = None,
        requeue_prio: int | None = None,
        delay: float | str | None = None,
        headers: dict[str, Any] | None = None,
        durable: bool | None = None,
        progress: Callable[[int], None] | None = None,
        loss_limit: int | None = None,
        time_request: float | str | None = None,
        slots: int | None = None,
        memory: int | str | None = None,
        group: str | None = None,
        after: str | Iterable[str] | None = None,
    ) -> int:
        """Publish any number of messages, streamed, many in one file; how many. Each file appears whole or not at all.

        When one message is bad, the disk is full or the queue being drained, those before it are published: the error
        has their number as `published`. `progress` is called with the number so far.
        """
        records: Iterator[tuple[Any, dict[str, Any]]] = ((message, {}) for message in messages)
        return self.publish_records(
            queue,
            records,
            progress,
            priority=priority,
            timeout=timeout,
            requeue=requeue,
            requeue_limit=requeue_limit,
            requeue_prio=requeue_prio,
            loss_limit=loss_limit,
            time_request=time_request,
            slots=slots,
            memory=memory,
            group=group,
            delay=delay,
            after=after,
            headers=headers,
            durable=durable,
        )

    def publish_records(
        self,
        queue: str,
        records: Iterable[tuple[Any, dict[str, Any]]],
        progress: Callable[[int], None] | None = None,
        *,
        delay: float | str | None = None,
        after: str | Iterable[str] | None = None,
        durable: bool | None = None,
        **options: Any,
    ) -> int:
        """Like `publish_many`, of (message, its own properties) pairs."""
        from ddmq_hpc.bulk import publish_stream

        target = self._publishing(queue)
        start = Start.of(delay, after, options.get("group")) if delay or after else AT_ONCE
        checked = Options.checked(**options)
        if isinstance(target, Queue):
            return publish_stream(target, records, checked, start, durable, progress)
        return target.publish_stream(records, checked, start, durable, progress)

    # -- take and settle

    def consume(self, queue: str, n: int = 1, wait: float | str = 0, lease: float | str | None = None) -> list[Message]:
        """Lease up to `n` messages, first in first out within a priority; an empty list when there are none.

        They come back to the queue unless acked within `lease` seconds (by default the timeout of message or queue).
        Waits up to `wait` seconds for the first. Raises `QueueNotFound`, `QueuePaused`, `StorageError`.
        """
        target = self._known(queue)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"bad number of messages {n!r}: it must be 1 or more")
        duration = None if lease is None else _settings.lease_duration(lease)
        return target.take(n, seconds(wait) if wait else 0.0, duration)

    def ack(self, messages: Handles, queue: str | None = None, **outcome: Any) -> None:
        """These are done: messages or receipts, one or many. Raises `LeaseLost` for those that are no longer held."""
        if isinstance(messages, Message) and queue is None:
            return self._known(messages.queue).ack_one(messages, outcome)
        for target, handles in self._by_queue(messages, queue):
            target.ack(handles, **outcome)

    def nack(
        self,
        messages: Handles,
        queue: str | None = None,
        requeue: bool | None = None,
        delay: float | str | None = None,
        **outcome: Any,
    ) -> None:
        """These failed: requeued as they and their queue say; `requeue` True forces that, False makes dead letters."""
        for target, handles in self._by_queue(messages, queue):
            target.nack(handles, requeue, None if delay is None else seconds(delay), **outcome)

    def release(self, messages: Handles, queue: str | None = None, delay: float | str = 0) -> None:
        """Back in their place, no attempt counted."""
        for target, handles in self._by_queue(messages, queue):
            target.release(handles, seconds(delay) if delay else 0.0)

    def extend(self, messages: Handles, lease: float | str | None = None, queue: str | None = None) -> None:
        """Hold on for `lease` seconds from now, by default as long as they were taken for."""
        for target, handles in self._by_queue(messages, queue):
            target.extend(handles, None if lease is None else _settings.lease_duration(lease))

    def _by_queue(self, messages: Handles, queue: str | None) -> list[tuple[Queue, list[Handle]]]:
        if isinstance(messages, Message) and queue is None:
            return [(self._known(messages.queue), [messages])]
        handles = [messages] if isinstance(messages, (str, Message)) else list(messages)
        groups: dict[str, list[Handle]] = {}
        for handle in handles:
            if isinstance(handle, Message):
                name = handle.queue
            elif isinstance(handle, str):
                name = queue if queue is not None else handle.rpartition("/")[0].rpartition("/")[2]
            else:
                raise BadMessage(f"neither a message nor a receipt: {handle!r:.80}")
            groups.setdefault(name, []).append(handle)
        return [(self._known(name), group) for name, group in groups.items()]


#: As ddmq spelled it.
broker = Broker
