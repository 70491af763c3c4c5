"""Many takers of one queue, on several hosts, drain it faster than one alone and hardly ever want the same message."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from guests import Run, Site

pytestmark = [pytest.mark.nfs, pytest.mark.alone]

#: How much faster all are together than one alone, at least, and the lost races a message, at most.
FASTER, LOST_RACES = 1.5, 0.3
#: Where they are not that much faster yet, and are not to get slower. Taking one message of a pack is three renames and
#: links in `leased`, and acking it is one more. Each client's kernel does these one after the other, and looks each
#: name up anew since other clients change that directory, too: 17 requests a message instead of 5.
NOT_MET = {("/nfs3", "in-bulk"): 1.0, ("/nfs4", "in-bulk"): 0.9}
PROCESSES = 4  # of each client
MESSAGES, ALONE = 1200, 200
#: Seconds by which a network delays replies. Between guests there is none, and the time of each request is that of this
#: host's CPUs, which one taker keeps busy as well as twelve: those of twelve queues of their own drain no faster there.
DELAY = 0.001
_PATIENCE = 120.0


@contextmanager
def replies_delayed(site: Site) -> Iterator[None]:
    site.network.delay(site.server, DELAY)
    try:
        yield
    finally:
        site.network.heal()


@pytest.mark.parametrize("way", ["one-by-one", "in-bulk"])
@pytest.mark.parametrize("mount", ["/nfs3", "/nfs4"])
def test_takers_on_three_clients_together(site: Site, mount: str, way: str) -> None:
    before, together, after = (f"{mount}/scaling-{way}-{name}" for name in ("before", "together", "after"))
    publishers = [
        site.python(client, "load", "publish", root, count, *["--bulk"][: way == "in-bulk"])
        for client, root, count in zip(site.clients, (before, together, after), (ALONE, MESSAGES, ALONE))
    ]
    for publisher in publishers:
        _result(publisher)

    with replies_delayed(site):
        alone = [_drained_alone(site, before)]
        all_of_them = _drained_together(site, together)
        alone.append(_drained_alone(site, after))

    assert sum(one["messages"] for one in all_of_them) == MESSAGES
    rate = MESSAGES / max(one["seconds"] for one in all_of_them)
    rate_alone = 2 * ALONE / sum(one["seconds"] for one in alone)
    lost = sum(one["lost"] for one in all_of_them) / MESSAGES
    requests = sum(sum(one["requests"].values()) for one in all_of_them) / MESSAGES
    print(f"{mount} {way}: {rate_alone:.0f}/s alone, {rate:.0f}/s together: {rate / rate_alone:.2f}", end="; ")
    print(f"{lost:.2f} lost races and {requests:.1f} requests a message")
    assert lost <= LOST_RACES
    assert rate >= NOT_MET.get((mount, way), FASTER) * rate_alone


def _drained_alone(site: Site, root: str) -> dict[str, Any]:
    return _result(site.python(site.clients[0], "load", "drain", root))


def _drained_together(site: Site, root: str) -> list[dict[str, Any]]:
    options = ("--processes", PROCESSES, "--at", time.time() + 1.5)
    return [_result(run) for run in [site.python(client, "load", "drain", root, *options) for client in site.clients]]


def _result(run: Run) -> dict[str, Any]:
    done = run.wait(_PATIENCE)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result
