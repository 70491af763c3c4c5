"""Files of users: whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ddmq_hpc import StorageBusy, StorageError, UsageError
from ddmq_hpc.replacing import replaced


def put(path: Path, text: str, mode: int | None = None) -> None:
    with replaced(str(path), mode) as file:
        file.write(text)


def test_a_file_replaces_the_one_before_whole(tmp_path: Path) -> None:
    page = tmp_path / "page"
    for text in ("one", "two"):
        put(page, text)
        assert page.read_text() == text
    link = tmp_path / "link"
    link.symlink_to(page)
    put(link, "three")
    assert link.is_symlink() and page.read_text() == "three"
    assert sorted(os.listdir(tmp_path)) == ["link", "page"]


def test_while_it_is_written_the_one_before_is_there(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("one")
    with replaced(str(page)) as file:
        file.write("two")
        file.flush()
        assert page.read_text() == "one"
    assert page.read_text() == "two"


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "")])
def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    page = tmp_path / "page"
    page.write_text("one")
    with pytest.raises((type(error), StorageBusy)), replaced(str(page)) as file:
        file.write("two")
        raise error
    assert page.read_text() == "one" and os.listdir(tmp_path) == ["page"]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as found:
        put(tmp_path / "no" / "page", "text")
    assert found.value.path == str(tmp_path / "no" / "page") and found.value.exit_code == 1


def test_permissions_stay_unless_they_are_given(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text("one")
    page.chmod(0o640)
    put(page, "two")
    assert page.stat().st_mode & 0o777 == 0o640
    put(page, "three", 0o600)
    assert page.stat().st_mode & 0o777 == 0o600


def test_halves_of_characters_do_not_stop_it(tmp_path: Path) -> None:
    put(tmp_path / "page", "\ud800")
    assert (tmp_path / "page").read_text() == "\\ud800"


def test_only_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", tmp_path, Path(os.devnull)):
        with pytest.raises(UsageError, match="-o -"):
            put(target, "text")
    assert not os.path.isfile(os.devnull)
