"""journal export and compact, as black boxes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from command import Run

from ddmq_hpc import Broker
from ddmq_hpc.attempts import Attempt
from ddmq_hpc.exporting import COLUMNS, rows_of

EVIL = ["=cmd()", "+1", "-1", "@x", "\tx", "plain", 'quo"te,\n', "nul\0"]


@pytest.fixture
def broker(root: str) -> Broker:
    """A queue in which one message was tried twice and three were acked together."""
    broker = Broker(root, create=True)
    broker.create_queue("q", durable=False)
    broker.publish("q", "m", priority=1)
    broker.nack(broker.consume("q"), exit=3, error="=1+1", task="m", wall=1.5)
    broker.publish_many("q", ["a", "b", "c"])
    broker.ack(broker.consume("q")[0], exit=0)
    broker.ack(broker.consume("q", 3))
    return broker


def test_a_row_for_each_attempt_at_each_message(run: Run, root: str, broker: Broker, tmp_path: Path) -> None:
    run("journal", "export", root, "q", "-o", tmp_path / "attempts.csv")
    with open(tmp_path / "attempts.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["attempt"], row["state"], row["to"]) for row in rows] == [
        ("1", "nacked", "ready"),
        ("2", "acked", ""),
        *[("1", "acked", "")] * 3,
    ]
    assert len({row["id"] for row in rows}) == 4
    first = rows[0]
    assert (first["exit"], first["wall"], first["error"], first["task"]) == ("3", "1.5", "'=1+1", "m")
    assert float(first["published"]) <= float(first["began"]) <= float(first["ended"])
    assert datetime.fromisoformat(first["ended_utc"]).timestamp() == pytest.approx(float(first["ended"]), abs=0.002)


def test_nothing_seems_taken_before_it_was_published() -> None:
    """It is taken within the same millisecond: a lease has no more digits."""
    pack = "1795721983896999999-0g3qndtxg"
    (row,) = rows_of(Attempt(pack, 0, 1, 1, "acked", 1795721983.896, 1795721984.0), [0])
    assert row["published"] == row["began"] == 1795721983.896


def test_json_has_the_same_rows_as_they_are(run: Run, root: str, broker: Broker) -> None:
    rows = [json.loads(line) for line in run("journal", "export", root, "q", "--format", "jsonl").stdout.splitlines()]
    assert [list(row) for row in rows] == [list(COLUMNS)] * 5
    assert (rows[0]["error"], rows[0]["exit"], rows[1]["wall"]) == ("=1+1", 3, None)


def test_no_spreadsheet_calculates_what_tasks_say(run: Run, root: str) -> None:
    broker = Broker(root, create=True)
    for text in EVIL:
        broker.publish("q", "m")
        broker.nack(broker.consume("q"), requeue=False, error=text)
    lines = run("journal", "export", root, "q").stdout.splitlines(keepends=True)
    texts = [row["error"] for row in csv.DictReader(lines)]
    assert texts == [f"'{text}" for text in EVIL[:5]] + ["plain", 'quo"te,\n', "nul"]


def test_pandas_reads_it(run: Run, root: str, broker: Broker, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run("journal", "export", root, "q", "-o", tmp_path / "attempts.csv")
    found = pandas.read_csv(tmp_path / "attempts.csv", parse_dates=["ended_utc"])
    assert list(found[found.state == "acked"].attempt) == [2, 1, 1, 1]
    assert found.ended_utc.dt.year.min() > 2000


STREAMING = """
import os, resource, sys
from ddmq_hpc import Broker, archive
from ddmq_hpc.exporting import rows, write

queue = Broker(sys.argv[1]).queue("q")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(os.devnull, "w") as to:
    write([], "csv", to)
    before = peak()
    write(rows(queue), "csv", to)
    archive.compact(queue.fs, queue.paths, queue.settings, silent=-1)
    write(rows(queue), "jsonl", to)
print(peak() - before)
"""


@pytest.mark.slow
def test_a_large_journal_takes_no_more_memory(root: str, broker: Broker) -> None:
    """150 MB of it are read, compressed and read again."""
    queue = broker.queue("q")
    pack = queue.publisher.new_pack()
    for host in range(2):
        with open(f"{queue.paths.journal}/host{host}.jsonl", "w", encoding="utf-8") as file:
            for number in range(30_000):
                more = {"task": "m" * 120, "output": f"{number}" * 500}
                file.write(queue.journal.record("nacked", f"{pack}.{number}", host + 1, 2.0, 1.0, more) + "}\n")
    size = sum(path.stat().st_size for path in Path(queue.paths.journal).iterdir())
    done = subprocess.run([sys.executable, "-c", STREAMING, root], capture_output=True, text=True, check=True)
    assert size > 100e6
    assert int(done.stdout) * 1024 < size / 2


def test_compact(run: Run, root: str, broker: Broker) -> None:
    assert run("journal", "compact", root, "q").stdout == "compacted 0 files\n"
    journal = Path(root, "q", "journal")
    for path in journal.iterdir():
        os.utime(path.rename(journal / "host.0.1.19675.jsonl"), (0, 1_700_000_000))
    (journal / "last.jsonl").touch()
    said = run("journal", "compact", root, "q").stdout
    assert said.startswith("compacted 1 files, ") and "now" in said
    assert sorted(path.suffix for path in journal.iterdir()) == [".gz", ".jsonl"]
    assert len(run("journal", "export", root, "q", "--format", "jsonl").stdout.splitlines()) == 5
    (Path(root) / "q" / "ddmq.yaml").write_text("journal_keep: 30d\njournal_size: 1G\n")
    assert "journals" in run("clean", root, "q").stdout
    assert [path.name for path in journal.iterdir()] == ["last.jsonl"]


def test_what_is_wrong_is_said_in_a_line(run: Run, root: str, broker: Broker) -> None:
    run("journal", "export", root, "nowhere", code=4)
    run("journal", "export", root, "q", "--format", "xml", code=2)
    assert "journal" in run("journal", "--help").stdout
    assert run("journal", "export", root, "q", "-o", "/nowhere/file", code=1).stderr.count("\n") == 1
