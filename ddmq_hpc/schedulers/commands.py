"""Running a scheduler's commands: each comes back with an answer, whatever happens, within its time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: Exit codes of the shell for a command that was ended by a timeout, and for one that cannot be run.
TIMED_OUT, NOT_RUN = 124, 127
#: Seconds in which a killed command must be gone; a process that hangs in the kernel is left to itself.
_DYING = 2.0


class Answer(NamedTuple):
    """What a command printed, and its exit code; `TIMED_OUT` or `NOT_RUN` when it gave none."""

    code: int
    out: str
    err: str


def run(
    argv: Sequence[str],
    timeout: float,
    input: str | None = None,
    environ: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> Answer:
    """Run a command with its own process group, which is killed after `timeout` seconds. Raises nothing."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd=directory,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Answer(NOT_RUN, "", str(error))
    try:
        out, err = process.communicate(input, timeout)
        return Answer(process.returncode, out, err)
    except subprocess.TimeoutExpired:
        return Answer(TIMED_OUT, "", f"{argv[0]} did not answer within {timeout:g} s")
    except (OSError, ValueError) as error:
        return Answer(NOT_RUN, "", str(error))
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_DYING)
        except (OSError, subprocess.TimeoutExpired):
            pass
    for stream in (process.stdin, process.stdout, process.stderr):
        try:
            if stream:
                stream.close()
        except OSError:
            pass


def query(argv: Sequence[str], timeout: float) -> Answer:
    """The same for a question to a scheduler, whose answer is to depend on the question alone: users have variables
    that leave out jobs (SQUEUE_PARTITION ...), ask other clusters, or change how times are printed."""
    environ = {
        name: value for name, value in os.environ.items() if name != "SLURM_CLUSTERS" and not name.startswith("SQUEUE_")
    }
    environ.update(LC_ALL="C", SLURM_TIME_FORMAT="%s")
    return run(argv, timeout, environ=environ)
