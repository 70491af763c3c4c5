"""What fits into a worker beside what it works on already."""

from __future__ import annotations

from threading import Timer

import pytest

from ddmq_hpc import usage
from ddmq_hpc.errors import UsageError
from ddmq_hpc.messages import Message, Options
from ddmq_hpc.room import Room
from ddmq_hpc.schedulers import memory
from ddmq_hpc.units import human_memory, memory_bytes

GIB = 1 << 30


def message(slots: int = 1, memory: str | None = None) -> Message:
    return Message("id", "body", "tasks", Options.checked(slots=slots, memory=memory))


def test_a_message_takes_a_slot_and_no_memory_unless_it_says_more() -> None:
    plain = Message("id", "body", "tasks")
    assert (plain.slots, plain.memory) == (1, None)
    room = Room(2, memory=1)
    assert room.take(plain) and room.take(plain) and not room.take(plain)
    room.give_back(plain)
    assert room.take(plain)


def test_slots_and_memory_both_have_to_do() -> None:
    room = Room(4, 8 * GIB)
    assert room.take(message(3, "2G"))
    assert not room.take(message(2))
    assert not room.take(message(1, "7G"))
    assert room.take(message(1, "6G"))
    room.give_back(message(3, "2G"))
    assert room.take(message(3, "2G"))


def test_what_is_more_than_all_there_is_can_never_be_held() -> None:
    room = Room(4, 8 * GIB)
    assert room.could_hold(message(4, "8G"))
    assert not room.could_hold(message(5))
    assert not room.could_hold(message(1, "9G"))
    assert Room(4).could_hold(message(1, "9000G"))


def test_who_waits_for_room_goes_on_when_enough_came_free() -> None:
    room = Room(4)
    small, large = message(1), message(4)
    for _ in range(4):
        room.take(small)
    assert not room.wait_for_any(0.01)
    timers = [Timer(0.1 * n, room.give_back, (small,)) for n in range(1, 5)]
    for timer in timers:
        timer.start()
    assert room.wait_for_any(30)
    assert room.wait_for(large, 30)
    assert room.take(large)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 * GIB), ("4GB", 4 * GIB), ("4GiB", 4 * GIB), ("0.5g", GIB // 2), ("500M", 500 << 20), ("7K", 7168),
        ("2T", 2048 * GIB), ("123", 123), (123, 123), (" 1 G ", GIB),
    ],
)  # fmt: skip
def test_amounts_of_memory_as_schedulers_write_them(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1e9", "0", "nan", "4 000M", "9999999999T", "²G"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        memory_bytes(text)


def test_amounts_are_shown_in_the_unit_that_suits() -> None:
    assert [human_memory(size) for size in (512, 4 * GIB, 3 * GIB // 2, 500 << 20)] == ["512", "4G", "1.5G", "500M"]


@pytest.mark.parametrize(
    ("variables", "size"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4 * GIB),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "4"}, 4 * GIB),
        ({}, None),
    ],
)
def test_a_job_of_slurm_knows_its_memory(variables: dict[str, str], size: int | None) -> None:
    assert memory({"SLURM_JOB_ID": "7", **variables}) == size


def test_the_tightest_control_group_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/sys/fs/cgroup/slurm/job_1/step_0/memory.max": "max\n",
        "/sys/fs/cgroup/slurm/job_1/memory.max": "1048576\n",
        "/sys/fs/cgroup/slurm/memory.max": "99999999999999999\n",
    }

    def opened(path: str, *_: object, **__: object) -> object:
        from io import StringIO

        if path not in files:
            raise FileNotFoundError(path)
        return StringIO(files[path])

    monkeypatch.setattr(
        usage, "_groups", lambda: [("/sys/fs/cgroup/slurm/job_1/step_0", "memory.events", "memory.max")]
    )
    monkeypatch.setattr("builtins.open", opened)
    assert usage.memory_limit() == 1 << 20
    files["/sys/fs/cgroup/slurm/job_1/memory.max"] = "max\n"
    assert usage.memory_limit() is None
