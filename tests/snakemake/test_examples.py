"""The example workflows, as their READMEs say: every command, in a copy; the results; style."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rules_tools import require_snakemake

require_snakemake()

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
EXAMPLES = ["consume-tasks", "parameter-sweep", "pilot-workers"]
BLOCK = re.compile(r"(<!-- not run: [^>]+? -->\n)?```sh\n(.*?)```", re.DOTALL)
#: What `snakemake --lint` may advise: these examples need nothing but Python.
ADVICE = {"Specify a conda environment or container for each rule."}


def run(command: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DDMQ_HPC_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["XDG_CACHE_HOME"] = str(where / "cache")
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which all commands of the README were run, one after the other in one shell."""
    where = tmp_path_factory.mktemp("workflows") / request.param
    shutil.copytree(WORKFLOWS / request.param, where)
    text = (where / "README.md").read_text(encoding="utf-8")
    commands = [block for reason, block in BLOCK.findall(text) if not reason]
    assert commands
    done = run(["bash", "-euo", "pipefail", "-c", "\n".join(commands)], where)
    assert done.returncode == 0, done.stdout + done.stderr
    (where / "printed").write_text(done.stdout, encoding="utf-8")
    return where


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_results_are_right(example: Path) -> None:
    found = table(example / "results" / "table.tsv")
    printed = (example / "printed").read_text(encoding="utf-8")
    if example.name == "consume-tasks":
        exponents = {float(row["r"]): float(row["exponent"]) for row in found}
        assert len(exponents) == 22  # 21 of the first run, and one that came later
        assert all(exponents[r] < 0 for r in (3.2, 3.3, 3.4, 3.5, 3.55))  # cycles of 2, 4 and 8
        assert abs(exponents[4.0] - 0.6931) < 0.02  # log 2
        assert exponents[3.57] < 0.02 and 9.0 not in exponents
    elif example.name == "pilot-workers":
        assert [row["density"] for row in found] == [f"0.{percent}" for percent in range(46, 73)]
        assert {row["lattices"] for row in found} == {"6"}
        spanning = [float(row["spanning"]) for row in found]
        assert spanning[0] == 0 and spanning[-1] == 1  # far below the threshold of 0.593, and far above
    else:
        assert [row["r0"] for row in found] == ["1.1", "1.7"]
        assert [row["runs"] for row in found] == ["3", "3"]
        first = dict(re.findall(r"^([\d.]+\t8)\t\d\t\S+\t([\d.]+)$", printed, re.MULTILINE))
        assert first == {
            "0.8\t8": "0.000",
            "1.2\t8": "0.314",
            "1.5\t8": "0.583",
            "2\t8": "0.797",
            "2.5\t8": "0.893",
            "3\t8": "0.940",
        }
        means = [(float(m), float(e)) for m, e in re.findall(r"\t(0\.\d+)\t(0\.\d+)$", printed, re.MULTILINE)]
        assert means and all(abs(mean - expected) < 0.2 for mean, expected in means)


def test_nothing_is_left_in_the_queues(example: Path) -> None:
    queue = {"consume-tasks": "tasks", "parameter-sweep": "sweep", "pilot-workers": "jobs"}[example.name]
    assert run(["ddmq-hpc", "list", "queues", queue], example).stdout == ""


@pytest.mark.parametrize("name", EXAMPLES)
def test_snakefmt_would_change_nothing(name: str, tmp_path: Path) -> None:
    done = run(["snakefmt", "--check", str(WORKFLOWS / name / "workflow")], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_lint_advises_nothing_but_environments(name: str, tmp_path: Path) -> None:
    shutil.copytree(WORKFLOWS / name, tmp_path / name)
    done = run(["snakemake", "--lint"], tmp_path / name)
    advice = re.findall(r"^    \* (.+):$", done.stdout + done.stderr, re.MULTILINE)
    assert set(advice) == ADVICE, done.stdout + done.stderr


def test_an_example_has_the_standard_layout() -> None:
    for name in EXAMPLES:
        top = WORKFLOWS / name
        for path in ("README.md", "config/config.yaml", "workflow/Snakefile", "workflow/profiles/default/profile.yaml"):
            assert (top / path).is_file(), path
        assert all((top / "workflow" / part).is_dir() for part in ("rules", "scripts"))
