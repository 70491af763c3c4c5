"""Groups between hosts. Guarantee: what comes after a group begins when all of the group is done, on whichever host,
not before and not much later; a hook is run once."""

from __future__ import annotations

import json
import sys

import pytest
from guests import Site

pytestmark = pytest.mark.nfs

FIRST, SECOND = 90, 30
#: The last of the first ones takes a while and leaves a file, without which none of the second ones succeeds. No clock
#: is asked: those of two hosts are taken to be the same when they are half a second apart.
TASK = 'case $2 in first-90) sleep 3; : >"$1/over";; second-*) test -e "$1/over";; esac'


@pytest.mark.parametrize("keep", ["0", "1d"], ids=["gone when done", "kept"])
def test_nothing_begins_before_its_time(site: Site, place: str, keep: str) -> None:
    root = f"{place}/groups-{keep}-{place[1:]}"  # NFS v3 and v4.2 show the same directory
    one, two, three = site.clients
    hook = f"on_complete=echo run >>{root}/hooked"
    done = site.command(one, "create", "-f", root, "q", "--set", f"keep_done={keep}", "--set", hook).wait()
    assert done.returncode == 0, done.stderr
    publish = f"seq -f $0-%g $1 | {sys.executable} -m ddmq_hpc publish {root} q --each-line - ${{@:2}}"
    assert two.run("bash", "-c", publish, "second", str(SECOND), "--group", "b", "--after", "a").returncode == 0
    work = ("work", "-j", 2, "--until", "drained", root, "q", "--", "sh", "-c", TASK, "sh", root, "{}")
    workers = [site.command(client, *work) for client in site.clients]
    assert three.run("bash", "-c", publish, "first", str(FIRST), "--group", "a").returncode == 0
    for worker in workers:
        ended = worker.wait(240)
        assert ended.returncode == 0, ended.stderr
    lines = one.check("bash", "-c", f"cat {root}/q/journal/*").splitlines()
    records = [json.loads(line) for line in lines if line]
    assert not [record for record in records if record["state"] == "nacked"]
    ends = sorted(record["at"] for record in records if record["state"] == "acked")
    assert len(ends) == FIRST + SECOND
    assert ends[FIRST] < ends[FIRST - 1] + 60
    assert one.check("cat", f"{root}/hooked") == "run\n"
    told = site.command(one, "groups", root, "q", "--format", "json").wait()
    assert told.returncode == 0, told.stderr
    groups = json.loads(told.stdout)["groups"]
    assert {(group["name"], group["state"]) for group in groups} == {("a", "finished"), ("b", "finished")}
