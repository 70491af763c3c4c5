"""Publish to a queue, or take from it and ack, until HOME/stop is there, whatever the file system refuses meanwhile:
`stubborn.py HOME ROOT QUEUE publish NAME` or `stubborn.py HOME ROOT QUEUE take COUNT`.

Prints a line of JSON for each thing that happened: {"published": [bodies]} once publish returned, or of what was
published before it was refused; "unknown" when it may have been nevertheless; "taken"; "done", with ids, once ack
returned; and "refused", with the error's text, errno and exit code. What was refused is tried again: a message that
could not be published with another body, so that it shows should it be there after all; an ack until it succeeds.
Nothing but a `StorageError` may be raised.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import count
from typing import Any

from ddmq_hpc import Broker, StorageError
from ddmq_hpc.messages import Message

#: Seconds between publishes, and before something is tried again.
_PACE, _AGAIN = 0.1, 0.2
#: More than one pack.
_IN_BULK = 150


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def refused(doing: str, error: StorageError) -> None:
    tell(refused=doing, text=str(error), errno=error.errno, code=error.exit_code)
    time.sleep(_AGAIN)


def publish(broker: Broker, stop: str, queue: str, name: str) -> None:
    """One by one and in bulk, flushed and not, in turn."""
    for number in count():
        if os.path.exists(stop):
            return
        durable = number % 4 < 2
        bodies = [f"{name}.{number}.{index}" for index in range(_IN_BULK if number % 40 == 19 else 1)]
        try:
            if len(bodies) > 1:
                broker.publish_many(queue, bodies, durable=durable)
            else:
                broker.publish(queue, bodies[0], durable=durable)
            tell(published=bodies)
        except StorageError as error:
            if error.published:
                tell(published=bodies[: error.published])
            if error.may_be_done:
                tell(unknown=bodies)
            refused("publish", error)
        time.sleep(_PACE)


def take(broker: Broker, stop: str, queue: str, number: int) -> None:
    """Until told to stop and nothing is left."""
    while True:
        stopping = os.path.exists(stop)
        try:
            messages = broker.consume(queue, number, wait=0.2)
        except StorageError as error:
            refused("take", error)
            continue
        if messages:
            tell(taken=[message.message for message in messages])
            for part in filter(None, (messages[::2], messages[1::2])):
                ack(broker, part)
        elif stopping:
            return


def ack(broker: Broker, messages: list[Message]) -> None:
    while True:
        try:
            broker.ack(messages)
            break
        except StorageError as error:
            refused("ack", error)
    tell(done=[message.message for message in messages], ids=[message.id for message in messages])


if __name__ == "__main__":
    home, root, queue, role, word = sys.argv[1:]
    with Broker(root) as opened:
        if role == "publish":
            publish(opened, f"{home}/stop", queue, word)
        else:
            take(opened, f"{home}/stop", queue, int(word))
