"""`ddmq-hpc workers` as a person and a script meet it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from command import Run

from ddmq_hpc.broker import Broker
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration


@pytest.fixture
def workers(root: str) -> list[Registration]:
    broker = Broker(root, create=True)
    found = []
    for name in ("q", "p"):
        broker.create_queue(name)
        queue = broker.queue(name)
        info = WorkerInfo.of_this_process(queue, "node1-7-both", ["q", "p"], 4, ["./run", "{}"])
        info = replace(info, done=3, failed=1, running=("m1\x1b[31m", "m2"), job="slurm-12_3")
        found.append(Registration(queue, info))
    alone = WorkerInfo.of_this_process(broker.queue("p"), "node2-8-alone", ["p"])
    found.append(Registration(broker.queue("p"), alone))
    for registration in found:
        registration.start()
    return found


def test_the_table(run: Run, root: str, workers: list[Registration]) -> None:
    lines = run("workers", root).stdout.splitlines()
    assert len(lines) == 3 and lines[0].split()[:3] == ["worker", "user", "job"]
    (both,) = (line for line in lines if "node1-7-both" in line)
    assert "slurm-12_3" in both and "q,p" in both and "+1" in both and "yes" in both
    assert "\x1b" not in both
    assert len(run("workers", root, "q").stdout.splitlines()) == 2


def test_other_shapes(run: Run, root: str, workers: list[Registration]) -> None:
    answer = json.loads(run("workers", "--format", "json", root).stdout)
    assert answer["schema_version"] == 1 and answer["root"] == root
    both = answer["workers"][0]
    assert both["id"] == "node1-7-both" and both["queues"] == ["q", "p"] and both["running"][1] == "m2"
    assert both["alive"] == "yes" and both["done"] == 3 and both["slots"] == 4 and both["command"] == ["./run", "{}"]
    rows = list(csv.DictReader(run("workers", "--format", "csv", root).stdout.splitlines()))
    assert [row["id"] for row in rows] == ["node1-7-both", "node2-8-alone"] and rows[0]["command"] == "./run {}"
    assert "node2-8-alone" in run("workers", "--format", "yaml", root, "p").stdout


def test_nobody_works(run: Run, root: str) -> None:
    run("create", "-f", root, "q")
    assert run("workers", root).stdout == "no workers\n"
    assert json.loads(run("workers", "--format", "json", root, "q").stdout)["workers"] == []
    run("workers", root, "r", code=4)
    run("workers", "stop", root, "q", "node", code=4)
    assert run("workers", "stop", root, "q", "all").stdout == "no workers\n"


def test_stop(run: Run, root: str, workers: list[Registration]) -> None:
    assert run("workers", "stop", root, "p", "node2").stdout == "asked node2-8-alone to stop\n"
    assert (Path(root) / "p/workers/node2-8-alone.stop").read_text() == "stop\n"
    run("workers", "stop", root, "p", "node", code=2)
    assert len(run("workers", "stop", root, "p", "all", "--now").stdout.splitlines()) == 2
    assert (Path(root) / "p/workers/node1-7-both.stop").read_text() == "now\n"
    run("workers", "--now", root, code=2)
    assert run("workers", "stop", "node1", env={"DDMQ_HPC_ROOT": root, "DDMQ_HPC_QUEUE": "q"}).stdout.startswith(
        "asked"
    )
