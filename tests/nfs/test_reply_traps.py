"""Replies that a server sent before its power was cut, and that never arrived: the client asks again, and a server that
remembers nothing answers from its new state. Guarantee: every operation reports the truth, whichever of its calls was
answered so, and each message is delivered exactly once."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from guests import Site
from traps import Trial, Trials, all_trials, check_deliveries, request, until, wait_until_executed

pytestmark = [pytest.mark.nfs, pytest.mark.slow]

#: What a client's kernel says of a call that was done although its reply was lost; of the others it hides that.
FALSE_ERRORS = {"rename": errno.ENOENT, "link": errno.EEXIST, "unlink": errno.ENOENT, "mkdir": errno.EEXIST}
PLACE = "traps"


def one_round(site: Site, number: int, doing: list[Trials]) -> list[dict[str, Any]]:
    """Each client loses the reply to one call, all at the same time."""
    for client in doing:
        client.reach(number)
        site.network.lose_reply(client.client, site.server, *request(client.trials[number], client.paths))
    for client in doing:
        client.go(number)
    until(lambda: site.network.trapped() == len(doing), f"requests of {[c.trials[number] for c in doing]}", 20)
    wait_until_executed(site, [client.executed(number) for client in doing])
    site.server.cut_power()
    site.network.heal()
    site.boot(site.server)
    return [client.next() for client in doing]


@pytest.mark.timeout(600)
def test_each_operation_tells_the_truth_about_each_lost_reply(site: Site, tmp_path: Path) -> None:
    trials = all_trials(tmp_path, lambda number: (3,) if number % 2 else (4,))
    parts = [trials[first :: len(site.clients)] for first in range(len(site.clients))]
    doing = [Trials(site, client, part, PLACE) for client, part in zip(site.clients, parts)]
    reports: list[list[dict[str, Any]]] = [[] for _ in doing]
    import time
    for number in range(len(parts[0])):
        t=time.time()
        busy = [at for at, part in enumerate(parts) if number < len(part)]
        for at, report in zip(busy, one_round(site, number, [doing[at] for at in busy])):
            reports[at].append(report)
            trial = parts[at][number]
            print(trial, report)
            assert report["errno"] == FALSE_ERRORS.get(trial.call), f"{trial}: {report}"
            assert report["failed"] is None, f"{trial}: {report}"
        print(number, time.time()-t)
    for at, client in enumerate(doing):
        client.end()
        other = site.clients[(at + 1) % len(site.clients)]
        check_deliveries(site, other, parts[at], PLACE, reports[at])
    met = {(trial.call, trial.version) for trial in trials}
    assert met == {(call, version) for call in (*FALSE_ERRORS, "create_open", "write") for version in (3, 4)}
