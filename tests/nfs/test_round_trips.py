"""What a message costs a file server: requests that the client's kernel sent, counted by the kernel."""

from __future__ import annotations

import json
from typing import Any

import pytest
from guests import Guest, Site

pytestmark = pytest.mark.nfs

#: What is asked for; of a message, if nothing else is said.
BARS = {
    "publish": 5.1,
    "drain": 6.5,
    "bulk": 0.1,
    "drain 32": 0.3,
    "a poll": 8,
    "status": 30,
    "status again": 30,
    "first pull": 40,
}
#: What is above that so far, and is not to get worse. A client that has never looked before sends three requests for
#: each directory: ten or so of the queue and four to ten buckets, by the pace of publishing; when it looks again, one.
NOT_MET = {"status": 70}
MANY = 100_000


def _measured(site: Site, client: Guest, *arguments: object) -> dict[str, Any]:
    done = site.python(client, "load", *arguments).wait(240)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("mount", ["/nfs3", "/nfs4"])
def test_requests_of_each_operation(site: Site, mount: str) -> None:
    one, other, third = site.clients
    # Both mounts are of one export.
    singles, packs, deep = (f"{mount}/trips-{mount[-1]}-{name}" for name in ("singles", "packs", "deep"))
    steps = {
        "publish": (one, 1000, "publish", singles, 1000),
        "drain": (other, 1000, "drain", singles),
        "bulk": (one, 3000, "publish", packs, 3000, "--bulk"),
        "drain 32": (other, 3000, "drain", packs, "--batch", 32),
        "a poll": (other, 10, "poll", packs, 10),
        "bulk of many": (one, MANY, "publish", deep, MANY, "--bulk"),
        "status": (other, 1, "status", deep),
        "status again": (other, 1, "status", deep),
        "first pull": (third, 1, "pull", deep),
    }
    found, requests = {}, {}
    for step, (client, units, *arguments) in steps.items():
        requests[step] = _measured(site, client, *arguments)["requests"]
        found[step] = round(sum(requests[step].values()) / units, 2)
    print(mount, found)
    bars = {**BARS, **NOT_MET}
    over = {step: (found[step], requests[step]) for step, bar in bars.items() if found[step] > bar}
    assert not over
