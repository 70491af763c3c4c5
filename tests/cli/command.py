"""Where the command is that these tests run: beside the interpreter that runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Callable

COMMAND = str(Path(sys.executable).with_name("ddmq-hpc"))
Run = Callable[..., "subprocess.CompletedProcess[str]"]
