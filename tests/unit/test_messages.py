"""Bodies and packs: any JSON value comes back as it was, and nothing else gets in."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmq_hpc.errors import BadMessage
from ddmq_hpc.messages import LineEncoder, Options, body_text, decode_line, encode_body, pack_lines, parse_record

TEXT = st.text(st.characters())  # surrogates, NUL and newlines among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_any_json_value_is_one_line_and_comes_back(body: Any) -> None:
    line = LineEncoder(Options(), 1 << 20).line(body)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode_line(line[:-1])[0] == body


@given(VALUES, st.integers(0, 10**18), st.dictionaries(TEXT, TEXT, max_size=3))
def test_options_travel_with_the_body(body: Any, priority: int, headers: dict[str, str]) -> None:
    options = Options.checked(priority=priority, requeue=False, headers=headers)
    found, read = decode_line(LineEncoder(options, 1 << 20).line(body)[:-1])
    assert found == body
    assert read == options


@given(st.binary())
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        decode_line(data)
    except BadMessage:
        pass


@pytest.mark.parametrize("body", [float("nan"), float("inf"), {1, 2}, object(), b"bytes"])
def test_what_is_no_json_value_is_refused(body: Any) -> None:
    with pytest.raises(BadMessage):
        encode_body(body, 1000)


def test_deep_nesting_is_refused_without_a_stack_overflow() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadMessage, match="nested deeper"):
        encode_body(deep, 1 << 30)
    with pytest.raises(BadMessage):
        decode_line(b'{"message":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_the_size_limit_counts_bytes() -> None:
    assert encode_body("x" * 98, 100)
    with pytest.raises(BadMessage, match="limit is 100"):
        encode_body("x" * 99, 100)
    with pytest.raises(BadMessage):
        encode_body("ä" * 50, 100)


@pytest.mark.parametrize(
    "options",
    [
        {"priority": -1},
        {"priority": 1.5},
        {"priority": True},
        {"priority": "5"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"requeue": 1},
        {"requeue_limit": -1},
        {"headers": [1]},
        {"nonsense": 1},
    ],
)
def test_bad_properties_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        Options.checked(**options)


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=60), st.integers(1, 10), st.integers(1, 120))
def test_packs_keep_order_and_bounds(lines: list[bytes], count: int, size: int) -> None:
    packs = list(pack_lines(lines, count, size))
    assert [line for pack in packs for line in pack] == lines
    assert all(len(pack) <= count and (len(pack) == 1 or sum(map(len, pack)) <= size) for pack in packs)


def test_a_record_is_a_body_or_a_body_with_properties() -> None:
    assert parse_record('"text"') == ("text", {})
    assert parse_record('{"message": 1, "priority": 5}') == (1, {"priority": 5})
    assert parse_record('{"message": 1, "other": 5}') == ({"message": 1, "other": 5}, {})
    assert parse_record('{"cmd": "x"}') == ({"cmd": "x"}, {})


@given(VALUES)
def test_text_for_programs_has_no_nul(body: Any) -> None:
    text = body_text(body)
    assert "\0" not in text
    if not isinstance(body, str):
        assert json.loads(text) == body


@given(TEXT)
def test_text_for_programs_has_bytes(text: str) -> None:
    """Whatever it is, it can be an argument, and stays what it is if that can be one."""
    given = body_text(text)
    os.fsencode(given)
    assert given == text or json.loads(given) == text
