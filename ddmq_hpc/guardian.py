"""A process beside a worker that outlives it by a moment: when the worker is gone, however it ended, it kills what the
worker's tasks left running. Without it the tasks of a worker killed by SIGKILL would go on without a lease.

Under Slurm (linuxproc) background children survive the end of a batch script, under OpenPBS those with a session of
their own do (measured), so the scheduler cannot be relied on for that.
"""

from __future__ import annotations

import os

#: Reads "+ GROUP" and "- GROUP" until the pipe from the worker closes, "." before that when the worker ended by itself.
#: Else it may have died between starting a task and telling of it, so tasks are also looked for by their environment;
#: twice, because a process that is just being started has its parent's. A shell, since it is small and starts at once.
_SCRIPT = """
trap '' HUP INT QUIT TERM USR1 USR2
groups=' ' died=yes
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    .) died= ;;
    -) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
for pause in ${died:+0 0.3}; do
  sleep $pause
  grep -slzxF "DDMQ_HPC_WORKER=$2" /proc/[0-9]*/environ |
  while IFS=/ read -r _ _ pid _; do kill -s KILL "$pid"; done
done
rm -rf -- "$1"
"""


class Guardian:
    """Watches over the process groups of this process's tasks, and removes `directory` in the end. `worker` is what the
    tasks have in DDMQ_HPC_WORKER."""

    def __init__(self, directory: str, worker: str) -> None:
        # A guardian is no task, also not of a worker that is one itself.
        environment = {name: value for name, value in os.environ.items() if name != "DDMQ_HPC_WORKER"}
        read_end, self._pipe = os.pipe()  # not inherited by the tasks: PEP 446
        try:
            self._pid = os.posix_spawnp(
                "sh",
                ["sh", "-c", _SCRIPT, "ddmq-hpc-guardian", directory, worker],
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

    def watch(self, group: int) -> None:
        self._tell(b"+ %d\n" % group)

    def forget(self, group: int) -> None:
        """The group is known to be gone."""
        self._tell(b"- %d\n" % group)

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
