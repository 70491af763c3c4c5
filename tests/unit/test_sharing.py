"""What is made in a queue that a group shares, by one user, under each umask; calls are counted."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddmq_hpc import calls
from ddmq_hpc.broker import Broker
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.roots import closed_to
from ddmq_hpc.sharing import sharing


@pytest.fixture
def with_umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def everything(root: Path) -> None:
    """A bit of all that clients make."""
    with Broker(root) as broker:
        broker.publish("q", "a", priority=1, group="g")
        broker.publish("q", "b", delay=3600)
        broker.publish("q", "c", key="k")
        broker.publish_many("q", ["d"] * 3)
        first, second, third = broker.consume("q", n=3)
        broker.nack([first])
        broker.ack([second])
        broker.extend(third)
        broker.release([third])
        broker.clean("q")


def modes(top: Path) -> dict[str, int]:
    return {str(path.relative_to(top)): path.stat().st_mode & 0o7777 for path in (top, *top.rglob("*"))}


@pytest.mark.parametrize("with_umask", [0, 0o002, 0o007, 0o022, 0o077, 0o177], indirect=True, ids=oct)
@pytest.mark.parametrize("mode", ["2770", "2775", "2750", "0755"])
def test_all_that_is_made_is_the_groups(
    tmp_path: Path, with_umask: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "umask")  # that of the process is not ours to touch: others have threads in it
    root = tmp_path / "root"
    Broker(root, create=True, sharing=sharing(mode=mode)).create_queue("q")
    everything(root)
    whole = int(mode, 8)
    for name, found in modes(root).items():
        wanted = whole if (root / name).is_dir() else whole & (0o640 if "." in name[:9] or "ddmq" in name else 0o660)
        assert found & wanted & 0o2770 == wanted & 0o2770, f"{name} {found:o}"
        assert not found & ~whole & 0o007, f"{name} {found:o}"


@pytest.mark.parametrize(
    ("with_umask", "most"), [(0o007, 0), (0o002, 0), (0o022, 1), (0o077, 1)], indirect=["with_umask"]
)
def test_a_mode_is_changed_where_the_umask_took_from_it_alone(
    tmp_path: Path, with_umask: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broker(tmp_path / "root", create=True, sharing=sharing(mode="2770")).create_queue("q")
    with Broker(tmp_path / "root") as broker:
        broker.publish("q", "a")  # makes buckets
        changed: list[int] = []
        monkeypatch.setattr(os, "fchmod", lambda handle, mode: changed.append(mode))
        broker.publish("q", "b")
        assert len(changed) == most
        broker.publish_many("q", ["c"] * 100)
        assert len(changed) == 2 * most


@pytest.mark.parametrize("with_umask", [0o077], indirect=True)
def test_nothing_is_looked_at_in_a_private_queue(
    tmp_path: Path, with_umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broker(tmp_path / "root", create=True).create_queue("q")
    monkeypatch.setattr(calls, "_grant", lambda handle, mode: pytest.fail("a look for nothing"))
    with Broker(tmp_path / "root") as broker:
        broker.publish("q", "a")


class Beaten(Filesystem):
    """Another client makes the directory first, with something in it, in the very moment before this one does."""

    def _beaten(self, source: str, target: str) -> None:
        if "/made-" in source and not os.path.exists(target):
            os.mkdir(target)
            open(f"{target}/theirs", "w").close()
        os.rename(source, target)

    rename = _beaten  # type: ignore[assignment]


def test_one_that_makes_a_directory_second_is_content(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    tmp_path.chmod(0o2770)
    fs = Beaten(str(tmp_path)).below(str(tmp_path), f"{tmp_path}/tmp")
    fs.make_directory(f"{tmp_path}/new")
    assert os.listdir(tmp_path / "new") == ["theirs"] and not os.listdir(tmp_path / "tmp")
    fs.make_directory(f"{tmp_path}/new")
    with pytest.raises(FileNotFoundError):
        fs.make_directory(f"{tmp_path}/missing/new")
    assert not os.listdir(tmp_path / "tmp")


class Silent(Filesystem):
    """Replies to what is renamed are lost."""

    def _lost(self, source: str, target: str) -> None:
        os.rename(source, target)
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), source)

    rename = _lost  # type: ignore[assignment]


def test_a_directory_whose_reply_was_lost_is_there(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    tmp_path.chmod(0o2770)
    fs = Silent(str(tmp_path)).below(str(tmp_path), f"{tmp_path}/tmp")
    fs.make_directory(f"{tmp_path}/new")
    assert sorted(os.listdir(tmp_path)) == ["new", "tmp"]


def test_what_keeps_a_group_out(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | 0o055)
    home, root = tmp_path / "home", tmp_path / "home" / "root"
    home.mkdir(mode=0o755)
    Broker(root, create=True)
    group = os.getgid()
    assert closed_to(str(root), group) is None
    home.chmod(0o701)
    assert closed_to(str(root), group) == str(home)  # the group's bits count for its members, not those of others
    assert closed_to(str(root), group + 1) is None
    home.chmod(0o710)
    assert closed_to(str(root), group) is None
    assert closed_to(str(root), group + 1) == str(home)
    home.chmod(0o755)
    (root / "ddmq.yaml").chmod(0o600)
    assert closed_to(str(root), group) == f"{root}/ddmq.yaml"
