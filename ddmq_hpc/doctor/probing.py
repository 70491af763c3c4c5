"""The directory that checks work in: one of our own inside the one asked about, gone when they are done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from stat import S_ISDIR, S_ISVTX, S_IWGRP, S_IWOTH
from typing import Callable, NamedTuple

from ddmq_hpc.doctor.findings import FAILURE, OK, WARNING, Finding
from ddmq_hpc.errors import StorageBusy, storage_error
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import token
from ddmq_hpc.names import is_probe, probe_name

#: Seconds after which what a killed doctor left is removed by the next one.
LEFT_SECONDS = 3600.0
#: On NFS v3 a listing may be incomplete, and the directory not empty after all.
_REMOVALS = 3


class Probe(NamedTuple):
    """What checks get: the directory `path` that is asked about, and `place`, a directory of their own in it."""

    fs: Filesystem
    path: str
    place: str

    def at(self, name: str) -> str:
        return f"{self.place}/{name}"


#: A check returns one finding, named like itself. OSErrors that it does not expect are for `run`.
Check = Callable[[Probe], Finding]


def run(checks: Sequence[Check], probe: Probe) -> list[Finding]:
    """A finding of each. What the operating system refuses a check is a failure of that check."""
    found = []
    for check in checks:
        try:
            found.append(check(probe))
        except OSError as error:
            found.append(refused(check.__name__.replace("_", "-"), error))
    return found


def refused(check: str, error: OSError) -> Finding:
    """The finding of a check that the file system did not let finish."""
    trouble = storage_error(error, "check this")
    what, _, advice = str(trouble).partition("; ")
    meaning, advice = "ddmq-hpc would meet the same error.", f"{advice[:1].upper()}{advice[1:]}."
    return Finding(check, FAILURE, what, meaning, advice, isinstance(trouble, StorageBusy))


@contextmanager
def probe_directory(fs: Filesystem, path: str) -> Iterator[Probe]:
    """A directory of one's own in `path` for the `with` block. Nobody else may enter it.

    Raises OSError when it cannot be made. It is removed whatever ends the block; what a block left that was killed,
    or that cannot be removed any more, goes with `leftovers`.
    """
    probe = Probe(fs, path, f"{path}/{probe_name(token())}")
    try:
        fs.mkdir(probe.place, 0o700)  # inside: Ctrl-C may come right after it
        yield probe
    finally:
        for _ in range(_REMOVALS):
            fs.remove_tree(probe.place)
            if not fs.is_there(probe.place):
                break
            fs.refresh(probe.place)


def leftovers(probe: Probe) -> Finding:
    """Remove what doctors of this user left that were killed an hour ago or more. Links are not followed, and where
    others can give another directory of his such a name nothing is removed."""
    fs = probe.fs
    mine, above = fs.lstat(probe.place), fs.lstat(probe.path)
    is_ours_alone = bool(above.st_mode & S_ISVTX) or not above.st_mode & (S_IWGRP | S_IWOTH)
    removed = kept = 0
    for name in fs.names(probe.path):
        path = f"{probe.path}/{name}"
        if not is_probe(name) or path == probe.place:
            continue
        try:
            found = fs.lstat(path)
        except OSError:
            continue
        is_old = mine.st_mtime - found.st_mtime > LEFT_SECONDS
        if not S_ISDIR(found.st_mode) or found.st_uid != mine.st_uid or (is_old and not is_ours_alone):
            kept += 1
        elif is_old:
            fs.remove_tree(path)
            removed += 1
    if kept:
        measured = f"{kept} names like those of this check, left alone"
        meaning = "Somebody put them here; or a check of yours was killed, which cannot be told where others can write."
        return Finding("leftovers", WARNING, measured, meaning, "Look with ls -la whose they are, and what is in them.")
    return Finding("leftovers", OK, f"{removed} removed", "Of checks that were killed an hour ago or more.")
