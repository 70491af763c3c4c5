"""Replies that a server sent before its power was cut, and that never arrived: the client asks again, and a server that
remembers nothing answers from its new state. Guarantee: every operation reports the truth, whichever of its calls was
answered so, and each message is delivered exactly once."""

from __future__ import annotations

import errno
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from guests import Guest, Site
from traps import (
    MOUNTS,
    PATIENCE,
    Trials,
    check_deliveries,
    component,
    forget_replies,
    request,
    request_of,
    trials_of,
)
from truth import OPERATIONS

pytestmark = [pytest.mark.nfs, pytest.mark.slow]

#: What a client's kernel says of a call that was done although its reply was lost; of the others it hides that.
FALSE_ERRORS = {"rename": errno.ENOENT, "link": errno.EEXIST, "unlink": errno.ENOENT, "mkdir": errno.EEXIST}
PLACE = "traps"


def one_round(site: Site, number: int, doing: list[Trials]) -> list[dict[str, Any]]:
    """Each client loses the reply to one call, all at the same time. What the operations report."""
    for client in doing:
        client.reach(number)
        site.network.lose_reply(client.client, site.server, *request(client.trials[number], client.paths))
    for client in doing:
        client.go(number)
    forget_replies(site, [client.executed(number) for client in doing])
    return [client.next() for client in doing]


@pytest.mark.timeout(600)
def test_each_operation_tells_the_truth_about_each_lost_reply(site: Site, tmp_path: Path) -> None:
    """Each call of each operation on one version of NFS, the versions in turn for each kind of call."""
    trials = trials_of(OPERATIONS, tmp_path)
    parts = [trials[first :: len(site.clients)] for first in range(len(site.clients))]
    doing = [Trials(site, client, part, MOUNTS, PLACE) for client, part in zip(site.clients, parts)]
    reports: list[list[dict[str, Any]]] = [[] for _ in doing]
    for number in range(len(parts[0])):
        busy = [at for at, part in enumerate(parts) if number < len(part)]
        for at, report in zip(busy, one_round(site, number, [doing[at] for at in busy])):
            trial = parts[at][number]
            assert report["errno"] == FALSE_ERRORS.get(trial.call), f"{trial}: {report}"
            assert report["failed"] is None, f"{trial}: {report}"
            reports[at].append(report)
    for at, client in enumerate(doing):
        client.end()
        other = site.clients[(at + 1) % len(site.clients)]
        check_deliveries(site, other, parts[at], PLACE, reports[at])
    met = {(trial.call, trial.version) for trial in trials}
    assert met == {(call, version) for call in (*FALSE_ERRORS, "create_open", "write") for version in (3, 4)}


class Settled(NamedTuple):
    """What another client gets after a command: the exit code of pulling once more, and the attempt it is then."""

    code: int
    attempt: int = 0


NOTHING = 3
COMMANDS = {
    "publish": Settled(0, 1),
    "pull": Settled(NOTHING),
    "ack": Settled(NOTHING),
    "nack": Settled(0, 2),
    "release": Settled(0, 1),
    "touch": Settled(NOTHING),
}


class Command:
    """One command of a client on a queue of its own, in which one message was published and, but for `publish` and
    `pull`, pulled."""

    def __init__(self, site: Site, client: Guest, name: str, version: int) -> None:
        self.site, self.client, self.name, self.version = site, client, name, version
        self.root = f"{MOUNTS[version]}/command-{name}"
        self.ident = self.receipt = ""
        self._do("create", "-f", self.root, "q")
        if name != "publish":
            self.ident = self._do("publish", self.root, "q", "text").strip()
        if name not in ("publish", "pull"):
            self.receipt = json.loads(self._do("pull", self.root, "q"))["receipt"]

    def _do(self, *arguments: str) -> str:
        done = self.site.command(self.client, *arguments).wait()
        assert done.returncode == 0, done.stderr
        return done.stdout

    def request(self) -> tuple[bytes, ...]:
        if self.name == "publish":  # of the new name only the length is known, and how it begins
            digits = str(int(time.time()))[:5].encode()
            example = b"1795610674062270720-0hswetnnc"
            return request_of("rename", self.version, len(example).to_bytes(4, "big") + digits)
        return request_of("unlink" if self.name == "ack" else "rename", self.version, component(self._source()))

    def _source(self) -> str:
        if self.receipt:
            return f"leased/{self.receipt.partition('/')[2]}"
        return f"ready/999/*/{self.ident.rpartition('.')[0]}.0-1.0-0"

    def executed(self) -> str:
        top = f"{self.root.replace(MOUNTS[self.version], '/export', 1)}/q"
        if self.name == "publish":
            return f'[ "$(find {top}/ready -type f)" ]'
        return f"! [ -e {top}/{self._source()} ]"

    def start(self) -> None:
        words = {"publish": ["text"], "pull": []}.get(self.name, [self.receipt])
        self.run = self.site.command(self.client, self.name, self.root, "q", *words)

    def check(self, other: Guest) -> None:
        """Success, and `other` finds what that means."""
        done = self.run.wait(PATIENCE)
        assert done.returncode == 0, f"{self.name}: {done.stderr}"
        if self.name == "publish":
            self.ident = done.stdout.strip()
        if self.name == "pull":
            self.receipt = json.loads(done.stdout)["receipt"]
        root = self.root.replace(MOUNTS[self.version], MOUNTS[7 - self.version], 1)
        again = self.site.command(other, "pull", root, "q").wait()
        expected = COMMANDS[self.name]
        assert again.returncode == expected.code, f"{self.name}: {again.stdout}{again.stderr}"
        if expected.code == 0:
            found = json.loads(again.stdout)
            assert (found["id"], found["attempt"]) == (self.ident, expected.attempt), self.name
            assert self.site.command(other, "pull", root, "q").wait().returncode == NOTHING, f"doubled by {self.name}"
        held = self.name in ("pull", "touch")
        if self.receipt:
            acked = self.site.command(other, "ack", root, "q", self.receipt).wait().returncode
            assert acked == (0 if held else 5), f"{self.name}: {acked}"


@pytest.mark.timeout(300)
def test_commands_tell_the_truth_about_lost_replies(site: Site) -> None:
    rounds = (((4, 3, 4), ("publish", "pull", "ack")), ((3, 4, 3), ("nack", "release", "touch")))
    with ThreadPoolExecutor(len(site.clients)) as pool:
        for versions, names in rounds:
            commands = list(pool.map(partial(Command, site), site.clients, names, versions))
            for command in commands:
                site.network.lose_reply(command.client, site.server, *command.request())
            for command in commands:
                command.start()
            forget_replies(site, [command.executed() for command in commands])
            others = [*site.clients[1:], site.clients[0]]
            list(pool.map(Command.check, commands, others))
