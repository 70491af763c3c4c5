"""Every parser of what others may have written: anything is read, or refused by the error that says so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hostile_tools import CONTENTS, CONTROL, JOURNALS, LINES, NAMES, SETTINGS, WORKERS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddmq_hpc import attempts, identity, journal, keyed, logs, messages, names, submitted, turnstile, units, workers
from ddmq_hpc import settings as queue_settings
from ddmq_hpc.advance import Progress
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.errors import BadMessage, BadReceipt, SettingsError, UsageError
from ddmq_hpc.exporting import harmless
from ddmq_hpc.holders import _record
from ddmq_hpc.operations import Operations

QUICK = settings(max_examples=60, deadline=None)

#: Names of every kind, and such with a letter changed, a number made large, or a piece taken out.
KNOWN = sorted({name for found in NAMES.values() for name in found})


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(KNOWN))
    at = draw(st.integers(0, len(text)))
    piece = draw(st.sampled_from(["", "9" * 30, "\n", "\0", "/", "..", "\ud800", "\u0663", "\u00b2", "-", "."]))
    return text[:at] + piece + text[at + draw(st.integers(0, 3)) :]


TEXTS = st.one_of(st.text(), st.sampled_from(KNOWN), mutated())

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
CHECKS = [getattr(names, name) for name in dir(names) if name.startswith("is_") and name != "is_chain_of"]


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)
@given(text=TEXTS)
@QUICK
def test_names_are_read_or_none_of_ours(parse: Callable[[str], Any], text: str) -> None:
    found = parse(text)
    if found is not None and hasattr(found, "name"):
        assert len(found.name) <= 255 and "/" not in found.name and found.name.isprintable()
        assert parse(found.name) == found


@given(TEXTS)
@QUICK
def test_checks_of_names_say_yes_or_no(text: str) -> None:
    for check in CHECKS:
        assert check(text) in (True, False)
    for check in (names.check_queue_name, names.check_group_name):
        try:
            assert check(text) == text and "/" not in text
        except UsageError as error:
            assert str(error).isprintable()
    names.stamped_minute("recover", text)
    names.entry_order(text)


@given(st.one_of(TEXTS, TEXTS.map(lambda text: f"q/{text}")))
@QUICK
def test_receipts_are_of_leases_or_refused(text: str) -> None:
    try:
        assert not names.parse_receipt(text, "q").split
    except BadReceipt as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize("first, stop", [(0, 999_999_999), (0, names.MAX_PACK + 1), (999_999_998, 999_999_999), (5, 5)])
def test_no_name_stands_for_more_messages_than_a_pack_has(first: int, stop: int) -> None:
    entry = f"1700000000000000000-0aaaaaaaa.{first}-{stop}.0-0"
    assert (
        names.parse_entry(entry) is names.parse_dead(f"5.{entry}~lost") is names.parse_delayed("0" * 15 + entry) is None
    )
    found = names.parse_message_range(f"1700000000000000000-0aaaaaaaa.{first}-{stop}")
    assert found is None or stop - first == 1


@given(
    st.one_of(
        st.text(),
        TEXTS.map(lambda text: f"host:{text}:1:k:t.1"),
        st.sampled_from([":".join("9" * 5000 for _ in range(5))]),
    )
)
@example("h:\u00b2:1:k:t.1")
@example(f"h:{'9' * 5000}:1:k:t.1")
@QUICK
def test_owners_are_read_or_nobody(text: str) -> None:
    identity.Owner.parse(text)
    assert not identity.Identity().is_dead(text)


# -- what files say

JSON = st.recursive(
    st.one_of(
        *(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(),
            st.sampled_from([10**400, "9" * 400, "9" * 5000]),
        ),
        *map(st.just, ("9" * 5000 + "-01:01:01", "9" * 400 + "T", [[]], {}, float("inf"))),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
OPTIONS = st.dictionaries(
    st.sampled_from([*messages.OPTION_NAMES, "id", "cls", "self", "values", ""]), JSON, max_size=4
)


def _is_readable(line: bytes) -> bool:
    try:
        body, options = messages.decode_line(line)
    except BadMessage as error:
        assert len(str(error)) < 1000
        return False
    # Whatever is read can be handed out, and published again.
    message = messages.Message("1700000000000000000-0aaaaaaaa.0", body, "q", options)
    assert not CONTROL.search(messages.to_json(message.to_dict()))
    messages.body_text(body)
    assert messages.decode_line(messages.LineEncoder(options, 1 << 20).line(body)[:-1]) == (body, options)
    return True


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_hostile_lines_of_packs_are_read_or_refused(line: bytes) -> None:
    _is_readable(line)


@given(JSON, OPTIONS)
@QUICK
def test_lines_of_packs_are_read_or_refused(body: Any, options: dict[str, Any]) -> None:
    _is_readable(json.dumps({"message": body, **options}).encode())


def test_what_may_be_published_can_be_read() -> None:
    deep: list[Any] = []
    for _ in range(messages.MAX_DEPTH - 1):
        deep = [deep]
    for options in (messages.NO_OPTIONS, messages.Options.checked(priority=5)):
        assert _is_readable(messages.LineEncoder(options, 1000).line(deep)[:-1])
    with pytest.raises(BadMessage):
        messages.LineEncoder(messages.NO_OPTIONS, 1000).line([[deep]])


@given(st.binary())
@QUICK
def test_bytes_are_no_lines_of_packs(data: bytes) -> None:
    _is_readable(data)
    _is_readable(b'{"message":' + data + b"}")


@pytest.mark.parametrize(
    "name, value",
    [
        ("timeout", "9" * 5000 + "-01:01:01"),
        ("timeout", 10**400),
        ("time_request", "9" * 400),
        ("memory", "9" * 400),
        ("memory", "9" * 400 + "T"),
        ("memory", 10**400),
        ("priority", 10**400),
        ("cls", 1),
    ],
)
def test_properties_that_are_no_numbers_to_work_with_are_refused(name: str, value: object) -> None:
    with pytest.raises(BadMessage):
        messages.Options.checked(**{name: value})
    with pytest.raises(BadMessage):
        messages.decode_line(json.dumps({"message": 1, name: value}).encode())


def _settings_of(data: bytes) -> None:
    text = data[: queue_settings.MOST_BYTES].decode("utf-8", "replace")
    try:
        queue_settings.apply(queue_settings.DEFAULTS, queue_settings.parse(text, "f"), "f")
    except SettingsError as error:
        assert len(str(error)) < 2000


@pytest.mark.parametrize("data", SETTINGS, ids=range(len(SETTINGS)))
def test_hostile_settings_are_read_or_refused_soon(data: bytes) -> None:
    begin = time.process_time()
    _settings_of(data)
    assert time.process_time() - begin < 3


_TAGS = st.sampled_from(
    "!!int !!float !!bool !!null !!timestamp !!binary !!set !!omap !!pairs !!map !!str !!seq !x".split()
)
_SCALARS = st.sampled_from(
    [
        "",
        "_",
        "''",
        "0x",
        "0b_",
        "1:99",
        "+",
        ".",
        ".inf",
        "[a, a]",
        "{a: 1}",
        "2001-02-30",
        "~",
        "*a",
        "&a b",
        "x" * 70,
    ]
)


@given(st.sampled_from([*queue_settings.FIELDS, "x"]), _TAGS, _SCALARS)
@settings(max_examples=150, deadline=None)
def test_tags_of_yaml_promise_nothing(name: str, tag: str, scalar: str) -> None:
    _settings_of(f"{name}: {tag} {scalar}\n".encode())


@given(st.dictionaries(st.sampled_from([*queue_settings.FIELDS, "layout", "x"]), JSON, max_size=3))
@QUICK
def test_settings_of_any_type_are_taken_or_refused(values: dict[str, Any]) -> None:
    try:
        queue_settings.apply(queue_settings.DEFAULTS, values, "f")
    except SettingsError as error:
        assert len(str(error)) < 2000


def test_a_setting_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="twice"):
        queue_settings.parse("timeout: 1m\ntimeout: 2m\n", "f")


def test_numbers_that_python_will_not_write_are_refused_in_a_line() -> None:
    for text in ("priority: 0x" + "f" * 20_000, "0x" + "f" * 20_000 + ": 1", "layout: 0x" + "f" * 20_000):
        with pytest.raises(SettingsError):
            queue_settings.apply(queue_settings.DEFAULTS, queue_settings.parse(text, "f"), "f")


# -- what clients tell one another


def _journal_says(data: bytes) -> Iterator[dict[str, Any]]:
    for record in journal.parsed(data.split(b"\n")):
        messages.to_json(record)
        yield record


@pytest.mark.parametrize("data", JOURNALS, ids=range(len(JOURNALS)))
def test_hostile_records_are_passed_over_or_can_be_told(data: bytes) -> None:
    for found in attempts.of(_journal_says(data)):
        if isinstance(found, attempts.Attempt):
            assert found.count <= names.MAX_PACK and 0 <= found.ended < 1e12


RECORDS = st.fixed_dictionaries(
    {"id": st.just("1700000000000000000-0aaaaaaaa.0")},
    optional=dict.fromkeys(("state", "attempt", "at", "taken", "host", "pid", "exit", "output", "slots", "to"), JSON),
)


@given(RECORDS, st.sampled_from(["acked", "nacked", "late", "worker", "damaged"]))
@QUICK
def test_records_are_passed_over_or_can_be_told(record: dict[str, Any], state: str) -> None:
    for line in (record, {**record, "state": state}, {**record, "state": state, "attempt": 1, "at": 2, "taken": 1}):
        list(attempts.of(_journal_says(json.dumps(line).encode())))


@given(st.one_of(st.binary(), st.sampled_from(CONTENTS), JSON.map(lambda value: json.dumps(value).encode())))
@QUICK
def test_other_files_are_read_or_none_of_ours(data: bytes) -> None:
    assert workers._decode("w", data) is None or data in WORKERS
    for mine in (True, False):
        submitted._parse(data, mine)
    Progress.decode(data)
    turnstile.Note.decode(data)
    _record(data)
    for line in data.split(b"\n"):
        logs._place(line)
        messages.parse_object(line)
    try:
        keyed.id_in(data)
    except BadMessage:
        pass


@pytest.mark.parametrize("data", WORKERS, ids=range(len(WORKERS)))
def test_hostile_registrations_are_passed_over_or_can_be_told(data: bytes) -> None:
    found = workers._decode("w", data)
    if found:
        messages.to_json(found.to_dict())


@pytest.mark.parametrize("ident", ["../../../victim", "0000000000000000000-0/../../x.0", 5, None, ["x"], "x" * 10_000])
def test_the_id_under_a_key_is_one_or_refused(ident: object) -> None:
    """It becomes a path."""
    with pytest.raises(BadMessage):
        keyed.id_in(json.dumps({"message": 1, "id": ident}).encode())


# -- what is given


@given(st.one_of(st.text(), st.integers(), st.floats(), st.sampled_from([10**400, "9" * 5000, "9" * 400 + "w"])))
@QUICK
def test_units_are_read_or_refused(value: Any) -> None:
    for read in (units.seconds, units.memory_bytes):
        try:
            assert 0 <= read(value) < 2**60
        except UsageError as error:
            assert len(str(error)) < 300


@given(st.floats(allow_nan=False))
@QUICK
def test_every_time_can_be_told(at: float) -> None:
    assert len(units.moment(at)) == 19
    assert units.human(min(at, 1e300))


_WORDS = [*Criteria.__dataclass_fields__, "all", "exit_code", "cls", "self"]


@given(st.dictionaries(st.sampled_from(_WORDS), JSON, max_size=3))
@QUICK
def test_criteria_are_read_or_refused(values: dict[str, Any]) -> None:
    try:
        Criteria.of(**values).demand_something()
    except UsageError as error:
        assert len(str(error)) < 1000


@given(
    st.one_of(
        st.text(), st.dictionaries(st.sampled_from(["cmd", "queue", "id", "n", "cls", "self"]), JSON).map(json.dumps)
    )
)
@QUICK
def test_requests_are_answered(text: str) -> None:
    assert Operations("/nonexistent").answer(text)["ok"] is False


@given(st.text())
@example("\x1b[2J\x9b31m")
@example("=1+1")
@example("\x00=1+1")
@example("\ud800")
@QUICK
def test_cells_of_csv_are_harmless(text: str) -> None:
    cell = harmless(text)
    assert not cell.startswith(("=", "+", "-", "@"))
    assert all(letter in "\n\t" or letter not in map(chr, (*range(32), *range(127, 160))) for letter in cell)
    cell.encode()
