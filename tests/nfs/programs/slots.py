"""Take a slot of three again and again for some seconds: `slots.py PATH SECONDS PROCESSES`.

Prints a JSON line for each process: [token, begin, end] of each hold, by the server's clock, which stamps a file that
is touched: the clocks of guests are a tenth of a second apart.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time

from ddmq_hpc import Semaphore


def stamp(path: str) -> float:
    os.utime(path)
    return os.stat(path).st_mtime


def take_turns(path: str, seconds: float, number: int) -> None:
    mine = f"{path}.{os.uname().nodename}-{number}"
    os.close(os.open(mine, os.O_WRONLY | os.O_CREAT))
    until = time.monotonic() + seconds
    holds = []
    while time.monotonic() < until:
        with Semaphore(path, 3, wait=60) as held:
            begin = stamp(mine)
            time.sleep(0.03)
            holds.append((held.token, begin, stamp(mine)))
    os.write(1, (json.dumps(holds) + "\n").encode())


def main() -> None:
    path, seconds, processes = sys.argv[1:]
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=take_turns, args=(path, float(seconds), number)) for number in range(int(processes))]
    for process in running:
        process.start()
    for process in running:
        process.join()


main()
