"""Schedulers' commands that say what a test wants, and tell how often they were run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"


class Commands:
    """A directory of commands for the front of the PATH."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(exist_ok=True)

    def say(self, name: str, out: str = "", err: str = "", code: int = 0, sleep: float = 0) -> None:
        """The command `name` prints this from now on."""
        script = [
            "#!/bin/sh",
            f'echo "$*" >> {shlex.quote(str(self.place / name))}.calls',
            f"sleep {sleep}" if sleep else ":",
            f"printf %s {shlex.quote(out)}",
            f"printf %s {shlex.quote(err)} >&2",
            f"exit {code}",
        ]
        path = self.place / name
        path.with_suffix(".new").write_text("\n".join(script) + "\n")
        path.with_suffix(".new").chmod(0o755)
        os.replace(path.with_suffix(".new"), path)

    def calls(self, name: str) -> list[str]:
        """The arguments of each call so far."""
        log = self.place / f"{name}.calls"
        return log.read_text().splitlines() if log.exists() else []


def squeue_row(job: str, state: str = "RUNNING", restarts: int = 0, number: int = 0) -> str:
    """A line as `squeue -O` prints it, of `12_7` or `12`."""
    array, _, task = job.partition("_")
    return f"{array:<20}{task or 'N/A':<20}{number or array:<20}{state:<30}{restarts:<12}\n"
