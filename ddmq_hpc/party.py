"""Whom a person trusts: users and a group, as far as this host knows them, and who may write a file."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

#: acl(5) as the kernel has it: a version of 4 bytes, then entries of 8: what it is for, what it permits, whom.
_ACL_HEAD, _ACL_ENTRY, _ACL_WRITE = 4, 8, 2
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP = 0x02, 0x04, 0x08


class Party:
    """Those whose commands may be run: users, root among them, and members of a group."""

    def __init__(self, named: frozenset[int], group: int | None) -> None:
        self.named = named
        self._users = named | {0}
        self._group = group
        self._members: dict[int, bool] = {}

    def has(self, uid: int) -> bool:
        if uid in self._users:
            return True
        if self._group is None:
            return False
        if uid not in self._members:
            self._members[uid] = _is_member(uid, self._group)
        return self._members[uid]

    def covers(self, gid: int) -> bool:
        """Whether nobody else is in a group."""
        return gid == self._group or _has_only(gid, self._users)


@cache
def _has_only(gid: int, users: frozenset[int]) -> bool:
    """Whether all members of a group are among `users`, as far as this host can know.

    Directory services often do not list all users, so that somebody's primary group may be that of others, too: it
    passes only under its user's own name, as private groups are called (useradd, FreeIPA; OpenSSH on Debian does the
    same).
    """
    import grp
    import pwd

    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    known = [user for user in map(_user, users) if user]
    members = {*group.gr_mem, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)}
    if not members <= {user.pw_name for user in known}:
        return False
    if primary := [user.pw_name for user in known if user.pw_gid == gid]:
        return group.gr_name in primary
    return bool(group.gr_mem)


def _is_member(uid: int, gid: int) -> bool:
    user = _user(uid)
    return user is not None and gid in os.getgrouplist(user.pw_name, user.pw_gid)


def _user(uid: int) -> Any:
    import pwd

    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def writers(acl: bytes, gid: int) -> tuple[list[int], list[int]]:
    """The users and groups, by id, that may write a file besides its owner; `gid` is its group."""
    users, groups = [], []
    for at in range(_ACL_HEAD, len(acl) - _ACL_ENTRY + 1, _ACL_ENTRY):
        tag, permits, whom = (int.from_bytes(acl[at + a : at + b], "little") for a, b in ((0, 2), (2, 4), (4, 8)))
        if not permits & _ACL_WRITE:
            continue
        if tag == _ACL_USER:
            users.append(whom)
        elif tag in (_ACL_GROUP, _ACL_GROUP_OBJ):
            groups.append(whom if tag == _ACL_GROUP else gid)
    return users, groups if acl else [gid]


@cache
def unmapped_user() -> int | None:
    """Who seems to own what belongs to users that a container does not know, root of the host among them; None where
    all are known. The directories above a root may be theirs."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            if file.read().split() == ["0", "0", "4294967295"]:
                return None
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
