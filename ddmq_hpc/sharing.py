"""With whom a root or a queue is shared: its group, by the permissions of its directory.

A queue is shared when its directory has the setgid bit and may be written by its group (2770). All that is made in it
then belongs to that group, and is made so that the group may read and write it, see `Filesystem.below`.

A directory that others may enter, and neither list nor write (0711, 2710), is a drop box for them: they may publish to
the queue, see `dropping`, and nothing in it is theirs but its `drop/`.
"""

from __future__ import annotations

import os
import re
from stat import S_IMODE, S_ISGID, S_IWGRP, S_IWOTH
from typing import NamedTuple

from ddmq_hpc.errors import UsageError
from ddmq_hpc.identity import group_id

_SHARED = 0o2770
#: Modes of the directories of drop boxes, for everybody and for a group, and those of what stands in them for whoever
#: drops: to enter and to write, with the sticky bit, so that what stands there is its owner's to remove or rename.
_FOR_EVERYBODY, _FOR_GROUP = 0o711, 0o2710
_DROPS = {_FOR_EVERYBODY: 0o1733, _FOR_GROUP: 0o3730}
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


def drop_mode(mode: int) -> int | None:
    """The mode of `drop/` in a queue whose directory has that one; None where that is no drop box."""
    return _DROPS.get(S_IMODE(mode))


def is_for_everybody(mode: int) -> bool:
    """Whether a directory with that mode is a drop box for everybody, not for a group alone."""
    return S_IMODE(mode) == _FOR_EVERYBODY


def granted(mode: int) -> int | None:
    """What others than its owner may do in a directory with that mode, they may do with all that is made in it: these
    permissions; None where it is its owner's alone. Nothing is ever for everybody to write, nor for a group that files
    do not get from their directory, and nothing at all is for those who may not list that directory."""
    if not mode & 0o077:
        return None
    closed = sum(0o7 << at for at in (3, 0) if not mode >> at & 0o4)
    return mode & ~(closed | (S_IWOTH if is_shared(mode) else S_IWOTH | S_IWGRP))


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
    if mode not in _DROPS and any(mode >> at & 0o5 == 0o1 for at in (3, 0)):
        raise UsageError(
            f"{told}whoever may enter a queue and not list it may only drop messages there, and then nobody else may "
            "look into it; use 2710 with --group, or 0711 for everybody"
        )
    return mode
