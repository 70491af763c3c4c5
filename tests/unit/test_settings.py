"""Settings files: plain lines mean what YAML says, mistakes are named, nothing in them can hurt."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ddmq_hpc import settings
from ddmq_hpc.errors import SettingsError
from ddmq_hpc.settings import Settings
from ddmq_hpc.units import human, seconds

PLAIN = "true false null ~ yes on 10 0 010 0x1f 1_000 1.5 1e3 10m 1h30m auto observed -1 2026-01-01 12:30:45".split()
STRANGE = ["'10'", '"x"', "[1]", "{a: 1}", "&a x", "*a", "!!int 3", "", "=", "<<"]
WORDS = st.sampled_from([*PLAIN, *STRANGE])
LINES = st.lists(st.tuples(st.sampled_from(["timeout", "priority", "expiry", "a"]), WORDS), max_size=4)


@given(LINES, st.sampled_from([": ", ":", " : ", ":  "]))
def test_plain_lines_mean_what_yaml_says(lines: list[tuple[str, str]], colon: str) -> None:
    """Where the quick reader answers, PyYAML gives the same answer."""
    text = "".join(f"{key}{colon}{value}\n" for key, value in lines)
    quick = settings._parse_plain(text)
    if quick is not None:
        loaded = yaml.safe_load(text) or {}
        assert quick == loaded
        assert [type(value) for value in quick.values()] == [type(value) for value in loaded.values()]


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        settings.apply(Settings(), settings.parse(text, "f"), "f")
    except SettingsError as error:
        assert "\n" not in str(error)


def test_the_example_and_a_dump_read_back() -> None:
    assert settings.parse(settings.example(), "f") == {}
    values = {"timeout": 90.0, "requeue": False, "loss_limit": None, "priority": 5, "expiry": "observed"}
    assert settings.apply(Settings(), settings.parse(settings.dump(values), "f"), "f") == Settings(**values)


def test_every_setting_can_be_written_as_the_example_says() -> None:
    lines = [line[2:] for line in settings.example().splitlines() if line.startswith("# ") and ": " in line]
    chosen = [line for line in lines if line.partition(": ")[0] in settings.FIELDS]
    assert len(chosen) == len(settings.FIELDS)
    assert settings.apply(Settings(), settings.parse("\n".join(chosen), "f"), "f") == Settings()


@pytest.mark.parametrize(("text", "told"), [("timout: 5", "did you mean 'timeout'"), ("prio: 5", "priority")])
def test_an_unknown_setting_names_the_nearest(text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        settings.apply(Settings(), settings.parse(text, "f"), "f")


@pytest.mark.parametrize(
    "text",
    [
        "priority: -1",
        "priority: 1.5",
        "timeout: soon",
        "requeue: 1",
        "paused: maybe",
        "expiry: never",
        "layout: 99",
        "- a\n- b",
        "a: b: c",
        "a: &x [1]\nb: *x",
        "!!python/object/apply:os.system ['true']",
        "[" * 5000,
    ],
)
def test_wrong_types_and_tricks_are_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        settings.apply(Settings(), settings.parse(text, "f"), "f")


def test_names_of_ddmq_are_understood() -> None:
    assert settings.apply(Settings(), {"message_timeout": 5, "cleaned": 1.5}, "f").timeout == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1:30", 90),
        ("01:30:00", 5400),
        ("2-00:00:00", 172800),
        ("1-12:30", 131400),
        ("0.5s", 0.5),
        (7, 7),
    ],
)
def test_durations(text: object, value: float) -> None:
    assert seconds(text) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "-5", "abc", "1x", "nan", "inf", "1:2:3:4", "٣", "11y", 10**12])
def test_bad_durations(text: object) -> None:
    with pytest.raises(ValueError, match="bad duration"):
        seconds(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "text"), [(5, "5s"), (200, "3m20s"), (7500, "2h05m"), (356400, "4d03h")])
def test_ages_for_people(value: float, text: str) -> None:
    assert human(value) == text
