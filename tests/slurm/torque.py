"""The commands of Torque as Slurm comes with them: `qsub` and its like, which take PBS scripts to a Slurm cluster.

Debian's package of them cannot be installed beside Grid Engine's client, so it is unpacked into a directory of the
tests.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PACKAGE = "slurm-wlm-torque"
#: Its scripts want these beside themselves.
SLURM = ("sbatch", "salloc", "srun", "scancel", "squeue", "sinfo", "scontrol")


def why_not() -> str | None:
    """Why these commands cannot be had here, or None."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return f"{PACKAGE} is a package of Debian and Ubuntu"
    # Loading Slurm's own module needs a cluster: that it is there is enough here.
    found = subprocess.run(["perl", "-MSwitch", "-e", 'exit !grep { -e "$_/Slurm.pm" } @INC'], capture_output=True)
    return "not installed: libslurm-perl, libswitch-perl" if found.returncode else None


def unpack(home: Path, path: str) -> Path:
    """The directory with the commands; `path` is where Slurm's own ones are found."""
    # _apt, the user that apt fetches with, may not write to a directory of the test: apt says so, and fetches as root.
    subprocess.run(["apt-get", "download", "-qq", PACKAGE], cwd=home, check=True, capture_output=True, timeout=120)
    [package] = home.glob(f"{PACKAGE}_*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(home)], check=True)
    commands = home / "usr" / "bin"
    for name in SLURM:
        found = shutil.which(name, path=path)
        assert found, name
        (commands / name).symlink_to(found)
    return commands
