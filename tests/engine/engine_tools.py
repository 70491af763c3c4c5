"""What the engine's tests share: a file system whose raw calls can be watched and falsified, children that really die,
and a look at everything that a queue holds."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import replace
from typing import Any, Callable

from ddmq_hpc import admin, journal
from ddmq_hpc.broker import Broker
from ddmq_hpc.fs import Calls, Filesystem
from ddmq_hpc.names import parse_delayed, parse_entry, parse_lease

QUEUE = "q"
CLOCKS = ("time", "monotonic", "sleep")
#: Every raw call but the clocks.
RAW = tuple(name for name in vars(Calls) if not name.startswith("_") and name not in CLOCKS)


class Watched(Filesystem):
    """Each raw call goes through `around(name, call, args)`, which may do it, not do it, or lie about it."""

    around: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any] | None = None
    ahead = 0.0  # how far its clock is ahead of the host's

    def time(self) -> float:
        return time.time() + self.ahead


def _watch(name: str) -> Callable[..., Any]:
    def call(self: Watched, *args: Any) -> Any:
        raw = getattr(super(Watched, self), name)
        if self.around is None:
            return raw(*args)
        return self.around(name, lambda: raw(*args), args)

    return call


for _name in RAW:
    setattr(Watched, _name, _watch(_name))


def ahead_by(seconds: float, network: bool = False) -> Callable[[str], Filesystem]:
    """File systems whose clock is `seconds` ahead."""

    def make(root: str) -> Filesystem:
        fs = Watched(root, network)
        fs.ahead = seconds
        return fs

    return make


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(act: Callable[[], object]) -> int:
    """The process id of a child that does `act` and exits with 0, or with 1 when it raised."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of pytest's own watchdogs
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        act()
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def in_child(act: Callable[[], object]) -> bool:
    """Do `act` in a child of its own; whether it came to its end. False when it was killed; a failure is raised."""
    _, status = os.waitpid(forked(act), 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the child failed; see its traceback"
    return True


def body(message: Any) -> Any:
    return message.message


def drain(broker: Broker, queue: str = QUEUE) -> list[Any]:
    """Take and ack until nothing is left: the bodies in order."""
    found = []
    while batch := broker.consume(queue, n=7):
        found += [message.message for message in batch]
        broker.ack(batch)
    return found


def keep_done(broker: Broker, seconds: float = 3600.0, queue: str = QUEUE) -> None:
    """From now on this client keeps finished messages for so long."""
    target = broker.queue(queue)
    settings = replace(target.settings, keep_done=seconds)
    target._settings = lambda: settings


def letters(broker: Broker, queue: str = QUEUE) -> list[Any]:
    """Bodies of the dead letters."""
    return [item.message.message for item in admin.items(broker.queue(queue), ("dead",))]


def records(broker: Broker, queue: str = QUEUE) -> list[dict[str, Any]]:
    target = broker.queue(queue)
    return list(journal.read(target.fs, target.paths))


def outcomes(broker: Broker, ids: dict[str, Any], state: str) -> Counter[Any]:
    """How often the journal has `state` of each message; `ids` are {id: body}."""
    found: Counter[Any] = Counter()
    for record in records(broker):
        for ident, text in ids.items():
            pack, _, index = ident.rpartition(".")
            if record["state"] == state and admin.covers(record["id"], pack, int(index)):
                found[text] += 1
    return found


def bodies_on_disk(broker: Broker, queue: str = QUEUE) -> dict[str, list[Any]]:
    """{state: bodies} by nothing but directories and files, not by the engine's own reading: what a person would find.

    Fails on a file that cannot be read, and on an entry beyond the end of its pack.
    """
    top = f"{broker.root}/{queue}"
    found: dict[str, list[Any]] = {}
    for state, parse in (("ready", parse_entry), ("leased", parse_lease), ("delayed", parse_delayed)):
        found[state] = []
        for directory, _, names in os.walk(f"{top}/{state}"):
            for name in names:
                parsed = parse(name)
                assert parsed, f"a foreign file {state}/{name}"
                entry = parsed if state == "ready" else parsed.entry
                with open(f"{directory}/{name}", encoding="utf-8") as file:
                    lines = [json.loads(line) for line in file]
                assert entry.stop <= len(lines), f"{name} names more than its pack has"
                found[state] += [line["message"] for line in lines[entry.first : entry.stop]]
    assert os.listdir(f"{top}/damaged") == []
    return found


def held_names(broker: Broker, queue: str = QUEUE) -> list[str]:
    return os.listdir(f"{broker.root}/{queue}/leased")
