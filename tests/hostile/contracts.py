"""What each parser of what others may have written promises about any bytes at all, one function a parser.

A contract takes bytes and returns, or fails: whatever they are, they are read, or refused by the error that the parser
documents, and what was read can be told. `test_parsers.py` gives them what hypothesis makes up, `fuzz.py` what a
coverage-guided fuzzer finds, `test_corpus.py` what that has found.
"""

from __future__ import annotations

import gzip
import inspect
import io
import json
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Callable, TypeVar
from unittest import mock

from hostile_tools import CONTROL, PACK

from ddmq_hpc import (
    archive,
    attempts,
    editing,
    exporting,
    holders,
    hour,
    identity,
    ids,
    journal,
    keyed,
    ledger,
    legacy,
    logs,
    messages,
    names,
    operations,
    party,
    schedulers,
    sources,
    submitted,
    tasks,
    turnstile,
    units,
    worker_info,
)
from ddmq_hpc import settings as queue_settings
from ddmq_hpc.advance import Progress
from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import printable
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.doctor import checkup
from ddmq_hpc.errors import BadMessage, BadReceipt, SchedulerError, SettingsError, UsageError
from ddmq_hpc.exporting import harmless
from ddmq_hpc.lockdir import View
from ddmq_hpc.operations import Operations
from ddmq_hpc.report import texts
from ddmq_hpc.report.failures import Failures
from ddmq_hpc.schedulers import pbs, sge, slurm
from ddmq_hpc.schedulers.commands import Answer
from ddmq_hpc.snakemake import jobs, reports

Contract = Callable[[bytes], None]
CONTRACTS: dict[str, Contract] = {}
_Kept = TypeVar("_Kept", bound=Contract)

#: Nothing that a refusal says is longer.
_LONGEST_ERROR = 2000


def _contract(check: _Kept) -> _Kept:
    CONTRACTS[check.__name__] = check
    return check


def _told(error: Exception) -> None:
    """A refusal is for a person: it is short, whatever it refuses."""
    assert 0 < len(str(error)) < _LONGEST_ERROR


def _text(data: bytes) -> str:
    """As names of files, arguments and environments come."""
    return data.decode("utf-8", "surrogateescape")


def _json(data: bytes) -> Any:
    """The JSON value, as it comes out of a pack; None for what is none."""
    try:
        return messages.parse_json(data.decode("utf-8", "replace"))
    except BadMessage as error:
        _told(error)
        return None


def _file(data: bytes) -> Any:
    """What stands for the file system below a parser that reads a file by itself: all files have this content."""
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    return SimpleNamespace(
        read_some=lambda path, most, start=0: (SimpleNamespace(st_mtime=1e9), data[start : start + most]),
        blocks=lambda path, size: iter(pieces),
        names=lambda path: [],
        lstat=lambda path: None,
        mount=SimpleNamespace(type="nfs4"),
    )


# -- names

#: Parsers of names, which give None for what is none of ours.
PARSERS: dict[str, Callable[[str], Any]] = {
    name: getattr(names, name)
    for name in (
        *("parse_entry", "parse_lease", "parse_delayed", "parse_done", "parse_dead", "parse_dropped"),
        *("parse_message_id", "parse_message_range", "parse_lock", "parse_ticket", "parse_worker_file"),
        *("parse_submission", "parse_report"),
        *("parse_packed_journal", "parse_after", "journal_day", "retired_from"),
    )
}
_CHECKS = [getattr(names, name) for name in dir(names) if name.startswith("is_") and name != "is_chain_of"]


@_contract
def name_of_a_file(data: bytes) -> None:
    text = _text(data)
    for parse in PARSERS.values():
        found = parse(text)
        if isinstance(found, names.Lock) and found.free:
            continue  # its name is that of one that is held
        if found is not None and hasattr(found, "name"):
            assert len(found.name) <= 255 and "/" not in found.name and found.name.isprintable()
            assert parse(found.name) == found
    for check in _CHECKS:
        assert check(text) in (True, False)
    for valid in (names.check_queue_name, names.check_group_name):
        try:
            assert valid(text) == text and "/" not in text
        except UsageError as error:
            _told(error)
            assert str(error).isprintable()
    names.stamped_minute("recover", text)
    names.entry_order(text)
    View(text.split("\n"))


@_contract
def receipt(data: bytes) -> None:
    text = _text(data)
    for given in (text, f"q/{text}"):
        try:
            lease = names.parse_receipt(given, "q")
        except BadReceipt as error:
            _told(error)
        else:
            assert not lease.split and names.parse_receipt(names.make_receipt("q", lease), "q") == lease


@_contract
def owner(data: bytes) -> None:
    text = _text(data)
    for given in (text, f"host:{text}:1:k:t.1", f"{identity.host()}:{text}:1:{identity.kernel()}:t.1"):
        found = identity.Owner.parse(given)
        identity.Identity().is_dead(given)
        if found:
            assert found.holder
            schedulers.parse_label(found.job)
    job = schedulers.parse_label(text)
    assert job is None or (job.scheduler in schedulers.NAMES and job.restart >= 0)


@_contract
def id_cut_short(data: bytes) -> None:
    text = _text(data)
    assert names.is_id_or_beginning(text) in (True, False)
    assert ids._may_be_in(names.bucket_of(PACK), text) or not text[:1].isdigit() or not PACK.startswith(text)
    assert all(found.startswith(text) for found in ids._beginning_with(text, PACK, 0, 12))


# -- messages


@_contract
def line_of_a_pack(data: bytes) -> None:
    try:
        body, options = messages.decode_line(data)
    except BadMessage as error:
        _told(error)
        return
    # Whatever is read can be handed out, and published again.
    message = messages.Message(f"{PACK}.0", body, "q", options)
    assert not CONTROL.search(messages.to_json(message.to_dict()))
    assert messages.decode_line(messages.LineEncoder(options, 1 << 20).line(body)[:-1]) == (body, options)
    assert not CONTROL.search(printable(body))
    assert "\0" not in messages.body_text(body)
    _task(body)


def _task(body: Any) -> None:
    """A message becomes arguments and variables of a command, or a job."""
    for part in ("{}", "{a}"):
        try:
            assert len(tasks.fill([part], body)) == 1
        except BadMessage as error:
            _told(error)
    try:
        job = jobs.parse(body)
    except BadMessage as error:
        _told(error)
    else:
        assert jobs.parse(json.loads(json.dumps(job.body()))) == job and job.is_same(job)


@_contract
def body_of_a_job(data: bytes) -> None:
    _task(_json(data))


@_contract
def record_to_publish(data: bytes) -> None:
    try:
        body, options = messages.parse_record(_text(data))
        line = messages.LineEncoder(messages.Options.checked(**options), 1 << 20).line(body)
    except BadMessage as error:
        _told(error)
    else:
        # Two halves of a letter, each by itself in Python, are the letter in JSON.
        assert messages.decode_line(line[:-1])[0] == json.loads(json.dumps(body))


@_contract
def file_to_publish(data: bytes) -> None:
    handle = os.memfd_create("file")
    try:
        os.write(handle, data)
        path = f"/proc/self/fd/{handle}"
        assert isinstance(sources.text(path), str)
        assert all(body for body, _ in sources.lines(path))
        for read in (
            lambda: sources.jsonl(path),
            lambda: sources.csv_rows(path, None),
            lambda: sources.csv_rows(path, "{a} {{b}}"),
        ):
            try:
                for _ in read():
                    pass
            except UsageError as error:
                assert str(error)
    finally:
        os.close(handle)


class _Called:
    """A broker whose methods take what those of a real one take, and do nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        signature = inspect.signature(getattr(Broker, name))

        def call(*given: Any, **named: Any) -> Any:
            signature.bind(self, *given, **named)
            return _Nothing()

        return call


class _Nothing(list[Any]):
    def to_dict(self) -> dict[str, Any]:
        return {}


@_contract
def request(data: bytes) -> None:
    """Of another program, as JSON, up to the calls that it makes: it might name any directory of this host."""
    looks = mock.patch.multiple(operations.admin, items=lambda *_: [], show=lambda *_: {})
    with mock.patch.multiple(Operations, _broker=lambda *_: _Called()), looks:
        found = Operations("r", "q").answer(_text(data))
    assert found["ok"] in (True, False)
    if not found["ok"]:
        assert len(found["error"]["message"]) < _LONGEST_ERROR
        messages.to_json(found)


@_contract
def message_of_ddmq(data: bytes) -> None:
    values = _json(data)
    if isinstance(values, dict):
        good, dropped = legacy._options(values)
        messages.Options.checked(**good)
        assert not good.keys() & dropped.keys()


# -- settings


@_contract
def settings_file(data: bytes) -> None:
    text = data[: queue_settings.MOST_BYTES].decode("utf-8", "replace")
    try:
        found = queue_settings.parse(text, "f")
        queue_settings.apply(queue_settings.DEFAULTS, found, "f")
    except SettingsError as error:
        _told(error)


#: What people and commands change in a settings file.
_CHANGES: list[dict[str, Any]] = [
    {"paused": True, "paused_reason": 'x: "y" #', "paused_by": None},
    {"timeout": "10m", "retry_delay": 1.5, "priority": None},
    {"exit_codes": {75: "retry"}, "trusted_users": ("a", "b")},
]


@_contract
def settings_file_edited(data: bytes) -> None:
    text = data[:4096].decode("utf-8", "replace")
    for changes in _CHANGES:
        try:
            after = editing.edited(text, "f", changes)
        except SettingsError as error:
            _told(error)
            continue
        before, found = queue_settings.parse(text, "f"), queue_settings.parse(after, "f")
        assert found.keys() & changes.keys() == {name for name, value in changes.items() if value is not None}
        assert {name: value for name, value in found.items() if name not in changes} == {
            name: value for name, value in before.items() if name not in changes
        }


# -- what clients tell one another


def _records(data: bytes) -> Iterator[dict[str, Any]]:
    for record in journal.parsed(data.split(b"\n")):
        messages.to_json(record)
        yield record


@_contract
def journal_file(data: bytes) -> None:
    found = list(attempts.of(_records(data)))
    made = [each for each in found if isinstance(each, attempts.Attempt)]
    failures, tally = Failures(), hour.Tally()
    tally.saw(made)
    table = io.StringIO()
    for attempt in made:
        assert 0 < attempt.count <= names.MAX_PACK and 0 <= attempt.ended < 1e12
        assert names.parse_message_range(attempt.id)
        failures.count(attempt, attempt.host)
        exporting.write(exporting.rows_of(attempt, [attempt.first]), "csv", table)
        exporting.write(exporting.rows_of(attempt, [attempt.first]), "jsonl", table)
        for at in (attempt.began, attempt.ended):
            assert len(units.moment(at)) == 19 and units.human(at)
            texts.Clock(1e9).text(at)
    tally.hour(1e9)
    assert all(len(trouble.text) <= 200 for trouble in failures.troubles.values())
    table.getvalue().encode("utf-8")
    assert set(archive._once(data.split(b"\n"))) <= {*data.split(b"\n")}


@_contract
def compressed_journal(data: bytes) -> None:
    """As it is, and as what a sound file contains."""
    paths: Any = SimpleNamespace(journal="j")
    for content in (data, gzip.compress(data, 1, mtime=0)):
        fs = _file(content)
        try:
            lines = [line for _, section in ledger.sections(fs, paths, "x.gz") for line in section]
        except OSError as error:
            assert content is data, error
        else:
            assert content is data or all(line in data for line in lines)
        ledger.contained(fs, paths, ["packed-000000000000001-999999999999999-aaaaaaaa.jsonl.gz"], set())


@_contract
def registration_of_a_worker(data: bytes) -> None:
    found = worker_info.decode("w", data)
    if found:
        messages.to_json(found.to_dict())
        again = worker_info.decode("w", found.line())
        assert again == found or len(found.line()) >= worker_info.MOST_BYTES // 2


@_contract
def record_of_a_submission(data: bytes) -> None:
    for mine in (True, False):
        found = submitted._parse(data, mine)
        if found:
            assert names.parse_submission(names.submission_name(found.label)) == found.label
            assert mine or found.request is None


@_contract
def progress_of_a_task(data: bytes) -> None:
    found = Progress.decode(data)
    if found:
        assert Progress.decode(found.encode()) == found and len(str(found)) < _LONGEST_ERROR
        assert found.part is None or 0 <= found.part <= 1
    try:
        Progress.parse(_text(data))
    except UsageError as error:
        _told(error)


@_contract
def what_holders_of_locks_leave(data: bytes) -> None:
    note = turnstile.Note.decode(data)
    if note:
        turnstile.Note.decode(note.encode())
    directory: Any = SimpleNamespace(fs=_file(data), file=lambda lock: "file")
    (found,) = holders.holders(directory, [names.Lock("lock", 1, False)])
    assert found.name and found.deadline >= 0 <= found.duration and str(found)


@_contract
def index_of_output(data: bytes) -> None:
    for line in data.split(b"\n"):
        place = logs._place(line)
        assert place is None or min(place[1:]) >= 0


@_contract
def report_of_a_job(data: bytes) -> None:
    queue: Any = SimpleNamespace(fs=_file(data), paths=names.QueuePaths("r", "q"))
    assert isinstance(reports.with_text(queue, "a" * 16, reports.Report(f"{PACK}.0", 1)).text, str)


@_contract
def record_of_a_key(data: bytes) -> None:
    try:
        assert names.parse_message_id(keyed.id_in(data))  # it becomes a path
    except BadMessage as error:
        _told(error)


@_contract
def record_of_a_root(data: bytes) -> None:
    probe: Any = SimpleNamespace(fs=_file(data), path="r")
    assert len(str(checkup.record(probe))) < _LONGEST_ERROR


# -- what schedulers and the system say

_JOBS = [
    *(schedulers.Job("slurm", ident, restart) for ident in ("17_2", "18") for restart in (0, 1)),
    *(schedulers.Job("pbs", ident, 0, server) for ident in ("3[1]", "4") for server in ("", "localhost")),
    *(schedulers.Job("sge", ident, restart) for ident in ("1.2", "1") for restart in (0, 1)),
]


#: Whom they are asked about, without asking any that are on this host what they are like.
_ASKED: list[tuple[Any, dict[str, Any]]] = [
    (slurm, {"_cluster": lambda: ""}),
    (pbs, {"_is_torque": lambda: False}),
    (pbs, {"_is_torque": lambda: True}),
    (sge, {"_cluster": lambda: ""}),
]


@_contract
def answer_of_a_scheduler(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for module, known in _ASKED:
        scheduler = module.SCHEDULER
        mine = [job for job in _JOBS if job.scheduler == scheduler.name]
        for answer in (Answer(0, text, ""), Answer(1, "", text)):
            with mock.patch.multiple(module, query=lambda *_, said=answer: said, **known):
                said = set(scheduler.states(mine).values())
                assert said <= {schedulers.RUNNING, schedulers.ENDED, schedulers.UNKNOWN}
                live = scheduler.live_tasks(["1", "17", "3[]"]) or {}
                assert all(count >= 0 for count in live.values())
                assert all(isinstance(scheduler.end_time(job), (float, type(None))) for job in mine)
        try:
            assert submitted.number_of(scheduler.job_id(text)).isdigit()
        except SchedulerError as error:
            _told(error)


@_contract
def access_control_list(data: bytes) -> None:
    users, groups = party.writers(data, 5)
    assert all(0 <= who < 1 << 32 for who in (*users, *groups))


# -- what is given, and what is shown


@_contract
def duration_or_memory(data: bytes) -> None:
    text = _text(data)
    for read in (units.seconds, units.memory_bytes):
        try:
            assert 0 <= read(text) < 2**60
        except UsageError as error:
            _told(error)


@_contract
def criteria(data: bytes) -> None:
    values = _json(data)
    texts_given = {"ids": _text(data), "exit_code": _text(data)}
    for given in (values if isinstance(values, dict) else {}, texts_given, {"match": _text(data)}):
        try:
            Criteria.of(**given).demand_something()
        except UsageError as error:
            _told(error)


@_contract
def text_that_is_shown(data: bytes) -> None:
    text = _text(data[:4096])
    cell = harmless(text)
    assert not cell.startswith(("=", "+", "-", "@")) and not CONTROL.search(cell)
    cell.encode()
    for shown in (printable(text), texts.shown(text), texts.label(text)):
        assert shown.isprintable()
        shown.encode()
    assert len(texts.shown(text)) <= 200 and not set("<>\"'") & set(texts.label(text))
