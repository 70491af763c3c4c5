"""Publishing once: a message with a key is in the queue once, however often and from wherever it is published.

keys/<hash of the key> is a hard link to the message's own pack, made by link(2): the first one wins. The pack's line
says its id, so whoever comes second can finish what a publisher that died in between has begun.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ddmq_hpc.errors import BadMessage, KeyExists
from ddmq_hpc.fs import GONE
from ddmq_hpc.messages import LineEncoder, Options, parse_object
from ddmq_hpc.names import Entry, message_id, parse_message_id
from ddmq_hpc.publishing import AT_ONCE, Start
from ddmq_hpc.queue import Queue

IF_EXISTS = ("skip", "replace", "error")
_MAX_KEY = 1024


def publish_once(queue: Queue, body: Any, options: Options, key: str, if_exists: str, start: Start) -> str:
    """Publish under `key`; the id of the message that has it now. Raises `KeyExists` with `if_exists` "error",
    `BadMessage`, `QueueDraining`, OSError."""
    if if_exists not in IF_EXISTS:
        raise BadMessage(f"bad if_exists {if_exists!r:.40}: use {', '.join(IF_EXISTS)}")
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY:
        raise BadMessage(f"bad key: it must be text of 1 to {_MAX_KEY} letters")
    if options.group:
        raise BadMessage("a message with a key cannot be of a group, which would not end before the key does")
    fs, paths = queue.fs, queue.paths
    settings = queue.accepting()
    line = LineEncoder(options, settings.max_message_bytes).line(body)
    with queue.publish_lock:
        pack = queue.publisher.new_pack()
    ident = message_id(pack, 0)
    written, kept = paths.in_tmp(pack), paths.in_keys(key)
    fs.create(written, queue.signed(_with_id(line, ident), settings), True)
    try:
        if not _link(queue, written, kept):
            first = _finish_first(queue, kept, options)
            if if_exists == "error":
                raise KeyExists(key, first)
            if if_exists == "skip":
                return first
            _withdraw(queue, first)
            fs.link(written, f"{written}.key")
            fs.rename(f"{written}.key", kept)
        _place(queue, pack, options, start)
    finally:
        fs.drop(written)
    fs.sync_directory(os.path.dirname(kept))
    return ident


def find(queue: Queue, key: str) -> tuple[str, bool] | None:
    """The id of the message that was last published under `key`, and whether it is in the queue still, in whatever
    state; None when there was none, or it was long ago. Raises `BadMessage` for a damaged record, OSError."""
    fs, kept = queue.fs, queue.paths.in_keys(key)
    try:
        return id_in(queue.reader.content(kept)), fs.lstat(kept).st_nlink > 1
    except OSError as error:
        if error.errno in GONE:
            return None
        raise


def forget(queue: Queue, key: str) -> None:
    """The key may be used anew as if it had never been. Raises OSError."""
    queue.fs.drop(queue.paths.in_keys(key))


def _with_id(line: bytes, ident: str) -> bytes:
    """The id goes last: readers of packs pass over it."""
    return line[:-2] + b',"id":' + json.dumps(ident).encode() + b"}\n"


def _link(queue: Queue, written: str, kept: str) -> bool:
    queue.fs.refuse_links(os.path.dirname(kept))
    try:
        return queue.fs.link_new(written, kept)
    except OSError as error:
        if error.errno not in GONE:
            raise
    queue.fs.make_directories(os.path.dirname(kept))
    return queue.fs.link_new(written, kept)


def _place(queue: Queue, pack: str, options: Options, start: Start) -> None:
    fs, paths = queue.fs, queue.paths
    settings = queue.settings
    priority = settings.priority if options.priority is None else options.priority
    entry = Entry(pack, 0, 1, 0, 0)
    target = start.target(paths, priority, entry, fs.now(paths.tmp)) or paths.in_ready(priority, entry)
    if fs.put(paths.in_tmp(pack), target) and settings.durable:
        fs.sync_directory(os.path.dirname(target))
    queue.taker.forget()


def _finish_first(queue: Queue, kept: str, options: Options) -> str:
    """The id of the message that has the key; placed now if its publisher died before it did."""
    ident = id_in(queue.reader.content(kept))
    pack = ident.rpartition(".")[0]
    if queue.fs.is_there(queue.paths.in_tmp(pack)):
        _place(queue, pack, options, AT_ONCE)
    return ident


def id_in(line: bytes) -> str:
    """The id in a keyed pack's line. Raises `BadMessage`."""
    found = parse_object(line)
    ident = found.get("id") if found else None
    if not isinstance(ident, str) or not parse_message_id(ident):  # it becomes a path
        raise BadMessage("the record of this key is damaged; publish with another key")
    return ident


def _withdraw(queue: Queue, ident: str) -> None:
    """Remove a message that waits; one that is being worked on, or done, is left alone."""
    from ddmq_hpc.removing import remove_waiting

    remove_waiting(queue, ident)
