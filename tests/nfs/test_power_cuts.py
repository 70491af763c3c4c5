"""A server whose power is cut, or whose replies are, at moments that nobody chose, while publishers publish and workers
take and ack on three clients, on NFS v3 and v4.2 at once. Guarantee: nothing is raised but the loss of a lease that ran
out, nothing is lost, and nothing comes twice without such a loss.

What `publish` returned from is kept whether `durable` was asked for or not: NFS flushes a file to the server's disk
when it is closed, and an export that is `sync`, as by default, has every name on its disk before it answers.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from guests import Site
from traps import MOUNTS, PATIENCE, VARIABLES, until

pytestmark = [pytest.mark.nfs, pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS, CUTS = 10, 3
CUT_SECONDS = 4
#: One queue whose leases outlast everything, and one whose leases are shorter than most of a server's absences.
LEASES = {"long": 600.0, "short": 4.0}
TAKEN_AT_ONCE = (1, 8)
#: What programs say of messages.
WORDS = ("published", "taken", "done", "lost")


class Load:
    """On every client a publisher, and for each queue a worker that takes single messages and one that takes eight."""

    def __init__(self, site: Site, place: str) -> None:
        self.site = site
        self.root = f"{MOUNTS[4]}/{place}"
        for queue in LEASES:
            words = ("create", "-f", self.root, queue, "--set", "requeue_limit=1000", "--set", "grace=0.5")
            done = site.command(site.clients[0], *words).wait()
            assert done.returncode == 0, done.stderr
        self.runs = []
        versions = random.Random(7)
        for client in site.clients:
            (client.home / "stop").unlink(missing_ok=True)
            orders = [("publish", client.name, *LEASES)]
            orders += [("take", count, lease, queue) for queue, lease in LEASES.items() for count in TAKEN_AT_ONCE]
            for order in orders:
                root = f"{MOUNTS[versions.choice((3, 4))]}/{place}"
                self.runs.append((client, site.python(client, "traffic", client.home, root, *order, **VARIABLES)))
        self.until_it_goes_on()

    def until_it_goes_on(self) -> None:
        """Each program has done something since this was called."""
        before = [len(run.output()) for _, run in self.runs]

        def has_moved() -> bool:
            for _, run in self.runs:
                assert not run.has_ended(), run.wait().stderr[-3000:]
            return all(len(run.output()) > size for (_, run), size in zip(self.runs, before))

        until(has_moved, "every program goes on")

    def stop(self) -> dict[str, dict[str, Counter[str]]]:
        """{queue: {what: {body: times}}} once everything has ended well."""
        for client in self.site.clients:
            (client.home / "stop").touch()
        found: dict[str, dict[str, Counter[str]]] = {queue: {what: Counter() for what in WORDS} for queue in LEASES}
        for client, run in self.runs:
            done = run.wait(PATIENCE)
            assert done.returncode == 0, f"{client.name}: {done.stderr[-3000:]}"
            for line in done.stdout.splitlines():
                what, queue, body = line.split(" ")
                found[queue][what][body] += 1
        return found


def test_a_server_that_goes_away_at_any_moment(site: Site) -> None:
    """Its power is cut, and it boots again, ten times; then its words are lost for a while, three times."""
    chance = random.Random()
    load = Load(site, "traffic")
    for _ in range(ROUNDS):
        time.sleep(chance.uniform(0.2, 1.5))
        site.server.cut_power()
        site.boot(site.server)
        load.until_it_goes_on()
    for _ in range(CUTS):
        for client in site.clients:
            site.network.cut(site.server, client)
        time.sleep(CUT_SECONDS)
        site.network.heal()
        load.until_it_goes_on()
    for queue, counts in load.stop().items():
        published, taken, done, lost = (counts[what] for what in WORDS)
        assert published.keys() - taken.keys() == set(), f"{queue}: lost"
        assert taken.keys() - published.keys() == set(), f"{queue}: nobody published that"
        assert done + lost == taken, f"{queue}: neither done nor lost"
        assert {body for body, times in done.items() if times > 1} == set(), f"{queue}: doubled"
        if queue == "long":
            assert lost == Counter(), "no lease ran out"
        assert len(published) > 100
