"""Take each message of one bulk publish alone, hold all of them, then ack them: `python hold.py ROOT COUNT`."""

from __future__ import annotations

import sys

from ddmq_hpc.broker import Broker

root, count = sys.argv[1], int(sys.argv[2])
with Broker(root, create=True) as broker:
    broker.create_queue("q")
    broker.publish_many("q", range(count))
    held = [message for _ in range(count) for message in broker.consume("q")]
    assert [message.message for message in held] == list(range(count))
    broker.ack(held)
    assert broker.consume("q") == []
