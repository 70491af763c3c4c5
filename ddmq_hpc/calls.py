"""The calls to the operating system that touch a queue, as they are, and how files are opened for them. What their
answers mean on a network file system is the business of `fs`, through which everybody makes them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from stat import S_IMODE, S_ISDIR, S_ISREG
from typing import Callable

_READ_ONCE = 1 << 16
#: What belongs into a queue, besides packs and what grows, is smaller than that.
_MOST = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
#: O_NONBLOCK: a FIFO planted in a queue must not hang a reader.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Calls:
    """The raw calls, one method each, with the errors of the operating system."""

    #: What is made gets these permissions, as far as it is to have them, whatever the umask; None: as the umask says.
    shared: int | None

    # Those of every message are the functions of the interpreter themselves: a frame less for each.
    sleep = staticmethod(time.sleep)
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)
    link = staticmethod(partial(os.link, follow_symlinks=False))

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        """A new directory; the umask takes away of `mode`."""
        os.mkdir(path, mode)

    def rmdir(self, path: str) -> None:
        """Remove a directory, which must be empty."""
        os.rmdir(path)

    def listdir(self, path: str) -> list[str]:
        """What is in a directory; ENOTDIR when it is a symbolic link to one."""
        handle = os.open(path, _DIRECTORY)
        try:
            return os.listdir(handle)
        finally:
            os.close(handle)

    def subdirectories(self, path: str) -> list[str]:
        """Names of the directories in `path`; symbolic links to directories are none. ENOTDIR when `path` is one."""
        return [name for name, is_directory, _ in _entries(path) if is_directory]

    def directories_and_links(self, path: str) -> tuple[list[str], list[str]]:
        """The same, and the names of symbolic links, by one listing."""
        found = _entries(path)
        directories = [name for name, is_directory, _ in found if is_directory]
        return directories, [name for name, _, is_link in found if is_link]

    def lstat(self, path: str) -> os.stat_result:
        """What stat says of a name itself: of a symbolic link, not of where it leads."""
        return os.lstat(path)

    def acl(self, path: str) -> bytes:
        """The POSIX access control list of a file as the kernel has it; empty where there is none."""
        try:
            return os.getxattr(path, "system.posix_acl_access", follow_symlinks=False)
        except (OSError, AttributeError):
            return b""

    def default_acl(self, path: str) -> bytes:
        """The list that new files in a directory get; empty where there is none."""
        try:
            return os.getxattr(path, "system.posix_acl_default", follow_symlinks=False)
        except (OSError, AttributeError):
            return b""

    def statvfs(self, path: str) -> os.statvfs_result:
        """What a file system has, and has left, in blocks and inodes."""
        return os.statvfs(path)

    def may_write(self, path: str) -> bool:
        """Whether this user may make and remove names in a directory, as far as its permissions tell."""
        return os.access(path, os.W_OK | os.X_OK)

    def touch(self, path: str) -> None:
        """Stamp a name with the time of the file system: on NFS, of the server; a link itself, not where it leads.
        Needs no more than to be allowed to write to it (POSIX)."""
        os.utime(path, follow_symlinks=False)

    def grant_directory(self, path: str, mode: int) -> None:
        """Give a new directory of one's own what it lacks of `mode`. EEXIST where it lacks some and something is in it:
        who can write to the directory above could have put another one in its place."""
        handle = os.open(path, _DIRECTORY)
        try:
            if S_IMODE(os.fstat(handle).st_mode) & mode != mode and os.listdir(handle):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            _grant(handle, mode)
        finally:
            os.close(handle)

    def create(self, path: str, data: bytes, sync: bool, mode: int = 0o664) -> None:
        """A new file with `data`, on disk when `sync`; what a failure half wrote is removed."""
        handle = self.create_open(path, data, mode)
        try:
            try:
                if sync:
                    self.sync_file(handle)
            finally:
                os.close(handle)  # on NFS this is where a full disk or a soft mount speaks up
        except BaseException:
            self._remove_half(path)
            raise

    def own_uid(self, probe: str) -> int:
        """As whom this user makes files, by making and removing the file `probe`: a server may take him for another
        (exports(5): root_squash, all_squash), or a mount show all files as one user's."""
        handle = self.create_open(probe, b"", 0o600)
        try:
            return os.fstat(handle).st_uid
        finally:
            os.close(handle)
            self._remove_half(probe)

    def create_as(self, path: str, data: bytes, mode: int, uid: int) -> None:
        """A new file with `data`, on the disk, that has exactly these permissions, whatever the umask, and belongs to
        `uid`: another user than this one only root can say."""
        handle = self.create_open(path, data, mode)
        try:
            try:
                if uid != os.fstat(handle).st_uid:
                    os.fchown(handle, uid, -1)
                os.fchmod(handle, mode)
                self.sync_file(handle)
            finally:
                os.close(handle)
        except BaseException:
            self._remove_half(path)
            raise

    def create_open(self, path: str, data: bytes, mode: int = 0o664) -> int:
        """A new file with `data`, still open for `sync_file`; what a failure half wrote is removed.

        Under no umask can everybody write it.
        """
        handle = os.open(path, _NEW, mode if self.shared is None else mode & self.shared)
        try:
            if self.shared is not None:
                _grant(handle, mode & self.shared)
            written = os.write(handle, data)
            while written < len(data):
                written += os.write(handle, data[written:])
        except BaseException:
            os.close(handle)
            self._remove_half(path)
            raise
        return handle

    def _remove_half(self, path: str) -> None:
        """Where that fails, too, it is left to `clean`: the first error is the one to tell."""
        try:
            self.unlink(path)
        except OSError:
            pass

    def sync_file(self, handle: int) -> None:
        """Bring an open file to the disk, with all that stat tells of it."""
        os.fsync(handle)

    def append(self, handle: int, data: bytes) -> None:
        """One write(2) on a file opened for appending: no other writer's data comes in between."""
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def append_to(self, path: str, data: bytes) -> None:
        """Append to a file that is there: a name that somebody removed is not made again."""
        handle = os.open(path, _APPEND & ~os.O_CREAT)
        try:
            self.append(handle, data)
        finally:
            os.close(handle)

    def open_append(self, path: str) -> int:
        """A file to be written at its end, made if it is not there; links are not followed."""
        return self._open_kept(path, _APPEND)

    def open_log(self, path: str) -> int:
        """Like `open_append`, to be read from, too."""
        return self._open_kept(path, _APPEND & ~os.O_WRONLY | os.O_RDWR)

    def _open_kept(self, path: str, flags: int) -> int:
        """ENODEV for what is no file: a FIFO that somebody planted would take all that is written."""
        mode = 0o666 if self.shared is None else 0o666 & self.shared
        handle = os.open(path, flags, mode)
        try:
            _regular(handle, path)
            if self.shared is not None:
                _grant(handle, mode)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def sync_handle(self, handle: int) -> None:
        """Bring what was written to an open file to the disk."""
        os.fdatasync(handle) if hasattr(os, "fdatasync") else os.fsync(handle)

    def read(self, path: str, most: int = _MOST, most_of: Callable[[int], int] | None = None) -> bytes:
        """A whole file; EFBIG when it is larger than `most` bytes, or than `most_of` says of files of its owner."""
        handle = os.open(path, _READ)
        try:
            try:
                data = os.read(handle, _READ_ONCE)
            except BlockingIOError:  # a FIFO that somebody holds open; or a file that comes from tape first
                _regular(handle, path)
                raise
            if len(data) == _READ_ONCE:  # most are smaller, and cost no other call
                found = _regular(handle, path)
                most = min(most, most_of(found.st_uid)) if most_of else most
                if found.st_size > most:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
                parts, left = [data], most - len(data)
                while data := os.read(handle, min(1 << 20, left + 1)):
                    parts.append(data)
                    left -= len(data)
                    if left < 0:
                        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
                data = b"".join(parts)
        finally:
            os.close(handle)
        return data

    def read_some(self, path: str, most: int, offset: int = 0) -> tuple[os.stat_result, bytes]:
        """At most `most` bytes of a file from `offset`, and what stat says of that very file. ENODEV when it is no
        file."""
        handle = os.open(path, _READ)
        try:
            return _regular(handle, path), os.pread(handle, most, offset)
        finally:
            os.close(handle)

    def open_read(self, path: str) -> int:
        """A file to be read from by `read_at`, which goes on when its name is removed; links are not followed. ENODEV
        when it is no file."""
        handle = os.open(path, _READ)
        try:
            _regular(handle, path)
        except OSError:
            os.close(handle)
            raise
        return handle

    def read_at(self, handle: int, most: int, offset: int) -> bytes:
        """At most `most` bytes of an open file from `offset`; nothing at its end."""
        return os.pread(handle, most, offset)

    def sync_directory(self, path: str) -> None:
        """Bring the names in a directory to the disk."""
        handle = os.open(path, _DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def held(self, directory: str) -> Iterator[str]:
        """A path by which that very directory is reached in the `with` block, whatever takes its name meanwhile. Where
        there is no /proc: its path."""
        handle = self.hold_directory(directory)
        try:
            path = f"/proc/self/fd/{handle}/."  # the dot: links are not followed at the end of a path
            yield path if os.path.isdir(path) else directory
        finally:
            self.close(handle)

    def hold_directory(self, path: str) -> int:
        """A directory held open, for `list_held` until `close`."""
        return os.open(path, _DIRECTORY)

    def list_held(self, handle: int) -> list[str]:
        """What is in a directory that was opened before: on NFS up to 22 s old (measured)."""
        return os.listdir(handle)

    def share_held(self, handle: int, gid: int | None, mode: int) -> os.stat_result:
        """Give a directory that is held open to a group, None: leave it to the one that it has, and these permissions;
        what stat says of it then. EPERM for a group that is not this user's."""
        if gid is not None:
            os.fchown(handle, -1, gid)
        os.fchmod(handle, mode)
        return os.fstat(handle)

    def close(self, handle: int) -> None:
        """Close what one of these calls opened; on NFS this is where a full disk speaks up."""
        os.close(handle)

    def open_directory(self, path: str) -> None:
        """Opening a directory makes an NFS client ask the server again: names held to be missing are looked up anew."""
        os.close(os.open(path, _DIRECTORY))


def _entries(path: str) -> list[tuple[str, bool, bool]]:
    """What is in a directory, and whether it is a directory or a symbolic link."""
    handle = os.open(path, _DIRECTORY)
    try:
        with os.scandir(handle) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries]
    finally:
        os.close(handle)


def _regular(handle: int, path: str) -> os.stat_result:
    """What stat says of an open file; EISDIR for a directory, ENODEV for what else is none: a device may be endless,
    and a FIFO has no offsets."""
    found = os.fstat(handle)
    if S_ISREG(found.st_mode):
        return found
    code = errno.EISDIR if S_ISDIR(found.st_mode) else errno.ENODEV
    raise OSError(code, os.strerror(code), path)


def _grant(handle: int, mode: int) -> None:
    """Give an open file what the umask took away of `mode`. On NFS the look costs nothing after the opening, the change
    one request; a default access control list, or a umask of 007, saves that."""
    found = S_IMODE(os.fstat(handle).st_mode)
    if found & mode != mode:
        os.fchmod(handle, found | mode)
