"""Messages, and what is told of them, that are made for a shell, a spreadsheet, a browser or a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_tools import ESCAPES, JOURNALS, PACK, checked

from ddmq_hpc.admin import items
from ddmq_hpc.broker import Broker

SHELL = [
    "$(touch owned)",
    "`touch owned`",
    "; touch owned #",
    "' ; touch owned ; '",
    '" && touch owned "',
    "x\ntouch owned",
    "-rf --help",
    "{} $HOME *",
    "\\$(touch owned)\\",
    ESCAPES,
    "a\0b",
    "\udc80\udcff",
]
#: Writes its arguments down as they came.
TELL = "import json, sys; open('told', 'a').write(json.dumps(sys.argv[1:]) + '\\n')"


def _publish(root: Path, *bodies: object) -> None:
    with Broker(root) as broker:
        broker.create_queue("p", durable=False)
        for body in bodies:
            broker.publish("p", body)


def _command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "ddmq_hpc", *arguments], capture_output=True, timeout=200)


def test_a_message_stays_one_argument(root: Path) -> None:
    bodies = [body for body in SHELL if "\0" not in body]
    _publish(root, *bodies, {"a": "$(touch owned)", "b; touch owned": "x"})
    done = _command("work", str(root), "p", "--idle-exit", "0", "--", sys.executable, "-c", TELL, "{}")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in Path("told").read_text().splitlines()]
    assert sorted(told[:-1]) == sorted([body] for body in bodies)
    assert json.loads(told[-1][0]) == {"a": "$(touch owned)", "b; touch owned": "x"}
    assert not Path("owned").exists()


def test_half_a_pair_is_told_as_json(root: Path) -> None:
    _publish(root, "\ud800")
    assert _command("exec", str(root), "p", "--", sys.executable, "-c", TELL, "{}").returncode == 0
    assert json.loads(Path("told").read_text()) == [json.dumps("\ud800")]


def test_a_field_of_a_message_stays_one_argument(root: Path) -> None:
    _publish(root, {"name": "$(touch owned); '\"\n"})
    assert _command("exec", str(root), "p", "--", sys.executable, "-c", TELL, "--name={name}").returncode == 0
    assert json.loads(Path("told").read_text()) == ["--name=$(touch owned); '\"\n"]
    assert not Path("owned").exists()


@pytest.mark.parametrize("body", SHELL)
def test_what_a_shell_evaluates_is_one_word(root: Path, body: str) -> None:
    _publish(root, body)
    script = f"{sys.executable} -m ddmq_hpc pull {root} p --format shell"
    shown = ["bash", "-c", f'settings=$({script}) && eval "$settings" && printf %s "$DDMQ_HPC_MESSAGE"']
    done = subprocess.run(shown, capture_output=True, timeout=200)
    expected = json.dumps(body) if "\0" in body else body
    assert done.returncode == 0 and done.stdout == os.fsencode(expected), done.stderr
    assert not Path("owned").exists()


def test_no_cell_of_a_table_is_a_formula(root: Path) -> None:
    """What tasks said, as the journal has it."""
    evil = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1+1", "\r=1+1", "\0=1+1", ESCAPES]
    lines = [
        {"state": "nacked", "id": f"{PACK}.{at}", "attempt": 1, "at": 5, "taken": 1, "error": text, "host": text}
        for at, text in enumerate(evil)
    ]
    (root / "q/journal/h.00.0.1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = checked("journal", "export", str(root), "q")
    rows = [row for row in csv.DictReader(io.StringIO(done.out)) if row["id"].startswith(PACK)]
    assert len(rows) == len(evil)
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]


def test_workers_are_no_formulas_either(root: Path) -> None:
    found = json.loads((root / "q/workers/worker-1.json").read_text())
    found.update(job="=1+1", command=["=cmd|' /C calc'!A0"])
    (root / "q/workers/w.json").write_text(json.dumps(found))
    rows = list(csv.DictReader(io.StringIO(checked("workers", str(root), "q", "--format", "csv").out)))
    assert {"'=1+1", ""} == {row["job"] for row in rows}
    assert not [cell for row in rows for cell in row.values() if cell.startswith("=")]


def test_the_report_of_a_hostile_journal_is_a_page(root: Path) -> None:
    script = {"error": "</script><script>alert(1)</script>", "output": ESCAPES, "host": "<img src=x onerror=alert(1)>"}
    record = {
        "state": "nacked",
        "id": f"{PACK}.0",
        "attempt": 1,
        "at": 1_700_000_005,
        "taken": 1_700_000_001,
        "exit": 1,
    }
    lines = b"\n".join([*JOURNALS, json.dumps({**record, **script}).encode(), b""])
    (root / "q/journal/h.00.0.1.jsonl").write_bytes(lines)
    done = checked("report", str(root), "q", "-o", "page.html")
    page = Path("page.html").read_text()
    assert done.code == 0 and "<script>alert" not in page and "<img src=x" not in page
    assert "\x1b[2J" not in page and "\u202e" not in page


@pytest.mark.parametrize("shape", ["json", "yaml", "plain"])
@pytest.mark.parametrize("command", ["list", "peek", "pull"])
def test_no_body_steers_a_terminal(root: Path, command: str, shape: str) -> None:
    _publish(root, ESCAPES, {ESCAPES: [ESCAPES]}, "\ud800", "\udc80", "\U000e0041\u202e")
    done = checked(command, str(root), "p", "--format", shape, *(["-n", "9"] if command != "list" else []))
    assert done.code == 0 and "\u202e" not in done.out
    if shape == "json":
        bodies = [json.loads(line)["message"] for line in done.out.splitlines()]
        assert bodies == [ESCAPES, {ESCAPES: [ESCAPES]}, "\ud800", "\udc80", "\U000e0041\u202e"]


def test_what_no_message_can_be_as_long_as_is_not_looked_into(root: Path) -> None:
    """As Python values 64 MiB of it would be gigabytes."""
    with Broker(root) as broker:
        broker.create_queue("p", durable=False)
        broker.publish_many("p", ["before", "x", "after"])
        (path,) = (root / "p" / "ready").glob("*/*/*")
        path.write_bytes(path.read_bytes().replace(b'"x"', b"[" + b"[],[]," * 1_000_000 + b"[]]"))
        assert [message.message for message in broker.consume("p", 9)] == ["before", "after"]
        assert [item.detail for item in items(broker.queue("p"), ("damaged",))] == ["too-large"]
    with Broker(root) as broker:
        broker.create_queue("large", durable=False, max_message_bytes=1 << 23)
        broker.publish("large", "x" * (7 << 20))
        assert len(broker.consume("large")[0].message) == 7 << 20
