"""Every parser of what others may have written: anything is read, or refused by the error that says so.

What each promises is in `contracts.py`; here is what it is tried with.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from contracts import CONTRACTS, Contract
from hostile_tools import CONTENTS, FOREIGN, JOURNALS, LINES, NAMES, SETTINGS, SOUND, WORKERS
from hypothesis import given, settings
from hypothesis import strategies as st

from ddmq_hpc import keyed, messages, names, units
from ddmq_hpc import settings as queue_settings
from ddmq_hpc.criteria import Criteria
from ddmq_hpc.doctor import meeting
from ddmq_hpc.errors import BadMessage, SettingsError, UsageError
from ddmq_hpc.expiry import NodeFiles
from ddmq_hpc.identity import boot

QUICK = settings(max_examples=60, deadline=None)
# Of regular expressions that will mean something else some day.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

#: Names of every kind, and such with a letter changed, a number made large, or a piece taken out.
KNOWN = sorted({name for found in NAMES.values() for name in found})


@st.composite
def mutated(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(KNOWN))
    at = draw(st.integers(0, len(text)))
    piece = draw(st.sampled_from(["", "9" * 30, "\n", "\0", "/", "..", "\ud800", "\u0663", "\u00b2", "-", "."]))
    return text[:at] + piece + text[at + draw(st.integers(0, 3)) :]


TEXTS = st.one_of(st.text(), st.sampled_from(KNOWN), mutated())
#: What is longer is for the parser that it was made for.
_SHORT = [data for data in [*SOUND, *CONTENTS, *FOREIGN, *map(str.encode, KNOWN)] if len(data) <= 4096]


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_whatever_is_known_to_be_hostile_is_read_or_refused(contract: Contract) -> None:
    for data in _SHORT:
        contract(data)


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
@given(data=st.one_of(st.binary(), TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))))
@QUICK
def test_anything_is_read_or_refused(contract: Contract, data: bytes) -> None:
    contract(data)


@pytest.mark.parametrize("first, stop", [(0, 999_999_999), (0, names.MAX_PACK + 1), (999_999_998, 999_999_999), (5, 5)])
def test_no_name_stands_for_more_messages_than_a_pack_has(first: int, stop: int) -> None:
    entry = f"1700000000000000000-0aaaaaaaa.{first}-{stop}.0-0"
    assert (
        names.parse_entry(entry) is names.parse_dead(f"5.{entry}~lost") is names.parse_delayed("0" * 15 + entry) is None
    )
    found = names.parse_message_range(f"1700000000000000000-0aaaaaaaa.{first}-{stop}")
    assert found is None or stop - first == 1


@given(st.sampled_from([":".join("9" * 5000 for _ in range(5)), "\u00b2", "9" * 5000]))
def test_owners_without_a_process_are_nobody(text: str) -> None:
    CONTRACTS["owner"](text.encode())


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


_line = CONTRACTS["line_of_a_pack"]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_hostile_lines_of_packs_are_read_or_refused(line: bytes) -> None:
    _line(line)


@given(JSON, OPTIONS)
@QUICK
def test_lines_of_packs_are_read_or_refused(body: Any, options: dict[str, Any]) -> None:
    _line(json.dumps({"message": body, **options}).encode())


def test_what_may_be_published_can_be_read() -> None:
    deep: list[Any] = []
    for _ in range(messages.MAX_DEPTH - 1):
        deep = [deep]
    for options in (messages.NO_OPTIONS, messages.Options.checked(priority=5)):
        assert messages.decode_line(messages.LineEncoder(options, 1000).line(deep)[:-1]) == (deep, options)
    with pytest.raises(BadMessage):
        messages.LineEncoder(messages.NO_OPTIONS, 1000).line([[deep]])


@given(st.binary())
@QUICK
def test_bytes_are_no_bodies(data: bytes) -> None:
    _line(b'{"message":' + data + b"}")


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


def seconds_for_settings(data: bytes) -> float:
    """Of a processor."""
    begin = time.process_time()
    CONTRACTS["settings_file"](data)
    return time.process_time() - begin


@pytest.fixture(scope="module")
def harmless_seconds() -> float:
    """What a harmless file takes that is as large as one may be."""
    lines = b"".join(b"key%d: v\n" % number for number in range(queue_settings.MOST_BYTES))
    return seconds_for_settings(lines[: queue_settings.MOST_BYTES])


@pytest.mark.parametrize("data", SETTINGS, ids=range(len(SETTINGS)))
def test_hostile_settings_are_read_or_refused_soon(data: bytes, harmless_seconds: float) -> None:
    assert seconds_for_settings(data) < 5 * harmless_seconds


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
    CONTRACTS["settings_file"](f"{name}: {tag} {scalar}\n".encode())


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


@pytest.mark.parametrize("data", JOURNALS, ids=range(len(JOURNALS)))
def test_hostile_records_are_passed_over_or_can_be_told(data: bytes) -> None:
    CONTRACTS["journal_file"](data)


RECORDS = st.fixed_dictionaries(
    {"id": st.just("1700000000000000000-0aaaaaaaa.0")},
    optional=dict.fromkeys(("state", "attempt", "at", "taken", "host", "pid", "exit", "output", "slots", "to"), JSON),
)


@given(RECORDS, st.sampled_from(["acked", "nacked", "late", "worker", "damaged"]))
@QUICK
def test_records_are_passed_over_or_can_be_told(record: dict[str, Any], state: str) -> None:
    for line in (record, {**record, "state": state}, {**record, "state": state, "attempt": 1, "at": 2, "taken": 1}):
        CONTRACTS["journal_file"](json.dumps(line).encode())


#: Files that a client reads whole, and takes for nothing where they are none of ours.
_FILES = [
    *("registration_of_a_worker", "record_of_a_submission", "progress_of_a_task", "what_holders_of_locks_leave"),
    *("index_of_output", "report_of_a_job", "record_of_a_key", "record_of_a_root"),
]


@pytest.mark.parametrize("name", _FILES)
@given(value=JSON)
@QUICK
def test_other_files_are_read_or_none_of_ours(name: str, value: Any) -> None:
    CONTRACTS[name](json.dumps(value).encode())


@pytest.mark.parametrize("data", WORKERS, ids=range(len(WORKERS)))
def test_hostile_registrations_are_passed_over_or_can_be_told(data: bytes) -> None:
    CONTRACTS["registration_of_a_worker"](data)


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


@given(st.dictionaries(st.sampled_from(["cmd", "queue", "id", "n", "cls", "self"]), JSON))
@QUICK
def test_requests_are_answered(values: dict[str, Any]) -> None:
    CONTRACTS["request"](json.dumps(values).encode())


@pytest.mark.parametrize("text", ["\x1b[2J\x9b31m", "=1+1", "\x00=1+1", "\ud800"])
def test_cells_of_csv_are_harmless(text: str) -> None:
    CONTRACTS["text_that_is_shown"](text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("seen", ["9" * 400, "[" * 100_000, "NaN", '"x"'])
def test_what_a_node_remembers_of_leases_is_read_or_forgotten(
    seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    node = NodeFiles("/queue")
    Path(f"{node.path}.observed").write_text(f'{{"boot":"{boot()}","seen":{{"a":{seen}}}}}')
    assert set(node.load()) <= {"a"}


@pytest.mark.parametrize("said", ["[" * 100_000, '[{"rank":1e999,"name":"x","host":"h","kernel":"k"}]', "5", '["x"]'])
def test_what_hosts_that_meet_say_is_a_group_or_none(said: str) -> None:
    probe: Any = SimpleNamespace(path="p", fs=SimpleNamespace(read_some=lambda path, most: (None, said.encode())))
    assert meeting._group(probe, "leader", meeting.Member(0, "x", "h", "k")) is None
