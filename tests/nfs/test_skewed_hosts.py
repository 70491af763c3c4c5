"""Clients whose clocks are ten minutes apart, and one that loses power in mid-work."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gluster
import pytest
from guests import Guest, Run, Site

pytestmark = pytest.mark.nfs

LEASE, GRACE = 20.0, 2.0
#: A worker looks for what ran out every few seconds; commands start slowly in a guest.
LOOKING = 15.0
#: NFS v3 and v4.2 show the same directory.
PLACES = {"NFS v3": "/nfs3", "NFS v4.2": "/nfs4", "GlusterFS": "/gl"}
SKEWS = (600.0, -600.0, 0.0)


@pytest.fixture
def skewed(site: Site, volume: str) -> Site:
    """The site, its clients' clocks ten minutes ahead, ten minutes behind, and right."""
    for client, skew in zip(site.clients, SKEWS):
        client.check("date", "-s", f"@{time.time() + skew:.3f}")
    return site


@pytest.fixture(autouse=True)
def right_clocks(site: Site) -> Iterator[None]:
    yield
    for client in site.clients:
        client.check("date", "-s", f"@{time.time():.3f}")


def _publish(site: Site, root: str, first: int, messages: int) -> None:
    done = site.python(site.clients[2], "publish", root, first, messages, "in-bulk").wait()
    assert done.returncode == 0, done.stderr


def _queue(site: Site, root: str, messages: int) -> None:
    creating = site.command(site.clients[2], "create", "-f", "--set", f"timeout={LEASE}", root, "q").wait()
    assert creating.returncode == 0, creating.stderr
    _publish(site, root, 0, messages)


def _work(site: Site, client: Guest, root: str, task: str) -> Run:
    """A worker that appends `<host> <message> <attempt>` to a file of its own in the root as each task begins, then
    does `task`."""
    line = f'echo "$(hostname) $1 $DDMQ_HPC_ATTEMPT $(cut -d. -f1 /proc/uptime)" >>{root}/began-{client.name}; {task}'
    return site.command(client, "work", "--until", "drained", root, "q", "--", "sh", "-c", line, "sh", "{}")


def _began(site: Site, root: str) -> list[tuple[str, str, str]]:
    """(host, message, attempt) of every task that began."""
    text = site.clients[2].check("bash", "-c", f"cat {root}/began-*")
    return [(line.split()[0], line.split()[1], line.split()[2]) for line in text.splitlines()]


def test_no_live_lease_is_taken_early(skewed: Site) -> None:
    """Tasks of 50 s under leases of 20 s, on hosts whose clocks differ by 20 minutes, while all of them look for leases
    that have run out: each runs once."""
    site = skewed
    roots = {kind: f"{place}/live-on-{place[1:]}" for kind, place in PLACES.items()}
    workers = []
    for root in roots.values():
        _queue(site, root, len(site.clients))
        workers += [_work(site, client, root, "sleep 50") for client in site.clients]
    for worker in workers:
        done = worker.wait(200)
        assert done.returncode == 0, done.stderr
    for kind, root in roots.items():
        assert sorted((message, attempt) for _, message, attempt in _began(site, root)) == [
            (str(number), "1") for number in range(len(site.clients))
        ], kind


def test_a_power_cut_gives_the_tasks_back(skewed: Site) -> None:
    """A client loses power in mid-work: its tasks begin again elsewhere within their lease and the grace, with another
    attempt, and nobody else's do."""
    site = skewed
    lost, *others = site.clients
    roots = {kind: f"{place}/cut-on-{place[1:]}" for kind, place in PLACES.items()}
    for root in roots.values():
        _queue(site, root, 1)
        _work(site, lost, root, "sleep 600")
        while site.clients[2].run("test", "-s", f"{root}/began-{lost.name}").returncode:
            time.sleep(0.2)
        _publish(site, root, 1, 2)  # the others' own
    workers = {kind: [_work(site, client, root, "sleep 5") for client in others] for kind, root in roots.items()}
    try:
        time.sleep(5)
        lost.cut_power()
        cut = time.monotonic()
        took = {}
        for kind, working in workers.items():
            for worker in working:
                done = worker.wait(150)
                assert done.returncode == 0, done.stderr
            took[kind] = time.monotonic() - cut
        for kind, root in roots.items():
            counts = sorted(attempt for _, _, attempt in _began(site, root))
            assert counts == ["1", "1", "1", "2"], f"{kind}: {_began(site, root)}"
            # On GlusterFS the observers count the whole lease from when they saw it first, here after its last beat.
            assert took[kind] < LEASE + GRACE + 5 + LOOKING, took
    finally:
        site.boot(lost)
        assert gluster.mount(lost).wait().returncode == 0
