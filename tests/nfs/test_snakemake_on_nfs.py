"""Snakemake on one host, workers on two others, everything on NFS; one of the workers' hosts loses power."""

from __future__ import annotations

import importlib.util
import shlex
import sys
import time
from pathlib import Path
from typing import Callable

import pytest
from guests import Guest, Run, Site

pytestmark = [
    pytest.mark.nfs,
    pytest.mark.skipif(importlib.util.find_spec("snakemake") is None, reason="there is no snakemake"),
]

LEASE = 10.0
ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/tmp", "XDG_CACHE_HOME": "/tmp/cache"}
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
#: Three steps, so that each host reads what another one has just written.
SNAKEFILE = """
rule all:
    input:
        "sum.txt",


rule first:
    output:
        "first/{n}.txt",
    shell:
        "hostname >> hosts.$(hostname); echo {wildcards.n} > {output}"


rule second:
    input:
        "first/{n}.txt",
    output:
        "second/{n}.txt",
    shell:
        "hostname >> hosts.$(hostname); echo $(( $(cat {input}) * 2 )) > {output}"


rule sum:
    input:
        expand("second/{n}.txt", n=range(8)),
    output:
        "sum.txt",
    shell:
        "cat {input} | awk '{{s += $1}} END {{print s}}' > {output}"
"""


def test_a_workflow_outlives_a_host_of_its_workers(site: Site) -> None:
    """What ran on a host that lost power is run again."""
    controller, *hosts = site.clients
    top = _prepare(site, "/nfs3/snakemake-fork")
    workers = [_work(site, host, top) for host in hosts]
    run = _snakemake(controller, top, "fork")
    wait_until(lambda: "hosts.c2" in controller.check("ls", f"{top}/work"), "a job on the host that will go")
    hosts[0].cut_power()
    try:
        _check(site, top, run)
    finally:
        site.boot(hosts[0])
    assert "c3" in controller.check("sh", "-c", f"cat {top}/work/hosts.*")
    _stop(site, top, workers[1:])


def test_what_a_host_has_made_is_found_by_the_next_one_at_once(site: Site) -> None:
    """Also where Snakemake has just looked for it in vain: before a job is sent by `direct` it removes its outputs."""
    controller, *hosts = site.clients
    top = _prepare(site, "/nfs4/snakemake-direct")
    workers = [_work(site, host, top) for host in hosts]
    _check(site, top, _snakemake(controller, top, "direct"))
    _stop(site, top, workers)


def _prepare(site: Site, top: str) -> str:
    controller = site.clients[0]
    controller.check("mkdir", "-p", f"{top}/work")
    controller.check("sh", "-c", f"cat > {top}/work/Snakefile <<'END'\n{SNAKEFILE}\nEND")
    created = site.command(controller, "create", "-f", "--set", f"timeout={LEASE}", f"{top}/root", "jobs").wait()
    assert created.returncode == 0, created.stderr
    return top


def _check(site: Site, top: str, run: Run) -> None:
    done = run.wait(240)
    assert done.returncode == 0, done.stderr
    assert site.clients[0].check("cat", f"{top}/work/sum.txt").strip() == "56"


def _stop(site: Site, top: str, workers: list[Run]) -> None:
    site.command(site.clients[0], "workers", "stop", f"{top}/root", "jobs", "all", "--now").wait()
    for worker in workers:
        assert worker.wait(60).returncode == 0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.5)


def _work(site: Site, host: Guest, top: str) -> Run:
    options = ("--snakemake", "--slots", "2", "--until", "forever")
    return site.command(host, "work", f"{top}/root", "jobs", *options, **ENVIRONMENT)


def _snakemake(host: Guest, top: str, mode: str) -> Run:
    words = [SNAKEMAKE, "--executor", "ddmq", "--ddmq-queue", f"{top}/root/jobs", "--ddmq-mode", mode, "--jobs", "20"]
    return host.start("sh", "-c", f"cd {top}/work && exec {shlex.join(words)}", **ENVIRONMENT)
