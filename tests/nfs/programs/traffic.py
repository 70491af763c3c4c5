"""Publish to queues, or take from one and ack, until HOME/stop is there: `traffic.py HOME ROOT publish NAME QUEUE ...`
or `traffic.py HOME ROOT take COUNT LEASE QUEUE`.

Prints a line for each message, with its queue and its body: "published" once publish returned, "taken", and then "done"
once ack returned or "lost" when that said so. Nothing else may be raised.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from itertools import count

from ddmq_hpc import Broker, LeaseLost, Message

#: Seconds between publishes.
_PACE = 0.03
_IN_BULK = 20


def tell(what: str, queue: str, bodies: list[str]) -> None:
    sys.stdout.write("".join(f"{what} {queue} {body}\n" for body in bodies))
    sys.stdout.flush()


def publish(broker: Broker, stop: str, name: str, queues: list[str]) -> None:
    """One by one and in bulk, flushed and not, in turn."""
    for number in count():
        if os.path.exists(stop):
            return
        queue, durable = queues[number % len(queues)], number % 4 < 2
        if number % 10 > 7:
            bodies = [f"{name}.{number}.{index}" for index in range(_IN_BULK)]
            broker.publish_many(queue, bodies, durable=durable)
        else:
            bodies = [f"{name}.{number}"]
            broker.publish(queue, bodies[0], durable=durable)
        tell("published", queue, bodies)
        time.sleep(_PACE)


def take(broker: Broker, stop: str, number: int, lease: float, queue: str) -> None:
    """Until told to stop and nothing is left. Of several messages every second one is acked first."""
    while True:
        stopping = os.path.exists(stop)
        messages = broker.consume(queue, number, wait=0.2, lease=lease)
        if stopping and not messages:
            return
        tell("taken", queue, [message.message for message in messages])
        for part in (messages[::2], messages[1::2]):
            ack(broker, queue, part)


def ack(broker: Broker, queue: str, messages: list[Message]) -> None:
    """One message can be among them twice: its lease ran out while the others were being taken."""
    left = Counter[str]()
    try:
        broker.ack(messages)
    except LeaseLost as error:
        left.update(error.receipts)
    ends: dict[str, list[str]] = {"lost": [], "done": []}
    for message in messages:
        name = next((name for name in (message.receipt, message.id) if name and left[name]), None)
        left.subtract([name] if name else [])
        ends["lost" if name else "done"].append(message.message)
    assert not +left
    for what, bodies in ends.items():
        tell(what, queue, bodies)


if __name__ == "__main__":
    home, root, role, *words = sys.argv[1:]
    with Broker(root) as opened:
        if role == "publish":
            publish(opened, f"{home}/stop", words[0], words[1:])
        else:
            take(opened, f"{home}/stop", int(words[0]), float(words[1]), words[2])
