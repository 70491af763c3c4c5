"""When a lease has run out.

Where one clock stamps all files (local disks, NFS) its deadline decides. Elsewhere (Lustre, GPFS, CephFS, GlusterFS,
most FUSE file systems) clients stamp with their own clocks, so a lease has run out when one observer has seen the very
same name for the lease's whole duration on its own monotonic clock: a heartbeat changes the name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Protocol, TypeVar

from ddmq_hpc.fs import Filesystem
from ddmq_hpc.settings import Settings


class NodeFiles:
    """A directory on this node's own disk for what clients of one user on one node share: who swept last, and what was
    observed. It is a cache: without it (`path` None) everything still works."""

    def __init__(self, top: str) -> None:
        self.path: str | None = None
        base = f"{os.environ.get('TMPDIR') or '/tmp'}/ddmq-hpc-{os.getuid()}"
        try:
            if not os.path.isdir(base):
                os.mkdir(base, 0o700)
            found = os.lstat(base)
            # Somebody else's directory, or a link, in a world-writable place is not to be trusted.
            if found.st_uid != os.getuid() or (found.st_mode & 0o170077) != 0o040000:
                return
            self.path = f"{base}/{self._label(top)}"
        except OSError:
            pass

    @staticmethod
    def _label(top: str) -> str:
        from zlib import adler32, crc32

        text = os.path.realpath(top).encode("utf-8", "surrogateescape")
        return f"{crc32(text):08x}{adler32(text):08x}"

    def stamp_age(self, now: float) -> float:
        """Seconds since a client of this node last stamped; endless when none did."""
        if self.path is None:
            return float("inf")
        try:
            age = now - os.lstat(f"{self.path}.swept").st_mtime
        except OSError:
            return float("inf")
        return age if age >= 0 else float("inf")

    def stamp(self, now: float) -> None:
        if self.path is None:
            return
        try:
            handle = os.open(f"{self.path}.swept", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.close(handle)
            os.utime(f"{self.path}.swept", (now, now))
        except OSError:
            pass

    def load(self) -> dict[str, float]:
        try:
            with open(f"{self.path}.observed", encoding="utf-8") as file:
                found = json.load(file)
            return {str(name): float(at) for name, at in found["seen"].items()} if found["boot"] == _boot() else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return {}

    def save(self, seen: dict[str, float]) -> None:
        if self.path is None:
            return
        try:
            with open(f"{self.path}.{os.getpid()}", "w", encoding="utf-8") as file:
                json.dump({"boot": _boot(), "seen": seen}, file)
            os.replace(f"{self.path}.{os.getpid()}", f"{self.path}.observed")
        except OSError:
            pass


def _boot() -> str:
    from ddmq_hpc.identity import boot

    return boot()


class Leased(Protocol):
    """What a lease must tell to be judged: a name that each heartbeat changes, and milliseconds."""

    @property
    def name(self) -> str: ...
    @property
    def deadline(self) -> int: ...
    @property
    def duration(self) -> int: ...


_Lease = TypeVar("_Lease", bound=Leased)


class Expiry:
    """Judges the leases of one queue, or the holders of one lock."""

    def __init__(self, fs: Filesystem, node: NodeFiles) -> None:
        self._fs = fs
        self._node = node
        self._seen: dict[str, float] = {}

    def observes(self, settings: Settings) -> bool:
        if settings.expiry == "auto":
            return not self._fs.mount.trusted_clock
        return settings.expiry == "observed"

    def expired(self, leases: Sequence[_Lease], now: float, settings: Settings) -> list[_Lease]:
        """Those of `leases` (all there are) that have run out; `now` is the file system's clock."""
        if not self.observes(settings):
            limit = (now - settings.grace) * 1000
            return [lease for lease in leases if lease.deadline < limit]
        clock = self._fs.monotonic()  # seconds since boot on Linux: comparable between processes of a host
        before = {**self._node.load(), **self._seen}
        self._seen = {lease.name: min(before.get(lease.name, clock), clock) for lease in leases}
        self._node.save(self._seen)
        return [lease for lease in leases if clock - self._seen[lease.name] > lease.duration / 1000 + settings.grace]
