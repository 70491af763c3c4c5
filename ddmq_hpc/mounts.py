"""What kind of file system a path is on, from /proc/self/mountinfo (proc(5))."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

#: One kernel alone changes these: replies are not lost and the clock is this host's.
LOCAL = frozenset(
    "ext2 ext3 ext4 xfs btrfs tmpfs ramfs zfs f2fs jfs reiserfs bcachefs overlay aufs vfat exfat ntfs ntfs3".split()
)
#: Their fsync of a file commits its whole journal up to the file's last change, which a rename is, too. Elsewhere the
#: directory has to be flushed for that (POSIX promises no more).
SYNC_KEEPS_NAME = frozenset({"ext4", "xfs"})
#: Servers stamp the files here, whatever the client's clock says (measured on NFS).
SERVER_CLOCK = frozenset({"nfs", "nfs4"})


class Mount(NamedTuple):
    """A mount point, its type, its options (those of the mount, then those of the file system) and what is mounted."""

    path: str
    type: str
    options: str = ""
    source: str = ""

    @property
    def local(self) -> bool:
        return self.type in LOCAL

    @property
    def remembers_names(self) -> bool:
        """Whether a name may still be found that another client took away a second ago, whatever was opened since:
        FUSE keeps names for a second (seen with GlusterFS). Its listings are fresh."""
        return self.type.startswith("fuse.")

    @property
    def few_links(self) -> bool:
        """Whether a file may have few links: GlusterFS keeps the name of each in the file's attributes, for which a
        brick on ext4 has 4 KiB (measured: 46 with short names, 22 with those of leases; on XFS there is room)."""
        return self.type == "fuse.glusterfs"

    @property
    def trusted_clock(self) -> bool:
        """Whether all clients see one clock in the times of files. Elsewhere clients may stamp with their own."""
        return self.local or self.type in SERVER_CLOCK

    def option(self, name: str) -> str | None:
        """The value of an option such as `vers=3`, empty for one without a value; None where it is not set."""
        for option in self.options.split(","):
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


_OCTAL = re.compile(rb"\\([0-7]{3})")


def _plain(text: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), text))


def mount_of(path: str) -> Mount:
    """The mount that `path` is on; an unknown type (hence treated as a network one) where there is no mountinfo."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
        found = os.stat(path)
    except OSError:
        return Mount("/", "unknown")
    device = b"%d:%d" % (os.major(found.st_dev), os.minor(found.st_dev))
    # A device number names the file system, but subvolumes (btrfs) have numbers that are not in the table.
    exact = [fields for fields in map(bytes.split, lines) if len(fields) > 9 and fields[2] == device]
    candidates = exact or [fields for fields in map(bytes.split, lines) if len(fields) > 9]
    real = os.path.realpath(path)
    best = Mount("", "unknown")
    for fields in candidates:
        point = _plain(fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if (inside or exact) and (inside, len(point)) >= (real.startswith(best.path or "\0"), len(best.path)):
            dash = fields.index(b"-")
            kind, source, options = (_plain(field) for field in (*fields[dash + 1 : dash + 4], b"", b"")[:3])
            best = Mount(point, kind, f"{fields[5].decode()},{options}", source)
    return best
