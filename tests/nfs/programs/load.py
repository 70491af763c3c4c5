"""Load on a queue, measured: `python load.py WHAT ROOT [COUNT] [--bulk] [--processes N] [--batch N] [--at TIME]`.

Runs on one client and prints one JSON object: how many messages, how long it took, what each process did, how many
races for an entry were lost, and the requests that the mount of ROOT sent to its server, by name.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from typing import Any

from ddmq_hpc.broker import Broker
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.idle import Watch

BODY = "x" * 170
QUEUE = "q"


class Counting(Filesystem):
    """Counts the entries that somebody else took first."""

    lost = 0

    def race(self, source: str, target: str) -> bool:
        done = super().race(source, target)
        self.lost += not done
        return done


def requests(path: str) -> dict[str, int]:
    """How often each request was sent since the file system that holds `path` was mounted; nothing but for NFS."""
    path = os.path.realpath(path)
    found: dict[str, int] = {}
    best, inside = "", False
    with open("/proc/self/mountstats", encoding="ascii", errors="replace") as file:
        for line in file:
            words = line.split()
            if line.startswith("device "):
                point = words[4]
                inside = (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best)
                if inside:
                    best, found = point, {}
            elif (
                inside and len(words) > 8 and words[0].endswith(":") and words[0][:-1].isupper() and words[1].isdigit()
            ):
                found[words[0][:-1]] = int(words[1])
    return found


def publish(root: str, given: argparse.Namespace) -> dict[str, Any]:
    broker = Broker(root, create=True)
    broker.create_queue(QUEUE, durable=given.durable)
    broker.publish(QUEUE, BODY)  # what is done once a client and once a queue is not counted
    before, started = requests(root), time.monotonic()
    if given.bulk:
        broker.publish_many(QUEUE, (BODY for _ in range(given.count - 1)))
    else:
        for _ in range(given.count - 1):
            broker.publish(QUEUE, BODY)
    return {"messages": given.count, "seconds": time.monotonic() - started, "requests": _since(before, root)}


def drain(root: str, given: argparse.Namespace) -> dict[str, Any]:
    """Take and ack until nothing is left, from the moment `--at` on; `ends` are the last acks, in seconds after it."""
    with multiprocessing.get_context("fork").Pool(given.processes) as pool:
        before = requests(root)
        results = pool.starmap(_drain, [(root, given.batch, given.at or time.time())] * given.processes, chunksize=1)
        sent = _since(before, root)
    shares = [result["messages"] for result in results]
    return {
        "messages": sum(shares),
        "seconds": max(result["end"] for result in results),
        "shares": shares,
        "ends": [round(result["end"], 3) for result in results],
        "lost": sum(result["lost"] for result in results),
        "cpu": sum(result["cpu"] for result in results),
        "requests": sent,
    }


def _drain(root: str, batch: int, at: float) -> dict[str, Any]:
    broker = Broker(root, filesystem=Counting)
    broker.queue(QUEUE)
    time.sleep(max(0.0, at - time.time()))
    count, end = 0, time.time()
    while messages := broker.consume(QUEUE, batch):
        broker.ack(messages)
        count += len(messages)
        end = time.time()
    used = os.times()
    return {"messages": count, "end": end - at, "lost": broker.fs.lost, "cpu": used.user + used.system}


def pull(root: str, given: argparse.Namespace) -> dict[str, Any]:
    """The first message of a process that has not looked before."""
    before, started = requests(root), time.monotonic()
    (message,) = Broker(root).consume(QUEUE)
    took, sent = time.monotonic() - started, _since(before, root)
    return {"messages": len([message]), "seconds": took, "requests": sent}


def poll(root: str, given: argparse.Namespace) -> dict[str, Any]:
    """`COUNT` polls of an idle worker."""
    broker = Broker(root)
    assert broker.consume(QUEUE) == []
    watch = Watch(broker.queue(QUEUE))
    watch.remember()
    time.sleep(0.2)  # what changed a moment ago may change again unseen: that look is not an idle worker's
    watch.remember()
    before, started, looks = requests(root), time.monotonic(), 0
    for _ in range(given.count):
        looks += watch.calls_for_a_look()
    return {"messages": 0, "looks": looks, "seconds": time.monotonic() - started, "requests": _since(before, root)}


def status(root: str, given: argparse.Namespace) -> dict[str, Any]:
    """`ddmq-hpc status`, the command."""
    before, started = requests(root), time.monotonic()
    command = [sys.executable, "-m", "ddmq_hpc", "status", "--format", "json", root]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    took = time.monotonic() - started
    return {"messages": 0, "seconds": took, "requests": _since(before, root), "status": json.loads(shown)}


def _since(before: dict[str, int], path: str) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in requests(path).items() if count > before.get(name, 0)}


def main() -> None:
    parser = argparse.ArgumentParser()
    whats = {"publish": publish, "drain": drain, "pull": pull, "poll": poll, "status": status}
    parser.add_argument("what", choices=whats)
    parser.add_argument("root")
    parser.add_argument("count", type=int, nargs="?", default=0)
    parser.add_argument("--bulk", action="store_true")
    parser.add_argument("--durable", action="store_true")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--at", type=float, help="when to start, in seconds since 1970, so that clients start together")
    given = parser.parse_args()
    print(json.dumps(whats[given.what](given.root, given)))


if __name__ == "__main__":
    main()
