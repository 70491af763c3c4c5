"""Locks for users among hosts: nobody beside the holder, everybody in turn."""

from __future__ import annotations

import json
import time

import pytest
from guests import Site

pytestmark = pytest.mark.nfs

SECONDS, PROCESSES = 8, 4


def overlaps(lines: list[str]) -> list[str]:
    """The lines of the log at which somebody was in while somebody else was."""
    inside = ""
    wrong = []
    for line in lines:
        what, _, who = line.partition(" ")
        if (what == "begin" and inside) or (what == "end" and inside != who):
            wrong.append(line)
        inside = who if what == "begin" else ""
    return wrong


@pytest.mark.alone
@pytest.mark.parametrize("mount", ["nfs3", "nfs4"])
def test_twelve_contenders_exclude_each_other_and_take_turns(site: Site, mount: str) -> None:
    top = f"/{mount}/locks-{mount}"
    site.clients[0].check("mkdir", top)
    site.clients[0].check("touch", f"{top}/log")
    begin = time.time() + 5
    running = [
        site.python(client, "contend", "ours", f"{top}/it", f"{top}/log", SECONDS, PROCESSES, begin)
        for client in site.clients
    ]
    done = [run.wait(120) for run in running]
    assert [one.returncode for one in done] == [0] * 3, [one.stderr for one in done]
    found = [json.loads(line) for one in done for line in one.stdout.splitlines()]
    assert len(found) == 3 * PROCESSES
    assert [one["errors"] for one in found] == [[]] * len(found)
    lines = site.server.check("cat", f"/export/locks-{mount}/log").splitlines()
    turns = [one["turns"] for one in found]
    print(f"{mount}: {sum(turns) / SECONDS:.0f} a second, turns {sorted(turns)}, waits {[o['longest'] for o in found]}")
    assert len(lines) == 2 * sum(turns)
    assert overlaps(lines) == []
    tokens = [int(line.split()[1]) for line in lines if line.startswith("begin")]
    assert tokens == sorted(set(tokens)), "each token is higher than those before"
    assert max(turns) <= 3 * min(turns), turns
    left = site.server.check("ls", f"/export/locks-{mount}/it.lock").split()
    assert len(left) <= 3, left


@pytest.mark.parametrize("mount", ["nfs3", "nfs4"])
def test_of_twelve_contenders_at_most_three_hold_a_slot(site: Site, mount: str) -> None:
    top = f"/{mount}/slots-{mount}"
    site.clients[0].check("mkdir", top)
    running = [site.python(client, "slots", f"{top}/it", SECONDS, PROCESSES) for client in site.clients]
    found = [json.loads(line) for run in running for line in run.wait(120).stdout.splitlines()]
    assert len(found) == 3 * PROCESSES
    assert min(map(len, found)) > 0
    holds = [hold for of_one in found for hold in of_one]
    tokens = [token for token, _, _ in holds]
    assert len(tokens) == len(set(tokens))
    # One that begins in the tick of the server's clock in which another ends comes after it.
    changes = sorted([(begin, 1) for _, begin, _ in holds] + [(end, -1) for _, _, end in holds])
    inside = most = 0
    for _, change in changes:
        inside += change
        most = max(most, inside)
    print(f"{mount}: {len(holds)} holds, at most {most} at a time")
    assert 1 < most <= 3
