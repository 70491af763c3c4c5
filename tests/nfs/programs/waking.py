"""A client that sleeps for days between one ack and the next: `python waking.py ROOT COUNT`.

The clock of all is ahead by the days in ROOT/days. Prints the ids of what it acked.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

from ddmq_hpc.broker import Broker
from ddmq_hpc.fs import Filesystem


class Ahead(Filesystem):
    days = 0

    def time(self) -> float:
        return time.time() + self.days * 86400

    def now(self, probe_directory: str) -> float:
        return self.time()

    def monotonic(self) -> float:
        return time.monotonic() + self.days * 86400


def main() -> None:
    root, count = sys.argv[1], int(sys.argv[2])
    with Broker(root, filesystem=Ahead) as broker:
        assert isinstance(broker.fs, Ahead)
        broker.publish_many("q", range(count))
        acked = []
        for message in broker.consume("q", n=count, lease="9w"):
            if random.random() < 0.2:
                broker.queue("q").journal.flush()  # as it does itself, a second after it wrote
                broker.fs.days += 2
                with open(f"{root}/days.new", "w") as file:
                    file.write(str(broker.fs.days))
                os.rename(f"{root}/days.new", f"{root}/days")
            time.sleep(random.uniform(0, 0.05))
            broker.ack(message)
            acked.append(message.id)
    print(json.dumps(acked))


if __name__ == "__main__":
    main()
