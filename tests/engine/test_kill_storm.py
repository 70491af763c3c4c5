"""Processes killed at random moments while others go on: nothing is lost, nothing is blocked, nothing unreadable."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from ddmq_hpc import journal
from ddmq_hpc.broker import Broker

PROCESSES, ROUNDS = 32, 50
#: Of each kind; half of the publishers publish in bulk, half of the takers take eight at a time.
PUBLISHERS, TAKERS = 12, 20


def _publish(root: str, log: str, name: str, bulk: bool) -> None:
    """Publish until killed; a body is written down only once its publish returned."""
    broker, number = Broker(root), 0
    with open(log, "a", buffering=1, encoding="utf-8") as file:
        while True:
            bodies = [f"{name}.{number + i}" for i in range(20 if bulk else 1)]
            number += len(bodies)
            if bulk:
                broker.publish_many("q", bodies)
            else:
                broker.publish("q", bodies[0])
            file.write("".join(f"{body}\n" for body in bodies))
            time.sleep(0.005)


def _take(root: str, log: str, count: int) -> None:
    """Take and ack until killed. `take` is written before an ack, `done` after it."""
    broker = Broker(root)
    with open(log, "a", buffering=1, encoding="utf-8") as file:
        while True:
            messages = broker.consume("q", count, wait=0.2)
            file.write("".join(f"take {message.message} {message.id}\n" for message in messages))
            for message in messages:
                broker.ack(message)
                file.write(f"done {message.message}\n")


def _lines(directory: Path, prefix: str) -> list[list[str]]:
    return [path.read_text().split("\n")[:-1] for path in sorted(directory.glob(f"{prefix}*"))]


@pytest.mark.slow
def test_fifty_rounds_of_sigkill(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    Broker(root, create=True).create_queue("q", durable=False, timeout=600, requeue_limit=1000)
    context = multiprocessing.get_context("fork")
    chance = random.Random(7)
    started = 0

    def start(publisher: bool) -> multiprocessing.process.BaseProcess:
        nonlocal started
        started += 1
        if publisher:
            args = (root, str(tmp_path / f"published-{started}"), f"p{started}", started % 2 == 0)
            process = context.Process(target=_publish, args=args)
        else:
            process = context.Process(
                target=_take, args=(root, str(tmp_path / f"taken-{started}"), (1, 8)[started % 2])
            )
        process.start()
        return process

    running = [(start(kind), kind) for kind in [True] * PUBLISHERS + [False] * TAKERS]
    assert len(running) == PROCESSES
    try:
        for _ in range(ROUNDS):
            time.sleep(chance.uniform(0.05, 0.25))
            for at in chance.sample(range(PROCESSES), 4):
                process, kind = running[at]
                assert process.is_alive(), f"a {'publisher' if kind else 'taker'} ended with an error"
                os.kill(process.pid or 0, signal.SIGKILL)
                process.join()
                running[at] = (start(kind), kind)
    finally:
        for process, _ in running:
            process.kill()
            process.join()

    broker = Broker(root)
    rest: list[str] = []
    deadline = time.monotonic() + 120
    while messages := broker.consume("q", 100):
        rest += [message.message for message in messages]
        broker.ack(messages)
        assert time.monotonic() < deadline
    after = broker.stats("q")
    assert (after.ready, after.leased, after.delayed, after.dead, after.damaged, after.foreign) == (0, 0, 0, 0, 0, [])

    published = {body for lines in _lines(tmp_path, "published-") for body in lines}
    takers = [line.split(" ") for lines in _lines(tmp_path, "taken-") for line in lines]
    done = Counter(words[1] for words in takers if words[0] == "done")
    taken = Counter(words[1] for words in takers if words[0] == "take")
    # A taker may have been killed after its ack and before it wrote so: the journal says which.
    acked = _acked(broker)
    settled = set(done) | set(rest) | {words[1] for words in takers if words[0] == "take" and words[2] in acked}
    assert published - settled == set(), "lost"
    assert len(published) > 1000
    twice = {body for body, count in (done + Counter(rest)).items() if count > 1}
    held_by_the_killed = {body for body, count in taken.items() if count > done[body]}
    assert twice <= held_by_the_killed, "doubled without a killed holder"


def _acked(broker: Broker) -> set[str]:
    """The ids of all messages that the journal says were acked."""
    found: set[str] = set()
    queue = broker.queue("q")
    for record in journal.read(queue.fs, queue.paths):
        pack, _, numbers = record["id"].rpartition(".")
        first, _, stop = numbers.partition("-")
        if record["state"] == "acked":
            found.update(f"{pack}.{index}" for index in range(int(first), int(stop or int(first) + 1)))
    return found
