"""The single file: it needs an interpreter and nothing else, and a network file system is asked for next to nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Callable

import pytest
from building import environment, make_pyz, python

from ddmq_hpc import __version__

#: Environments are made, and packages fetched: on a busy machine that takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["oldest", "newest"])
def run(request: pytest.FixtureRequest, pyz: Path, tmp_path: Path) -> Run:
    """Run it on the oldest, and on the newest Python here, without what is installed there."""

    interpreter = python(request.param)

    def call(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [interpreter, "-I", "-S", str(pyz), *words],
            env=environment(DDMQ_HPC_ROOT=str(tmp_path / "root"), DDMQ_HPC_QUEUE="tasks"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code and "Traceback" not in done.stderr, (words, done.stdout, done.stderr)
        return done

    return call


def test_the_daily_commands(run: Run, tmp_path: Path) -> None:
    assert run("--version").stdout == f"ddmq-hpc {__version__}\n"
    run("create", "-f", "tasks")
    run("publish", "-q", "tasks", "one")
    for number in range(3):
        run("publish", "-q", "tasks", f"echo {number} >>{tmp_path}/done")
    pulled = run("pull", "--format", "yaml").stdout
    assert "message: one\n" in pulled
    receipt = re.search(r"receipt: (\S+)", pulled)
    assert receipt and "acked" in run("ack", receipt[1]).stdout
    run("work", "-j", "2", "--shell")
    assert sorted((tmp_path / "done").read_text().split()) == ["0", "1", "2"]
    assert run("status").stdout.splitlines()[1].split()[:3] == ["tasks", "0", "0"]
    run("pull", code=3)


def test_settings_that_need_yaml(run: Run, tmp_path: Path) -> None:
    run("create", "-f", "tasks")
    (tmp_path / "root" / "tasks" / "ddmq.yaml").write_text("{timeout: 2h}\n")
    run("publish", "-q", "tasks", "one")
    assert '"timeout": 7200.0' in run("pull").stdout


def test_job_scripts(run: Run, pyz: Path, tmp_path: Path) -> None:
    """They call `ddmq-hpc`, so the file needs that name, and says so."""
    run("create", "-f", "tasks")
    run("publish", "-q", "tasks", "one")
    words = ("submit", "--scheduler", "slurm", "--dry-run", "--", "echo", "{}")
    assert f"`ln -s {pyz} ddmq-hpc`" in run(*words, code=2).stderr
    (tmp_path / "ddmq-hpc").symlink_to(pyz)
    done = subprocess.run(
        [tmp_path / "ddmq-hpc", *words],
        env=environment(DDMQ_HPC_ROOT=str(tmp_path / "root"), DDMQ_HPC_QUEUE="tasks"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"export PATH={tmp_path}:$PATH" in done.stdout


def test_what_it_cannot_do_is_told_in_a_line(run: Run) -> None:
    run("create", "-f", "tasks")
    assert "cannot run jobs of Snakemake" in run("work", "--snakemake", code=1).stderr
    assert "reports need" in run("report", "-o", "/dev/null", code=1).stderr


def test_it_has_nothing_that_is_compiled_or_of_this_machine(pyz: Path) -> None:
    with zipfile.ZipFile(pyz) as archive:
        names = archive.namelist()
        assert not [name for name in names if name.endswith((".so", ".pyc", "RECORD", "WHEEL", "direct_url.json"))]
        assert not [name for name in names if f"{Path.home()}/".encode() in archive.read(name)]
    top = {name.partition("/")[0] for name in names}
    assert {"click", "yaml", "filelock", "ddmq_hpc", "__main__.py", "bytecode"} <= top and "psutil" not in top
    assert "ddmq_hpc/templates/worker.sbatch" in names and "ddmq_hpc/report/report.css" in names
    assert [name for name in names if name.endswith("LICENSE")]


def test_everybody_makes_the_same(pyz: Path, copy: Path, tmp_path: Path) -> None:
    assert make_pyz(copy, tmp_path).read_bytes() == pyz.read_bytes()


@pytest.mark.skipif(not shutil.which("strace") and not os.environ.get("CI"), reason="strace is not installed")
def test_it_is_opened_a_few_times_and_not_for_each_module(pyz: Path, tmp_path: Path) -> None:
    """On the Python that made it. Opens and look-ups of all that is not the interpreter's own."""
    log = tmp_path / "trace"
    command = [sys.executable, "-I", "-S", str(pyz), "create", "-f", str(tmp_path / "root"), "q"]
    strace = ["strace", "-f", "-e", "trace=%file", "-o", str(log)]
    subprocess.run([*strace, *command], check=True, stdout=subprocess.DEVNULL)
    asked = [line for line in log.read_text().splitlines() if f'"{pyz}' in line]
    assert 2 < len(asked) <= 10, "\n".join(asked)
