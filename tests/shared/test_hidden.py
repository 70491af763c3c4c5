"""Sites that hide processes from other users: nobody of a colleague may be taken for dead."""

from __future__ import annotations

import os
import subprocess

import pytest
from members import User

SCRIPT = """
mount -o remount,hidepid=2 /proc || exit 77
sleep 60 &
start=$(cut -d' ' -f22 /proc/$!/stat)
exec setpriv --reuid=7002 --regid=7002 --clear-groups -- "$0" -c '
import os, sys
from ddmq_hpc.identity import host, is_gone, kernel
pid, start = map(int, sys.argv[1:])
assert not os.path.exists(f"/proc/{pid}")
print(is_gone(host(), pid, start, kernel()), is_gone(host(), 99999, start, kernel()))
' $! $start
"""


def test_a_process_that_proc_does_not_show_is_not_gone(ben: User) -> None:
    inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT]
    done = subprocess.run(
        [*inside, ben.command()[0]], env={**os.environ, **ben.environ}, capture_output=True, text=True, timeout=60
    )
    if done.returncode in (1, 77) and not done.stdout and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"no namespaces, or no hidepid, here: {done.stderr.strip()}")
    assert done.stdout == "False True\n", done.stderr
