"""Tasks that need more than one slot, or memory: they run together only where there is room for all of them."""

from __future__ import annotations

from worker_tools import Bench, of_journal, wait_for

#: Prints +SIZE when it begins and -SIZE when it ends, half a second later.
_SPAN = "echo +{} >> log; sleep 0.5; echo -{} >> log"


def _most_at_once(lines: list[str]) -> int:
    used = most = 0
    for line in lines:
        used += int(line)
        most = max(most, used)
    assert used == 0
    return most


def _script(bench: Bench) -> list[str]:
    return ["--", "sh", "-c", f"cd {bench.place}; {_SPAN}"]


def test_tasks_never_take_more_slots_than_there_are(bench: Bench) -> None:
    for size in (3, 2, 1, 4, 1, 1, 2, 3):
        bench.broker.publish("tasks", size, slots=size)
    bench.work("-j", "4", *_script(bench))
    lines = bench.file("log").split()
    assert len(lines) == 16
    assert _most_at_once(lines) <= 4
    assert len(of_journal(bench.records(), "acked")) == 8


def test_tasks_never_take_more_memory_than_there_is(bench: Bench) -> None:
    for size in (3, 2, 1, 4, 1, 1, 2, 3):
        bench.broker.publish("tasks", size, memory=f"{size}G")
    bench.work("-j", "8", "--memory", "4G", *_script(bench))
    lines = bench.file("log").split()
    assert len(lines) == 16
    assert 3 <= _most_at_once(lines) <= 4


def test_a_large_task_does_not_wait_for_ever_behind_small_ones(bench: Bench) -> None:
    for _ in range(4):
        bench.broker.publish("tasks", 1)
    bench.broker.publish("tasks", 4, slots=4)
    for _ in range(12):
        bench.broker.publish("tasks", 1)
    bench.work("-j", "4", "--prefetch", "0", *_script(bench))
    lines = bench.file("log").split()
    assert lines.index("+4") < len(lines) - 2 * 8  # before the last eight of those behind it at least


def test_what_no_slots_are_left_for_is_there_for_a_worker_with_room(bench: Bench) -> None:
    bench.broker.publish("tasks", "long", slots=3)
    holder = bench.start(
        "-j", "4", "--", "sh", "-c", f"cd {bench.place}; touch {{}}; while [ ! -e end ]; do sleep 0.1; done"
    )
    wait_for(lambda: (bench.place / "long").exists(), "the first task")
    bench.broker.publish("tasks", "large", slots=2)
    wait_for(lambda: of_journal(bench.records(), "released"), "the second one being turned down")
    said = bench.work("-j", "2", "--idle-exit", "30s", "--max-tasks", "1", "--", "touch", f"{bench.place}/{{}}")
    assert "1 done" in said
    assert (bench.place / "large").exists()
    (bench.place / "end").touch()
    assert holder.wait(timeout=30) == 0


def test_a_task_too_large_for_a_worker_is_left_to_others_and_told_of(bench: Bench) -> None:
    bench.broker.publish("tasks", "large", slots=3, memory="2G")
    bench.broker.publish("tasks", "small")
    said = bench.work("-j", "2", "--memory", "1G", "--", "touch", f"{bench.place}/{{}}")
    assert "needs 3 slots and 2G, this worker has 2 slots and 1G: what needs more is left to others" in said
    assert "1 done" in said and "1 message is delayed" in said
    assert (bench.place / "small").exists() and not (bench.place / "large").exists()
    assert bench.counts() == {"delayed": 1}


def test_a_worker_does_not_rush_through_a_queue_of_which_nothing_fits(bench: Bench) -> None:
    """Each message costs the file server some ten requests, and comes back."""
    bench.broker.publish_many("tasks", range(300), slots=3)
    worker = bench.start("-j", "2", "--until", "forever", "--", "true")
    wait_for(lambda: len(of_journal(bench.records(), "released")) >= 8, "some to be turned down")
    seen = len(of_journal(bench.records(), "released"))
    worker.terminate()
    assert worker.wait(30) == 0
    assert seen < 40


def test_the_settings_of_a_queue_say_what_its_tasks_need(bench: Bench) -> None:
    bench.settings("slots: 2\n")
    for _ in range(4):
        bench.broker.publish("tasks", 2)
    bench.work("-j", "4", *_script(bench))
    assert _most_at_once(bench.file("log").split()) <= 4
