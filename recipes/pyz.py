"""Make `ddmq-hpc.pyz`, the command with what it needs in one file: `python recipes/pyz.py [OUTPUT]`, or `make pyz`.

It runs on any Python from 3.9 on, and starts fastest on the version that made it, whose bytecode is inside. The same
sources and the same interpreter make the same bytes.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: The earliest time that a zip archive can tell.
_DATE = (1980, 1, 1, 0, 0, 0)
#: Of what pip installs: nothing that is compiled, made for this machine, or of no use inside an archive.
_DROPPED_DIRECTORIES = {"bin", "share", "_yaml", "snakemake_executor_plugin_ddmq", "__pycache__"}
#: What nearly every start loads: the commands of job scripts, and what these import.
_EVERY_DAY = ("cli.main", "cli.publishing", "cli.pulling", "cli.settling", "broker", "sharing", "expiry")
_DROPPED = {"INSTALLER", "RECORD", "REQUESTED", "WHEEL", "direct_url.json"}


def install(place: str) -> None:
    """This project and what it needs, as far as it is pure Python, as files below `place`."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", place, str(HERE.parent)], check=True)
    wanted = ["--only-binary=:all:", "-r", str(HERE / "pyz-requirements.txt")]
    subprocess.run([*pip, "--target", place, *wanted], check=True)


def contents(place: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the archive, in order: the bytecode of the modules that are loaded every day as one, that
    of the others as another, and all files. So a start reads a fifth of it."""
    yield "__main__.py", (HERE / "pyz_main.py").read_bytes()
    modules, files = {}, []
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        name = path.relative_to(place)
        if _DROPPED_DIRECTORIES.intersection(name.parts) or name.name in _DROPPED or name.suffix in (".so", ".pyi"):
            continue
        data = path.read_bytes()
        files.append((str(name), data))
        if name.suffix == ".py":
            is_package = name.stem == "__init__"
            words = name.parent.parts if is_package else name.with_suffix("").parts
            modules[".".join(words)] = str(name), is_package, bytecode(data, str(name))
    usual = {name: modules.pop(name) for name in loaded_every_day(place) if name in modules}
    yield f"bytecode/{sys.implementation.cache_tag}", marshal.dumps((usual, sorted(modules)))
    yield f"bytecode/{sys.implementation.cache_tag}-more", marshal.dumps(modules)
    yield from files


def loaded_every_day(place: Path) -> list[str]:
    """The modules that an interpreter has which has imported those."""
    names = ", ".join(f"ddmq_hpc.{name}" for name in _EVERY_DAY)
    script = f"import sys; sys.path.insert(0, {str(place)!r}); import {names}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, capture_output=True, text=True)
    return done.stdout.split()


def bytecode(source: bytes, name: str) -> bytes:
    """A module compiled for this interpreter."""
    return zlib.compress(marshal.dumps(compile(source, f"ddmq-hpc.pyz/{name}", "exec", dont_inherit=True)), 9)


def write(output: Path, place: Path) -> None:
    """The archive, executable, at once or not at all."""
    aside = output.with_name(f".{output.name}-{os.getpid()}")
    try:
        with open(aside, "wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w") as archive:
                for name, data in contents(place):
                    info = zipfile.ZipInfo(name, _DATE)
                    info.external_attr = 0o100644 << 16
                    packed = name.startswith("bytecode/")
                    archive.writestr(info, data, zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED, 9)
        aside.chmod(0o755)
        aside.replace(output)
    finally:
        aside.unlink(missing_ok=True)


def main() -> None:
    output = Path(sys.argv[1] if sys.argv[1:] else HERE.parent / "dist" / "ddmq-hpc.pyz")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        install(place)
        write(output, Path(place))
    print(output)


if __name__ == "__main__":
    main()
