"""Snakemake's own suite for executors, in all three modes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from executor_tools import Lab
from rules_tools import require_snakemake

require_snakemake()

import snakemake.common.tests as upstream  # noqa: E402
from snakemake_executor_plugin_ddmq import ExecutorSettings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # what Snakemake and its libraries warn of is theirs


class _OnWorkers(upstream.TestWorkflowsLocalStorageBase):
    __test__ = False
    mode = ""

    @pytest.fixture(autouse=True)
    def _lab(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        before = os.getcwd()
        self.lab = Lab(tmp_path_factory.mktemp("lab"))
        worker = self.lab.worker("-j", "3")
        try:
            yield
        finally:
            os.chdir(before)
            self.lab.close()
        assert worker.returncode == 0, self.lab.log(worker)

    def get_executor(self) -> str:
        return "ddmq"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(queue=f"{self.lab.root}/jobs", mode=self.mode)

    def run_workflow(self, test_name: str, tmp_path: Path, **more: Any) -> None:
        super().run_workflow(test_name, tmp_path, **more)
        assert (tmp_path / test_name / "test3.out").exists()
        assert {record["state"] for record in self.lab.records()} == {"acked"}
        assert self.lab.counts() == {}
        assert self.lab.leftovers() == []


class TestFork(_OnWorkers):
    __test__ = True
    mode = "fork"


class TestDirect(_OnWorkers):
    __test__ = True
    mode = "direct"


class TestPlain(_OnWorkers):
    __test__ = True
    mode = "plain"
