"""publish.py ROOT FIRST COUNT one-by-one|in-bulk: publish the numbers from FIRST on to the queue q."""

from __future__ import annotations

import sys

from ddmq_hpc import Broker

root, first, count, way = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
numbers = range(first, first + count)
with Broker(root) as broker:
    if way == "in-bulk":
        broker.publish_many("q", numbers)
    else:
        for number in numbers:
            broker.publish("q", number)
