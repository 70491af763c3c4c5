"""What a check says: one line for a person, the same words for a program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

OK, WARNING, FAILURE = "ok", "warning", "failure"
#: From the best to the worst.
VERDICTS = (OK, WARNING, FAILURE)


@dataclass(frozen=True)
class Finding:
    """`check` is a word that does not change, `verdict` one of `VERDICTS`; `advice` is empty where nothing needs to be
    done. `passing` is a failure that may be over soon: a full disk, a server that does not answer."""

    check: str
    verdict: str
    measured: str
    meaning: str
    advice: str = ""
    passing: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """All findings about a directory, by whom and when (seconds since 1970, this host's clock)."""

    path: str
    filesystem: str
    host: str
    at: float
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        return worst(finding.verdict for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict, "findings": [one.to_dict() for one in self.findings]}


def worst(verdicts: Iterable[str]) -> str:
    return max(verdicts, key=VERDICTS.index, default=OK)


def milliseconds(seconds: float) -> str:
    """A duration that was measured, with as many digits as mean something."""
    if seconds >= 10:
        return f"{seconds:.0f} s"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-4 else f"{seconds * 1e3:.1g} ms"


def grade(value: float, warning: float, failure: float) -> str:
    """The verdict on something of which less is better."""
    return FAILURE if value >= failure else WARNING if value >= warning else OK
