"""Files of users, made whole or not at all: what was there stays until all of the new one is on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from stat import S_ISREG
from typing import IO

from ddmq_hpc.errors import UsageError, storage_error
from ddmq_hpc.identity import token


@contextmanager
def replaced(path: str, mode: int | None = None) -> Iterator[IO[str]]:
    """A text file that takes the place of what is at `path` when the block ends without an error; links are followed.

    It has `mode`, by default that of the file before. Raises `UsageError` for what is there and is no regular file,
    `StorageError`; then nothing is different.
    """
    target = os.path.realpath(path)
    aside = os.path.join(os.path.dirname(target), f".{os.path.basename(target)[:100]}.{token()}")
    try:
        before = _mode(path)
        try:
            with open(aside, "x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                yield file
                file.flush()
                if mode is not None or before is not None:
                    os.fchmod(file.fileno(), before or 0 if mode is None else mode)
                os.fsync(file.fileno())  # NFS says only now that the disk is full
                made = os.fstat(file.fileno())
            if not os.path.samestat(made, os.lstat(aside)):  # others can write to the directory
                raise OSError(errno.EBUSY, "somebody changed it meanwhile")
            os.replace(aside, target)
        finally:
            _remove(aside)
    except OSError as error:
        error.filename = path
        raise storage_error(error, "write the file") from error


def _mode(path: str) -> int | None:
    """The permissions of the file that is there, of another user's none to write; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if not S_ISREG(found.st_mode):
        raise UsageError(f"{path} is no regular file; write to it by `-o - > {path}`")
    return found.st_mode & (0o777 if found.st_uid == os.geteuid() else 0o755)


def _remove(path: str) -> None:
    """What an error left; nothing is there any more when all went well."""
    try:
        os.unlink(path)
    except OSError:
        pass
