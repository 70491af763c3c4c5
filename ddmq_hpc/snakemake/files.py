"""Files of jobs on a network file system: seen by the worker before a job, and by everybody else after it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence

from ddmq_hpc.fs import GONE, NO_FILE
from ddmq_hpc.idle import Backoff
from ddmq_hpc.mounts import mount_of


def wait_for(directory: str, inputs: Sequence[str], seconds: float) -> None:
    """Until all files are seen, at most so many seconds: a client may answer for a while from what it remembers of a
    directory, unless it is listed."""
    backoff = Backoff(0.05, 5.0)
    end = time.monotonic() + seconds
    missing = [os.path.join(directory, name) for name in inputs]
    while missing := [path for path in missing if not os.path.lexists(path)]:
        if time.monotonic() >= end:
            return  # the command will say which
        time.sleep(min(backoff.next(), max(0.0, end - time.monotonic())))
        _ask_anew(missing)


def find(directory: str, outputs: Sequence[str]) -> None:
    """Have this host see files that another one has made."""
    paths = (os.path.join(directory, output) for output in outputs)
    _ask_anew([path for path in paths if not os.path.lexists(path)])


def _ask_anew(missing: Sequence[str]) -> None:
    """Of files that are not seen. What an NFS client was told to be missing it looks up anew once their directory has
    changed since; a change within the same tick of the server's clock it does not notice, not by a listing either, in
    which the name may stand all the same (measured with v4.2). A touch is a change."""
    directories = {os.path.dirname(path) for path in missing}
    for directory in directories:
        try:
            os.utime(directory)
        except OSError:  # gone, or somebody else's
            continue
    _list(directories)


def _list(directories: set[str]) -> None:
    for directory in directories:
        try:
            os.listdir(directory)
        except OSError:
            pass


def make_visible(directory: str, outputs: Sequence[str]) -> None:
    """Bring the files of a job to the file server and look into their directories, so that whoever reads the report
    finds them. On a local disk every process sees the same anyway."""
    if mount_of(directory).local:
        return
    paths = [os.path.join(directory, output) for output in outputs]
    for path in paths:
        _flush(path)
    _list({os.path.dirname(path) for path in paths})


def _flush(path: str) -> None:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in GONE | NO_FILE:
            return  # Snakemake tells of missing outputs
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
