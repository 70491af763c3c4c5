"""A process beside a worker, `exec` or `lock` that outlives it by a moment: when that is gone, however it ended, it
kills what was left running. Without it the tasks of a worker killed by SIGKILL would go on without a lease, and the
command of a lock without its lock.

Under Slurm (linuxproc) background children survive the end of a batch script, under OpenPBS those with a session of
their own do (measured), so the scheduler cannot be relied on for that.
"""

from __future__ import annotations

import os

#: Reads "+ TARGET" and "- TARGET" (what kill(1) takes: a process, or "-" and a group) until the pipe from its parent
#: closes, "." before that when the parent ended by itself. Else it may have died between starting a task and telling of
#: it, so tasks are also looked for by their environment; twice, because a process that is just being started has its
#: parent's. A shell, since it is small and starts at once.
_SCRIPT = """
trap '' HUP INT QUIT TERM USR1 USR2
targets=' ' died=yes
while read -r sign target; do
  case $sign in
    +) targets="$targets$target " ;;
    .) died= ;;
    -) targets="${targets%% "$target" *} ${targets#* "$target" }" ;;
  esac
done
for target in $targets; do kill -s KILL -- "$target"; done
for pause in ${died:+0 0.3}; do
  sleep $pause
  grep -slzxF "$2" /proc/[0-9]*/environ |
  while IFS=/ read -r _ _ pid _; do kill -s KILL "$pid"; done
done
[ -z "$1" ] || rm -rf -- "$1"
"""
#: What marks those that a guardian looks for, in their environment.
WORKER, CHILD = "DDMQ_HPC_WORKER", "DDMQ_HPC_CHILD"


class Guardian:
    """Watches over what this process started, and removes `directory` in the end. `mark` is what all of that has as
    `variable` in its environment, and nothing else has."""

    def __init__(self, directory: str, mark: str, variable: str = WORKER) -> None:
        # A guardian is no task, also not of a worker that is one itself.
        environment = {name: value for name, value in os.environ.items() if name not in (WORKER, CHILD)}
        read_end, self._pipe = os.pipe()  # not inherited by the tasks: PEP 446
        try:
            self._pid = os.posix_spawnp(
                "sh",
                ["sh", "-c", _SCRIPT, "ddmq-hpc-guardian", directory, f"{variable}={mark}"],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, read_end, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
            )
        finally:
            os.close(read_end)

    def watch(self, target: int) -> None:
        """Over a process, or over a group of the number `-target`, as for kill(2)."""
        self._tell(b"+ %d\n" % target)

    def forget(self, target: int) -> None:
        """It is known to be gone."""
        self._tell(b"- %d\n" % target)

    def _tell(self, line: bytes) -> None:
        try:
            os.write(self._pipe, line)
        except OSError:
            pass  # somebody killed the guardian: the worker does its own work all the same

    def close(self) -> None:
        """End it; it kills what is left and removes the directory first."""
        self._tell(b". 0\n")
        os.close(self._pipe)
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass
