"""Which messages a person means, in words. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ddmq_hpc.errors import UsageError
from ddmq_hpc.names import REASONS, SHORTEST_ID, is_id_or_beginning
from ddmq_hpc.units import seconds


@dataclass(frozen=True)
class Criteria:
    """Which messages are meant: those for which all of this is true. Times are seconds.

    `ids` may be cut short, to ten characters or more, as long as they are unique. `exit_codes`, `host` and the ages are
    about the last failed attempt, or of what is done about the last one. The age of a dead letter is how long ago it
    died, of a finished message how long ago it was done, of any other how long ago it was published; the host of a
    leased one is the one that works on it. `group` is the one that a message is of, `died_of` the word for why it died.
    `everything` must be said when nothing else is.
    """

    ids: tuple[str, ...] = ()
    exit_codes: frozenset[int] = frozenset()
    host: str = ""
    died_of: str = ""
    older_than: float | None = None
    newer_than: float | None = None
    match: re.Pattern[str] | None = None
    group: str = ""
    everything: bool = False

    @classmethod
    def of(cls, /, all: Any = False, **values: Any) -> Criteria:
        """Criteria of values as they are given from outside; those that are None or empty say nothing. Raises
        `UsageError`."""
        known = {"ids", "exit_code", "host", "died_of", "older_than", "newer_than", "match", "group"}
        if unknown := sorted(values.keys() - known):
            raise UsageError(f"unknown key {unknown[0][:60]!r}; there are all, {', '.join(sorted(known))}")
        if not isinstance(all, bool):
            raise UsageError(f"all must be true or false, not {all!r:.60}")
        ages = {
            name: None if values.get(name) is None else seconds(values[name]) for name in ("older_than", "newer_than")
        }
        return cls(
            ids=tuple(_ids(values.get("ids"))),
            exit_codes=frozenset(_codes(values.get("exit_code"))),
            host=_text("host", values.get("host")),
            died_of=_reason(values.get("died_of")),
            match=_pattern(values.get("match")),
            group=_text("group", values.get("group")),
            everything=all,
            **ages,
        )

    def demand_something(self) -> Criteria:
        """Itself. Raises `UsageError` when nothing was said, or everything and something."""
        said = self != Criteria(everything=self.everything)
        if not said and not self.everything:
            raise UsageError(
                "which messages? Give ids, or say which by exit code, host, age, group or text; --all, in JSON "
                '"all": true, means every one'
            )
        if said and self.everything:
            raise UsageError("--all means every message: leave it out, or the other options")
        return self

    @property
    def about_attempts(self) -> bool:
        """Whether the journal has to be read to tell which messages are meant."""
        return bool(self.exit_codes or self.host or self.older_than is not None or self.newer_than is not None)


def _ids(value: Any) -> list[str]:
    """Each long enough that a slip does not mean the only message there is."""
    found = _texts("ids", value)
    for text in found:
        if not is_id_or_beginning(text):
            raise UsageError(f"{text[:60]!r} is no id, nor the first {SHORTEST_ID} characters or more of one")
    return found


def _reason(value: Any) -> str:
    found = _text("died_of", value)
    if found and found not in REASONS:
        raise UsageError(f"no message dies of {found[:60]!r}; there are {', '.join(REASONS)}")
    return found


def _texts(name: str, value: Any) -> list[str]:
    found = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if (value is not None and not found) or not all(isinstance(text, str) and text for text in found):
        raise UsageError(f"{name} must be texts, separated by commas or in a list")
    return found


def _codes(value: Any) -> list[int]:
    parts = value.split(",") if isinstance(value, str) else [] if value is None else value
    parts = parts if isinstance(parts, (list, tuple, set, frozenset)) else [parts]
    try:
        codes = [int(part) for part in parts if not isinstance(part, (bool, float))]
    except (TypeError, ValueError):
        codes = []
    if len(codes) != len(parts) or not all(0 <= code <= 255 for code in codes):
        raise UsageError(f"bad exit codes {value!r:.60}: write them as 1,137")
    return codes


def _text(name: str, value: Any) -> str:
    if value is not None and (not isinstance(value, str) or not value):
        raise UsageError(f"{name} must be text")
    return value or ""


def _pattern(value: Any) -> re.Pattern[str] | None:
    if value is None:
        return None
    try:
        return re.compile(_text("match", value))
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"bad regular expression {value!r:.60}: {error}") from None
