"""Taking over a root of ddmq 0.9: nothing of it is changed, every message of it is accounted for.

Its messages are `QUEUE/<priority>.<time>.ddmq<id>`, and `QUEUE/work/<expiry>.<priority>.<time>.ddmq<id>` when consumed;
JSON objects, torn ones among them, since it wrote them in place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import BadMessage, DdmqError, NotFound, UsageError
from ddmq_hpc.identity import token
from ddmq_hpc.messages import parse_json
from ddmq_hpc.names import LEGACY_WORK, SETTINGS, is_queue_name
from ddmq_hpc.settings import _ALIASES, FIELDS, parse

#: The settings of ddmq that there are here, too.
_SETTINGS = ("priority", "timeout", "requeue", "requeue_limit", "requeue_prio")
_WAITING = re.compile(r"(\d+)\.(\d+)\.ddmq(\w+)", re.ASCII)
_AT_WORK = re.compile(r"(\d+)\.(\d+)\.(\d+)\.ddmq(\w+)", re.ASCII)


@dataclass
class Report:
    """What an import did, queue by queue in all."""

    queues: list[str] = field(default_factory=list)
    waiting: int = 0
    at_work: int = 0
    already: int = 0
    unreadable: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    skipped_queues: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether no message stayed behind."""
        return not (self.unreadable or self.skipped_queues)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def import_root(old: str, new: str) -> Report:
    """Publish every message of the ddmq root `old` in the root `new`, which is made if it is not there, in its order
    and priority, consumed ones before the others.

    May be repeated: each message is published once (its old name is its key). Its id and how often it was requeued
    become headers, since its attempts count anew. Files that cannot be read are copied to the new queue's damaged/
    directory and reported. Raises `NotFound` when `old` is no root of ddmq, or has no queue.
    """
    if not os.path.isfile(f"{old}/{SETTINGS}"):
        raise NotFound(f"no ddmq root at {old}: it has no {SETTINGS}")
    if os.path.realpath(old) == os.path.realpath(new):
        raise UsageError("the old and the new root are the same directory; give a new one")
    with os.scandir(old) as found:
        directories = sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
    queues = [name for name in directories if os.path.isdir(f"{old}/{name}/{LEGACY_WORK}")]
    if not queues:
        raise NotFound(f"no queue of ddmq in {old}: none of its directories has one named {LEGACY_WORK!r}")
    with Broker(new, create=True) as broker:
        return _import_queues(old, queues, broker)


def _import_queues(old: str, queues: list[str], broker: Broker) -> Report:
    report = Report()
    for queue in queues:
        if not is_queue_name(queue):
            report.skipped_queues.append(queue)
            continue
        broker.create_queue(queue, **_settings_of(broker, f"{old}/{queue}/{SETTINGS}"))
        report.queues.append(queue)
        for path, at_work in _files(f"{old}/{queue}", report):
            _take_over(path, at_work, broker, queue, report)
    return report


def _settings_of(broker: Broker, path: str) -> dict[str, Any]:
    """What ddmq had, and means something here. What else stands there, such as commands to run, the user who imports
    would vouch for."""
    try:
        values = parse(broker.fs.read(path).decode("utf-8", "replace"), path)
    except (OSError, DdmqError):
        return {}
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = _ALIASES.get(key, key)
        if name in _SETTINGS:
            try:
                found[name] = FIELDS[name].metadata["check"](value)
            except DdmqError:
                continue
    return found


def _files(directory: str, report: Report) -> Iterator[tuple[str, bool]]:
    """Message files with whether they were consumed, in the order in which ddmq got them, priorities as numbers."""
    order: list[tuple[int, int, float, str, bool]] = []
    for place, pattern, at_work in ((f"{directory}/{LEGACY_WORK}", _AT_WORK, True), (directory, _WAITING, False)):
        for name in os.listdir(place):
            if name in (SETTINGS, f"{SETTINGS}.example", LEGACY_WORK):
                continue
            match = pattern.fullmatch(name)
            if not match:
                report.foreign.append(f"{place}/{name}")
                continue
            priority, stamp = (int(match[2]), match[3]) if at_work else (int(match[1]), match[2])
            # Times are seconds without their point, with as many digits as Python printed then.
            order.append((priority, not at_work, float(f"{stamp[:10]}.{stamp[10:] or 0}"), f"{place}/{name}", at_work))
    for _, _, _, path, at_work in sorted(order):
        yield path, at_work


def _take_over(path: str, at_work: bool, broker: Broker, queue: str, report: Report) -> None:
    try:
        values = parse_json(broker.queue(queue).reader.content(path).decode())
        if not isinstance(values, dict) or "message" not in values:
            raise BadMessage("no message in it")
        _publish(path, at_work, values, broker, queue, report)
    except OSError:
        report.unreadable.append(path)  # for no copy either: it may be no file
    except (UnicodeDecodeError, BadMessage):
        report.unreadable.append(path)
        _keep(path, broker, queue)


def _publish(path: str, at_work: bool, values: dict[str, Any], broker: Broker, queue: str, report: Report) -> None:
    name = os.path.basename(path).rpartition(".ddmq")[2]
    before = broker.queue(queue)
    key = f"ddmq:{name}"
    if before.fs.is_there(before.paths.in_keys(key)):
        report.already += 1
        return
    options, dropped = _options(values)
    headers = {"ddmq_id": name, **({"ddmq_dropped": dropped} if dropped else {})}
    if requeues := values.get("requeue_counter"):
        headers["ddmq_requeue_counter"] = requeues
    broker.publish(queue, values["message"], key=key, headers=headers, **options)
    report.waiting += not at_work
    report.at_work += at_work


def _options(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Properties that are valid here, and those that are not. A number as `requeue` was ddmq's way to say
    `requeue_prio`."""
    from ddmq_hpc.messages import Options

    requeue: Any | None = values.get("requeue")
    wanted = {name: values.get(name) for name in ("priority", "timeout", "requeue_limit", "requeue_prio")}
    if isinstance(requeue, bool):
        wanted["requeue"] = requeue
    elif isinstance(requeue, int):
        wanted["requeue"], wanted["requeue_prio"] = True, requeue
    good: dict[str, Any] = {}
    dropped: dict[str, Any] = {}
    for name, value in wanted.items():
        try:
            Options.checked(**{name: value})
            good[name] = value
        except DdmqError:
            dropped[name] = value
    return good, dropped


def _keep(path: str, broker: Broker, queue: str) -> None:
    """A copy of what could not be read, for a person to look at. What stands at its name, say a link, is replaced, and
    whoever can write to the queue can write to the copy: what others chose the text of is nothing that only this user
    can have written."""
    target = broker.queue(queue)
    fs, paths = target.fs, target.paths
    aside = paths.in_tmp(f"import-{token()}")
    try:
        fs.create(aside, target.reader.content(path), False)
        fs.rename(aside, f"{paths.damaged}/{os.path.basename(path)}")
    except OSError:
        fs.drop(aside)  # it is still where it was, and in the report
