"""Schedulers that are a few lines of shell: what they are told is kept in files, what they answer is read from some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ddmq_hpc.broker import Broker

COMMAND = str(Path(sys.executable).with_name("ddmq-hpc"))

#: sbatch and qsub: refuse as the file `refuse` says, else keep the script and answer a number.
SUBMIT = """\
#!/bin/sh
if [ -e "$FAKE/refuse" ]; then cat "$FAKE/refuse" >&2; exit 1; fi
[ -e "$FAKE/slow" ] && sleep "$(cat "$FAKE/slow")"
at=$(mktemp "$FAKE/job-XXXXXXXX")
cat > "$at"
env > "$at.env"
pwd > "$at.pwd"
echo $$
"""
#: squeue: answers what the file `squeue` holds, and fails without it.
SQUEUE = """\
#!/bin/sh
echo "$@" >> "$FAKE/asked"
[ -e "$FAKE/hang" ] && sleep "$(cat "$FAKE/hang")"
cat "$FAKE/squeue" 2>/dev/null || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
"""
SCONTROL = """\
#!/bin/sh
cat "$FAKE/scontrol"
"""


class Site:
    """A cluster without machines, and a root with a queue `tasks`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = str(place / "root")
        self.fake = place / "fake"
        self.bin = place / "bin"
        self.fake.mkdir()
        self.bin.mkdir()
        for name, text in {"sbatch": SUBMIT, "qsub": SUBMIT, "squeue": SQUEUE, "scontrol": SCONTROL}.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        (self.fake / "squeue").touch()
        (self.fake / "scontrol").write_text("MaxArraySize            = 1001\nClusterName             = test\n")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("DDMQ_HPC_", "SLURM_"))}
        self.env.update(FAKE=str(self.fake), PATH=f"{self.bin}:{os.environ['PATH']}")
        self.broker = Broker(self.root, create=True)
        self.broker.create_queue("tasks", durable=False)

    def run(self, *arguments: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [COMMAND, *arguments],
            env={**self.env, **env},
            cwd=self.place,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def submit(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.run("submit", self.root, "tasks", *arguments, **more)

    def scale(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return self.run("scale", self.root, "tasks", *arguments, **more)

    def publish(self, count: int) -> None:
        self.broker.publish_many("tasks", range(count))

    def ran(self, *walls: float) -> None:
        """Outcomes of tasks in the journal, as if they had run."""
        queue = self.broker.queue("tasks")
        record = queue.journal.record
        lines = [record("acked", f"x.{n}", 1, 1e9 + n, 1e9, {"wall": wall}) for n, wall in enumerate(walls)]
        queue.journal.write(lines, False)

    def jobs(self) -> list[str]:
        """The scripts that were submitted."""
        return [path.read_text() for path in sorted(self.fake.glob("job-????????"))]

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in Path(self.root, "tasks", "workers").glob("job-*.json")]

    def live(self, **tasks: int) -> None:
        """What squeue answers: so many running tasks of each job."""
        (self.fake / "squeue").write_text("".join(f"{job[1:]}|RUNNING\n" * count for job, count in tasks.items()))

    def asked(self) -> int:
        """How often squeue was asked."""
        log = self.fake / "asked"
        return len(log.read_text().splitlines()) if log.exists() else 0
