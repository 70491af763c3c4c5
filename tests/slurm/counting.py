"""Counts what is asked of a scheduler: a directory for PATH whose commands note their names, then do their work."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

_COMMANDS = "sbatch srun squeue scontrol scancel sacct sinfo qsub qstat qdel qacct qconf".split()
_WRAPPER = '#!/bin/sh\necho {name} >> {log}\nexec {command} "$@"\n'


class CountedCommands:
    """Wrappers in a new directory of `home`, of those commands that `path` has."""

    def __init__(self, home: Path, path: str) -> None:
        self.directory = home / "counted"
        self._log = home / "counted.log"
        self.directory.mkdir()
        for name in _COMMANDS:
            if command := shutil.which(name, path=path):
                wrapper = self.directory / name
                wrapper.write_text(_WRAPPER.format(name=name, log=self._log, command=command))
                wrapper.chmod(0o755)
        self.path = f"{self.directory}:{path}"

    def counts(self) -> Counter[str]:
        """How often each command was called so far."""
        return Counter(self._log.read_text().split() if self._log.exists() else [])
