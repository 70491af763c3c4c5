"""File systems that lie, each in one thing: what a check is for must be what it finds."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any, Callable

from ddmq_hpc.fs import Filesystem
from ddmq_hpc.mounts import Mount


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class NoLinks(Filesystem):
    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.link = self._refuse  # type: ignore[assignment]

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise refusal(errno.EPERM)


class FewLinks(Filesystem):
    """As GlusterFS on ext4, which keeps a record of each link in the room for attributes of a file."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.link = self._limited  # type: ignore[assignment]

    def _limited(self, source: str, target: str) -> None:
        if os.stat(source).st_nlink >= 40:
            raise refusal(errno.ENOSPC)
        os.link(source, target)


class NoExclusiveCreation(Filesystem):
    def create_open(self, path: str, data: bytes, mode: int = 0o664) -> int:
        if os.path.exists(path):
            os.unlink(path)
        return super().create_open(path, data, mode)


class CopiedLinks(Filesystem):
    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.link = shutil.copy  # type: ignore[assignment]


class KeptNames(Filesystem):
    """A rename that leaves the old name, as a retried copy does."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.rename = shutil.copyfile  # type: ignore[assignment]


class SlowRenames(Filesystem):
    """A rename that copies: what it replaces is empty for a moment."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.rename = self._move  # type: ignore[assignment]

    def _move(self, source: str, target: str) -> None:
        shutil.copyfile(source, target)
        os.unlink(source)


class ShortNames(Filesystem):
    def create_open(self, path: str, data: bytes, mode: int = 0o664) -> int:
        if len(os.path.basename(path)) > 143:
            raise refusal(errno.ENAMETOOLONG)
        return super().create_open(path, data, mode)


class Full(Filesystem):
    def create_open(self, path: str, data: bytes, mode: int = 0o664) -> int:
        raise refusal(errno.ENOSPC)

    def statvfs(self, path: str) -> os.statvfs_result:
        values = list(super().statvfs(path))
        values[3] = values[4] = 2  # blocks free
        values[6] = values[7] = 5  # files free
        return os.statvfs_result(values)


class ReadOnly(Filesystem):
    def mkdir(self, path: str, mode: int = 0o777) -> None:
        raise refusal(errno.EROFS)


class Late(Filesystem):
    """A host whose clock is two minutes behind that of the files."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        now = self.time
        self.time = lambda: now() - 120  # type: ignore[method-assign]


class Slow(Filesystem):
    """Calls that take long by its own clock, which nothing else moves: neither the test nor a busy disk."""

    _passed = 0.0

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.monotonic = lambda: self._passed  # type: ignore[method-assign]

    def lstat(self, path: str) -> os.stat_result:
        self._passed += 0.05
        return super().lstat(path)

    def sync_file(self, handle: int) -> None:
        self._passed += 0.25
        super().sync_file(handle)


def mounted(mount: Mount, make: Callable[[str], Filesystem] = Filesystem) -> Callable[[str], Filesystem]:
    """The same on a mount that says it is another."""

    def made(root: str) -> Filesystem:
        fs = make(root)
        fs.mount, fs.network = mount, not mount.local
        return fs

    return made
