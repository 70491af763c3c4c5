"""Messages dropped and brought in, by one user on both sides; calls are counted and falsified."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ddmq_hpc import dropping
from ddmq_hpc.broker import Broker
from ddmq_hpc.dropping import DropBox, Fetcher, fetcher
from ddmq_hpc.errors import StorageError, UsageError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.messages import NO_OPTIONS, Options
from ddmq_hpc.names import Dropped, QueuePaths, parse_dropped
from ddmq_hpc.publishing import Start
from ddmq_hpc.settings import DEFAULTS
from ddmq_hpc.sharing import drop_mode, granted, sharing


@pytest.fixture(autouse=True)
def one_user_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what the owner of a queue dropped himself would be set aside."""
    real = dropping.fetcher
    monkeypatch.setattr(dropping, "fetcher", lambda fs, paths: Fetcher(fs, paths, ()) if real(fs, paths) else None)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    broker = Broker(tmp_path / "root", create=True, sharing=sharing(mode="0711"))
    broker.create_queue("q")
    return broker


def box(broker: Broker, fs: Filesystem | None = None) -> DropBox:
    """The queue as a stranger has it."""
    return DropBox(fs or Filesystem(broker.root), QueuePaths(broker.root, "q"), lambda: DEFAULTS)


def drop(broker: Broker) -> Path:
    return Path(broker.root) / "q" / "drop"


@pytest.mark.parametrize("dropped", [Dropped(0, None, "1" * 19 + "-0abcdefgh"), Dropped(5, 7, "1" * 19 + "-6abcdefgh")])
def test_names_say_when_and_how_urgent(dropped: Dropped) -> None:
    assert parse_dropped(dropped.name) == dropped


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0.-.x",
        "000000000000000.01." + "1" * 19 + "-0abcdefgh",
        "000000000000000." + "9" * 19 + "." + "1" * 19 + "-0abcdefgh",
        "1" * 19 + "-0abcdefgh",
    ],
)
def test_other_names_are_foreign(name: str) -> None:
    assert parse_dropped(name) is None


def test_who_may_not_list_a_directory_gets_nothing_in_it() -> None:
    assert granted(0o711) == 0o700 and granted(0o2710) == 0o2700
    assert granted(0o755) == 0o755 and granted(0o2750) == 0o2750
    assert drop_mode(0o711) == 0o1733 and drop_mode(0o2710) == 0o3730 and drop_mode(0o2770) is None


def test_options_travel(broker: Broker) -> None:
    box(broker).publish({"a": 1}, Options(priority=3, timeout=60.0, headers={"b": "c"}))
    (message,) = broker.consume("q")
    assert (message.message, message.priority, message.timeout, message.headers) == ({"a": 1}, 3, 60.0, {"b": "c"})


def test_what_was_dropped_has_no_id_until_it_is_brought_in(broker: Broker) -> None:
    dropped = box(broker).publish("a", NO_OPTIONS)
    assert dropped.id == "" and dropped.to_dict()["published"] == 0
    assert broker.consume("q")[0].id


class Swapping(Filesystem):
    """One in which, when a dropped file is looked at, an enemy has just put another one under the name it had."""

    dropped: Path
    enemy_has_swapped = False

    def lstat(self, path: str) -> os.stat_result:
        if not self.enemy_has_swapped and path.startswith(f"{self.dropped.parent}/"):
            self.enemy_has_swapped = True
            self.dropped.write_bytes(b'{"message":"swapped"}\n')
        return super().lstat(path)


def test_what_is_looked_at_is_what_is_moved(broker: Broker) -> None:
    box(broker).publish("dropped", NO_OPTIONS)
    fs = Swapping(broker.root)
    fs.dropped = drop(broker) / os.listdir(drop(broker))[0]
    assert Fetcher(fs, QueuePaths(broker.root, "q"), ()).fetch(DEFAULTS) == 1
    (path,) = Path(broker.root, "q/ready").glob("*/*/*")
    assert fs.enemy_has_swapped and b"dropped" in path.read_bytes()


def test_directories_that_cannot_be_moved_keep_nobody_waiting(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """In front of a message there are more of them than are looked at in one go."""

    class Stuck(Filesystem):
        def rename(self, source: str, target: str) -> None:  # type: ignore[override]
            if os.path.isdir(source) and os.path.dirname(source) != os.path.dirname(target):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)
            os.rename(source, target)

    monkeypatch.setattr(dropping, "_MOST", 2)
    for number in range(3):
        (drop(broker) / Dropped(0, None, f"{number:019d}-0abcdefgh").name / "full").mkdir(parents=True)
    box(broker).publish("dropped", NO_OPTIONS)
    it = Fetcher(Stuck(broker.root), QueuePaths(broker.root, "q"), ())
    assert [it.fetch(DEFAULTS), it.fetch(DEFAULTS), it.fetch(DEFAULTS)] == [0, 1, 0]
    waiting, strange = it.waiting()
    assert waiting == 0 and len(strange) == 3


def test_what_is_to_wait_waits(broker: Broker) -> None:
    box(broker).publish("late", NO_OPTIONS, Start(3600.0))
    assert not broker.consume("q")
    assert broker.stats("q").delayed == 1 and broker.stats("q").dropped == 0


def test_many_in_their_order(broker: Broker) -> None:
    count = box(broker).publish_stream(((n, {"priority": 1} if n == 7 else {}) for n in range(10)), NO_OPTIONS)
    assert count == 10 == broker.stats("q").dropped
    assert [message.message for message in broker.consume("q", n=10)] == [7, *range(7), 8, 9]


def test_where_a_stream_failed_is_told(broker: Broker) -> None:
    with pytest.raises(UsageError) as caught:
        box(broker).publish_stream([("a", {}), ("b", {"priority": -1})], NO_OPTIONS)
    assert caught.value.published == 1


class Network(Filesystem):
    """A file system whose answers to renames in drop/ get lost."""

    def __init__(self, root: str) -> None:
        super().__init__(root, network=True)
        self.code, self.done = errno.ENOENT, True

    def _lossy(self, source: str, target: str) -> None:
        if self.done:
            os.rename(source, target)
        raise OSError(self.code, os.strerror(self.code), source)

    rename = _lossy  # type: ignore[assignment]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO, errno.ESTALE])
def test_a_rename_whose_reply_was_lost_was_done(broker: Broker, code: int) -> None:
    fs = Network(broker.root)
    fs.code = code
    box(broker, fs).publish("a", NO_OPTIONS)
    assert broker.consume("q")[0].message == "a"


def test_what_nobody_knows_is_said_to_be_unknown(broker: Broker) -> None:
    fs = Network(broker.root)
    fs.code, fs.done = errno.EIO, False
    with pytest.raises(StorageError) as caught:
        box(broker, fs).publish("a", NO_OPTIONS)
    assert caught.value.may_be_done


class Full(Filesystem):
    def _full(self, source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    rename = _full  # type: ignore[assignment]


def test_nothing_is_left_of_what_was_refused(broker: Broker) -> None:
    with pytest.raises(StorageError):
        box(broker, Full(broker.root)).publish("a", NO_OPTIONS)
    assert not list(drop(broker).iterdir())


class Unflushed(Filesystem):
    def sync_file(self, handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("keeps", [True, False])
def test_what_cannot_be_flushed_is_withdrawn(broker: Broker, keeps: bool) -> None:
    fs = Unflushed(broker.root)
    fs.sync_keeps_name = keeps
    with pytest.raises(StorageError) as caught:
        box(broker, fs).publish("a", NO_OPTIONS, durable=True)
    assert not caught.value.may_be_done and not list(drop(broker).iterdir())


class Lossy(Filesystem):
    """Replies to the rename that brings in are lost."""

    def _lossy(self, source: str, target: str) -> None:
        os.rename(source, target)
        if "/drop/" in source:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    rename = _lossy  # type: ignore[assignment]


def test_what_was_brought_in_without_a_reply_is_there_once(broker: Broker) -> None:
    box(broker).publish_stream([("a", {}), ("b", {})], NO_OPTIONS)
    fs = Lossy(broker.root, network=True)
    with Broker(broker.root, filesystem=lambda root: fs) as other:
        assert [message.message for message in other.consume("q", n=5)] == ["a", "b"]
        assert not other.consume("q") and not list(drop(broker).iterdir())


def test_a_queue_without_a_box_costs_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Broker(tmp_path / "root", create=True).create_queue("q")
    seen: list[str] = []
    for name in ("listdir", "lstat", "touch", "subdirectories"):
        real = getattr(Filesystem, name)

        def call(self: Filesystem, path: str, *args: Any, real: Any = real) -> Any:
            seen.append(path)
            return real(self, path, *args)

        monkeypatch.setattr(Filesystem, name, call)
    with Broker(tmp_path / "root") as broker:
        broker.publish("q", "a")
        broker.ack(broker.consume("q"))
        assert not broker.consume("q")
        broker.clean("q")
        broker.stats("q")
        assert broker.queue("q").is_drained()
    assert seen and not [path for path in seen if "/q/drop" in path]


def test_a_queue_with_a_box_is_looked_at_once_a_second(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.publish_many("q", range(100))
    seen: list[str] = []
    real = Filesystem.listdir
    monkeypatch.setattr(Filesystem, "listdir", lambda fs, path: (seen.append(path), real(fs, path))[1])
    for _ in range(100):
        broker.ack(broker.consume("q"))
    assert sum("/q/drop" in path for path in seen) < 10


def test_who_may_not_move_what_is_there_does_not_try(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert fetcher(Filesystem(broker.root), QueuePaths(broker.root, "q")) is None


class Forgetful(Filesystem):
    """Keeps no sticky bits."""

    def share_held(self, handle: int, gid: int | None, mode: int) -> os.stat_result:
        return super().share_held(handle, gid, mode & ~0o1000)


def test_no_box_is_made_where_others_could_remove_what_is_in_it(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True, sharing=sharing(mode="0711"), filesystem=Forgetful)
    with pytest.raises(UsageError) as caught:
        broker.create_queue("q")
    assert "drop/ gets mode 0733 where 1733 was set" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "root" / "q").exists()


def test_a_box_that_is_a_link_is_refused(broker: Broker, tmp_path: Path) -> None:
    drop(broker).rename(tmp_path / "elsewhere")
    drop(broker).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        Broker(broker.root).queue("q")
