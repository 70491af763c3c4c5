"""Old journals become small, and are forgotten in time. Guarantee: no record is lost or told twice, whoever dies at
whichever call, whoever else reads or compacts meanwhile, and whenever a client wakes up that still has a file open."""

from __future__ import annotations

import errno
import gzip
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import QUEUE, Watched, ahead_by, die, in_child

from ddmq_hpc import archive, attempts, journal
from ddmq_hpc.archive import Compacted, compact
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import StorageBusy
from ddmq_hpc.locks import locked
from ddmq_hpc.names import journal_day
from ddmq_hpc.queue import Queue

DAY = 86400.0


@pytest.fixture
def broker(place: Path) -> Iterator[Broker]:
    with Broker(place / "root", create=True) as it:
        it.create_queue(QUEUE, durable=False, grace=0)
        yield it


def do(broker: Broker, count: int) -> list[str]:
    """Publish and ack so many messages; their ids."""
    idents = [broker.publish(QUEUE, "m").id for _ in range(count)]
    for message in broker.consume(QUEUE, n=count):
        broker.ack(message)
    return idents


def leave(broker: Broker, host: str, *lines: str) -> None:
    """A file as a client of another host leaves it."""
    Path(broker.queue(QUEUE).paths.journal, f"{host}.boot.1.jsonl").write_text("".join(f"{line}\n" for line in lines))


def line(broker: Broker, ident: str, **more: Any) -> str:
    return broker.queue(QUEUE).journal.record("acked", ident, 1, 20.0, 10.0, {"worker": "w" * 50, **more}) + "}"


def others(broker: Broker, count: int, name: str = "host") -> Counter[str]:
    """Records of several hosts. One has written after all of them, nothing that counts: its file stays as it is."""
    queue = broker.queue(QUEUE)
    told: Counter[str] = Counter()
    for number in range(count):
        ident = f"{queue.publisher.new_pack()}.0"
        leave(broker, f"{name}{number}", line(broker, ident))
        told[ident] += 1
    last = Path(queue.paths.journal, "last.boot.1.jsonl")
    last.write_text("")
    os.utime(last, (0, os.stat(last).st_mtime + 60))
    return told


def told(queue: Queue) -> Counter[str]:
    return Counter(record["id"] for record in journal.read(queue.fs, queue.paths) if record["state"] == "acked")


def compressed(queue: Queue) -> list[str]:
    return [name for name in sorted(os.listdir(queue.paths.journal)) if name.startswith("packed-")]


def tomorrow(broker: Broker) -> Queue:
    return Broker(broker.root, filesystem=ahead_by(1.5 * DAY)).queue(QUEUE)


def test_nothing_is_lost(broker: Broker) -> None:
    idents = others(broker, 40)
    queue = tomorrow(broker)
    done = compact(queue.fs, queue.paths, queue.settings)
    (name,) = compressed(queue)
    assert (done.files, done.after) == (40, os.path.getsize(f"{queue.paths.journal}/{name}"))
    assert done.after * 2 < done.before
    assert told(queue) == idents
    assert {attempt.id for attempt in attempts.attempts(queue)} == set(idents)
    assert compact(queue.fs, queue.paths, queue.settings) == Compacted()


def test_what_was_written_lately_is_left_alone(broker: Broker) -> None:
    do(broker, 3)
    queue = broker.queue(QUEUE)
    assert compact(queue.fs, queue.paths, queue.settings).files == 0
    assert sum(told(queue).values()) == 3


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_each_call(broker: Broker, moment: str) -> None:
    idents = others(broker, 3)
    for at in range(1, 200):

        def child() -> None:
            count = 0

            def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
                nonlocal count
                count += 1
                if count == at and moment == "after":  # noqa: B023
                    try:
                        call()
                    finally:
                        die()
                return die() if count == at else call()  # noqa: B023

            queue = tomorrow(broker)
            assert isinstance(queue.fs, Watched)
            queue.fs.around = around
            compact(queue.fs, queue.paths, queue.settings)

        finished = in_child(child)
        assert told(broker.queue(QUEUE)) == idents, f"killed {moment} call {at}"
        if finished:
            assert at > 10
            break
        if at % 5 == 0:  # from now and then what the dead left is finished, and there is more to do
            queue = tomorrow(broker)
            compact(queue.fs, queue.paths, queue.settings)
            assert told(broker.queue(QUEUE)) == idents
            idents += others(broker, 1, f"more{at}-")
    queue = tomorrow(broker)
    compact(queue.fs, queue.paths, queue.settings)
    assert told(queue) == idents
    assert {*compressed(queue), "last.boot.1.jsonl"} == set(os.listdir(queue.paths.journal))


class Sleeper:
    """A client that slept for three days after it acked one of three messages, on a network file system or not.
    `watch` is told of its calls from then on, before they are made."""

    ahead = 0.0  # of all clients' clocks, from when on it is awake

    def __init__(self, broker: Broker, network: bool) -> None:
        others(broker, 1)
        self.broker = Broker(broker.root, filesystem=lambda root: Watched(root, network))
        self.queue = self.broker.queue(QUEUE)
        self.fs = self.broker.fs
        self.idents = [self.broker.publish(QUEUE, "m").id for _ in range(3)]
        self.messages = self.broker.consume(QUEUE, n=3, lease="20d")
        self.broker.ack(self.messages.pop(0))
        last = Path(self.queue.paths.journal, "last.boot.1.jsonl")
        os.utime(last, (0, os.stat(last).st_mtime + DAY))

    def sleep(self, days: float) -> None:
        self.ahead += days * DAY
        assert isinstance(self.fs, Watched)
        self.fs.ahead = self.ahead
        self.fs.now = lambda directory: time.time() + self.ahead  # type: ignore[method-assign]
        self.fs.monotonic = lambda: time.monotonic() + self.ahead  # type: ignore[method-assign]

    def wake(self, watch: Callable[[str], None] = lambda name: None) -> None:
        assert isinstance(self.fs, Watched)
        self.fs.around = lambda name, call, args: (watch(name), call())[1]
        for message in self.messages:
            self.broker.ack(message)
        self.broker.close()
        self.fs.around = None

    def compact(self, fs: Watched) -> int:
        """As another client does at the same time; how many files were compacted."""
        fs.ahead = self.ahead
        return compact(fs, self.queue.paths, self.queue.settings).files

    def told(self) -> list[int]:
        """How often each of its acks is told."""
        counts = told(self.queue)
        return [counts[ident] for ident in self.idents]


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_writer_that_wakes_up_goes_on_in_a_new_file(broker: Broker, network: bool, stopped: bool) -> None:
    """Whatever call it has come to when its file is taken away, also when it is stopped for days at that call."""
    taken_at = []
    for at in range(1, 100):
        calls, sleeper = 0, Sleeper(broker, network)
        sleeper.sleep(0 if stopped else 3)

        def take_away(name: str) -> None:
            nonlocal calls
            calls += 1
            if calls == at:  # noqa: B023
                sleeper.sleep(3 if stopped else 0)  # noqa: B023
                taken_at.extend([name] * sleeper.compact(Watched(broker.root, False)))  # noqa: B023

        sleeper.wake(take_away)
        first, *later = sleeper.told()
        assert first == 1 and set(later) <= {1, 2 if stopped else 1}, f"taken away before call {at}, {taken_at[-1:]}"
        if calls < at:
            break
    assert "append" in taken_at


def test_a_writer_wakes_up_while_its_file_is_taken_away(broker: Broker) -> None:
    """Whatever call who takes it away has come to."""
    for at in range(1, 100):
        calls, sleeper = 0, Sleeper(broker, False)
        sleeper.sleep(3)

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:  # noqa: B023
                sleeper.wake()  # noqa: B023
            return call()

        packer = Watched(broker.root, False)
        packer.around = around
        assert sleeper.compact(packer) >= 1
        if calls < at:
            break
        assert sleeper.told() == [1, 1, 1], f"woken up before call {at}"


def test_a_suspended_host_has_a_steady_clock_that_stands_still(broker: Broker) -> None:
    sleeper = Sleeper(broker, False)
    sleeper.sleep(3)
    sleeper.fs.monotonic = time.monotonic  # type: ignore[method-assign]
    assert sleeper.compact(Watched(broker.root, False)) >= 1
    sleeper.wake()
    assert sleeper.told() == [1, 1, 1]


def test_what_nobody_flushed_is_not_forgotten_at_the_end_of_a_day(broker: Broker) -> None:
    sleeper = Sleeper(broker, True)
    assert isinstance(sleeper.fs, Watched)
    written: list[bytes] = []

    def full(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        """The server refuses what comes to it: until a flush says so a write seems to be done."""
        if name == "append":
            written.append(args[1])
            return None
        if name == "sync_handle":
            raise OSError(errno.ENOSPC, "full")
        return call()

    sleeper.fs.around = full
    sleeper.broker.ack(sleeper.messages.pop(0))
    assert written
    sleeper.sleep(3)
    with pytest.raises(StorageBusy):
        sleeper.broker.ack(sleeper.messages[0])
    sleeper.wake()
    assert set(sleeper.told()) == {1}


@pytest.mark.parametrize("days", [0, 1, 2, 3])
def test_the_file_of_a_day_is_taken_when_the_day_is_over_for_a_day(broker: Broker, days: int) -> None:
    """However long ago it was written: its clients may write to it."""
    today = int(broker.fs.time() // DAY)
    others(broker, 0)
    leave(broker, "host", line(broker, "one"))
    os.rename(
        f"{broker.root}/{QUEUE}/journal/host.boot.1.jsonl",
        f"{broker.root}/{QUEUE}/journal/host.0a.1.{today - days}.jsonl",
    )
    age_by(broker, 5)
    queue = broker.queue(QUEUE)
    assert compact(queue.fs, queue.paths, queue.settings).files == (days >= 2)


def test_a_writer_is_busy_all_the_time(broker: Broker) -> None:
    """It opens its file once a day."""
    do(broker, 20)
    (name,) = os.listdir(broker.queue(QUEUE).paths.journal)
    assert journal_day(name) == int(broker.fs.time() // DAY)


def test_many_lines_about_one_attempt_take_no_longer_than_about_many() -> None:
    """Somebody else may have written them: the time must not grow with their square, nor the memory with their size."""

    def took(lines: list[bytes]) -> float:
        began = time.process_time()
        assert list(archive._once(lines)) == lines
        return time.process_time() - began

    record = '{"id": "1.%d", "attempt": 1, "taken": 1, "state": "nacked", "error": "%06d"}'
    same, other = ([(record % (number * by, number)).encode() for number in range(30_000)] for by in (0, 1))
    assert took(same) < 3 * took(other)


def test_lines_wait_for_what_takes_them_back_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_WINDOW_BYTES", 1000)
    seen: list[int] = []

    def lines() -> Iterator[bytes]:
        for number in range(50):
            seen.append(number)
            yield b'{"id": "1.%d", "attempt": 1, "taken": 1, "state": "acked", "x": "%s"}' % (number, b"x" * 100)

    next(archive._once(lines()))
    assert len(seen) < 10


def test_one_at_a_time(broker: Broker) -> None:
    others(broker, 5)
    one, other = broker.queue(QUEUE), Broker(broker.root).queue(QUEUE)
    with locked(one.fs, one.paths, "compact") as taken:
        assert taken
        assert compact(other.fs, other.paths, other.settings, silent=-1) == Compacted()
    assert compact(other.fs, other.paths, other.settings, silent=-1).files == 5


def test_clients_do_it_by_themselves_now_and_then(broker: Broker) -> None:
    others(broker, 5)
    one, other = tomorrow(broker), tomorrow(broker)
    done = [archive.maybe(queue.fs, queue.paths, queue.settings) for queue in (one, other, one)]
    assert [found and found.files for found in done] == [5, None, None]


def test_what_is_too_old_or_too_much_goes(broker: Broker) -> None:
    kept = []
    for age in (9, 6, 3):
        kept.append(others(broker, 2))
        age_by(broker, age)
        queue = broker.queue(QUEUE)
        compact(queue.fs, queue.paths, queue.settings)
    assert told(queue) == kept[0] + kept[1] + kept[2]
    settings = type(queue.settings)(journal_keep=7 * DAY)
    assert compact(queue.fs, queue.paths, settings).forgotten == 1
    assert told(queue) == kept[1] + kept[2]
    sizes = [os.path.getsize(f"{queue.paths.journal}/{name}") for name in compressed(queue)]
    settings = type(queue.settings)(journal_size=sizes[1])
    assert compact(queue.fs, queue.paths, settings).forgotten_bytes == sizes[0]
    assert told(queue) == kept[2]


def age_by(broker: Broker, days: float, pattern: str = "host*") -> None:
    for path in Path(broker.queue(QUEUE).paths.journal).glob(pattern):
        os.utime(path, ns=(0, int((broker.fs.time() - days * DAY) * 1e9)))


def test_what_is_too_old_goes_without_being_compressed(broker: Broker) -> None:
    others(broker, 2)
    age_by(broker, 9)
    queue = broker.queue(QUEUE)
    done = compact(queue.fs, queue.paths, type(queue.settings)(journal_keep=7 * DAY))
    assert (done.files, done.forgotten, compressed(queue), told(queue)) == (0, 2, [], Counter())


def test_little_is_kept_for_too_long(broker: Broker) -> None:
    """Files of very different age do not become one that is kept for the sake of the newest."""
    for age in range(2, 62, 2):
        others(broker, 1, f"host{age}-")
        age_by(broker, age, f"host{age}-*")
    queue = broker.queue(QUEUE)
    settings = type(queue.settings)(journal_keep=80 * DAY)
    assert compact(queue.fs, queue.paths, settings).files == 30
    assert len(compressed(queue)) == 5  # of ten days each


def test_small_compressed_files_become_one(broker: Broker) -> None:
    idents: Counter[str] = Counter()
    for day in range(60):
        idents += others(broker, 1, f"host{day}-")
        age_by(broker, 90 - day, f"host{day}-*")
        queue = broker.queue(QUEUE)
        compact(queue.fs, queue.paths, queue.settings)
        assert len(compressed(queue)) <= 8
    assert told(queue) == idents


def test_a_damaged_one_stops_nobody(broker: Broker) -> None:
    """What can be read of it is told; it stays beside what the others become."""
    queue, idents = broker.queue(QUEUE), Counter[str]()
    for day in range(20):
        idents += others(broker, 1, f"host{day}-")
        age_by(broker, 90 - day, f"host{day}-*")
        compact(queue.fs, queue.paths, queue.settings)
        if day == 2:
            path = Path(queue.paths.journal, compressed(queue)[0])
            path.write_bytes(path.read_bytes()[:-8])  # its check sum: what is before is whole
    assert len(compressed(queue)) <= 8 and path.exists()
    assert told(queue) == idents


def test_the_file_that_was_written_last_tells_how_long_tasks_take(broker: Broker) -> None:
    idents = others(broker, 3)
    Path(broker.queue(QUEUE).paths.journal, "last.boot.1.jsonl").unlink()
    age_by(broker, 0.1, "host1.*")
    queue = tomorrow(broker)
    assert compact(queue.fs, queue.paths, queue.settings).files == 2
    assert [record["id"] for record in journal.recent(queue.fs, queue.paths)] == [*idents][2:]


def test_what_is_repeated_or_taken_back_is_left_out(broker: Broker) -> None:
    write = broker.queue(QUEUE).journal.record
    pack = broker.queue(QUEUE).publisher.new_pack()
    (one, two, three), some = (f"{pack}.{number}" for number in range(3)), f"{pack}.4-8"
    late = [write("late", ident, 1, 21.0, 10.0, {}) + "}" for ident in (two, f"{pack}.5", three)]
    lines = [line(broker, ident) for ident in (one, two, some, three)]
    # Three was told again, at another time, before it was taken back.
    again = write("acked", three, 1, 22.0, 10.0, {}) + "}"
    others(broker, 0)
    leave(broker, "host", *lines[:2], lines[0], late[0], lines[1], late[0], *lines[2:], late[1], again, late[2], "torn")
    age_by(broker, 2)
    queue = broker.queue(QUEUE)
    before = [found.id for found in attempts.attempts(queue)]
    assert before == [one, f"{pack}.4", f"{pack}.6-8"]
    assert compact(queue.fs, queue.paths, queue.settings).files == 1
    assert [found.id for found in attempts.attempts(queue)] == before
    (name,) = compressed(queue)
    kept = gzip.decompress(Path(queue.paths.journal, name).read_bytes()).decode().splitlines()
    assert kept[2:] == [lines[0], lines[2], late[1], "torn"]


@pytest.mark.parametrize("moment", ["pack", "commit", "remove"])
def test_one_that_hung_meets_one_that_did_its_work(broker: Broker, moment: str) -> None:
    """It goes on when another one took its lock, did the same, and more."""
    idents = others(broker, 4)
    slow, quick = tomorrow(broker), Broker(broker.root, filesystem=ahead_by(4 * DAY)).queue(QUEUE)
    fs = slow.fs
    assert isinstance(fs, Watched)
    went = []

    def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        nonlocal idents
        is_source = name == "open_read" and "retired" in args[0]
        is_commit = name == "rename" and "/packed-" in args[1]
        is_removal = name == "unlink" and "/retired" in args[0]
        if {"pack": is_source, "commit": is_commit, "remove": is_removal}[moment] and not went:
            went.append(name)
            idents += others(broker, 2, "later")
            assert compact(quick.fs, quick.paths, quick.settings).files >= 2
            assert told(quick) == idents
        return call()

    fs.around = around
    compact(slow.fs, slow.paths, slow.settings)
    assert went
    assert told(quick) == idents
    others(broker, 9, "more")
    for _ in range(2):
        compact(quick.fs, quick.paths, quick.settings)
    assert told(quick)[next(iter(idents))] == 1


@pytest.mark.parametrize("before", [0, 3])
def test_a_reader_misses_nothing_that_is_compressed_meanwhile(broker: Broker, before: int) -> None:
    """Whatever call it has come to; with compressed files there, which become one, or without."""
    for at in range(1, 200):
        idents: Counter[str] = Counter()
        for number in range(before and 7):
            idents += others(broker, 1, f"early{at}-{number}-")
            compact(tomorrow(broker).fs, broker.queue(QUEUE).paths, broker.queue(QUEUE).settings)
        idents += others(broker, 3, f"host{at}-")
        calls = 0
        reader = Broker(broker.root, filesystem=lambda root: Watched(root, False)).queue(QUEUE)

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:  # noqa: B023
                other = tomorrow(broker)
                assert compact(other.fs, other.paths, other.settings).files == 3
            return call()

        assert isinstance(reader.fs, Watched)
        reader.fs.around = around
        found = told(reader)
        assert {ident: found[ident] for ident in idents} == idents, f"compressed before call {at}"
        if calls < at:
            return
        for path in Path(reader.paths.journal).iterdir():
            path.unlink()
    raise AssertionError("the reader never came to its end")


def test_what_is_no_file_stops_nobody(broker: Broker, place: Path) -> None:
    idents = others(broker, 2)
    top = Path(broker.queue(QUEUE).paths.journal)
    (place / "secret").write_text(line(broker, "secret") + "\n")
    (top / "link.jsonl").symlink_to(place / "secret")
    (top / "directory.jsonl").mkdir()
    os.mkfifo(top / "pipe.jsonl")
    (top / "packed-000000000000001-000000000000001-aaaaaaaa.jsonl.gz").mkdir()
    queue = tomorrow(broker)
    assert compact(queue.fs, queue.paths, queue.settings).files == 2
    assert told(queue) == idents


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        gzip.compress(b"no json\n"),
        gzip.compress(json.dumps({"contains": 7}).encode() + b"\n"),
        gzip.compress(json.dumps({"contains": [7, None, "../x", "host0.boot.1.jsonl"]}).encode() + b"\n")[:-9],
        gzip.compress(b"x" * (64 << 20)),
    ],
)
def test_what_others_put_there_is_passed_over(broker: Broker, data: bytes) -> None:
    idents = others(broker, 2)
    queue = broker.queue(QUEUE)
    Path(queue.paths.journal, "packed-000000000000001-000000000000001-aaaaaaaa.jsonl.gz").write_bytes(data)
    hidden = told(queue)
    assert set(hidden) <= set(idents) and len(hidden) >= 1
    assert max(hidden.values()) == 1
