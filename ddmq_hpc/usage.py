"""What the processes of a task use: memory of the whole tree by looking, time by wait4(2), death for want of memory;
and what they may use."""

from __future__ import annotations

import os
import resource

_KIB = 1024


def tree_rss(pid: int) -> int | None:
    """Bytes of memory that a process and all below it have now; None when it is gone. Shared pages count each time.

    None also where there is no psutil, as in a single file: then `waited_rss` alone tells."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return None
    total = 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total


def waited_rss(usage: resource.struct_rusage) -> int | None:
    """Bytes of the largest process that was waited for, or None when that cannot be told.

    Linux starts the mark of a new process with the memory of the one that forked it, and execve(2) keeps it (setmax_mm_
    hiwater_rss in fs/exec.c): what is not above this process's own mark says nothing about the child.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * _KIB if usage.ru_maxrss > own else None


class OomCounter:
    """Tells whether the kernel killed a process of this job for want of memory since it was last asked."""

    def __init__(self) -> None:
        self._paths = list(_counters())
        self._count = self._read()

    def happened(self) -> bool:
        before, self._count = self._count, self._read()
        return self._count > before

    def _read(self) -> int:
        total = 0
        for path in self._paths:
            try:
                with open(path, encoding="ascii") as file:
                    total += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
            except (OSError, ValueError, IndexError):
                continue
        return total


def memory_limit() -> int | None:
    """Bytes that the control groups of this process, which batch systems make for their jobs, allow it; None where they
    set no limit below the memory of the host."""
    limits = []
    for directory, _, limit in _groups():
        while directory.startswith("/sys/fs/cgroup/"):
            try:
                with open(f"{directory}/{limit}", encoding="ascii") as file:
                    limits.append(int(file.read()))
            except (OSError, ValueError):  # "max", or the top, which has none
                pass
            directory = os.path.dirname(directory)
    found = min(limits, default=None)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return found if found is not None and found < total else None


def _counters() -> list[str]:
    """The files of this process's control group that count such kills."""
    paths = [f"{directory}/{events}" for directory, events, _ in _groups()]
    return [path for path in paths if os.path.exists(path)]


def _groups() -> list[tuple[str, str, str]]:
    """Directories of this process's control group, version 2's and version 1's (cgroups(7)), with the names of the
    files that count kills and that say how much memory it may use."""
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    found = []
    for fields in lines:
        if len(fields) != 3:
            continue
        _, controllers, path = fields
        if not controllers:
            found.append((f"/sys/fs/cgroup{path}", "memory.events", "memory.max"))
        elif "memory" in controllers.split(","):
            found.append((f"/sys/fs/cgroup/memory{path}", "memory.oom_control", "memory.limit_in_bytes"))
    return found
