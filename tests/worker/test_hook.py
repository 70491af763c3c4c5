"""The command that is run once when everything in a queue is done."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from worker_tools import Bench, of_journal, wait_for

from ddmq_hpc import hook
from ddmq_hpc.broker import Broker


def settings(bench: Bench, text: str = "", command: str = "") -> None:
    command = command or f"echo $DDMQ_HPC_QUEUE $(ls {bench.place}/done | wc -l) >>{bench.place}/hooked"
    bench.settings(f"on_complete: {command!r}\n{text}")
    (bench.place / "done").mkdir(exist_ok=True)


def task(bench: Bench, text: str = "true") -> list[str]:
    return ["--", "sh", "-c", f"{text} && touch {bench.place}/done/{{}}"]


def publish(bench: Bench, count: int, first: int = 0) -> None:
    bench.broker.publish_many("tasks", [str(number) for number in range(first, first + count)])


def test_it_is_run_once_when_all_is_done(bench: Bench) -> None:
    settings(bench)
    publish(bench, 60)
    workers = [bench.start("-j", "2", "--until", "drained", *task(bench)) for _ in range(4)]
    said = [worker.communicate(timeout=60)[1] for worker in workers]
    assert bench.file("hooked") == "tasks 60\n"
    assert sum("running its on_complete" in text for text in said) == 1
    (record,) = of_journal(bench.records(), "completed")
    assert record["exit"] == 0
    assert "nothing done" in bench.work(*task(bench)) and bench.file("hooked") == "tasks 60\n"


def test_it_is_run_again_for_what_is_published_later(bench: Bench) -> None:
    settings(bench)
    worker = bench.start("--until", "forever", *task(bench))
    for count in (3, 6):
        publish(bench, 3, count)
        wait_for(lambda: bench.file("hooked").endswith(f"tasks {count}\n"), "the hook")  # noqa: B023
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)
    assert bench.file("hooked") == "tasks 3\ntasks 6\n"


def test_it_waits_for_what_is_delayed_or_with_others(bench: Bench) -> None:
    settings(bench)
    publish(bench, 2)
    (held,) = bench.broker.consume("tasks")
    bench.work(*task(bench))
    assert bench.file("hooked") == ""
    bench.broker.nack(held, delay=3600)
    bench.work(*task(bench))
    assert bench.file("hooked") == "", "what failed is to be tried again"
    bench.broker.cancel("tasks", held.id)
    bench.work(*task(bench))
    assert bench.file("hooked") == "tasks 1\n"


def test_dead_letters_do_not_hold_it_up(bench: Bench) -> None:
    settings(bench, "requeue_limit: 0\n")
    publish(bench, 3)
    bench.work(*task(bench, "false"))
    assert bench.file("hooked") == "tasks 0\n" and bench.counts() == {"dead": 3}


def test_how_it_ended_is_told(bench: Bench) -> None:
    settings(bench, command="echo no mail program; exit 7")
    publish(bench, 1)
    assert "on_complete of tasks ended with exit code 7: no mail program" in bench.work(*task(bench))
    (record,) = of_journal(bench.records(), "completed")
    assert (record["exit"], record["output"]) == (7, "no mail program\n")


def test_nobody_elses_is_run(bench: Bench) -> None:
    """Whoever can write the settings could have anything run."""
    settings(bench)
    publish(bench, 1)
    (Path(bench.root) / "tasks").chmod(0o755)
    (Path(bench.root) / "tasks" / "ddmq.yaml").chmod(0o666)
    worker = bench.start(*task(bench))
    _, said = worker.communicate(timeout=30)
    assert worker.returncode != 0 and "ddmq.yaml" in said
    assert bench.file("hooked") == ""


def test_of_many_that_find_all_done_one_has_to_run_it(bench: Bench) -> None:
    queue = bench.broker.queue("tasks")
    assert not hook.fire(queue)
    for _ in range(3):
        hook.arm(queue)
        hook.arm(Broker(bench.root).queue("tasks"))
        assert [hook.fire(queue) for _ in range(3)] == [True, False, False]
    assert [name for name in os.listdir(queue.paths.locks) if name.startswith("complete")] == []


def test_without_it_nothing_is_noted(bench: Bench) -> None:
    publish(bench, 1)
    bench.broker.consume("tasks")
    assert os.listdir(bench.broker.queue("tasks").paths.locks) == []
