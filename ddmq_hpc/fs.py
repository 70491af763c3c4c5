"""Every file-system call that touches a queue, and what each answer of a network file system really means.

A reply can be lost: the server did what was asked, reboots, and answers the repeated request from its new state. So a
rename that happened says ENOENT, a link that happened says EEXIST, an unlink that happened says ENOENT, and a soft
mount says EIO (measured on NFS v3 and v4.2). ESTALE is ENOENT of a directory that was removed by another client. The
names that a call makes are therefore unique to it wherever possible: what is found under such a name, this call put
there.

Tests subclass `Filesystem` to crash, delay or falsify each call, and to turn its clocks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from stat import S_IMODE, S_ISLNK

from ddmq_hpc import mounts
from ddmq_hpc.calls import Calls
from ddmq_hpc.identity import token
from ddmq_hpc.names import directory_leftover

GONE = frozenset({errno.ENOENT, errno.ESTALE})
#: What answers like this is no file of ours but a directory, a link, a device, or what is endless: somebody planted it.
NO_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EFBIG})
#: The call may have been executed or not (soft mounts).
UNKNOWN = frozenset({errno.EIO, errno.ETIMEDOUT})
#: The file system has no hard links (link(2): EPERM), or says that it cannot.
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
#: The tries left of a call that is repeated while its source is there although it was said to be gone.
_TRIES = range(5, 0, -1)
#: Seconds in which another client is done with what it makes for a moment.
_MOMENT = 0.05
#: How often a bucket is made again that another client keeps removing.
_RACES = range(100)
#: Directories that are remembered to be no links.
_MOST_PLAIN = 1024
#: Seconds by which two clocks differ that are not the same.
_SET = 0.5


class Unanswered(OSError):
    """Neither a call nor the look whether it was executed was answered: it may have been executed, or be executed yet.

    What stands then must not be undone, since it may be all that is left of a message: sweepers find out.
    """

    may_be_done = True  # for `errors.storage_error`


class Filesystem(Calls):
    """The calls with the answers of network file systems understood, and the file system's own clock.

    `network=None` finds out from the mount; where it is False the looks that only lost replies need are left out.
    """

    def __init__(self, root: str, network: bool | None = None) -> None:
        self.root = root
        self.mount = mounts.mount_of(root)
        self.network = not self.mount.local if network is None else network
        #: Whether flushing a file brings the name it was just renamed to, and new directories above, to the disk too.
        self.sync_keeps_name = not self.network and self.mount.type in mounts.SYNC_KEEPS_NAME
        self.shared = None
        self._nursery = ""
        self._offset = 0.0
        self._measured = -1e9
        self._apart = 0.0  # this host's clock minus its steady one, when last measured
        self._plain: set[str] = set()

    def below(self, directory: str, nursery: str) -> Filesystem:
        """The same for what is made below `directory`: it is for those whom that lets in (`sharing.granted`), whatever
        the umask; new directories get ready in `nursery`, which is in there. One look. Raises OSError."""
        mode = S_IMODE(self.lstat(directory).st_mode)
        if not mode & 0o077:
            return self  # its owner's alone, as most are: what sharing takes is not loaded
        from ddmq_hpc.sharing import granted

        return self.granting(granted(mode), nursery)

    def granting(self, mode: int | None, nursery: str = "") -> Filesystem:
        """The same, but what is made gets these permissions, as far as it is to have them, whatever the umask."""
        from copy import copy

        fs = copy(self)
        fs.shared, fs._nursery = mode, nursery
        return fs

    # -- the clock

    def now(self, probe_directory: str) -> float:
        """Seconds since 1970 in the file system's clock: never compare the clocks of two hosts.

        On a network file system the offset to this host's clock is measured once a minute, and when somebody set that
        clock, by touching `probe_directory` (on NFS its mtime is the server's time then, whatever the client's, for two
        requests; measured).
        """
        if not self.network:
            return self.time()
        clock, steady = self.time(), self.monotonic()
        if steady - self._measured > 60 or abs(clock - steady - self._apart) > _SET:
            self._measure(probe_directory)
            clock = self.time()
        return clock + self._offset

    def _measure(self, directory: str) -> None:
        for _ in _TRIES:
            before = self.time()
            self._measured = self.monotonic()
            self._apart = before - self._measured
            try:
                stamp = self.stamp(directory)
            except OSError:
                # A full or read-only file system has its clock all the same; the next minute tries again.
                return
            offset = stamp - (before + self.time()) / 2
            self._offset = 0.0 if abs(offset) < _SET else offset
            # Stamped at any moment of the round trip: one that hung (60 s after a server's crash) tells little.
            if self.monotonic() - self._measured < 2 * _SET:
                return

    def stamp(self, directory: str) -> float:
        """The file system's time: what it stamps a directory with that is touched. Whatever anybody else does in it
        meanwhile stamps it with the time of that moment, which serves as well. Raises OSError."""
        self.touch(directory)
        return self.lstat(directory).st_mtime

    # -- moves of names

    def claim(self, source: str, target: str) -> bool:
        """Rename to a name that only this call makes. False when `source` is gone: somebody else was first."""
        for left in _TRIES:
            try:
                self.rename(source, target)
                return True
            except OSError as error:
                if error.errno == errno.ENOENT and not self.network:
                    return False
                if error.errno not in GONE | UNKNOWN:
                    raise
                if self.is_there(target):
                    return True
                if error.errno in GONE and not self.is_there(source):
                    return False
                if error.errno in UNKNOWN or left == 1:
                    raise
                # A stale handle, or a name that this client remembered to be missing: looking has cured that.
        return False

    def race(self, source: str, target: str) -> bool:
        """Like `claim`, for a name that others are after, too: in few calls, since losing is usual.

        False also when this client wrongly remembers `source` to be missing: the next listing shows it again, and opens
        its directory, which cures that.
        """
        try:
            self.rename(source, target)
            return True
        except OSError as error:
            if error.errno == errno.ENOENT and not self.mount.remembers_names:
                return self.network and self.is_there(target)
            if error.errno not in GONE | UNKNOWN:
                raise
        return self.claim(source, target)  # done again, it finds what it has done itself

    def put(self, source: str, target: str) -> bool:
        """Rename to a name in a bucket that may have to be made first. False when `source` is gone.

        The target is not unique to the caller: when the reply is lost somebody may have taken it already, so a gone
        source only says that nothing is left to do under that name. ELOOP, and nothing was done, where a link would
        lead out of the queue.
        """
        self.refuse_links(target.rpartition("/")[0])
        for race in _RACES:
            try:
                self.rename(source, target)
                return True
            except OSError as error:
                if error.errno in UNKNOWN and not self.is_there(source):
                    return False
                if error.errno not in GONE:
                    raise
            # Mostly the bucket is new; to look for the source first would cost a network file system four requests.
            if race and not self.is_there(source):
                return False
            # Buckets are removed when found empty and old: make it, and lose that race as often as need be.
            self.make_directories(os.path.dirname(target))
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), target)

    def add_link(self, source: str, target: str) -> bool:
        """Link to a name that only this call makes. False when `source` is gone."""
        for left in _TRIES:
            try:
                self.link(source, target)
                return True
            except OSError as error:
                if error.errno in UNKNOWN | {errno.EEXIST} and self.same_file(source, target):
                    return True
                if error.errno not in GONE:
                    raise
                if not self.is_there(source):
                    return False
                if left == 1:
                    raise
        return False

    def link_new(self, source: str, target: str) -> bool:
        """Link to a name that many may want. False when somebody else has it; raises when `source` is gone."""
        try:
            self.link(source, target)
            return True
        except OSError as error:
            if error.errno == errno.EEXIST or error.errno in UNKNOWN:
                if self.same_file(source, target):
                    return True
                if error.errno == errno.EEXIST:
                    return False
            raise

    def drop(self, path: str) -> bool:
        """Unlink a name that nobody makes again. False when it was gone, which a lost reply looks like, too."""
        for left in _TRIES:
            try:
                self.unlink(path)
                return True
            except OSError as error:
                if error.errno == errno.ENOENT and not self.network:
                    return False
                if error.errno not in GONE | UNKNOWN:
                    raise
                if not self.is_there(path):
                    return error.errno in UNKNOWN
                if left == 1:
                    raise
        return False

    # -- looking

    def is_there(self, path: str) -> bool:
        """Whether a name exists, as the server sees it. Raises `Unanswered` when it does not say."""
        try:
            if self.mount.remembers_names:
                return os.path.basename(path) in self.listdir(os.path.dirname(path))
            if self.network:
                self.open_directory(os.path.dirname(path))
            self.lstat(path)
            return True
        except OSError as error:
            if error.errno in GONE or error.errno == errno.ENOTDIR:
                return False
            if error.errno in UNKNOWN:
                raise Unanswered(error.errno, error.strerror, error.filename) from error
            raise

    def same_file(self, one: str, other: str) -> bool:
        try:
            a, b = self.lstat(one), self.lstat(other)
        except OSError as error:
            if error.errno in GONE:
                return False
            if error.errno in UNKNOWN:
                raise Unanswered(error.errno, error.strerror, error.filename) from error
            raise
        return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)

    def names(self, directory: str) -> list[str]:
        """What is in a directory, by a fresh opening; nothing when it is gone or a link. Without NFS's placeholders."""
        try:
            found = self.listdir(directory)
        except OSError as error:
            if error.errno in GONE or error.errno == errno.ENOTDIR:
                return []
            raise
        return [name for name in found if not name.startswith(".nfs")] if self.network else found

    def directories(self, directory: str) -> list[str]:
        """The directories in a directory, symbolic links left out; nothing when it is gone or a link."""
        try:
            return self.subdirectories(directory)
        except OSError as error:
            if error.errno in GONE or error.errno == errno.ENOTDIR:
                return []
            raise

    def blocks(self, path: str, size: int, start: int = 0, stop: int = 1 << 62) -> Iterator[bytes]:
        """The bytes `start` to `stop` of a file in pieces of at most `size`, also when its name is removed meanwhile.
        Raises OSError."""
        handle = self.open_read(path)
        try:
            while data := self.read_at(handle, min(size, stop - start), start):
                start += len(data)
                yield data
        finally:
            self.close(handle)

    def refresh(self, directory: str) -> None:
        """Make the next listing complete. On NFS v3 two changes within one tick of the server's clock can leave a
        listing incomplete for good; touching the directory cures it (measured: 21 of 100 trials, all cured)."""
        if not self.network:
            return
        try:
            self.touch(directory)
        except OSError as error:
            if error.errno not in GONE | {errno.EROFS, errno.EACCES, errno.EPERM}:
                raise

    # -- directories

    def make_directories(self, path: str) -> None:
        """`path` and its parent, below an existing queue. Never makes the queue itself again: it may have been
        deleted."""
        for directory in (os.path.dirname(path), path):
            self._make(directory, may_vanish=directory == path)

    def refuse_links(self, directory: str) -> None:
        """ELOOP when a directory in a directory of a queue, or that one, is a symbolic link: what is put there would be
        elsewhere. Each is looked at once: who can change it later can write to the queue anyway."""
        if directory in self._plain:
            return
        for path in (directory.rpartition("/")[0], directory):
            try:
                found = self.lstat(path)
            except OSError:
                return  # it is made next, or what comes next says what is wrong
            if S_ISLNK(found.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if len(self._plain) >= _MOST_PLAIN:
            self._plain.clear()
        self._plain.add(directory)

    def make_directory(self, path: str) -> None:
        """`path`, in a directory that must be there; nothing when it is there already."""
        self._make(path, may_vanish=False)

    def remove_tree(self, path: str) -> None:
        """Remove a directory that no client uses any more, with all that is in it, as far as that can be done. Links
        are not followed."""
        try:
            if not self.is_there(path):
                return
            from shutil import rmtree

            self.remove_empty(path)  # also one of another user, which only he can look into
            rmtree(path, ignore_errors=True)
        except OSError:
            pass

    def _make(self, directory: str, may_vanish: bool) -> None:
        for left in _TRIES:
            try:
                self.mkdir(directory) if self.shared is None else self._mkdir_shared(directory)
                return
            except OSError as error:
                if error.errno == errno.EEXIST:
                    return
                if error.errno == errno.ESTALE and left > 1:
                    continue
                if error.errno in GONE and may_vanish:
                    return  # its parent was removed again: the caller starts anew
                raise

    def mkdir_granted(self, path: str, mode: int) -> None:
        """Like `mkdir`, with all of `mode` that the group has; it is there for a moment without. Another client of this
        user may make something in it at that moment."""
        self.mkdir(path, mode)
        for left in _TRIES:
            try:
                self.grant_directory(path, mode)
                return
            except FileExistsError:
                if left == 1:
                    raise
                self.sleep(_MOMENT)

    def _mkdir_shared(self, directory: str) -> None:
        """Like `mkdir`. It appears with its permissions: no other member meets a closed directory, whoever dies."""
        if self.is_there(directory):
            return
        aside = f"{self._nursery}/{directory_leftover(token())}"
        self.mkdir_granted(aside, 0o777 & (self.shared or 0))
        try:
            self.rename(aside, directory)
        except OSError:
            self.remove_empty(aside)
            if not self.is_there(directory):  # ENOTEMPTY: another was faster; else the reply may have been lost
                raise

    def remove_empty(self, directory: str) -> None:
        """Remove a directory unless something is in it, or somebody else did."""
        try:
            self.rmdir(directory)
        except OSError as error:
            if error.errno not in GONE | {
                errno.ENOTEMPTY,
                errno.EEXIST,
                errno.EACCES,
                errno.EPERM,
                errno.EBUSY,
                errno.ENOTDIR,
            }:
                raise

    def walk(self, directory: str) -> Iterator[str]:
        """Paths of all files two levels below, for keys/ and the like."""
        for name in self.directories(directory):
            for inner in self.names(f"{directory}/{name}"):
                yield f"{directory}/{name}/{inner}"
