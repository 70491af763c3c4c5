"""What `tasks()` accepts, and what it says where there is no Snakemake. These tests need none."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ddmq_hpc import Broker, UsageError
from ddmq_hpc.errors import BadName, MessageNotFound, SnakemakeUnfit
from ddmq_hpc.snakemake import consuming, tasks
from ddmq_hpc.snakemake.internals import Run, require


@pytest.fixture
def any_snakemake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "require", lambda: None)


def test_without_snakemake_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snakemake", None)
    monkeypatch.setitem(sys.modules, "snakemake.io", None)
    with pytest.raises(SnakemakeUnfit, match=re.escape("pip install 'ddmq-hpc[snakemake]'")):
        tasks("queues/tasks", workflow=None, target="{task}")


def test_an_old_snakemake_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.14.2")
    monkeypatch.setitem(sys.modules, "snakemake", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "snakemake.io", SimpleNamespace())
    with pytest.raises(SnakemakeUnfit, match=re.escape("snakemake 9.14.2 is too old; have snakemake 9.14.3")):
        require()


def test_a_part_that_snakemake_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snakemake", SimpleNamespace(__version__="10.0.0"))
    with pytest.raises(SnakemakeUnfit, match=re.escape("snakemake 10.0.0 has no `workflow.dag.jobs`")):
        Run(SimpleNamespace(dag=SimpleNamespace())).check()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"target": "results/x.txt"}, UsageError),
        ({"target": "results/{task}/{task}.txt"}, UsageError),
        ({"target": "results/{sample}/{task}.txt"}, UsageError),
        ({"target": "results/{task,.+}.txt"}, UsageError),
        ({"until": "closed"}, UsageError),
        ({"max_inflight": 0}, UsageError),
        ({"max_tasks": True}, UsageError),
        ({"lease": "soon"}, UsageError),
        ({"queue": "queues/bad name"}, BadName),
        ({"queue": "tasks"}, UsageError),  # of which root?
    ],
)
def test_what_is_wrong_is_refused_when_the_snakefile_is_read(
    any_snakemake: None, options: dict[str, Any], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DDMQ_HPC_ROOT", raising=False)
    given = {"queue": "queues/tasks", "target": "{task}", **options}
    with pytest.raises(error):
        tasks(given.pop("queue"), workflow=None, **given)


def test_a_body_is_read_where_the_message_stands(any_snakemake: None, tmp_path: Any) -> None:
    """As it is in the process that runs one job, which took nothing itself."""
    broker = Broker(tmp_path / "queues", create=True)
    broker.publish_many("tasks", ({"n": n} for n in range(3)))
    held = broker.consume("tasks", 2)
    queue = tasks(tmp_path / "queues" / "tasks", workflow=SimpleNamespace(), target="{task}")
    assert [queue.body(SimpleNamespace(task=message.id)) for message in held] == [{"n": 0}, {"n": 1}]
    broker.ack(held)
    with pytest.raises(MessageNotFound):
        queue.body(SimpleNamespace(task=held[0].id))
    for wrong in (SimpleNamespace(), SimpleNamespace(task="../../etc/passwd"), SimpleNamespace(task="3abcdefgh.0")):
        with pytest.raises(UsageError):
            queue.body(wrong)


def test_ids_are_safe_in_file_names(tmp_path: Any) -> None:
    broker = Broker(tmp_path / "queues", create=True)
    broker.publish_many("tasks", range(200))
    assert all(re.fullmatch(r"[0-9a-z][0-9a-z.-]{20,60}", m.id, re.ASCII) for m in broker.consume("tasks", 200))
