"""What there is around the calls: kind of file system, who may write, room, versions. Makes no file."""

from __future__ import annotations

import os
import platform
from stat import S_ISGID, S_ISVTX, S_IWGRP, S_IWOTH

from ddmq_hpc.doctor.findings import FAILURE, OK, WARNING, Finding, grade, worst
from ddmq_hpc.doctor.probing import Probe
from ddmq_hpc.identity import group_name, user_name
from ddmq_hpc.mounts import Mount
from ddmq_hpc.publishing import PACK_MESSAGES

_MIB = 1 << 20
_KINDS = {
    "nfs": "NFS",
    "nfs4": "NFS",
    "lustre": "Lustre",
    "gpfs": "GPFS (Spectrum Scale)",
    "beegfs": "BeeGFS",
    "ceph": "CephFS",
    "fuse.ceph-fuse": "CephFS by FUSE",
    "fuse.glusterfs": "GlusterFS",
    "fuse.sshfs": "sshfs",
    "cifs": "SMB",
    "smb3": "SMB",
    "9p": "9p",
    "virtiofs": "virtiofs",
    "tmpfs": "tmpfs",
    "overlay": "overlay",
}
#: Remarks are (verdict, meaning, advice).
_Remark = tuple[str, str, str]
_IN_MEMORY = (WARNING, "It is in memory: what is queued here is gone with the next boot.", "Use a disk for real work.")
_OF_A_KIND: dict[str, _Remark] = {
    "tmpfs": _IN_MEMORY,
    "ramfs": _IN_MEMORY,
    "overlay": (WARNING, "It is the layer of a container and gone with it.", "Use a directory mounted from outside."),
    "fuse.sshfs": (WARNING, "sshfs keeps names and content for seconds.", "Use it from one host alone, or NFS."),
    "cifs": (WARNING, "What SMB does depends on its server.", "Believe the other lines, and run --peers."),
    "smb3": (WARNING, "What SMB does depends on its server.", "Believe the other lines, and run --peers."),
    "unknown": (WARNING, "Nothing tells what it is.", "Believe the other lines, and run --peers."),
}
_SOFT: _Remark = (
    WARNING,
    "Calls give errors while the server is away although it may have executed them; ddmq-hpc looks what happened.",
    "Mount it with hard: other programs do not look.",
)
_OF_AN_OPTION: dict[str, _Remark] = {
    "ro": (FAILURE, "It is mounted read-only.", "Use another directory, or mount it with rw."),
    "soft": _SOFT,
    "softerr": _SOFT,
    "noac": (WARNING, "Every look asks the server, which ddmq-hpc does not need.", "Mount it without noac."),
    "sync": (WARNING, "Every write waits for the disk.", "Mount it without sync: `durable` says what is flushed."),
}
#: Options worth telling, besides those with remarks.
_TOLD = (
    *("rw", "hard", "proto", "timeo", "retrans", "nconnect"),
    *("actimeo", "acdirmin", "acdirmax", "lookupcache", "flock"),
)


def filesystem(probe: Probe) -> Finding:
    """Kind and mount options, in words."""
    mount = probe.fs.mount
    remarks = [_OF_AN_OPTION[name] for name in _OF_AN_OPTION if mount.option(name) is not None]
    if mount.type in _OF_A_KIND:
        remarks.append(_OF_A_KIND[mount.type])
    if mount.local:
        remarks.append((OK, "This host alone sees it: jobs on other hosts do not.", ""))
    elif (mount.option("vers") or "").startswith("2"):
        remarks.append((FAILURE, "NFS version 2 has no exclusive creation.", "Mount it with vers=4.2, or vers=3."))
    if not remarks:
        remarks.append((OK, "Hosts that mount it can share a queue.", ""))
    return Finding(
        "filesystem",
        worst(verdict for verdict, _, _ in remarks),
        f"{kind(mount)} at {mount.path}{_options(mount)}",
        " ".join(meaning for _, meaning, _ in remarks),
        " ".join(dict.fromkeys(advice for _, _, advice in remarks if advice)),
    )


def kind(mount: Mount) -> str:
    """`NFS v4.2`, `ext4`, `GlusterFS`."""
    version = mount.option("vers") if mount.type in ("nfs", "nfs4") else None
    return _KINDS.get(mount.type, mount.type) + (f" v{version}" if version else "")


def _options(mount: Mount) -> str:
    told = []
    for name in (*_OF_AN_OPTION, *_TOLD):
        value = mount.option(name)
        if value is not None:
            told.append(f"{name}={value}" if value else name)
    return f" ({', '.join(told)})" if told else ""


def permissions(probe: Probe) -> Finding:
    """Who may write: one user, a group with all that takes, or everybody."""
    fs, path = probe.fs, probe.path
    found = fs.lstat(path)
    mode, group = found.st_mode, group_name(found.st_gid)
    measured = f"mode {mode & 0o7777:04o}, owner {user_name(found.st_uid)}, group {group}"
    if not fs.may_write(path):
        return Finding(
            "permissions", FAILURE, measured, "You may not write here.", f"Ask {user_name(found.st_uid)} for it."
        )
    if mode & S_IWOTH and not mode & S_ISVTX:
        meaning = "Everybody may put messages here, so workers will run none of them."
        return Finding("permissions", WARNING, measured, meaning, f"chmod o-w {path}")
    if mode & S_IWOTH:
        meaning = "Everybody may write here, nobody may touch what is not his own."
        return Finding("permissions", OK, measured, meaning, "Make a directory of your own in it for the root.")
    if not mode & S_IWGRP:
        meaning = "For a queue of one user; to share one with a group see docs/shared.md."
        return Finding("permissions", OK, measured, meaning)
    inherits = " and a default access control list" * bool(fs.default_acl(path))
    if mode & S_ISGID:
        meaning = f"For a queue of the group: new files belong to {group}."
        return Finding("permissions", OK, f"{measured}, setgid{inherits}", meaning)
    return Finding(
        "permissions",
        WARNING,
        f"{measured}{inherits}; new files get the group of whoever makes them",
        "The group may write here, but its members could not work on each other's messages.",
        f"chmod g+s {path}",
    )


def space(probe: Probe) -> Finding:
    """Bytes that this user may still write."""
    found = probe.fs.statvfs(probe.path)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    verdict = grade(-free, -100 * _MIB, -_MIB)
    return Finding(
        "space",
        verdict,
        f"{_size(free)} of {_size(total)} free",
        "Room for messages." if verdict == OK else "Publishing is refused when it is full; nothing is lost.",
        "" if verdict == OK else "Free some space, or use another directory.",
    )


def inodes(probe: Probe) -> Finding:
    """Files that this user may still make."""
    found = probe.fs.statvfs(probe.path)
    if not found.f_files:
        return Finding("inodes", OK, "not counted here", "The number of files is not limited, or not told.")
    verdict = grade(-found.f_favail, -10_000, -100)
    return Finding(
        "inodes",
        verdict,
        f"{found.f_favail} of {found.f_files} free",
        f"A message that is published alone takes one, {PACK_MESSAGES} that are published together share one.",
        ""
        if verdict == OK
        else "Publish in bulk (`publish --each-line`, `publish_many`), and remove files that are not needed.",
    )


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def versions(probe: Probe) -> Finding:
    """For whoever is asked for help."""
    from ddmq_hpc import __version__

    system = os.uname()
    mounted = f", {kind(probe.fs.mount)}" if probe.fs.mount.type in ("nfs", "nfs4") else ""
    return Finding(
        "versions",
        OK,
        f"ddmq-hpc {__version__}, Python {platform.python_version()}, {system.sysname} {system.release}{mounted}",
        "Say these when you ask for help.",
    )
