"""Ids of messages as people give them: whole, or cut short as long as they are unique."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ddmq_hpc import journal
from ddmq_hpc.admin import entries
from ddmq_hpc.errors import MessageNotFound, UsageError
from ddmq_hpc.names import (
    PACK_LENGTH,
    Entry,
    bucket_end_ns,
    bucket_start,
    is_bucket,
    is_priority,
    message_id,
    parse_entry,
    parse_message_id,
    parse_message_range,
)
from ddmq_hpc.queue import Queue

#: So many of the messages that are meant are named when there are several.
_MOST_NAMED = 5


def whole(queue: Queue, text: str) -> str:
    """The id of the one message that `text` is the beginning of, in the queue or in its journal; what is a whole id is
    that of a message that there may not be. Raises `MessageNotFound`, `UsageError` when several begin so,
    `StorageError`."""
    if parse_message_id(text):
        return text
    found: set[str] = set()
    try:
        for pack, first, stop in _that_may_begin_so(queue, text):
            found.update(_beginning_with(text, pack, first, stop))
            if len(found) > _MOST_NAMED:
                break
    except OSError as error:
        raise queue.trouble(error, f"look for a message in queue {queue.name!r}") from error
    if not found:
        raise MessageNotFound(queue.name, text)
    return _the_one(text, found)


def _that_may_begin_so(queue: Queue, text: str) -> Iterator[tuple[str, int, int]]:
    """(pack, first, stop) of what stands in the queue, by as few listings as its state allows, and of what the journal
    tells of."""
    if not text[:1].isdigit():
        return
    fs, paths = queue.fs, queue.paths
    for priority in filter(is_priority, fs.directories(paths.ready)):
        for bucket in filter(is_bucket, fs.directories(f"{paths.ready}/{priority}")):
            names = fs.names(f"{paths.ready}/{priority}/{bucket}") if _may_be_in(bucket, text) else ()
            for name in names:
                if name.startswith(text[:PACK_LENGTH]) and (entry := parse_entry(name)):
                    yield entry.pack, entry.first, entry.stop
    for found in entries(queue, ("leased", "delayed", "dead", "damaged", "done")):
        yield found.entry.pack, found.entry.first, found.entry.stop
    for record in journal.read(fs, paths, text[:PACK_LENGTH]):
        if of := parse_message_range(record["id"]):
            yield of


def _may_be_in(bucket: str, text: str) -> bool:
    """Whether packs whose names begin with `text` can be in a bucket."""
    digits = text.partition("-")[0][:19]
    if not (digits.isascii() and digits.isdigit()):
        return False
    return bucket_start(bucket) <= digits.ljust(19, "9") and int(digits.ljust(19, "0")) < bucket_end_ns(bucket)


def _beginning_with(text: str, pack: str, first: int, stop: int) -> list[str]:
    """The ids of the messages `first` to `stop` of a pack that begin with `text`."""
    if text[:PACK_LENGTH] != pack[: len(text)]:
        return []
    return [ident for ident in (message_id(pack, index) for index in range(first, stop)) if ident.startswith(text)]


def _the_one(text: str, found: Collection[str]) -> str:
    if len(found) > 1:
        named = sorted(found)[:_MOST_NAMED]
        more = " and more" * (len(found) > len(named))
        raise UsageError(f"several messages begin with {text!r}: {', '.join(named)}{more}; give more of the id")
    return next(iter(found))


class Wanted:
    """Several ids, and what was found of each."""

    def __init__(self, given: tuple[str, ...]) -> None:
        self._given = given
        self._whole: dict[str, set[int]] = {}
        self._found: dict[str, set[str]] = {}
        self._short = []
        for text in given:
            if parsed := parse_message_id(text):
                self._whole.setdefault(parsed[0], set()).add(parsed[1])
            else:
                self._short.append(text)

    def find(self, entry: Entry) -> Sequence[int]:
        """The messages of an entry that are meant. Raises `UsageError` for what means too many."""
        indexes = set(inside(entry, self._whole.get(entry.pack, ())))
        for index in indexes:
            ident = message_id(entry.pack, index)
            self._found.setdefault(ident, set()).add(ident)
        for text in self._short:
            if found := _beginning_with(text, entry.pack, entry.first, entry.stop):
                so_far = self._found.setdefault(text, set())
                so_far.update(found)
                if len(so_far) > _MOST_NAMED:
                    _the_one(text, so_far)
                indexes.update(int(ident.rpartition(".")[2]) for ident in found)
        return sorted(indexes)

    def demand_all(self, queue: str) -> None:
        """Raises `MessageNotFound` for the first that was not found, `UsageError` for one that means several."""
        for text in self._given:
            if text not in self._found:
                raise MessageNotFound(queue, text)
            _the_one(text, self._found[text])


def inside(entry: Entry, indexes: Collection[int]) -> list[int]:
    """Those of `indexes` that an entry has, in order."""
    return sorted(index for index in indexes if entry.first <= index < entry.stop)
