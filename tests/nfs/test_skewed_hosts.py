"""Clients whose clocks are ten minutes apart, and one that loses power in mid-work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from guests import Guest, Run, Site

pytestmark = pytest.mark.nfs

LEASE, GRACE = 20.0, 2.0
#: How long after its deadline a lease may be held by nobody, besides the grace.
BACK_WITHIN = 20.0
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
    """A worker that appends `<host> <message> <attempt> <time>` to a file of its own in the root as each task begins,
    then does `task`."""
    line = f'echo "$(hostname) $1 $DDMQ_HPC_ATTEMPT $(date +%s.%N)" >>{root}/began-{client.name}; {task}'
    return site.command(client, "work", "--until", "drained", root, "q", "--", "sh", "-c", line, "sh", "{}")


class Began(NamedTuple):
    """A task that began, and when by this host's clock."""

    message: str
    attempt: str
    at: float


def _began(site: Site, root: str) -> list[Began]:
    found = []
    for line in site.clients[2].check("bash", "-c", f"cat {root}/began-*").splitlines():
        host, message, attempt, at = line.split()
        found.append(Began(message, attempt, float(at) - SKEWS[int(host[1:]) - 1]))
    return found


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
        began = _began(site, root)
        assert sorted(task.message for task in began) == [str(number) for number in range(len(site.clients))], kind
        assert {task.attempt for task in began} == {"1"}, kind


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
    workers = [_work(site, client, root, "sleep 5") for client in others for root in roots.values()]
    try:
        time.sleep(5)
        cut = time.time()
        lost.cut_power()
        for worker in workers:
            done = worker.wait(150)
            assert done.returncode == 0, done.stderr
        for kind, root in roots.items():
            began = _began(site, root)
            assert sorted(task.attempt for task in began) == ["1", "1", "1", "2"], f"{kind}: {began}"
            # Its last heartbeat was before the cut, so its deadline is at most a lease after that. On GlusterFS the
            # others have to see the lease unchanged for as long as it lasts.
            again = max(task.at for task in began)
            assert again - cut < LEASE + GRACE + BACK_WITHIN, f"{kind}: {began}"
    finally:
        site.boot(lost)
