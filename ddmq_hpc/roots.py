"""Roots and queues as directories: how they are made."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from stat import S_IMODE, S_IRGRP, S_IROTH, S_ISLNK, S_IXGRP, S_IXOTH
from typing import TYPE_CHECKING, Any, Callable

from ddmq_hpc import changing
from ddmq_hpc import settings as _settings
from ddmq_hpc.errors import LegacyQueue, UnfitDirectory, UsageError, storage_error
from ddmq_hpc.fs import NO_LINKS, Filesystem
from ddmq_hpc.identity import group_name, token, user_name
from ddmq_hpc.names import (
    CHECKUP,
    DIRECTORIES,
    DROP,
    LAYOUT_KEY,
    LEGACY_WORK,
    READY,
    SETTINGS,
    TMP,
    QueuePaths,
    is_probe,
    is_queue_name,
)
from ddmq_hpc.sharing import Sharing, drop_mode, is_for_everybody

if TYPE_CHECKING:
    from ddmq_hpc.doctor import Report

#: What may stand in a queue that is being made.
_BEGUN = frozenset({*DIRECTORIES, DROP, SETTINGS} - {READY})
#: What the settings of a root are written as before they are in place.
_SETTINGS_ASIDE = ".settings-"
#: What is in a root where some may only publish: they read its settings.
_READABLE = 0o755


def make_root(
    root: str,
    filesystem: Callable[[str], Filesystem],
    admission: Callable[[Report], None] | None = None,
    sharing: Sharing | None = None,
) -> Report:
    """Make a root, unless `admission` refuses: what was found about its file system. A directory that was there keeps
    its mode, a new one is shared as `sharing` says. Raises `UnfitDirectory`, `StorageError`."""
    from ddmq_hpc import doctor
    from ddmq_hpc.doctor import checkup

    was_there = os.path.lexists(root)
    try:
        _make_directories(root)
        fs = filesystem(root)
        found = doctor.look(root, fs)
        try:
            (admission or checkup.admit)(found)
        except UnfitDirectory:
            if not was_there:
                fs.remove_empty(root)
            raise
        if sharing and not was_there:
            _share(fs, root, sharing, _is_of_begun_root)
        drops = sharing is not None and drop_mode(sharing.mode) is not None
        fs = fs.granting(_READABLE) if drops else fs.below(root, root)
        _write_root_settings(fs, root)
        checkup.write(fs, root, found)
    except OSError as error:
        raise storage_error(error, f"create the root {root}") from error
    return found


def _write_root_settings(fs: Filesystem, root: str) -> None:
    text = f"{LAYOUT_KEY}: {_settings.LAYOUT}\n\n{_settings.example()}"
    path, settings = f"{root}/{_SETTINGS_ASIDE}{token()}", f"{root}/{SETTINGS}"
    fs.create(path, text.encode(), False, changing.MODE)
    try:
        fs.link_new(path, settings)  # False: another client was first
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        fs.rename(path, settings)  # somebody wants a root even here
    fs.drop(path)


def make_queue(fs: Filesystem, paths: QueuePaths, settings: Mapping[str, Any], sharing: Sharing | None = None) -> None:
    """Make the directories of a queue that only its owner may enter, or those that `sharing` says, and its settings;
    what is there stays, but for these. Raises `LegacyQueue`, `SettingsError`, OSError.

    What a full disk or a kill leaves is no queue to anybody, since `ready` is made last; the next call completes it.
    """
    if not _make_directory(fs, paths.top, 0o700):
        _demand_ours(fs, paths)
    if sharing:
        _share(fs, paths.top, sharing, _is_of_begun_queue)
        _make_drop(fs, paths, sharing)
    fs = fs.below(paths.top, paths.tmp)
    _make_directory(fs, paths.tmp)
    if not os.path.lexists(paths.settings):
        _write_settings(fs, paths, settings)
    elif settings:
        changing.change_settings(fs, paths, settings)
    for name in reversed(DIRECTORIES):
        path = f"{paths.top}/{name}"
        if fs.shared is None:
            _make_directory(fs, path)
            continue
        fs.make_directory(path)  # it appears as those may use it whom the queue is for
        if sharing:
            fs.grant_directory(path, fs.shared & 0o777)  # of one who died before that


def _demand_ours(fs: Filesystem, paths: QueuePaths) -> None:
    """Raise ELOOP for a link in place of a queue, `LegacyQueue`, and `UsageError` for a directory in which another user
    could see, or change, whatever is put into it."""
    found = fs.lstat(paths.top)
    if S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), paths.top)
    if is_legacy(fs, paths):
        raise LegacyQueue(paths.root, paths.queue)
    is_whole = set(DIRECTORIES).issubset(fs.directories(paths.top))
    if not is_whole and found.st_uid != fs.own_uid(f"{paths.root}/{_SETTINGS_ASIDE}{token()}"):
        owner = user_name(found.st_uid)
        raise UsageError(f"{paths.top} is there, and belongs to user {owner}: nothing was made; give another name")


def _make_directory(fs: Filesystem, path: str, mode: int = 0o755) -> bool:
    try:
        fs.mkdir(path, mode) if fs.shared is None else fs.mkdir_granted(path, fs.shared & 0o777)
    except FileExistsError:
        return False
    return True


def _share(fs: Filesystem, path: str, sharing: Sharing, is_begun: Callable[[list[str]], bool]) -> None:
    """Of a directory that was just made, or begun to be: EEXIST when it has anything else, since in a directory that
    others may write to they could have put another one of this user's in its place."""
    if _is_shared_so(fs.lstat(path), sharing):
        return  # another client of this user was faster, and may be far ahead
    handle = fs.hold_directory(path)
    try:
        if not is_begun(fs.list_held(handle)):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        found = fs.share_held(handle, sharing.group, sharing.mode)
    finally:
        fs.close(handle)
    if S_IMODE(found.st_mode) != sharing.mode:  # chmod(2) drops the setgid bit of a group that is not one's own
        group = group_name(found.st_gid)
        raise PermissionError(errno.EPERM, f"mode {sharing.mode:04o} cannot be set for group {group}", path)


def _is_of_begun_root(names: list[str]) -> bool:
    return all(name in (SETTINGS, CHECKUP) or name.startswith(_SETTINGS_ASIDE) or is_probe(name) for name in names)


def _is_of_begun_queue(names: list[str]) -> bool:
    """`tmp`, or a drop box, is made first, and `ready` last."""
    return not names or (bool({TMP, DROP}.intersection(names)) and _BEGUN.issuperset(names))


def _make_drop(fs: Filesystem, paths: QueuePaths, sharing: Sharing) -> None:
    """Where those drop messages who may only publish, if there are any. Raises `UsageError` where the file system does
    not keep them from each other's files; OSError."""
    mode = drop_mode(sharing.mode)
    if mode is None:
        return
    _make_directory(fs, paths.drop, 0o700)
    try:
        _share(fs, paths.drop, Sharing(sharing.group, mode), lambda names: not names)
    except PermissionError:
        found = S_IMODE(fs.lstat(paths.drop).st_mode)
        for path in (paths.drop, paths.top):
            fs.remove_empty(path)
        told = f"queue {paths.queue!r} was not made: here drop/ gets mode {found:04o} where {mode:04o} was set, so that"
        raise UsageError(f"{told} users could remove what others drop; use another file system") from None


def _is_shared_so(found: os.stat_result, sharing: Sharing) -> bool:
    return S_IMODE(found.st_mode) == sharing.mode and sharing.group in (None, found.st_gid)


def check_shared(fs: Filesystem, paths: QueuePaths, sharing: Sharing) -> None:
    """Raise `UsageError` for a queue that is there and is not shared like that; OSError."""
    found = fs.lstat(paths.top)
    if not _is_shared_so(found, sharing):
        is_now = f"is there already, mode {S_IMODE(found.st_mode):04o} of group {group_name(found.st_gid)}"
        raise UsageError(f"queue {paths.queue!r} {is_now}: docs/shared.md says how to open it to others")


def closed_to(root: str, group: int | None) -> str | None:
    """What on the way to the queues of a root a group (None: any other user) cannot enter, or the root's settings if it
    cannot read those; None where all is open. Raises OSError."""
    ways = [(path, S_IXGRP, S_IXOTH) for path in (*reversed(_parents(root)), root)]
    for path, of_group, of_others in (*ways, (f"{root}/{SETTINGS}", S_IRGRP, S_IROTH)):
        found = os.stat(path)
        if not found.st_mode & (of_group if found.st_gid == group else of_others):
            return path
    return None


def closed_to_users(fs: Filesystem, paths: QueuePaths) -> tuple[str, str] | None:
    """The same for those whom a queue is for, beside its owner: who, and what."""
    found = fs.lstat(paths.top)
    if found.st_mode & S_IXGRP and not is_for_everybody(found.st_mode) and (at := closed_to(paths.root, found.st_gid)):
        return "members", at
    if found.st_mode & S_IXOTH and (at := closed_to(paths.root, None)):
        return "others", at
    return None


def _parents(path: str) -> list[str]:
    parent = os.path.dirname(path)
    return [] if parent == path else [parent, *_parents(parent)]


def _write_settings(fs: Filesystem, paths: QueuePaths, values: Mapping[str, Any]) -> None:
    path = f"{paths.tmp}/settings-{token()}"
    text = _settings.dump(values) + ("\n" if values else "") + _settings.example()
    fs.create(path, text.encode(), False, changing.MODE)
    fs.rename(path, paths.settings)


def is_legacy(fs: Filesystem, paths: QueuePaths) -> bool:
    """Whether that is a queue of ddmq."""
    return fs.is_there(f"{paths.top}/{LEGACY_WORK}") and not fs.is_there(paths.ready)


def is_root(path: str) -> bool:
    """Whether a directory is a root."""
    return os.path.lexists(f"{path}/{SETTINGS}")


def is_begun(fs: Filesystem, paths: QueuePaths) -> bool:
    """Whether a queue was begun to be made: some of its directories are there."""
    return not os.path.islink(paths.top) and not set(DIRECTORIES).isdisjoint(fs.directories(paths.top))


def has_queue(root: str, name: str) -> bool:
    """Whether a root has a queue of that name, as far as this user can see."""
    return is_queue_name(name) and os.path.isdir(f"{root}/{name}")


def _make_directories(path: str) -> None:
    """A directory and those above it; others may write to none of those that are new, whatever the umask."""
    if os.path.isdir(path):
        return
    _make_directories(os.path.dirname(path))
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
