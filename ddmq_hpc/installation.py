"""How this ddmq-hpc is installed, as a package or as one file (a zipapp): how to start it again, and the files that
come with it."""

from __future__ import annotations

import os
import sys

from ddmq_hpc.errors import DdmqError, UsageError

_COMMAND, _PACKAGE = "ddmq-hpc", "ddmq_hpc"


def archive() -> str | None:
    """The one file that all of this is in, if it is."""
    place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return place if os.path.isfile(place) else None


def own_command() -> list[str]:
    """The words that start this very ddmq-hpc again, on any host that sees its files."""
    file = archive()
    return [sys.executable, file] if file else [sys.executable, "-m", _PACKAGE]


def own_directory() -> str:
    """Where the `ddmq-hpc` is that this process runs, or that was installed with it. Raises `UsageError` where a single
    file has another name."""
    name = os.path.abspath(sys.argv[0])
    if os.path.basename(name) == _COMMAND and os.access(name, os.X_OK):
        return os.path.dirname(name)
    if file := archive():
        raise UsageError(f"job scripts call `{_COMMAND}`: `ln -s {file} {_COMMAND}`, and start it by that name")
    return os.path.dirname(os.path.abspath(sys.executable))


def data(*names: str) -> str:
    """The text of the first of these files that there is; names are relative to the package. Raises `DdmqError`."""
    from pkgutil import get_data

    for name in names:
        try:
            found = get_data(_PACKAGE, name)
        except OSError:
            continue
        if found is not None:
            return found.decode()
    raise DdmqError(f"{names[0]} is missing; install ddmq-hpc again")
