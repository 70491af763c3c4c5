"""How jobs ended, for the process that waits for them: a small file for each in a directory of its own, so that one
listing tells of all jobs. The name says which message and with which exit code; the file has the end of the output."""

from __future__ import annotations

import json
from typing import NamedTuple

from ddmq_hpc.identity import token
from ddmq_hpc.names import parse_report, report_name
from ddmq_hpc.queue import Queue
from ddmq_hpc.units import escaped

#: So much of a report is read, in bytes.
_MOST = 1 << 16


class Report(NamedTuple):
    """How the job of a message ended: its exit code, and what there is to say when it failed."""

    ident: str
    code: int
    text: str = ""


def write(queue: Queue, directory: str, report: Report) -> None:
    """Make a report, all of it at once; nothing when it is there already. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    aside = paths.in_tmp(f"report-{token()}")
    fs.create(aside, json.dumps({"output": report.text}).encode() if report.text else b"", False)
    fs.put(aside, paths.in_reports(directory, report_name(report.ident, report.code)))


def listed(queue: Queue, directory: str) -> list[Report]:
    """All reports in a directory, without their texts. Raises OSError."""
    fs, place = queue.fs, f"{queue.paths.reports}/{directory}"
    fs.refresh(place)
    found = map(parse_report, fs.names(place))
    return [Report(*each) for each in found if each]


def with_text(queue: Queue, directory: str, report: Report) -> Report:
    """The same with what it has to tell, for a terminal; with nothing when that cannot be read."""
    path = queue.paths.in_reports(directory, report_name(report.ident, report.code))
    try:
        _, data = queue.fs.read_some(path, _MOST)
        return report._replace(text=escaped(str(json.loads(data)["output"]), "\n\t") if data else "")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return report


def remove(queue: Queue, directory: str, report: Report) -> None:
    """It was read. Raises OSError."""
    queue.fs.drop(queue.paths.in_reports(directory, report_name(report.ident, report.code)))
