"""Groups of messages: which of their packs are not finished, so that others can wait for them.

groups/<group>/<pack> is a hard link to a pack of the group, made before the pack can be taken. The number of links that
the pack has tells whether it is finished: all places where its messages can be are links, too, and each move between
them is a rename, which never lowers it. So once nothing but the group's own link is left, and links in done/, all of
the pack was acked, or removed, and its link goes. Dead letters keep a group unfinished, until retried or purged.

Who publishes says so by a file `open.<token>` in the group's directory, touched each minute: between two packs of a
stream a group is not finished although all that is in the queue is. A group that nobody ever published to is not
finished either; an empty directory is one that is.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Callable

from ddmq_hpc.fs import GONE, NO_FILE, Filesystem
from ddmq_hpc.identity import token
from ddmq_hpc.names import (
    QueuePaths,
    check_group_name,
    group_leftover,
    is_done_window,
    is_group_name,
    is_open_name,
    is_pack,
    open_name,
    parse_dead,
    parse_done,
)

#: Seconds between two signs of life of who publishes, and after which there is nobody any more.
_TOUCH_SECONDS, _OPEN_SECONDS = 60.0, 300.0
#: How a group can be: nobody ever published to it; somebody does; messages are to be done; all that is left of it are
#: dead letters; nothing is left.
UNKNOWN, OPEN, UNFINISHED, DEAD, FINISHED = "unknown", "open", "unfinished", "dead", "finished"


def groups(fs: Filesystem, paths: QueuePaths) -> list[str]:
    """The names of all groups that were ever published to. Raises OSError."""
    return sorted(filter(is_group_name, fs.directories(paths.groups)))


def enter(fs: Filesystem, paths: QueuePaths, group: str, pack: str, written: str) -> None:
    """The pack that was `written`, and that nobody can take yet, is one of the group. Raises OSError."""

    def link(path: str) -> None:
        fs.link_new(written, path)

    _put(fs, paths, group, pack, link)


def _put(fs: Filesystem, paths: QueuePaths, group: str, name: str, make: Callable[[str], object]) -> None:
    """Make a file in the directory of a group. A new directory appears with it: an empty one is a group that is
    finished."""
    kept = paths.in_group(check_group_name(group), name)
    for left in (2, 1, 0):
        try:
            _put_once(fs, paths, kept, make)
            return
        except OSError as error:
            if fs.is_there(kept):
                return  # the reply was lost
            if not left or error.errno not in GONE | {errno.EEXIST, errno.ENOTEMPTY}:
                raise


def _put_once(fs: Filesystem, paths: QueuePaths, kept: str, make: Callable[[str], object]) -> None:
    fs.refuse_links(paths.parent(kept))
    try:
        make(kept)
        return
    except OSError as error:
        if error.errno not in GONE or fs.is_there(kept):
            raise
    aside = paths.in_tmp(group_leftover(token()))
    fs.make_directory(aside)
    try:
        make(f"{aside}/{kept.rpartition('/')[2]}")
        fs.make_directory(paths.groups)
        fs.rename(aside, paths.parent(kept))
    except OSError:
        fs.remove_tree(aside)
        raise


@contextmanager
def publishing(fs: Filesystem, paths: QueuePaths, group: str) -> Iterator[None]:
    """The group is not finished before the `with` block ends, whatever becomes of its messages. Raises OSError."""
    name = open_name(token())
    _put(fs, paths, group, name, lambda path: fs.create(path, b"", False))
    mark = paths.in_group(group, name)
    over = Event()
    thread = Thread(target=_keep_alive, args=(fs, mark, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):  # then it will be taken for dead
            fs.drop(mark)


def _keep_alive(fs: Filesystem, mark: str, over: Event) -> None:
    while not over.wait(_TOUCH_SECONDS):
        with suppress(OSError):
            fs.touch(mark)


def state(fs: Filesystem, paths: QueuePaths, group: str) -> str:
    """How a group is. Links to packs that are finished are removed on the way. Raises OSError."""
    if not fs.is_there(f"{paths.groups}/{check_group_name(group)}"):
        return UNKNOWN
    if _is_published_to(fs, paths, group):
        return OPEN
    found, dead = FINISHED, None
    for pack, links in _unfinished(fs, paths, group):
        if dead is None:
            dead = Counter(letter.entry.pack for letter in filter(None, map(parse_dead, fs.names(paths.dead))))
        if links > dead[pack]:
            return UNFINISHED
        found = DEAD
    return found


def is_finished(fs: Filesystem, paths: QueuePaths, group: str) -> bool:
    """Whether nothing of a group is left. Where something is, a listing and a look at one pack tell, as a rule. Raises
    OSError."""
    return (
        fs.is_there(f"{paths.groups}/{group}")
        and not _is_published_to(fs, paths, group)
        and next(_unfinished(fs, paths, group), None) is None
    )


def packs(fs: Filesystem, paths: QueuePaths, group: str) -> list[str]:
    """The packs of a group that were not found finished, in order. Raises OSError."""
    return sorted(filter(is_pack, fs.names(f"{paths.groups}/{group}")))


def _is_published_to(fs: Filesystem, paths: QueuePaths, group: str) -> bool:
    directory = f"{paths.groups}/{group}"
    fs.refresh(directory)
    for name in filter(is_open_name, fs.names(directory)):
        try:
            touched = _touched(fs, f"{directory}/{name}")
        except OSError as error:
            if error.errno in GONE | NO_FILE:
                continue
            raise
        if fs.now(paths.tmp) - touched < _OPEN_SECONDS:
            return True
        fs.drop(f"{directory}/{name}")
    return False


def _touched(fs: Filesystem, path: str) -> float:
    try:
        return fs.read_some(path, 1)[0].st_mtime
    except PermissionError:  # its maker died before it was open to the group
        return fs.lstat(path).st_mtime


def _unfinished(fs: Filesystem, paths: QueuePaths, group: str) -> Iterator[tuple[str, int]]:
    """Packs with messages that are not done, and how many links those have; the last ones first, since they are
    finished last, as a rule.

    What is in done/ is counted before the pack's links are: it grows meanwhile, and each link that it gets was counted
    as another one before. What was counted must be there afterwards, or its link may have been another's.
    """
    done: dict[str, set[str]] | None = None
    accounted = []
    for pack in reversed(packs(fs, paths, group)):
        path = paths.in_group(group, pack)
        links = _links(fs, path) - 1
        if links > 0 and done is None:
            done = _kept(fs, paths)
        if links > 0 and done and (kept := done.get(pack)):
            links = _links(fs, path) - 1 - len(kept)
            if links <= 0:
                accounted.append(pack)
                continue
        if links > 0:
            yield pack, links
        else:
            with suppress(IsADirectoryError):
                fs.drop(path)
    still = _kept(fs, paths) if accounted else {}
    for pack in accounted:
        if done and done[pack] <= still.get(pack, set()):
            fs.drop(paths.in_group(group, pack))
        else:
            yield pack, 1


def _links(fs: Filesystem, path: str) -> int:
    """Opening it asks an NFS server, which lstat(2) may not."""
    try:
        return fs.read_some(path, 1)[0].st_nlink
    except OSError as error:
        if error.errno in GONE | NO_FILE:
            return 1
        raise


def _kept(fs: Filesystem, paths: QueuePaths) -> dict[str, set[str]]:
    """What is in done/ of each pack."""
    found: dict[str, set[str]] = {}
    for window in filter(is_done_window, fs.directories(paths.done)):
        for done in filter(None, map(parse_done, fs.names(f"{paths.done}/{window}"))):
            found.setdefault(done.entry.pack, set()).add(f"{window}/{done.name}")
    return found
