"""What hatchling runs to build a wheel: manual pages and completion are made and go with it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Where shells look for the completion of a command.
_COMPLETION = {
    "bash": "share/bash-completion/completions/ddmq-hpc",
    "zsh": "share/zsh/site-functions/_ddmq-hpc",
    "fish": "share/fish/vendor_completions.d/ddmq-hpc.fish",
}


class SharedFiles(BuildHookInterface):
    """`share/` beside `bin/`, which is where man(1) looks for the pages of a command on the PATH, and shells for what
    completes it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path[:0] = [self.root, f"{self.root}/docs"]
        import build_man

        from ddmq_hpc.cli.completing import script

        self._made = tempfile.mkdtemp(prefix="ddmq-hpc-shared-")
        for path in build_man.write(Path(self._made)):
            build_data["shared_data"][str(path)] = f"share/man/man1/{path.name}"
        for shell, place in _COMPLETION.items():
            path = Path(self._made, shell)
            path.write_text(script(shell) + "\n", encoding="utf-8")
            build_data["shared_data"][str(path)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._made, ignore_errors=True)
