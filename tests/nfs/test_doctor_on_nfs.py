"""What doctor says of NFS v3, v4.2 and GlusterFS differs as they do; two clients examine each together."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from guests import Guest, Site

pytestmark = [pytest.mark.nfs, pytest.mark.timeout(600)]
AHEAD = 120
NFS = {"v3": "/nfs3", "v4.2": "/nfs4"}
#: What stays the same wherever queues work.
WELL = ("writable", "rename", "links", "exclusive", "names", "atomicity", "space", "inodes", "races", "peers")


@contextmanager
def clock_ahead(client: Guest) -> Iterator[None]:
    """A client whose clock is two minutes ahead, for the `with` block."""
    _shift(client, AHEAD)
    try:
        yield
    finally:
        _shift(client, -AHEAD)


def _shift(client: Guest, seconds: int) -> None:
    setting = f"import time; time.clock_settime(time.CLOCK_REALTIME, time.time() + {seconds})"
    client.check(sys.executable, "-c", setting)


def directory(site: Site, mount: str) -> str:
    return site.clients[0].check("mktemp", "-d", f"{mount}/doctor-XXXXXX").strip()


def together(site: Site, where: str) -> dict[str, dict[str, Any]]:
    """The findings of two clients that examine a directory together. It is left as it was."""
    clients = site.clients[:2]
    runs = [site.command(client, "doctor", "--json", "--peers", 2, where) for client in clients]
    ended = [run.wait(280) for run in runs]
    (report,) = (json.loads(done.stdout) for done in ended if done.stdout)
    assert [done.returncode for done in ended] == [0, 0], ended
    assert all(client.check("ls", "-A", where) == "" for client in clients)
    return {finding["check"]: finding for finding in report["findings"]}


def verdicts(findings: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {check: findings[check]["verdict"] for check in WELL}


@pytest.mark.parametrize("version", NFS)
def test_nfs(site: Site, version: str) -> None:
    with clock_ahead(site.clients[1]):
        findings = together(site, directory(site, NFS[version]))
    assert verdicts(findings) == dict.fromkeys(WELL, "ok"), findings
    assert f"NFS {version if version == 'v4.2' else 'v3'} at {NFS[version]}" in findings["filesystem"]["measured"]
    assert findings["peers"]["measured"] == "2 doctors met, on 2 hosts: " + findings["peers"]["measured"][-6:]
    assert sorted(findings["peers"]["measured"][-6:].split(", ")) == ["c1", "c2"]
    clocks = findings["clocks"]
    assert "one clock stamps all files" in clocks["measured"] and clocks["verdict"] == "warning", clocks
    assert "they end by that clock" in clocks["meaning"]
    # A name that was found missing stays so while its directory is not opened again; how long is the client's mood.
    assert findings["stale-names"]["verdict"] == "warning", findings["stale-names"]
    assert findings["many-links"]["verdict"] == "ok", findings["many-links"]
    tick = findings["tick"]
    assert "of 100 listings stayed incomplete" in tick["measured"], tick
    assert tick["verdict"] in (("ok", "warning") if version == "v3" else ("ok",)), tick


def test_glusterfs(site: Site, volume: str) -> None:
    with clock_ahead(site.clients[1]):
        findings = together(site, directory(site, volume))
    assert verdicts(findings) == dict.fromkeys(WELL, "ok"), findings
    assert f"GlusterFS at {volume}" in findings["filesystem"]["measured"]
    clocks = findings["clocks"]
    assert "each host stamps with its own clock" in clocks["measured"] and clocks["verdict"] == "warning", clocks
    # GlusterFS on ext4 keeps a record of each link where there is room for a few dozen.
    assert findings["many-links"]["verdict"] == "warning" and "No space left" in findings["many-links"]["measured"]
    assert "Leave `expiry` at auto or observed" in clocks["advice"]
    assert "120" in clocks["measured"] or "119" in clocks["measured"], clocks


def test_clocks_that_agree_tell_nothing(site: Site) -> None:
    findings = together(site, directory(site, "/nfs4"))
    assert findings["clocks"]["verdict"] == "ok" and "cannot be told" in findings["clocks"]["meaning"], findings


@pytest.mark.parametrize("version", NFS)
def test_one_client_alone_says_what_it_cannot_know(site: Site, version: str) -> None:
    done = site.command(site.clients[0], "doctor", "--json", directory(site, NFS[version])).wait(280)
    assert done.returncode == 0, done.stdout
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["peers"]["verdict"] == "warning" and "--peers 2" in findings["peers"]["advice"]
    assert findings["tick"]["verdict"] == ("warning" if version == "v3" else "ok"), findings["tick"]
    assert "the server stamps them" in findings["clock"]["measured"] or "(measured)" in findings["clock"]["measured"]


def test_a_root_on_nfs_records_what_it_is_on(site: Site) -> None:
    client = site.clients[0]
    root = directory(site, "/nfs3") + "/root"
    done = site.command(client, "create", "-f", root, "q").wait()
    assert (done.returncode, done.stderr) == (0, f"ddmq-hpc: made the root {root}\n")
    kept = json.loads(client.check("cat", f"{root}/ddmq-checkup.json"))
    assert kept["filesystem"] == "nfs" and kept["verdict"] != "failure"
    seen = site.command(client, "doctor", "--json", root.replace("/nfs3", "/nfs4")).wait()
    (record,) = (finding for finding in json.loads(seen.stdout)["findings"] if finding["check"] == "record")
    assert "it is on nfs4 now" in record["measured"]
