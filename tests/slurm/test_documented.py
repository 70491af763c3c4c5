"""The examples of the documentation that take a cluster, as printed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pages
import pytest
from cluster import Cluster, wait_for
from slurm_site import Site

pytestmark = pytest.mark.slurm


def run(site: Site, page: str) -> str:
    return pages.run(page, site.home, site.env, lambda needed: needed == pages.CLUSTER or pages.is_there(needed))


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    (tmp_path / "simulate").write_text("#!/bin/sh\necho $1 >>simulated\n")
    (tmp_path / "simulate").chmod(0o755)
    return Site(cluster, tmp_path)


def test_what_one_moves_from(site: Site) -> None:
    """disBatch, and jobs that are one for each task, each at work beside what is to be typed instead."""
    shown = run(site, "docs/moving-to.md")
    jobs = [line.rpartition(" ")[2] for line in shown.splitlines() if line.startswith("Submitted batch job ")]
    assert len(jobs) == 1 + 4 + 1
    states = [site.cluster.wait(job) for job in jobs]
    assert [set(found.values()) for found in states] == [{"COMPLETED"}] * 6, site.output()
    assert len(states[-1]) == 4
    lines = Counter((site.home / "log").read_text().splitlines())
    assert [lines[f"./count sample{n}"] for n in range(1, 5)] == [3] * 4  # loop, array, worker
    [status] = site.home.glob("commands.txt_*_status.txt")
    assert len(status.read_text().splitlines()) == 4
    assert site.left() == 0


def test_workers_on_a_cluster(site: Site) -> None:
    run(site, "README.md")
    wait_for(lambda: not site.run("squeue", "--noheader"), 120, f"the workers\n{site.output()}")
    assert sorted(map(int, (site.home / "simulated").read_text().split())) == list(range(1, 101)), site.output()


def test_a_second_host_for_the_doctor(site: Site) -> None:
    shown = run(site, "docs/doctor.md")
    assert "2 doctors met" in shown
