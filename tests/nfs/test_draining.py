"""Three clients publish and drain together: every message once, and nobody is told "empty" too early."""

from __future__ import annotations

import json
import time
from collections import Counter

import gluster
import pytest
from guests import Site

pytestmark = pytest.mark.nfs

MESSAGES = 3000
#: GlusterFS takes 50 ms a message here, so it gets fewer.
MESSAGES_ON_GLUSTERFS = {"one-by-one": 96, "in-bulk": 960}
#: (place, way of publishing, batch of takers)
CASES = [
    (place, way, batch) for place in ("NFS v3", "NFS v4.2") for way in ("one-by-one", "in-bulk") for batch in (1, 32)
]
CASES += [("GlusterFS", "one-by-one", 1), ("GlusterFS", "in-bulk", 32)]
PROCESSES = 4  # of each client
#: The guests read this host's clock: what their processes note of the time agrees to less than this.
CLOCKS_AGREE = 0.05
_PATIENCE = 240.0


@pytest.mark.parametrize(("place", "way", "batch"), CASES, indirect=["place"])
def test_three_clients_publish_and_drain(site: Site, place: str, way: str, batch: int) -> None:
    root = f"{place}/drain-{way}-{batch}"
    messages = MESSAGES_ON_GLUSTERFS[way] if place == gluster.MOUNT else MESSAGES
    workers = [client for client in site.clients for _ in range(PROCESSES)]
    assert site.command(site.clients[0], "create", "-f", root, "q").wait().returncode == 0

    share = messages // len(workers)
    publishers = [site.python(client, "publish", root, n * share, share, way) for n, client in enumerate(workers)]
    for publisher in publishers:
        done = publisher.wait(_PATIENCE)
        assert done.returncode == 0, done.stderr

    start = time.time() + 3
    takers = [site.python(client, "drain", root, batch, start) for client in workers]
    found = []
    for taker in takers:
        done = taker.wait(_PATIENCE)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))

    calls = [call for one in found for call in one["taken"]]
    counts = Counter(number for _, numbers in calls for number in numbers)
    assert sorted(counts) == list(range(messages)), "lost"
    assert max(counts.values()) == 1, "doubled"
    # All were there before anybody took one, and none came back: after "empty" there was nothing left to take.
    first_empty = min(one["empty"] for one in found)
    assert max(begun for begun, _ in calls) < first_empty + CLOCKS_AGREE
    for client in site.clients:
        assert site.command(client, "pull", root, "q").wait().returncode == 3, "something is left"


def test_every_message_of_a_pack_is_held_alone(site: Site, place: str) -> None:
    """Each is a link to the same file, of which GlusterFS on ext4 allows some twenty."""
    done = site.python(site.clients[0], "hold", f"{place}/hold", 70).wait(_PATIENCE)
    assert done.returncode == 0, done.stderr
