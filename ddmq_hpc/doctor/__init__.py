"""A user's check of a directory before trusting it with queues.

A check is a function that gets a `Probe` and returns a `Finding`; what is looked at is a list of checks. `look` is the
quick one, for whoever makes a root: a millisecond on a local disk, a few dozen round trips on a network file system.
`examine` looks at everything that one host can find out, `examine_together` at what takes several.
"""

from __future__ import annotations

import os
from typing import Callable

from ddmq_hpc.doctor import company, judging
from ddmq_hpc.doctor.checkup import record
from ddmq_hpc.doctor.costs import fsync, latency, quota
from ddmq_hpc.doctor.crossing import follow, lead
from ddmq_hpc.doctor.findings import FAILURE, OK, VERDICTS, WARNING, Finding, Report, milliseconds
from ddmq_hpc.doctor.meeting import Lost, Meeting, gather
from ddmq_hpc.doctor.probing import Check, Probe, leftovers, probe_directory, refused, run
from ddmq_hpc.doctor.semantics import atomicity, clock, exclusive, links, many_links, names, rename
from ddmq_hpc.doctor.surroundings import filesystem, inodes, permissions, space, versions
from ddmq_hpc.errors import DdmqError, NotFound, UsageError, storage_error
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.identity import host

__all__ = [
    "FAILURE",
    "OK",
    "PATIENCE",
    "VERDICTS",
    "WARNING",
    "Finding",
    "Report",
    "company",
    "examine",
    "examine_together",
    "look",
]

#: The quick look. The first list needs no file, the second works in a directory of its own.
QUICK_AROUND: tuple[Check, ...] = (filesystem, permissions, space, inodes)
QUICK_INSIDE: tuple[Check, ...] = (rename, links, exclusive, names, clock)
AROUND: tuple[Check, ...] = (*QUICK_AROUND, quota, record, versions)
INSIDE: tuple[Check, ...] = (*QUICK_INSIDE, many_links, atomicity, latency, fsync, leftovers)
#: Seconds that doctors on several hosts wait for each other.
PATIENCE = 60.0
_Make = Callable[[str], Filesystem]


def look(path: str, fs: Filesystem) -> Report:
    """The quick look at a directory that is to become a root. Raises nothing for what it finds."""
    return _report(fs, path, _checked(fs, path, QUICK_AROUND, QUICK_INSIDE))


def examine(path: str, make: _Make = Filesystem) -> Report:
    """All that one host can find out about a directory. Raises `NotFound`, `UsageError`, `StorageError`."""
    path, fs = _opened(path, make)
    alone = judging.untested(fs.mount, company.command(path))
    return _report(fs, path, [*_checked(fs, path, AROUND, INSIDE), *alone])


def examine_together(
    path: str, count: int, patience: float = PATIENCE, make: _Make = Filesystem, rank: int = 0
) -> Report | None:
    """The same by `count` processes that run this at the same time, on several hosts; None for all but the leader, who
    is one of the lowest rank.

    Those that do not come within `patience` seconds are a failure in the report. Raises the same errors, and
    `DdmqError` when the leader goes away.
    """
    if count < 2:
        raise UsageError(f"bad number of peers {count}: it must be 2 or more")
    path, fs = _opened(path, make)
    crossed = _crossed(fs, path, count, patience, rank)
    return None if crossed is None else _report(fs, path, [*_checked(fs, path, AROUND, INSIDE), *crossed])


def _crossed(fs: Filesystem, path: str, count: int, patience: float, rank: int) -> list[Finding] | None:
    """What the doctors found together; None for those who do not lead."""
    try:
        with probe_directory(fs, path) as probe:
            meeting = gather(probe, count, patience, rank)
            if meeting.leads:
                return judging.judge(lead(meeting), fs.mount)
            _follow(meeting)
            return None
    except Lost as lost:
        return [judging.nobody_came(str(lost), company.command(path))]
    except OSError as error:
        return [refused("peers", error)]


def _follow(meeting: Meeting) -> None:
    try:
        follow(meeting)
    except Lost as lost:
        raise DdmqError(f"{lost}; the check is not complete, start it anew") from None
    except OSError as error:
        raise storage_error(error, "take part in the check") from error


def _opened(path: str, make: _Make) -> tuple[str, Filesystem]:
    """The real path, and its file system."""
    real = os.path.realpath(path)
    if not os.path.lexists(real):
        raise NotFound(f"no directory {path}; give one that is there")
    if not os.path.isdir(real):
        raise UsageError(f"{path} is not a directory")
    try:
        return real, make(real)
    except OSError as error:
        raise storage_error(error, f"look at {path}") from error


def _checked(fs: Filesystem, path: str, around: tuple[Check, ...], inside: tuple[Check, ...]) -> list[Finding]:
    found = run(around, Probe(fs, path, ""))
    begun = fs.monotonic()
    try:
        with probe_directory(fs, path) as probe:
            took = milliseconds(fs.monotonic() - begun)
            found.append(Finding("writable", OK, f"a directory made in {took}", "Queues can be made here."))
            found += run(inside, probe)
    except OSError as error:
        found.append(refused("writable", error))
    return found


def _report(fs: Filesystem, path: str, findings: list[Finding]) -> Report:
    return Report(path, fs.mount.type, host(), fs.time(), tuple(findings))
