"""Drop boxes: queues to which some may publish, and do nothing else.

Who may enter a queue's directory and not list it puts messages into `drop/`, a file each: there he can make names, and
remove his own, and see none. A client of the queue's owner brings them in by two renames, under names that nobody
else knows. The file stays its publisher's, so everything in it is judged as his (see `trust`), and it is one message,
since the owner could not divide a pack that is not his: the kernel lets nobody link to a file that he may not write
(`fs.protected_hardlinks`).

Whoever drops may be an enemy. So the name says nothing that is believed but when and how urgent his message is, what
is no plain file is not made ready, and what he does to the file later is the business of those who take it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Container, Iterable
from dataclasses import replace
from stat import S_ISREG
from threading import Lock
from typing import Any, Callable

from ddmq_hpc.errors import BadMessage, DdmqError, storage_error
from ddmq_hpc.fs import GONE, UNKNOWN, Filesystem, Unanswered
from ddmq_hpc.identity import token
from ddmq_hpc.messages import LineEncoder, Message, Options
from ddmq_hpc.names import NO_PACK, TOO_LARGE, Dead, Delayed, Dropped, Entry, QueuePaths, parse_dropped
from ddmq_hpc.packs import longest_line
from ddmq_hpc.publishing import AT_ONCE, BUCKET_FULL_LOCAL, BUCKET_FULL_NETWORK, PackNames, Start
from ddmq_hpc.settings import Settings
from ddmq_hpc.signing import Signer, signer
from ddmq_hpc.sweeping import DUE_SECONDS, LEFTOVER_SECONDS

#: Nobody can find the file who was not told its name, so its content is its reader's, the owner of the queue.
_MODE = 0o644
#: What a name says that nobody can move: something is mounted there, or a project's quota holds it.
_STUCK = frozenset({errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES})
#: Messages that are brought in at a time: the rest comes with the next take.
_MOST = 10_000


class DropBox:
    """A queue that this user may publish to, and do nothing else with. Threads may share it."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, settings: Callable[[], Settings]) -> None:
        self.name = paths.queue
        self._fs = fs.granting(_MODE)
        self._paths = paths
        self._settings = settings
        self._names = PackNames(BUCKET_FULL_LOCAL)
        self._lock = Lock()
        self._signer: Signer | None = None

    def publish(self, body: Any, options: Options, start: Start = AT_ONCE, durable: bool | None = None) -> Message:
        """Drop one message. It has no id: it gets one when it is brought in. Raises `BadMessage`, `StorageError`; then
        it was not published, unless the error says that it `may_be_done`."""
        if options.group or start.after:
            raise BadMessage(f"queue {self.name!r} is a drop box for you: no group can be given or waited for there")
        settings = self._settings()
        line = LineEncoder(options, settings.max_message_bytes).line(body)
        if settings.signs:
            self._signer = signer(self._signer, self.name, settings)
            line = self._signer.signed(line)
        try:
            with self._lock:
                self._drop(line, options.priority, start.delay, settings.durable if durable is None else durable)
        except OSError as error:
            raise storage_error(error, f"publish to queue {self.name!r}") from error
        return Message("", body, self.name, options, settings)

    def publish_stream(
        self,
        records: Iterable[tuple[Any, dict[str, Any]]],
        options: Options,
        start: Start = AT_ONCE,
        durable: bool | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Drop records (body, its own options over `options`) in order; how many. When it fails, the error's
        `published` says how many were dropped before."""
        published = 0
        try:
            for body, own in records:
                self.publish(body, replace(options, **Options.checked(**own).explicit()), start, durable)
                published += 1
                if progress:
                    progress(published)
        except DdmqError as error:
            error.published = published
            raise
        return published

    def _drop(self, line: bytes, priority: int | None, delay: float, durable: bool) -> None:
        """Written aside and renamed, so it is there whole or not at all. This user cannot flush `drop/` itself: where
        flushing a file does not bring its name to the disk the file server sees to that, or nobody does."""
        fs, paths = self._fs, self._paths
        now = fs.now(paths.drop)
        pack = self._names.next(int(now * 1e9))
        aside = paths.in_drop(pack)
        target = paths.in_drop(Dropped(int((now + delay) * 1000) if delay > 0 else 0, priority, pack).name)
        if not (durable and fs.sync_keeps_name):
            fs.create(aside, line, durable, _MODE)
            self._place(aside, target)
            return
        handle = fs.create_open(aside, line, _MODE)
        try:
            self._place(aside, target)
            try:
                fs.sync_file(handle)
            except OSError as error:
                if self._is_withdrawn(target):
                    raise
                raise Unanswered(error.errno, error.strerror, target) from error
        finally:
            os.close(handle)

    def _is_withdrawn(self, target: str) -> bool:
        try:
            return self._fs.drop(target)
        except OSError:
            return False

    def _place(self, aside: str, target: str) -> None:
        """Raises OSError, and then nothing was dropped; `Unanswered` when nobody knows."""
        fs = self._fs
        try:
            fs.rename(aside, target)
        except OSError as error:
            if not (fs.network and error.errno in GONE | UNKNOWN):
                self._remove(aside)
                raise
            try:
                fs.lstat(target)
            except OSError:  # it may have been brought in already, and this user cannot list what is there
                raise Unanswered(error.errno, error.strerror, target) from error

    def _remove(self, aside: str) -> None:
        """Where that fails, too, it is left to `clean`."""
        try:
            self._fs.unlink(aside)
        except OSError:
            pass


def fetcher(fs: Filesystem, paths: QueuePaths) -> Fetcher | None:
    """For a queue that has a `drop/`; None for users who may not move what is in there: that is its owner's right, and
    root's. Raises `StorageError`."""
    try:
        owner = fs.lstat(paths.drop).st_uid
    except OSError as error:
        raise storage_error(error, f"open queue {paths.queue!r}") from error
    return Fetcher(fs, paths, (0, owner)) if os.geteuid() in (0, owner) else None


class Fetcher:
    """Brings in what was dropped into one queue. Any number of clients may do so at the same time. Threads may share
    it. Users who are `above` that drop nothing: what is there of theirs was moved there by others."""

    def __init__(self, fs: Filesystem, paths: QueuePaths, above: Container[int]) -> None:
        self._fs = fs
        self._paths = paths
        self.above = above
        self._names = PackNames(BUCKET_FULL_NETWORK if fs.network else BUCKET_FULL_LOCAL)
        self._lock = Lock()
        self._looked = -1e9

    def maybe(self, settings: Settings) -> None:
        """Bring in what is there, if this client did not look lately. Raises OSError."""
        if self._fs.monotonic() - self._looked >= DUE_SECONDS:
            self.fetch(settings)

    def fetch(self, settings: Settings) -> int:
        """Make what was dropped ready, or delayed, in the order in which it was: how many messages, those included that
        another client was faster with. Nothing while the queue takes no new messages. Raises OSError."""
        if settings.draining:
            return 0
        with self._lock:
            self._looked = self._fs.monotonic()
            return sum(self._fetch_one(dropped, settings) for dropped in self._dropped()[:_MOST])

    def _fetch_one(self, dropped: Dropped, settings: Settings) -> bool:
        """What lies in this name alone keeps no other from being brought in: it stays."""
        try:
            return self._fetch(dropped, settings)
        except OSError as error:
            if error.errno not in _STUCK:
                raise
            return False

    def waiting(self) -> tuple[int, list[str]]:
        """How many messages wait to be brought in, and the names of other files. Raises OSError."""
        names = self._fs.names(self._paths.drop)
        strange = [name for name in names if not parse_dropped(name)]
        return len(names) - len(strange), strange

    def remove_leftovers(self) -> int:
        """Remove what is no message and has been there for an hour, as far as that can be done; how many. Raises
        OSError."""
        fs, removed = self._fs, 0
        now = fs.now(self._paths.tmp)
        for name in self.waiting()[1]:
            path = self._paths.in_drop(name)
            try:
                if now - fs.lstat(path).st_mtime >= LEFTOVER_SECONDS:
                    removed += fs.drop(path)
            except OSError:
                fs.remove_empty(path)  # a directory, of which only its owner can remove more
        return removed

    def _dropped(self) -> list[Dropped]:
        self._fs.refresh(self._paths.drop)
        found = filter(None, map(parse_dropped, self._fs.names(self._paths.drop)))
        return sorted(found, key=lambda dropped: dropped.pack)

    def _fetch(self, dropped: Dropped, settings: Settings) -> bool:
        """By two renames, each of which one client does: to a name in `drop/` that nobody else can know, so that what
        is looked at then is what is moved, and to where it belongs. Killed in between this leaves a dropped message.
        False when nothing came of it: it is no message."""
        fs, paths = self._fs, self._paths
        own = dropped.hidden(token())
        source = paths.in_drop(own.name)
        if not fs.claim(paths.in_drop(dropped.name), source):
            return True
        try:
            found = fs.lstat(source)
        except OSError as error:
            if error.errno in GONE:
                return True
            raise
        now = fs.now(paths.tmp)
        entry = Entry(self._names.next(int(now * 1e9)), 0, 1, 0, 0)
        priority = settings.priority if own.priority is None else own.priority
        # Of a file with a second link, or of one who need not drop anything, nobody knows who put it there.
        if not S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid in self.above:
            self._set_aside(source, Dead(priority, entry, NO_PACK))
            return False
        if found.st_size > longest_line(settings.max_message_bytes):
            self._set_aside(source, Dead(priority, entry, TOO_LARGE))
            return False
        is_due = own.due <= now * 1000
        late = Delayed(own.due, priority, entry)
        fs.put(source, paths.in_ready(priority, entry) if is_due else paths.in_delayed(late))
        return True

    def _set_aside(self, source: str, dead: Dead) -> None:
        fs = self._fs
        try:
            fs.claim(source, f"{self._paths.damaged}/{dead.name}")
        except PermissionError:
            # A directory, which nobody can move elsewhere who may not write to it: not to be looked at again.
            fs.claim(source, stuck := self._paths.in_drop(dead.entry.pack))
            fs.remove_empty(stuck)
