"""A second host for `doctor`: the command that it advises, and the step that it starts in a job of several nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from slurm_site import Site

from ddmq_hpc.doctor import company

pytestmark = pytest.mark.slurm


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


def findings(text: str) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in json.loads(text)["findings"]}


def assert_two_met(found: dict[str, dict[str, Any]]) -> None:
    # All nodes of this cluster are one host.
    assert found["peers"]["measured"].startswith("2 doctors met, on 1 host"), found["peers"]
    assert {found[check]["verdict"] for check in ("peers", "races", "tick")} == {"ok"}, found


def test_the_advised_command_brings_two_together(site: Site) -> None:
    advised = company.command(str(site.home), {"SLURM_JOB_ID": "1"})
    assert advised.startswith("srun -N2 -n2 ddmq-hpc doctor --peers 2 ")
    assert_two_met(findings(site.run("sh", "-c", advised.replace("--peers", "--json --peers"))))


def test_in_a_job_of_two_nodes_it_starts_the_other_by_itself(site: Site) -> None:
    script = f"ddmq-hpc doctor --json {site.home} >report"
    job = site.run("sbatch", "--parsable", "-N2", "--wrap", script)
    assert set(site.cluster.wait(job).values()) == {"COMPLETED"}, site.output()
    assert_two_met(findings((site.home / "report").read_text()))
