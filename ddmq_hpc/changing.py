"""Changing the settings file of a queue while others use it: written anew by whoever changes it, whose it is then.

Some settings count by whose file they stand in, see `settings.VOUCHED`. In a shared queue any member can put a file
there, so nobody writes such a setting anew that another may have written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from stat import S_IWGRP, S_IWOTH, S_IXGRP, S_IXOTH
from typing import Any

from ddmq_hpc import settings as _settings
from ddmq_hpc.editing import edited
from ddmq_hpc.errors import SettingsError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import token, user_name
from ddmq_hpc.names import QueuePaths

#: Whom settings trust counts only if nobody else can write them, whatever the umask.
MODE = 0o644
#: What to do about settings that would be believed for whose they are.
_VOUCH = "nothing was changed, or it would count as yours: its owner can do it, or look at it and write it anew"


def change_settings(fs: Filesystem, paths: QueuePaths, changes: Mapping[str, Any]) -> None:
    """Change settings in a queue's file, None for those that shall not stand in it any more; the rest of it stays as it
    is. The new file takes the old one's place at once, or not at all.

    It is this user's then, but for root, who leaves it whose it was. Raises `SettingsError` for a file that is not
    plain enough, and for what nobody but its owner may vouch for; OSError; then nothing was changed.
    """
    found, text = _settings_now(fs, paths)
    after = edited(text, paths.settings, changes)
    if after == text:
        return
    said = [name for name in _settings.VOUCHED if name in _settings.parse(text, paths.settings).keys() - changes]
    aside = paths.in_tmp(f"settings-{token()}")
    me = fs.own_uid(aside)
    if found and said and (why := _not_ours(fs, paths, found, me)):
        raise SettingsError(paths.settings, f"{why} and has {said[0]}; {_VOUCH}")
    fs.create_as(aside, after.encode(), *_mode_and_owner(found, me))
    try:
        fs.rename(aside, paths.settings)
    finally:
        fs.drop(aside)


def _settings_now(fs: Filesystem, paths: QueuePaths) -> tuple[os.stat_result | None, str]:
    """The text of a queue's file, and what stat says of the very file that has it; None where there is none."""
    try:
        found, data = fs.read_some(paths.settings, _settings.MOST_BYTES)
    except FileNotFoundError:
        return None, ""
    if found.st_size > len(data):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), paths.settings)
    try:
        return found, data.decode()
    except UnicodeDecodeError:
        raise SettingsError(paths.settings, "is not UTF-8, nothing was changed") from None


def _mode_and_owner(found: os.stat_result | None, me: int) -> tuple[int, int]:
    """Of the new file, where the old one was like that: what others may do with one's own file stays as it was."""
    if found is None:
        return MODE, me
    return found.st_mode & (0o777 if found.st_uid == me else MODE), found.st_uid if me == 0 else me


def _not_ours(fs: Filesystem, paths: QueuePaths, found: os.stat_result, me: int) -> str:
    """Why this user, who is `me` there, cannot vouch for what a settings file says: somebody else may have written it.
    Empty where nobody can have, and for root, who leaves it whose it was."""
    if found.st_nlink != 1:
        return "has several hard links"
    if me == 0:
        return ""
    if found.st_uid != me:
        return f"belongs to user {user_name(found.st_uid)}"
    can_enter = fs.lstat(paths.top).st_mode & (S_IXGRP | S_IXOTH)
    return "can be written by others" if can_enter and found.st_mode & (S_IWGRP | S_IWOTH) else ""
