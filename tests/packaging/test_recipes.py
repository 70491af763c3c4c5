"""Recipes of other package managers say what pyproject.toml does. Their tools are not here: see recipes/README.md."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from building import TOP
from packaging.requirements import Requirement

from ddmq_hpc import __version__

RECIPES = TOP / "recipes"
SPACK = RECIPES / "spack" / "spack_repo" / "ddmq_hpc"
#: What the modules of EasyBuild's generation 2025b have: python-bundle-PyPI 2025.07 and the others, as their files say.
EASYBUILD = {"click": "8.2.1", "filelock": "3.18.0", "psutil": "7.0.0", "PyYAML": "6.0.2", "hatchling": "1.27.0"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")
    with open(TOP / "pyproject.toml", "rb") as file:
        found: dict[str, Any] = tomllib.load(file)
    return found


def required(project: dict[str, Any], extra: str = "") -> dict[str, str]:
    """What it needs to run, and the limits of that: `click` -> `>=8.1`."""
    listed = project["project"]["optional-dependencies"][extra] if extra else project["project"]["dependencies"]
    return {wanted.name.lower(): str(wanted.specifier) for wanted in map(Requirement, listed)}


def to_build(project: dict[str, Any]) -> dict[str, str]:
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["dependencies"]
    listed = [*project["build-system"]["requires"], *hook]
    return {wanted.name.lower(): str(wanted.specifier) for wanted in map(Requirement, listed)}


def test_conda(project: dict[str, Any]) -> None:
    recipe = yaml.safe_load((RECIPES / "conda" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == __version__ and recipe["package"]["name"] == project["project"]["name"]
    assert f">={recipe['context']['python_min']}" == project["project"]["requires-python"]
    run, host = (dict(f"{line} ".split(" ", 1) for line in recipe["requirements"][part]) for part in ("run", "host"))
    assert run.pop("python") == ">=${{ python_min }} " and host.pop("python") == "${{ python_min }}.* "
    assert {name: limit.strip() for name, limit in run.items()} == required(project)
    assert host.pop("pip") == "" and {name: limit.strip() for name, limit in host.items()} == to_build(project)
    (script,) = recipe["build"]["python"]["entry_points"]
    assert dict([script.split(" = ")]) == project["project"]["scripts"]
    assert recipe["about"]["summary"] == project["project"]["description"]
    assert recipe["about"]["license"] == project["project"]["license"]
    assert (RECIPES / "conda" / recipe["source"]["path"] / recipe["about"]["license_file"]).exists()


def test_spack(project: dict[str, Any]) -> None:
    """With stubs in place of Spack's own names, which keep what they are told."""
    told: dict[str, list[tuple[Any, ...]]] = {name: [] for name in ("license", "version", "variant", "depends_on")}
    text = (SPACK / "packages" / "py_ddmq_hpc" / "package.py").read_text()
    defaults: list[Any] = [None]

    @contextmanager
    def default_args(type: Any) -> Any:
        defaults.append(type)
        yield
        defaults.pop()

    def keep(name: str) -> Any:
        return lambda *words, **more: told[name].append((*words, more.get("when", ""), defaults[-1]))

    names = {name: keep(name) for name in told}
    imports = ("from spack_repo.builtin.build_systems.python import PythonPackage\n", "from spack.package import *\n")
    assert all(line in text for line in imports)
    exec(
        re.sub(r"^from .*$", "", text, flags=re.MULTILINE),
        {"PythonPackage": object, "default_args": default_args, **names},
    )
    assert [words[0] for words in told["version"]] == [__version__]
    assert [words[0] for words in told["license"]] == [project["project"]["license"]]

    def wanted(when: str, kind: str) -> dict[str, str]:
        found = (words[0].removeprefix("py-") for words in told["depends_on"] if words[1] == when and kind in words[2])
        split = (spec.partition("@") for spec in found)
        return {name: f">={limit.rstrip(':')}" if limit else "" for name, _, limit in split}

    python = {"python": project["project"]["requires-python"]}
    assert wanted("", "run") == {**required(project), **python}
    assert wanted("", "build") == {**to_build(project), **python}
    assert wanted("+watch", "run") == required(project, "rich")
    assert wanted("+report", "run") == required(project, "report")
    assert yaml.safe_load((SPACK / "repo.yaml").read_text())["repo"]["api"] == "v2.0"


def test_easybuild(project: dict[str, Any]) -> None:
    (file,) = (RECIPES / "easybuild").glob("*.eb")
    said: dict[str, Any] = {"PYPI_SOURCE": "https://pypi.org"}
    exec(compile(file.read_text(), str(file), "exec"), said)
    toolchain = "{name}-{version}".format(**said["toolchain"])
    assert file.name == f"{said['name']}-{said['version']}-{toolchain}.eb"
    assert (said["name"], said["version"]) == (project["project"]["name"], __version__)
    modules = {**dict(said["dependencies"]), **dict(said["builddependencies"])}
    assert modules["PyYAML"] == EASYBUILD["PyYAML"] and modules["hatchling"] == EASYBUILD["hatchling"]
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for wanted in map(Requirement, needed):
        assert wanted.specifier.contains(EASYBUILD[wanted.name]), wanted
    assert Requirement(f"python{project['project']['requires-python']}").specifier.contains(modules["Python"])


def test_what_goes_into_the_single_file(project: dict[str, Any]) -> None:
    """All that is needed, but what must be compiled, in versions that are wanted."""
    lines = [line for line in (RECIPES / "pyz-requirements.txt").read_text().splitlines() if line[:1] not in ("", "#")]
    pinned = dict(line.split("==") for line in lines)
    wanted = {need.name: need.specifier for need in map(Requirement, project["project"]["dependencies"])}
    assert set(pinned) == set(wanted) - {"psutil"}
    assert all(wanted[name].contains(version) for name, version in pinned.items())
