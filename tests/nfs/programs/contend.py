"""Take a lock again and again for some seconds: `contend.py KIND PATH LOG SECONDS PROCESSES BEGIN`.

BEGIN is when all begin, in seconds since 1970: guests have the clock of their host, and some start late.

Each turn appends a line when it begins and one when it ends. Nothing is read inside the lock: what an NFS client reads
there may be old. Prints a JSON line for each process: turns, the longest wait, and what went wrong.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Callable


@contextmanager
def ours(path: str) -> Iterator[int]:
    from ddmq_hpc import Lock

    with Lock(path, wait=60) as lock:
        yield lock.token


@contextmanager
def filelock(path: str) -> Iterator[int]:
    from filelock import StrictSoftFileLock

    with StrictSoftFileLock(f"{path}.soft", timeout=60):
        yield 0


@contextmanager
def flufl(path: str) -> Iterator[int]:
    from datetime import timedelta

    from flufl.lock import Lock

    lock = Lock(f"{path}.flufl", lifetime=timedelta(seconds=120))
    lock.lock(timeout=timedelta(seconds=60))
    try:
        yield 0
    finally:
        lock.unlock()


KINDS: dict[str, Callable[[str], object]] = {"ours": ours, "filelock": filelock, "flufl": flufl}
MODULES = {"ours": "ddmq_hpc.semaphores", "filelock": "filelock", "flufl": "flufl.lock"}


def append(log: str, line: str) -> None:
    """Opened each time: where the file ends is asked then (NFS knows no appending)."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.write(handle, line.encode())
    os.close(handle)


def contend(kind: str, path: str, log: str, seconds: float, begin: float, number: int) -> None:
    take = KINDS[kind]
    me = f"{os.uname().nodename}-{number}"
    turns, longest, errors = 0, 0.0, []
    import_module(MODULES[kind])  # not in the time that is measured
    time.sleep(max(0.0, begin - time.time()))
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        try:
            with take(path) as token:  # type: ignore[attr-defined]
                longest = max(longest, time.monotonic() - began)
                append(log, f"begin {token} {me}\n")
                append(log, f"end {token} {me}\n")
                turns += 1
        except Exception as error:
            errors.append(repr(error)[:200])
            if len(errors) > 20:
                break
    os.write(
        1, (json.dumps({"who": me, "turns": turns, "longest": round(longest, 3), "errors": errors}) + "\n").encode()
    )


def main() -> None:
    kind, path, log, seconds, processes, begin = sys.argv[1:]
    fork = multiprocessing.get_context("fork")
    running = [
        fork.Process(target=contend, args=(kind, path, log, float(seconds), float(begin), number))
        for number in range(int(processes))
    ]
    for process in running:
        process.start()
    for process in running:
        process.join()


main()
