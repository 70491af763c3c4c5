"""Locks for users: killed at each call, and each call's reply lost. Nobody else may be in meanwhile, and nothing stays
locked."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from engine_tools import Watched, die, in_child

from ddmq_hpc import Lock, LockBusy, Semaphore, StorageError

FAULTS: dict[str, dict[str, tuple[bool, int]]] = {
    "repeated": {
        "rename": (True, errno.ENOENT),
        "link": (True, errno.EEXIST),
        "unlink": (True, errno.ENOENT),
        "mkdir": (True, errno.EEXIST),
    },
    "soft mount, executed": dict.fromkeys(("rename", "link", "unlink"), (True, errno.EIO)),
    "soft mount, not executed": dict.fromkeys(("rename", "link", "unlink", "mkdir", "create"), (False, errno.EIO)),
    "stale handle": dict.fromkeys(("rename", "link", "unlink", "mkdir"), (False, errno.ESTALE)),
}


def _watched(root: str) -> Watched:
    return Watched(root, True)


def _around(lock: Semaphore, around: Callable[..., Any] | None) -> None:
    fs = lock._place.fs
    assert isinstance(fs, Watched)
    fs.around = around


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("slots", [1, 2])
def test_killed_at_each_call(place: Path, slots: int, moment: str) -> None:
    for at in range(1, 80):
        path = str(place / f"it{at}")
        with Semaphore(path, slots):
            pass  # there is an older generation

        def act(path: str = path, at: int = at) -> None:
            lock = Semaphore(path, slots, filesystem=_watched)
            count = 0

            def around(name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
                nonlocal count
                count += 1
                if count != at:
                    return call()
                if moment == "after":
                    call()
                return die()

            _around(lock, around)
            with lock:
                pass

        finished = in_child(act)
        held = [Semaphore(path, slots, wait=5) for _ in range(slots)]
        tokens = [one.acquire() for one in held]
        assert tokens[0] > 1
        with pytest.raises(LockBusy):
            Semaphore(path, slots, wait=0).acquire()
        for one in held:
            one.release()
        if finished:
            assert at > 8
            return
    raise AssertionError("calls without end")


@pytest.mark.parametrize("fault", FAULTS)
def test_lost_replies(place: Path, fault: str) -> None:
    kinds = FAULTS[fault]
    for at in range(1, 40):
        path = str(place / f"it{at}")
        lock = Lock(path, lease=1, filesystem=_watched)
        count, hit = 0, ""

        def around(name: str, call: Callable[[], Any], args: tuple[Any, ...], at: int = at) -> Any:
            nonlocal count, hit
            if name not in kinds or hit:
                return call()
            count += 1
            if count != at:
                return call()
            hit = name
            executed, code = kinds[name]
            if executed:
                call()
            raise OSError(code, os.strerror(code), args[0])

        _around(lock, around)
        failed = False
        try:
            lock.acquire()
            with pytest.raises(LockBusy):
                Lock(path, wait=0).acquire()
            lock.release()
        except StorageError:
            failed = True
        assert not failed or fault == "soft mount, not executed" or hit == "create", hit
        # What could not be let go of is over after its lease and grace.
        with Lock(path, wait=10 if failed else 0) as other:
            assert failed or other.token == 2, f"{fault} {hit}"
        if not hit:
            assert at > 3
            return
    raise AssertionError("faults without end")
