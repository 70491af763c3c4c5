"""Compacts a journal again and again: `python compacting.py ROOT`, until there is a file ROOT/stop. Prints how many
files it compacted. The clock of all is ahead by the days in ROOT/days."""

from __future__ import annotations

import os
import sys

from waking import Ahead

from ddmq_hpc.broker import Broker


def main() -> None:
    root = sys.argv[1]
    files = 0
    while not os.path.exists(f"{root}/stop"):
        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        try:
            with open(f"{root}/days") as file:
                days = int(file.read())
        except OSError:
            continue  # another one was put in its place
        broker = Broker(root, filesystem=Ahead)
        assert isinstance(broker.fs, Ahead)
        broker.fs.days = days
        files += broker.compact("q").files
    print(files)


if __name__ == "__main__":
    main()
