"""The plugin as Snakemake finds it: installed from a wheel, and in a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from executor_tools import BIN
from rules_tools import require_snakemake

require_snakemake()

TOP = Path(__file__).parents[2]
ASK = "import snakemake_executor_plugin_ddmq as plugin, ddmq_hpc, sys; print(plugin.__file__); print(ddmq_hpc.__file__)"


def _ask(tmp_path: Path, **environment: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip


def _offered(tmp_path: Path, **environment: str) -> str:
    return subprocess.run(
        [BIN / "snakemake", "--help"],
        env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100,
    ).stdout  # fmt: skip


def test_a_checkout_is_found(tmp_path: Path) -> None:
    assert _ask(tmp_path)[0].startswith(f"{TOP}/workflows/executor-plugin/")
    said = _offered(tmp_path)
    assert "--ddmq-queue" in said and "--ddmq-mode" in said
    assert [mode for mode in ("fork", "direct", "plain") if f"`{mode}`" not in said] == []


def test_a_wheel_has_it(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, TOP], check=True, timeout=200)
    [wheel] = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True, timeout=100)
    found = _ask(tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert len(found) == 2 and all(path.startswith(str(tmp_path)) for path in found)
    assert "--ddmq-queue" in _offered(tmp_path, PYTHONPATH=str(tmp_path / "site"))


def test_to_import_the_plugin_imports_nothing_of_the_queue() -> None:
    """Snakemake imports all plugins at each of its starts, whichever executor is used."""
    script = (
        "import snakemake_interface_executor_plugins.executors.remote, sys; before = set(sys.modules);"
        "import snakemake_executor_plugin_ddmq; print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["snakemake_executor_plugin_ddmq"]


def test_what_does_not_use_snakemake_does_not_import_it() -> None:
    script = "import sys, ddmq_hpc.cli.main, ddmq_hpc.cli.working, ddmq_hpc.batch, ddmq_hpc.worker; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in found if name.startswith(("snakemake", "ddmq_hpc.snakemake"))]
