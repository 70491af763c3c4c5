"""The inputs that the fuzzer found, one for each way through a parser: lines of JSON, each the name of a contract and
its bytes as Latin-1. In one file, since there are hundreds of them and most have a few bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

FILE = Path(__file__).with_name("corpus.jsonl")


def read() -> list[tuple[str, bytes]]:
    """Each input with its contract."""
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return [(name, text.encode("latin-1")) for name, text in map(json.loads, lines)]


def write(found: Iterable[tuple[str, bytes]]) -> None:
    """Keep these, sorted, instead of what was there."""
    lines = (json.dumps([name, data.decode("latin-1")]) for name, data in sorted(set(found)))
    FILE.write_text("".join(f"{line}\n" for line in lines))
