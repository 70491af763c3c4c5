"""A worker on a bad host fails task after task at once, and empties a queue faster than all good ones work on it.

So one that fails several in a row, quickly, first slows down. It ends when the journal shows that other workers
finished those very messages: then the host is to blame. When others fail with them too it is the messages, and the
worker goes on. The last worker never ends: where only bad hosts are left, failing slowly is better than a queue that
nobody looks at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from ddmq_hpc.admin import covers
from ddmq_hpc.following import Follower
from ddmq_hpc.fs import GONE, NO_FILE
from ddmq_hpc.journal import growing
from ddmq_hpc.locks import first_to_make
from ddmq_hpc.names import minute_stamp, parse_message_id, stamped_minute
from ddmq_hpc.queue import Queue
from ddmq_hpc.workers import list_workers

#: Seconds between two looks into the journal.
_LOOK_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
#: The same for a worker alone: a queue is not to be failed through before anybody can look.
_ALONE_PAUSE = 1.0
#: Failures that are remembered.
_MOST_FAILURES = 1000
#: Minutes for which it is remembered who ended.
_STAMPS_KEPT = 1440
_STAMP = "breaker"
_ID_KEY = b'"id":"'
_PACK_LENGTH = 29


class Ended(NamedTuple):
    """A worker that ended since its host was to blame, and when, in seconds since 1970."""

    at: float
    host: str
    pid: int


def ended_workers(queue: Queue) -> list[Ended]:
    """Those that are remembered, for a day at least, the first one first. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    found = []
    for name in fs.names(paths.locks):
        minute = stamped_minute(_STAMP, name)
        if minute is None:
            continue
        try:
            text = fs.read_some(paths.in_locks(name), 100)[1].decode("ascii", "replace")
        except OSError as error:
            if error.errno in GONE | NO_FILE:
                continue
            raise
        host, _, pid = text.strip().partition(" ")
        if pid.isdecimal():
            found.append(Ended(minute * 60.0, host, int(pid)))
    return sorted(found)


class Breaker:
    """Watches the outcomes of one worker at one queue. `me` is the host and process id under which it writes outcomes.

    `limit` failures in a row, each after at most `quick` seconds, make it suspicious. Its calls are made by one thread,
    or by several that take turns.
    """

    def __init__(self, queue: Queue, me: tuple[str, int], limit: int = 5, quick: float = 10.0) -> None:
        self._queue = queue
        self._me = me
        self._limit = limit
        self._quick = quick
        self._follower = Follower(queue.fs, queue.paths)
        self._noted = self._looked = -1e9
        self.succeeded()

    def succeeded(self) -> None:
        """A task was done: this host is good."""
        self._failed: dict[str, None] = {}  # message ids, in order
        self._finished: set[str] = set()
        self._failed_elsewhere: set[str] = set()
        self._suspect = self._alone = False

    def failed(self, message_id: str, wall: float) -> None:
        """A task failed after `wall` seconds. One that took long says nothing about the host, and ends the row."""
        if wall > self._quick:
            self.succeeded()
            return
        if not self._failed:
            self._note_ends()
        before = len(self._failed)
        self._failed[message_id] = None
        if len(self._failed) > _MOST_FAILURES:
            del self._failed[next(iter(self._failed))]
        self._suspect = self._suspect or before < len(self._failed) == self._limit

    def pause(self) -> float:
        """Seconds to wait before the next task: more with each message, while this worker is under suspicion, and a
        little when there is no other one to compare with.

        Ask `verdict` first: it knows when there is no reason for it.
        """
        if len(self._failed) < self._limit:
            return 0.0
        if self._alone:
            return _ALONE_PAUSE
        if not self._suspect:
            return 0.0
        return float(min(_FIRST_PAUSE * 2 ** min(len(self._failed) - self._limit, 10), _LONGEST_PAUSE))

    def verdict(self) -> str | None:
        """Why this worker should end; None as long as it should not. May be asked often: it looks every few seconds.

        At most one worker of a queue is told so in a minute. A fault of the file system is no verdict.
        """
        if len(self._failed) < self._limit:
            return None
        fs = self._queue.fs
        if fs.monotonic() - self._looked < _LOOK_SECONDS:
            return None
        self._looked = fs.monotonic()
        try:
            self._read_journal()
            others = self._others()
            self._alone = not others
            self._suspect = others and len(self._failed_elsewhere) <= len(self._finished)
            guilty = self._finished - self._failed_elsewhere
            if not others or len(guilty) < self._limit or not self._may_end():
                return None
        except OSError:
            return None
        return (
            f"{len(self._failed)} tasks in a row failed on {self._me[0]} within {self._quick:g} s each, and others "
            f"finished {len(guilty)} of them, such as {min(guilty)}: something is wrong with this host"
        )

    # -- what the journal says of the others

    def _note_ends(self) -> None:
        """What is in the journal before a first failure tells nothing of it."""
        clock = self._queue.fs.monotonic()
        if clock - self._noted < _LOOK_SECONDS:
            return
        self._noted = clock
        try:
            self._follower.begin_at_ends()
        except OSError:
            pass

    def _read_journal(self) -> None:
        packs = {ident.rpartition(".")[0].encode() for ident in self._failed}
        for record in self._records(packs):
            if (record.get("host"), record.get("pid")) == self._me:
                continue
            told_of = self._finished if record["state"] == "acked" else self._failed_elsewhere
            for ident in self._failed:
                parsed = parse_message_id(ident)
                if parsed and covers(record["id"], *parsed):
                    told_of.add(ident)

    def _records(self, packs: set[bytes]) -> Iterator[dict[str, Any]]:
        """Records of done and failed tasks of some packs that were written since the last look."""
        for lines in self._follower.appended(growing(self._queue.fs, self._queue.paths)):
            yield from _parsed(lines, packs)

    # -- never the last one

    def _others(self) -> bool:
        """Whether another worker is alive that was not told to end."""
        live = {(info.host, info.pid) for info in list_workers(self._queue) if info.alive == "yes"} - {self._me}
        return bool(live and live - self._ended())

    def _ended(self) -> set[tuple[str, int]]:
        return {(one.host, one.pid) for one in ended_workers(self._queue)}

    def _may_end(self) -> bool:
        """Whether this worker is the one that may end now.

        Two that see each other alive must not both end. So each first makes the stamp of the minute, which only one
        can, and then looks for one of the minute before.
        """
        fs, paths = self._queue.fs, self._queue.paths
        minute = int(fs.now(paths.tmp) // 60)
        stamp = minute_stamp(_STAMP, minute)
        if not first_to_make(fs, paths, stamp, f"{self._me[0]} {self._me[1]}\n".encode()):
            return False
        for name in fs.names(paths.locks):
            other = stamped_minute(_STAMP, name)
            if other == minute - 1:
                fs.drop(paths.in_locks(stamp))
                return False
            if other is not None and other < minute - _STAMPS_KEPT:
                fs.drop(paths.in_locks(name))
        return True


def _parsed(data: bytes, packs: set[bytes]) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        start = line.find(_ID_KEY) + len(_ID_KEY)
        if line[start : start + _PACK_LENGTH] not in packs or b'acked"' not in line:
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("state") in ("acked", "nacked") and isinstance(found.get("id"), str):
            yield found
