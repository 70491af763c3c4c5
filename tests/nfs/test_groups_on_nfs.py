"""Groups between hosts. Guarantee: what comes after a group begins when all of the group is done, on whichever host,
not before and not much later; a hook is run once."""

from __future__ import annotations

import json
import sys

import pytest
from guests import Site

pytestmark = pytest.mark.nfs

FIRST, SECOND = 90, 30


@pytest.mark.parametrize("keep", ["0", "1d"], ids=["gone when done", "kept"])
def test_nothing_begins_before_its_time(site: Site, place: str, keep: str) -> None:
    root = f"{place}/groups-{keep}-{place[1:]}"  # NFS v3 and v4.2 show the same directory
    one, two, three = site.clients
    hook = f"on_complete=echo run >>{root}/hooked"
    done = site.command(one, "create", "-f", root, "q", "--set", f"keep_done={keep}", "--set", hook).wait()
    assert done.returncode == 0, done.stderr
    publish = f"seq $0 | {sys.executable} -m ddmq_hpc publish {root} q --each-line - $@"
    assert two.run("bash", "-c", publish, str(SECOND), "--group", "b", "--after", "a").returncode == 0
    workers = [
        site.command(client, "work", "-j", 2, "--until", "drained", root, "q", "--", "true") for client in site.clients
    ]
    assert three.run("bash", "-c", publish, str(FIRST), "--group", "a").returncode == 0
    for worker in workers:
        ended = worker.wait(240)
        assert ended.returncode == 0, ended.stderr
    lines = one.check("bash", "-c", f"cat {root}/q/journal/*").splitlines()
    records = [record for record in map(json.loads, filter(None, lines)) if record["state"] == "acked"]
    firsts = {record["id"].rpartition(".")[0] for record in sorted(records, key=lambda one: one["at"])[:FIRST]}
    ended = max(record["at"] for record in records if record["id"].rpartition(".")[0] in firsts)
    later = [record["taken"] for record in records if record["id"].rpartition(".")[0] not in firsts]
    assert (len(records), len(later)) == (FIRST + SECOND, SECOND)
    assert ended <= min(later) < ended + 60
    assert one.check("cat", f"{root}/hooked") == "run\n"
    told = site.command(one, "groups", root, "q", "--format", "json").wait()
    assert told.returncode == 0, told.stderr
    groups = json.loads(told.stdout)["groups"]
    assert {(group["name"], group["state"]) for group in groups} == {("a", "finished"), ("b", "finished")}
