"""Reasons that lie in the directory: who may write there, whether there is room, whose commands may be run, clocks."""

from __future__ import annotations

import errno
import os
import shlex

from ddmq_hpc.errors import DdmqError, KeyFileError, SettingsError, Untrusted, storage_error
from ddmq_hpc.explaining.reasons import Reason, count
from ddmq_hpc.explaining.sight import Sight
from ddmq_hpc.identity import Owner, user_name
from ddmq_hpc.names import DIRECTORIES
from ddmq_hpc.trust import Trust

#: Any line of a pack.
_UNSIGNED = b'{"message":0}\n'
_CODES = {errno.ENOSPC: "full", errno.EDQUOT: "quota", errno.EROFS: "read-only"}
#: What is left where little is.
_FEW_BYTES, _FEW_FILES = 16 << 20, 1000
#: Seconds by which clocks always differ.
_CLOSE = 1.0


def settings(sight: Sight) -> Reason | None:
    """Settings that nobody can read: all clients end with this error."""
    try:
        sight.queue.settings  # noqa: B018 - reading is what is tried
    except SettingsError as error:
        fix = f"${{EDITOR:-vi}} {shlex.quote(error.path)}"
        return Reason("settings", f"No client can read the settings: {error}.", fix, {"path": error.path})
    return None


def keys(sight: Sight) -> Reason | None:
    """Messages are to be signed, and this user has no key that could: he cannot publish, and take only where that is
    not demanded."""
    try:
        sight.queue.signed(_UNSIGNED, sight.settings)
    except KeyFileError as error:
        fix = f"ls -ld {shlex.quote(error.path)}" if error.path else ""
        cannot = "can neither publish nor take" if sight.settings.sign else "cannot publish"
        return Reason("key", f"You ({sight.me}) {cannot}: {error}.", fix, {"path": error.path})
    return None


def storage(sight: Sight) -> Reason | None:
    """A file system that takes nothing: publishing, taking and settling fail alike."""
    error = sight.probe.error
    if error is None or error.errno in (errno.EACCES, errno.EPERM):
        return None
    root = sight.queue.paths.root
    code = _CODES.get(error.errno or 0, "storage")
    fix = {"full": f"df -h {shlex.quote(root)}; df -i {shlex.quote(root)}", "quota": "quota -s"}
    fix["read-only"] = f"findmnt -T {shlex.quote(root)}"
    text = f"Nothing can be written: {storage_error(error, 'make a file in the queue')}."
    return Reason(code, text, fix.get(code, sight.command("doctor")), {"errno": error.errno, **_left(sight)})


def forbidden(sight: Sight) -> Reason | None:
    """A directory that this user may not write to: his workers could take nothing."""
    fs, paths = sight.queue.fs, sight.queue.paths
    closed = [name for name in DIRECTORIES if not fs.may_write(f"{paths.top}/{name}")]
    if not closed and not (sight.probe.error and sight.probe.error.errno in (errno.EACCES, errno.EPERM)):
        return None
    place = f"{paths.top}/{closed[0] if closed else 'tmp'}"
    owner = user_name(fs.lstat(place).st_uid)
    text = f"You ({sight.me}) may not write to {place}, which belongs to {owner}: a worker of yours could take nothing."
    return Reason("forbidden", text, f"ls -ld {shlex.quote(place)}", {"path": place, "owner": owner, "user": sight.me})


def scarce(sight: Sight) -> Reason | None:
    """Little room, which is not used up yet."""
    left = _left(sight)
    if sight.probe.error or (left["bytes"] >= _FEW_BYTES and left["files"] >= _FEW_FILES):
        return None
    root = shlex.quote(sight.queue.paths.root)
    text = f"The file system is nearly full: {left['bytes'] >> 10} KiB and {left['files']} files are left."
    return Reason("scarce", text, f"df -h {root}; df -i {root}", left)


def _left(sight: Sight) -> dict[str, int]:
    """Bytes and files; many files where they are not counted."""
    found = sight.queue.fs.statvfs(sight.queue.paths.top)
    files = found.f_favail if found.f_files else 1 << 62
    return {"bytes": found.f_bavail * found.f_frsize, "files": files}


def untrusted(sight: Sight) -> Reason | None:
    """Messages that a worker of this user would not run. What other users' workers trust is not known here."""
    if sight.live and all(info.user != sight.me for info in sight.live):
        return None
    shell = sight.is_for_snakemake or any(list(info.command) == ["--shell"] for info in sight.live)
    trust = Trust(sight.queue, shell)
    try:
        trust.check_place()
        for waiting in sight.head:
            trust.check_file(waiting.found.path)
    except Untrusted as error:
        text = f"No worker of yours ({sight.me}) would run this: {error.path} {error.why}; {error.advice}."
        return Reason("untrusted", text, error.fix, {"path": error.path, "why": error.why, "user": sight.me})
    except DdmqError as error:
        return Reason("untrusted", f"Nobody can tell whose messages these are: {error}.", "", {"why": str(error)})
    return None


def clocks(sight: Sight) -> Reason | None:
    """A clock that is further off than the grace that leases are given."""
    grace = max(sight.settings.grace, _CLOSE)
    apart = sight.probe.stamp - sight.now if sight.probe.error is None else 0.0
    if abs(apart) > grace:
        side = "behind" if apart > 0 else "ahead of"
        text = f"The clock of this host is {abs(apart):.0f} s {side} that of the file system."
        fields = {"host": os.uname().nodename, "seconds": round(apart, 3)}
        return Reason("clock", f"{text} Leases and delays end at the wrong time.", "date; timedatectl", fields)
    early = [lease for lease in sight.leases if (lease.deadline - lease.duration) / 1000 > sight.now + grace]
    if not early:
        return None
    ahead = max((lease.deadline - lease.duration) / 1000 - sight.now for lease in early)
    owner = Owner.parse(early[-1].owner)
    host = owner.host if owner else "some host"
    text = f"{count(len(early), 'lease')} began in the future: the clock of {host} is {ahead:.0f} s ahead."
    return Reason("clock", text, "date; timedatectl", {"host": host, "seconds": round(-ahead, 3)})
