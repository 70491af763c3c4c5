"""Publishing many messages: streams of records become packs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Callable

from ddmq_hpc import groups
from ddmq_hpc.errors import DdmqError
from ddmq_hpc.messages import LineEncoder, Options
from ddmq_hpc.publishing import AT_ONCE, PACK_BYTES, PACK_MESSAGES, PACK_MESSAGES_FEW_LINKS, Start
from ddmq_hpc.queue import Queue


def publish_stream(
    queue: Queue,
    records: Iterable[tuple[Any, dict[str, Any]]],
    options: Options,
    start: Start = AT_ONCE,
    durable: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Publish records (body, its own options over `options`) in order; how many. One in memory at a time, but for a
    pack.

    When it fails, the error's `published` says how many messages are in the queue: all before that point's pack.
    """
    writer = _Writer(queue, options, start, durable, progress)
    try:
        with writer.open_groups:
            for body, own in records:
                writer.add(body, own)
            writer.finish()
    except OSError as error:
        wrapped = queue.trouble(error, f"publish to queue {queue.name!r}")
        wrapped.published = writer.published
        raise wrapped from error
    except DdmqError as error:
        writer.finish()
        error.published = writer.published
        raise
    return writer.published


class _Writer:
    """Collects lines of equal options until a pack is full."""

    def __init__(
        self,
        queue: Queue,
        options: Options,
        start: Start,
        durable: bool | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._queue = queue
        self._settings = queue.accepting()
        self._base = self._options = options
        self._encoder = LineEncoder(options, self._settings.max_message_bytes)
        self._own: dict[str, Any] = {}
        self._start = start
        self._durable = self._settings.durable if durable is None else durable
        self._progress = progress
        usual = PACK_MESSAGES_FEW_LINKS if queue.fs.mount.few_links else PACK_MESSAGES
        self._most = self._settings.pack_size or usual
        self._lines: list[bytes] = []
        self._size = 0
        self._directories: dict[str, None] = {}
        #: None of the groups that are published to is finished before the last pack is in its place.
        self.open_groups = ExitStack()
        self._groups: set[str] = set()
        self.published = 0

    def add(self, body: Any, own: dict[str, Any]) -> None:
        """One message more; a pack that is full is published. Raises `BadMessage`, `QueueDraining`, OSError."""
        if own != self._own:
            self._flush()
            checked = Options.checked(**own).explicit()
            self._options = replace(self._base, **checked) if checked else self._base
            self._encoder = LineEncoder(self._options, self._settings.max_message_bytes)
            self._own = own
        line = self._queue.signed(self._encoder.line(body), self._settings)
        if len(self._lines) >= self._most or (self._lines and self._size + len(line) > PACK_BYTES):
            self._flush()
            self._queue.accepting()
        self._lines.append(line)
        self._size += len(line)

    def finish(self) -> None:
        """What is left, and the directories to the disk."""
        self._flush()
        for directory in self._directories:
            self._queue.publisher.sync(directory)
        self._directories.clear()

    def _flush(self) -> None:
        if not self._lines:
            return
        queue, priority = self._queue, self._options.priority
        priority = self._settings.priority if priority is None else priority
        group = self._options.group
        if group and group not in self._groups:
            self.open_groups.enter_context(groups.publishing(queue.fs, queue.paths, group))
            self._groups.add(group)
        lines, self._lines, self._size = self._lines, [], 0
        with queue.publish_lock:
            _, target = queue.publisher.put_unsynced(lines, priority, self._start, self._durable, group)
            queue.taker.published(priority)
        if self._durable:
            self._directories[queue.paths.parent(target)] = None
        self.published += len(lines)
        if self._progress:
            self._progress(self.published)
