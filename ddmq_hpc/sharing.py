"""With whom a root or a queue is shared: its group, by the permissions of its directory.

A queue is shared when its directory has the setgid bit and may be written by its group (2770). All that is made in it
then belongs to that group, and is made so that the group may read and write it, see `Filesystem.below`.
"""

from __future__ import annotations

import os
import re
from stat import S_ISGID, S_IWGRP, S_IWOTH
from typing import NamedTuple

from ddmq_hpc.errors import UsageError
from ddmq_hpc.identity import group_id

_SHARED = 0o2770
_OCTAL = re.compile(r"0?[0-7]{3,4}", re.ASCII)


class Sharing(NamedTuple):
    """How a root or a queue is made: for the group with the id `group` (None: the one that the file system gives), with
    these permissions of its directory."""

    group: int | None
    mode: int


def sharing(group: str | None = None, mode: str | None = None) -> Sharing | None:
    """For a group of this user, by name or id, and with a mode in octal digits, 2770 by default; None where neither is
    given. Raises `UsageError` for what would let strangers write, or members not work on each other's messages."""
    if group is None and mode is None:
        return None
    return Sharing(None if group is None else _own_group(group), _SHARED if mode is None else _checked(mode))


def is_shared(mode: int) -> bool:
    """Whether a directory with that mode is one that a group shares."""
    return mode & (S_ISGID | S_IWGRP) == S_ISGID | S_IWGRP


def granted(mode: int) -> int | None:
    """What others than its owner may do in a directory with that mode, they may do with all that is made in it: these
    permissions; None where it is its owner's alone. Nothing is ever for everybody to write, nor for a group that files
    do not get from their directory."""
    if not mode & 0o077:
        return None
    return mode & ~(S_IWOTH if is_shared(mode) else S_IWOTH | S_IWGRP)


def _own_group(name: str) -> int:
    group = int(name) if name.isascii() and name.isdigit() else group_id(name)
    if group not in (os.getegid(), *os.getgroups()) and os.geteuid() != 0:
        raise UsageError(f"you are not in group {name[:60]!r}: name one of those that `id` shows")
    return group


def _checked(text: str) -> int:
    if not _OCTAL.fullmatch(text):
        raise UsageError(f"bad mode {text[:60]!r}: write it in octal digits, as 2770")
    mode = int(text, 8)
    told = f"mode {text} is refused: "
    if mode & S_IWOTH:
        raise UsageError(f"{told}everybody could write, and so have commands run; use 2770 and --group")
    if mode & 0o5000:
        raise UsageError(f"{told}setuid and sticky directories are no queues; use 2770")
    if mode & 0o700 != 0o700:
        raise UsageError(f"{told}its owner must read, write and enter it; use 2770, or 0700 for yourself alone")
    if mode & S_IWGRP and mode & 0o2070 != 0o2070:
        raise UsageError(f"{told}whoever writes must read and enter, and files must get the group (setgid); use 2770")
    return mode
