"""A root and its queues: opened, made, found by name, listed, deleted."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from stat import S_ISDIR
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from ddmq_hpc import settings as _settings
from ddmq_hpc.errors import (
    DropOnly,
    IncompleteQueue,
    LegacyQueue,
    NotFound,
    QueueNotFound,
    RootNotFound,
    StorageError,
    storage_error,
)
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import Identity, token
from ddmq_hpc.names import (
    DIRECTORIES,
    DROP,
    GRAVE,
    LATER_DIRECTORIES,
    SETTINGS,
    QueuePaths,
    check_queue_name,
    is_queue_name,
)
from ddmq_hpc.queue import Queue
from ddmq_hpc.settings import DEFAULTS, Settings

if TYPE_CHECKING:
    from ddmq_hpc.doctor import Report
    from ddmq_hpc.dropping import DropBox
    from ddmq_hpc.sharing import Sharing
    from ddmq_hpc.sweeping import Swept

_Self = TypeVar("_Self", bound="Queues")
#: Seconds for which settings files are believed.
_SETTINGS_AGE = 30.0
#: Seconds for which the same file is not read twice: the root's, when it is opened and for each of its queues.
_FRESH = 1.0


class Queues:
    """What `Broker` is to the queues of a root, before it does anything with their messages."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        create: bool = False,
        *,
        identity: Identity | None = None,
        filesystem: Callable[[str], Filesystem] | None = None,
        admission: Callable[[Report], None] | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.root = os.path.abspath(os.fspath(root))
        self._create = create
        self._sharing = sharing
        path = f"{self.root}/{SETTINGS}"
        #: Directories in the root that this user may not look into, when queues were last listed.
        self.closed: list[str] = []
        #: What was found about the file system when this made the root; None where the root was there.
        self.checkup: Report | None = None
        if create and not os.path.lexists(path):
            from ddmq_hpc.roots import make_root

            self.checkup = make_root(self.root, filesystem or Filesystem, admission, sharing)
        self._identity = identity or Identity()
        try:
            self.fs = (filesystem or Filesystem)(self.root)
            self._settings_file = SettingsFile(self.fs, path)
            _settings.check_layout(self._settings_file.values(), path)
        except OSError as error:
            if error.errno in GONE or error.errno == errno.ENOTDIR:
                raise RootNotFound(self.root) from None
            raise storage_error(error, f"open {self.root}") from error
        self._queues: dict[str, Queue] = {}
        self._boxes: dict[str, DropBox] = {}
        self._readers: dict[str, SettingsReader] = {}

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Bring outcomes to the disk and close files. Leases stay as they are."""
        for queue in self._queues.values():
            queue.close()

    def create_queue(self, queue: str, **settings: Any) -> bool:
        """Make a queue with `settings` of its own (see `Settings`): whether it was not there before. Of one that is
        there nothing changes but the settings given; one that is not whole is completed.

        Only its owner may enter it, unless this broker has a `sharing`: whoever can write to a queue can have commands
        run. Raises `BadName`, `SettingsError`, `UsageError` for one that is there and not shared like that,
        `StorageError`.
        """
        from ddmq_hpc.roots import check_shared, make_queue

        paths = QueuePaths(self.root, queue)
        _settings.apply(DEFAULTS, settings, "the settings given")
        try:
            was_there = self._is_queue(paths)
            if was_there and self._sharing:
                check_shared(self.fs, paths, self._sharing)
            make_queue(self.fs, paths, settings, None if was_there else self._sharing)
            return not was_there
        except OSError as error:
            raise storage_error(error, f"create queue {queue!r}") from error

    def closed_to_users(self, queue: str) -> tuple[str, str] | None:
        """Those whom a queue is for, members of its group or others, and what keeps them out: a directory above it that
        they may not enter, or the settings of the root if they may not read those; None where nothing does. Raises
        `StorageError`."""
        from ddmq_hpc.roots import closed_to_users

        try:
            return closed_to_users(self.fs, QueuePaths(self.root, queue))
        except OSError as error:
            raise storage_error(error, f"look who can enter {self.root}") from error

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with all that is in it. Raises `QueueNotFound`."""
        try:
            self._find(queue)
        except IncompleteQueue:
            pass  # what is there of it is removed all the same
        except StorageError as error:
            if error.errno != errno.ELOOP:
                raise
        from shutil import rmtree

        grave = f"{self.root}/{GRAVE}{queue}-{token()}"
        try:
            self.fs.rename(f"{self.root}/{queue}", grave)
        except OSError as error:
            raise storage_error(error, f"delete queue {queue!r}") from error
        if found := self._queues.pop(queue, None):
            found.close()
        rmtree(grave, ignore_errors=True)

    def list_queues(self) -> list[str]:
        """The names of all queues that this user may look into, sorted; `closed` has the others afterwards."""
        try:
            names = sorted(filter(is_queue_name, self.fs.directories(self.root)))
        except OSError as error:
            raise storage_error(error, "list queues") from error
        self.closed = [name for name in names if not os.access(f"{self.root}/{name}", os.R_OK | os.X_OK)]
        return [name for name in names if os.path.isdir(f"{self.root}/{name}/ready") and name not in self.closed]

    def queue(self, name: str) -> Queue:
        """The queue itself; made when the broker may create. Raises `QueueNotFound`, `BadName`."""
        known = self._queues.get(name)
        return known if known and self._is_queue(known.paths) else self._find(name)

    def demand(self, queues: Iterable[str]) -> None:
        """Raises `QueueNotFound`, `BadName` for the first that is not there, before anything is done to the others. One
        that is not whole, or cannot be looked into, is there."""
        for name in queues:
            try:
                self.queue(name)
            except (IncompleteQueue, StorageError):
                pass  # what is done to it copes with that, or says so

    def _known(self, name: str) -> Queue:
        """The same without looking whether it is still there: its methods find out."""
        return self._queues.get(name) or self._find(name)

    def _publishing(self, name: str) -> Queue | DropBox:
        """Where messages for a queue are published: a drop box for those who may do nothing else."""
        return self._queues.get(name) or self._boxes.get(name) or self._find_publishing(name)

    def _find_publishing(self, name: str) -> Queue | DropBox:
        try:
            return self._find(name)
        except DropOnly:
            from ddmq_hpc.dropping import DropBox

            settings = SettingsReader(self.fs, [self._settings_file]).settings  # those of the queue cannot be read
            found = self._boxes[name] = DropBox(self.fs, QueuePaths(self.root, name), settings)
            return found

    def _find(self, name: str) -> Queue:
        paths = QueuePaths(self.root, check_queue_name(name))
        if known := self._queues.pop(name, None):
            known.close()
        there = self._directories(paths)
        if not there:
            if not self._create:
                raise self._missing(paths)
            self.create_queue(name)
            there = self._directories(paths)
        try:
            fs = self.fs.below(paths.top, paths.tmp)
        except OSError as error:
            raise storage_error(error, f"open queue {name!r}") from error
        files = [self._settings_file, SettingsFile(fs, paths.settings)]
        reader = self._readers[name] = SettingsReader(fs, files)
        found = self._queues[name] = Queue(fs, paths, self._identity, reader.settings)
        found.idle_hook = _recover_maybe
        if DROP in there:
            from ddmq_hpc.dropping import fetcher

            if fetching := fetcher(fs, paths):
                found.fetcher, found.reader.of_packs = fetching, fetching.above
        return found

    def _missing(self, paths: QueuePaths) -> NotFound:
        from ddmq_hpc.roots import is_begun, is_legacy

        if is_legacy(self.fs, paths):
            return LegacyQueue(self.root, paths.queue)
        if is_begun(self.fs, paths):
            return IncompleteQueue(self.root, paths.queue)
        return QueueNotFound(self.root, paths.queue, self._nearest(paths.queue))

    def _nearest(self, name: str) -> str:
        """The queue whose name is most like one that is not there; empty when none is."""
        from difflib import get_close_matches

        try:
            return next(iter(get_close_matches(name, self.list_queues(), n=1)), "")
        except StorageError:
            return ""

    def _is_queue(self, paths: QueuePaths) -> bool:
        """Whether all state directories are there. Raises as `_directories`."""
        return bool(self._directories(paths))

    def _directories(self, paths: QueuePaths) -> set[str]:
        """The directories of a queue; none when not all state directories are there. Raises `DropOnly` where this user
        may only publish, `StorageError` where one of its directories is a link, which could lead out of the root."""
        if os.path.islink(paths.top):
            return set()
        try:
            found, links = self.fs.directories_and_links(paths.top)
            if leading := {*DIRECTORIES, *LATER_DIRECTORIES}.intersection(links):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), f"{paths.top}/{min(leading)}")
        except OSError as error:
            if error.errno in GONE or error.errno == errno.ENOTDIR:
                return set()
            if error.errno == errno.EACCES and self._is_drop_box(paths):
                raise DropOnly(error, paths.queue) from error
            raise storage_error(error, f"open queue {paths.queue!r}") from error
        return set(found) if set(found) >= set(DIRECTORIES) else set()

    def _is_drop_box(self, paths: QueuePaths) -> bool:
        """Of a queue that this user may not list."""
        try:
            return S_ISDIR(self.fs.lstat(paths.drop).st_mode)
        except OSError:
            return False


def _recover_maybe(queue: Queue) -> Swept | None:
    from ddmq_hpc.recovery import maybe  # only once another batch job is seen

    return maybe(queue)


class SettingsFile:
    """What a settings file says. What was read within the last second is not read again."""

    def __init__(self, fs: Filesystem, path: str) -> None:
        self.path = path
        self._fs = fs
        self._read_at = -1e9
        self._values: Mapping[Any, Any] = {}

    def forget(self) -> None:
        """Read it anew when it is next asked for."""
        self._read_at = -1e9

    def values(self) -> Mapping[Any, Any]:
        """Raises `SettingsError`, OSError."""
        if self._fs.monotonic() - self._read_at > _FRESH:
            self._values = _settings.parse(
                self._fs.read(self.path, _settings.MOST_BYTES).decode("utf-8", "replace"), self.path
            )
            self._read_at = self._fs.monotonic()
        return self._values


class SettingsReader:
    """The settings that files give, read again after half a minute."""

    def __init__(self, fs: Filesystem, files: Sequence[SettingsFile]) -> None:
        self._fs = fs
        self._files = files
        self._read_at = -1e9
        self._settings = DEFAULTS

    def forget(self) -> None:
        """Read them anew when they are next asked for."""
        self._read_at = -1e9
        for file in self._files:
            file.forget()

    def settings(self) -> Settings:
        """What they say now, or said half a minute ago."""
        if self._fs.monotonic() - self._read_at > _SETTINGS_AGE:
            settings = DEFAULTS
            for file in self._files:
                try:
                    values = file.values()
                except OSError as error:
                    if error.errno in GONE:
                        continue
                    raise storage_error(error, "read the settings") from error
                settings = _settings.below(settings, values, file.path)
            settings = _settings.apply(settings, _settings.of_environment(os.environ), _settings.OF_ENVIRONMENT)
            self._settings, self._read_at = settings, self._fs.monotonic()
        return self._settings
