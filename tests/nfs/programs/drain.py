"""drain.py ROOT BATCH START: from START (seconds since 1970) on take and ack until the queue q says that it is empty.

Prints one JSON object: `taken`, pairs of [when the call began, messages it took], and `empty`, when the last one ended.
"""

from __future__ import annotations

import json
import sys
import time

from ddmq_hpc import Broker

root, batch, start = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
taken = []
with Broker(root) as broker:
    broker.queue("q")
    time.sleep(max(0.0, start - time.time()))
    while True:
        begun = time.time()
        messages = broker.consume("q", n=batch)
        if not messages:
            break
        taken.append([begun, [message.message for message in messages]])
        broker.ack(messages)
    print(json.dumps({"taken": taken, "empty": time.time()}))
