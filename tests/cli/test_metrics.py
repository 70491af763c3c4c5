"""`ddmq-hpc metrics` as Prometheus reads it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import COMMAND, Run
from prometheus_client.parser import text_string_to_metric_families

from ddmq_hpc.broker import Broker
from ddmq_hpc.metrics import collect
from ddmq_hpc.worker_info import Running, WorkerInfo
from ddmq_hpc.workers import Registration

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """All samples, no two of which may be of the same thing."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type == "gauge", family
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    (one,) = (
        number for (of, its), number in found.items() if of == f"ddmq_hpc_{name}" and set(labels.items()) <= set(its)
    )
    return one


@pytest.fixture
def broker(root: str) -> Broker:
    """Queue `tasks`: 20 done, 4 failed and 1 of them dead, 3 leased, 2 released, the rest ready."""
    found = Broker(root, create=True)
    found.create_queue("tasks", durable=False)
    found.publish_many("tasks", range(100))
    for message in found.consume("tasks", 20):
        found.ack(message, wall=3.0)
    messages = found.consume("tasks", 6)
    found.nack(messages[:3])
    found.nack(messages[3], requeue=False)
    found.release(messages[4:])
    found.consume("tasks", 3, lease="1h")
    queue = found.queue("tasks")
    for host, more in (("here", {}), ("elsewhere", {"kernel": "another"})):
        info = WorkerInfo.of_this_process(queue, f"{host}-1-a", ["tasks", "other"], 4)
        tasks = (Running("m1", "tasks"), Running("m2", "tasks"), Running("m3", "other"))
        Registration(queue, replace(info, host=host, tasks=tasks, running=("m1", "m2", "m3"), **more)).start()
    silent = Path(queue.paths.in_workers("elsewhere-1-a"))
    os.utime(silent, (silent.stat().st_mtime - 400,) * 2)
    return found


def test_what_is_told_of_a_queue(run: Run, root: str, broker: Broker) -> None:
    found = parsed(run("metrics", root).stdout)
    of = {"root": root, "queue": "tasks"}
    states = {state: value(found, "messages", state=state, **of) for state in ("ready", "leased", "delayed", "dead")}
    assert states == {"ready": 76, "leased": 3, "delayed": 0, "dead": 1}
    ended = {how: value(found, "attempts_last_hour", outcome=how, **of) for how in ("done", "failed", "released")}
    assert ended == {"done": 20, "failed": 4, "released": 2}
    assert value(found, "attempts_last_hour_estimated", **of) == 0
    assert {state: value(found, "workers", state=state, **of) for state in ("alive", "silent", "dead")} == {
        "alive": 1,
        "silent": 1,
        "dead": 0,
    }
    assert (value(found, "worker_slots", **of), value(found, "running_tasks", **of)) == (4, 2)
    assert 0 <= value(found, "oldest_ready_age_seconds", **of) < 600
    assert 0 <= value(found, "lease_age_seconds", **of) < 600
    assert (value(found, "leases_overdue", **of), value(found, "paused", **of)) == (0, 0)
    assert value(found, "task_duration_median_seconds", **of) == 3
    assert value(found, "filesystem_available_bytes", root=root) > 1 << 20


def test_leases_that_ran_out_and_queues_that_are_paused(run: Run, root: str, broker: Broker) -> None:
    broker.create_queue("late", grace="1h")
    broker.publish_many("late", range(4))
    lease = broker.consume("late", 4, lease="0.01s")
    Path(root, "tasks", "ddmq.yaml").write_text("paused: true\n")
    found = parsed(run("metrics", root, "late", "tasks").stdout)
    assert value(found, "leases_overdue", queue="late") == len(lease) == 4
    assert value(found, "paused", queue="tasks") == 1 and value(found, "paused", queue="late") == 0


@pytest.mark.parametrize("name", ['a"b\\c', 'x\ny{z="1"} 3', "tab\tcr\rend", "\\", "é日本", "\udcff\udc80"])
def test_hostile_names_of_roots_are_labels(run: Run, tmp_path: Path, name: str) -> None:
    root = str(tmp_path / name)
    run("create", "-f", root, "q")
    found = parsed(run("metrics", root).stdout.encode("utf-8", "surrogateescape").decode("utf-8"))
    shown = os.path.join(str(tmp_path), name).encode("utf-8", "replace").decode()
    assert value(found, "messages", root=shown, queue="q", state="ready") == 0


def test_files_are_whole_and_for_all_to_read(run: Run, root: str, broker: Broker, tmp_path: Path) -> None:
    place = tmp_path / "collector"
    place.mkdir()
    path = place / "ddmq.prom"
    assert run("metrics", root, "-o", str(path), umask=0o077).stdout == ""
    assert value(parsed(path.read_text()), "messages", state="leased") == 3
    assert path.stat().st_mode & 0o777 == 0o644
    inode = path.stat().st_ino
    with path.open() as before:
        run("metrics", root, "-o", str(path))
        assert path.stat().st_ino != inode and parsed(before.read())
    assert os.listdir(place) == ["ddmq.prom"]


def test_what_cannot_be_written_leaves_nothing(run: Run, root: str, broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "directory.prom" / "x").mkdir(parents=True)
    assert "directory.prom" in run("metrics", root, "-o", str(tmp_path / "directory.prom"), code=2).stderr
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    run("metrics", root, "-o", str(tmp_path / "missing" / "a.prom"), code=1)


def test_a_queue_that_cannot_be_read_does_not_hide_the_others(run: Run, root: str, broker: Broker) -> None:
    broker.create_queue("broken")
    Path(root, "broken", "ddmq.yaml").write_text("timeout: never\n")
    done = run("metrics", root, code=2)
    found = parsed(done.stdout)
    assert value(found, "queue_readable", queue="broken") == 0 and value(found, "queue_readable", queue="tasks") == 1
    assert value(found, "messages", queue="tasks", state="leased") == 3
    assert not [labels for name, labels in found if ("queue", "broken") in labels and name != "ddmq_hpc_queue_readable"]
    run("metrics", root, "nothing", code=4)


def test_roots_beside_each_other_say_the_same_of_each_metric(tmp_path: Path) -> None:
    """node_exporter refuses all files when two of them differ in the help of a metric, or say one thing twice."""
    texts = []
    for name in ("one", "two"):
        broker = Broker(tmp_path / name, create=True)
        broker.create_queue("q")
        texts.append(collect(broker, ["q"])[0].text())
    heads = [[line for line in text.splitlines() if line.startswith("#")] for text in texts]
    assert heads[0] == heads[1] and len(heads[0]) > 20
    assert not parsed(texts[0]).keys() & parsed(texts[1]).keys()


def test_a_root_without_queues(run: Run, root: str) -> None:
    run("create", "-f", root, "q")
    run("delete", "-f", root, "q")
    found: Any = parsed(run("metrics", root).stdout)
    assert {name for name, _ in found} == {"ddmq_hpc_filesystem_available_bytes"}


def test_names_end_with_their_units(run: Run, root: str, broker: Broker) -> None:
    names = {name for name, _ in parsed(run("metrics", root).stdout)}
    for word, unit in (("age", "seconds"), ("duration", "seconds"), ("available", "bytes")):
        assert all(name.endswith(unit) for name in names if word in name.split("_")), names


def test_a_pipe_that_ends_early_is_no_error_to_speak_of(root: str, broker: Broker) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} metrics {root} | head -n 1"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("# HELP") and done.stderr == ""
