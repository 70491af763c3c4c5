"""Wheel and sdist: complete, the same for everybody who builds them, and at work where there is nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Callable

import pytest
from building import Built, build, environment, python, tracked

from ddmq_hpc import __version__
from ddmq_hpc.cli.main import COMMANDS

#: Environments are made, and packages fetched: on a busy machine that takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Run = Callable[..., str]
SHARE = f"ddmq_hpc-{__version__}.data/data/share"


def test_the_pages_of_package_indexes_can_show_them(built: Built) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(built.wheel), str(built.sdist)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_everybody_builds_the_same(built: Built, copy: Path, tmp_path: Path) -> None:
    """From another directory; and the wheel from the files themselves instead of from the sdist."""
    again = build(copy, tmp_path, "--sdist", "--wheel")
    assert again.sdist.read_bytes() == built.sdist.read_bytes()
    assert again.wheel.read_bytes() == built.wheel.read_bytes()


def test_the_wheel_has_what_users_need_and_nothing_else(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    package = {name for name in tracked() if name.startswith("ddmq_hpc/")}
    scripts = {f"ddmq_hpc/templates/{Path(name).name}" for name in tracked() if name.startswith("slurm/")}
    plugin = {"snakemake_executor_plugin_ddmq/__init__.py"}
    pages = {f"{SHARE}/man/man1/ddmq-hpc.1", *(f"{SHARE}/man/man1/ddmq-hpc-{name}.1" for name in COMMANDS)}
    completion = {
        f"{SHARE}/bash-completion/completions/ddmq-hpc",
        f"{SHARE}/zsh/site-functions/_ddmq-hpc",
        f"{SHARE}/fish/vendor_completions.d/ddmq-hpc.fish",
    }
    described = {name for name in names if name.startswith(f"ddmq_hpc-{__version__}.dist-info/")}
    assert len(package) > 100 and len(scripts) >= 5
    assert names - described == package | scripts | plugin | pages | completion
    assert f"ddmq_hpc-{__version__}.dist-info/licenses/LICENSE" in described


def test_the_sdist_is_the_project(built: Built) -> None:
    top = f"ddmq_hpc-{__version__}/"
    with tarfile.open(built.sdist) as archive:
        names = {member.name[len(top) :] for member in archive if member.isfile()}
        assert {(member.uid, member.uname, member.mtime) for member in archive if member.isfile()} == {
            (0, "", int(environment()["SOURCE_DATE_EPOCH"]))
        }
    assert names == {*tracked(), "PKG-INFO"}


def test_the_tests_run_from_the_sdist(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (place,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={tmp_path}/t", "tests/unit/test_names.py"]
    done = subprocess.run(
        command, cwd=place, env=environment(PYTHONPATH=str(place)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="session", params=["oldest", "newest"])
def installed(request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of the oldest, and of the newest Python here, with the wheel and nothing else."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([python(request.param), "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, str(built.wheel)], check=True, env=environment())
    return place


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Run:
    def call(*words: str) -> str:
        done = subprocess.run(
            [str(installed / "bin" / "ddmq-hpc"), *words],
            env=environment(DDMQ_HPC_ROOT=str(tmp_path / "root"), DDMQ_HPC_QUEUE="tasks"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    return call


def test_the_installed_command_works(run: Run, tmp_path: Path) -> None:
    assert run("--version") == f"ddmq-hpc {__version__}\n"
    run("create", "-f", "tasks")
    run("publish", "-q", "tasks", "one")
    run("publish", "-q", "tasks", f"echo $((40 + 2)) >{tmp_path}/answer")
    receipt = next(line[10:] for line in run("pull", "--format", "plain").splitlines() if line.startswith("receipt = "))
    assert "acked" in run("ack", receipt)
    run("work", "--shell")
    assert (tmp_path / "answer").read_text() == "42\n"
    assert run("status").splitlines()[1].split()[:3] == ["tasks", "0", "0"]


def test_job_scripts_pages_and_completion_are_installed(run: Run, installed: Path) -> None:
    run("create", "-f", "tasks")
    run("publish", "-q", "tasks", "one")
    script = run("submit", "--scheduler", "slurm", "--dry-run", "--", "echo", "{}")
    assert "\n#SBATCH " in script
    assert f"export PATH={installed}/bin:$PATH" in script
    assert (installed / "share" / "man" / "man1" / "ddmq-hpc-work.1").exists()
    assert run("completion", "fish") == (installed / "share/fish/vendor_completions.d/ddmq-hpc.fish").read_text()
    assert (installed / "share/zsh/site-functions/_ddmq-hpc").read_text().startswith("#compdef ddmq-hpc")
    assert "complete -o nosort" in (installed / "share/bash-completion/completions/ddmq-hpc").read_text()
