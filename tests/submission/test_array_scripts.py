"""The job scripts of pull and ack, run by a plain bash with a queue of many short tasks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "slurm"
TASKS = 120
#: Instead of the command: faster, so that the races are those of the script.
QUEUE = f"""#!/bin/sh
echo $1 >>calls
case $1 in pull)
  n=$(grep -c pull calls)
  [ $n -le {TASKS} ] || exit 3
  echo "DDMQ_HPC_MESSAGE='echo done >>done' DDMQ_HPC_RECEIPT=$n" ;;
esac
"""


@pytest.mark.parametrize("script", ["array.pbs", "array.sbatch"])
def test_no_task_waits_for_the_heartbeat_of_the_one_before(script: str, tmp_path: Path) -> None:
    """A heartbeat that is told to end as it goes to sleep would sleep on, for a third of the lease: 100 s."""
    command = tmp_path / "ddmq-hpc"
    command.write_text(QUEUE)
    command.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LEASE": "300"}
    env.update(DDMQ_HPC_ROOT="root", DDMQ_HPC_QUEUE="queue")
    done = subprocess.run(
        ["bash", SCRIPTS / script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert (tmp_path / "done").read_text() == "done\n" * TASKS
    assert (tmp_path / "calls").read_text().count("ack\n") == TASKS
    assert done.stderr == ""
