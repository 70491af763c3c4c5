"""Old journals are made small by hosts while another one wakes up that wrote to them. Guarantee: no outcome is lost or
told twice."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from guests import Site

pytestmark = pytest.mark.nfs

COUNT = 150


def test_a_host_wakes_up_while_others_compact_its_journal(site: Site, place: str) -> None:
    root = f"{place}/journal-{place[1:]}"
    one, *others = site.clients
    done = site.command(one, "create", "-f", root, "q").wait()
    assert done.returncode == 0, done.stderr
    # The file that was written last stays.
    one.check("touch", "-d", "10 years", f"{root}/q/journal/last.jsonl")
    one.check("bash", "-c", f"echo 0 >{root}/days")
    compacting = [site.python(other, "compacting", root) for other in others]
    awake = site.python(one, "waking", root, COUNT).wait(280)
    one.check("touch", f"{root}/stop")
    assert awake.returncode == 0, awake.stderr
    compacted = 0
    for run in compacting:
        ended = run.wait(100)
        assert ended.returncode == 0, ended.stderr
        compacted += int(ended.stdout)
    assert compacted > 2
    for host in site.clients:
        exported = site.command(host, "journal", "export", "--format", "jsonl", root, "q").wait()
        assert exported.returncode == 0, exported.stderr
        rows = [json.loads(line) for line in exported.stdout.splitlines()]
        assert Counter(row["id"] for row in rows if row["state"] == "acked") == Counter(json.loads(awake.stdout))
