"""The look at a directory before a root is made in it, and the record of it that stays there."""

from __future__ import annotations

import json
from typing import Any

from ddmq_hpc.doctor.findings import FAILURE, OK, WARNING, Finding, Report
from ddmq_hpc.doctor.probing import Probe
from ddmq_hpc.errors import UnfitDirectory, UnfitNow
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.identity import token
from ddmq_hpc.messages import parse_object
from ddmq_hpc.names import CHECKUP

#: Without these nothing can be queued; a root is refused.
ESSENTIAL = frozenset({"writable", "rename", "links", "names"})
_MOST_BYTES = 1 << 18
_MODE = 0o644


def admit(report: Report) -> None:
    """Raise `UnfitDirectory` when queues cannot work there at all."""
    for finding in report.findings:
        if finding.check in ESSENTIAL and finding.verdict == FAILURE:
            error = UnfitNow if finding.passing else UnfitDirectory
            raise error(report.path, finding.measured, finding.meaning, finding.advice)


def write(fs: Filesystem, root: str, report: Report) -> None:
    """Keep a report in the root, over what was there. Raises OSError."""
    aside = f"{root}/.checkup-{token()}"
    fs.create(aside, json.dumps({"schema_version": 1, **report.to_dict()}, indent=1).encode(), False, _MODE)
    try:
        fs.rename(aside, f"{root}/{CHECKUP}")
    except OSError:
        fs.drop(aside)
        raise


def read(fs: Filesystem, root: str) -> dict[str, Any] | None:
    """The report that a root keeps; None where there is none, or nothing that looks like one."""
    try:
        found = parse_object(fs.read_some(f"{root}/{CHECKUP}", _MOST_BYTES)[1])
    except OSError:
        return None
    return found if found and isinstance(found.get("filesystem"), str) else None


def record(probe: Probe) -> Finding:
    """Whether the file system is of the kind that it was when the root was made."""
    fs = probe.fs
    try:
        fs.lstat(f"{probe.path}/{CHECKUP}")
    except OSError as error:
        if error.errno not in GONE:
            raise
        return Finding("record", OK, "none", "`create` leaves one in a root that it makes.")
    kept = read(fs, probe.path)
    if kept is None:
        return Finding("record", WARNING, f"{CHECKUP} cannot be read", "It is not needed.", f"Remove {CHECKUP}.")
    then, when = str(kept["filesystem"])[:60], _day(kept.get("at"))
    told = f"made on {_text(kept.get('host'))}, {when}: {_text(kept.get('verdict'))} on {then}"
    if then != fs.mount.type:
        meaning = "The root was moved, or is mounted in another way here."
        return Finding("record", WARNING, f"{told}; it is on {fs.mount.type} now", meaning, "Heed the other lines.")
    return Finding("record", OK, told, "The file system is of the same kind as when the root was made.")


def _text(value: object) -> str:
    return value[:60] if isinstance(value, str) else "?"


def _day(at: Any) -> str:
    from datetime import datetime, timezone

    try:
        return datetime.fromtimestamp(float(at), timezone.utc).strftime("%Y-%m-%d")
    except (TypeError, ValueError, OverflowError, OSError):
        return "some day"
