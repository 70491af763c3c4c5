"""What an explanation consists of: reasons, each with a word for programs, a sentence for people and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reason:
    """Why something is as it is. `code` is a word that does not change, `fields` are JSON values that go with it.

    `fix` is a command line for a shell, empty where no command helps. `text` may hold what others wrote into the
    directory, and so may `lines` (the end of a task's output) and `fields`: escape them for a terminal.
    """

    code: str
    text: str
    fix: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """All reasons that apply to a queue, or to the message `id` in it, the most important one first: one at least."""

    root: str
    queue: str
    reasons: tuple[Reason, ...]
    id: str = ""

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        found["reasons"] = [{**reason, "lines": list(reason["lines"])} for reason in found["reasons"]]
        return found


def count(number: int, what: str) -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {what}{'s' * (number != 1)}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"


def some(texts: list[str], most: int = 3) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
