"""What calls cost here: time of each, of a flush, and the quota."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import median
from typing import Callable, NamedTuple

from ddmq_hpc.doctor.findings import OK, Finding, grade, milliseconds, worst
from ddmq_hpc.doctor.probing import Probe
from ddmq_hpc.schedulers import is_command
from ddmq_hpc.schedulers.commands import TIMED_OUT
from ddmq_hpc.schedulers.commands import run as run_command

_ROUNDS = 20
#: Seconds after which no further round is begun.
_LONGEST = 5.0
#: Seconds that a quota tool is given: some ask a server that may be away.
_TOOL_SECONDS = 5.0
_SLOW_CALL, _HOPELESS_CALL = 0.02, 2.0
_SLOW_FLUSH, _HOPELESS_FLUSH = 0.1, 10.0


def latency(probe: Probe) -> Finding:
    """The median time of each call that a message takes."""
    fs, at = probe.fs, probe.at
    directory = at("latency")
    fs.mkdir(directory)
    steps: dict[str, Callable[[int], object]] = {
        "create": lambda n: fs.create(f"{directory}/{n}", b"x" * 200, False),
        "stat": lambda n: fs.lstat(f"{directory}/{n}"),
        "link": lambda n: fs.link(f"{directory}/{n}", f"{directory}/{n}-link"),
        "rename": lambda n: fs.rename(f"{directory}/{n}", f"{directory}/{n}-renamed"),
        "list": lambda n: fs.listdir(directory),
        "unlink": lambda n: fs.unlink(f"{directory}/{n}-link"),
    }
    took: dict[str, list[float]] = {name: [] for name in steps}
    began = fs.monotonic()
    for number in range(_ROUNDS):
        for name, step in steps.items():
            before = fs.monotonic()
            step(number)
            took[name].append(fs.monotonic() - before)
        if fs.monotonic() - began > _LONGEST:
            break
    medians = {name: median(values) for name, values in took.items()}
    verdict = grade(max(medians.values()), _SLOW_CALL, _HOPELESS_CALL)
    return Finding(
        "latency",
        verdict,
        ", ".join(f"{name} {milliseconds(value)}" for name, value in medians.items()),
        "A message alone takes about 10 such calls in all, one of many taken together less than one.",
        "" if verdict == OK else "Publish and take many at once (`publish --each-line`, `pull -n 32`).",
    )


def fsync(probe: Probe) -> Finding:
    """What it costs to bring a new file to the disk."""
    fs = probe.fs
    took: list[float] = []
    while len(took) < _ROUNDS and sum(took) < _LONGEST:
        before = fs.monotonic()
        fs.create(probe.at(f"flushed-{len(took)}"), b"x" * 200, True)
        took.append(fs.monotonic() - before)
    usual = median(took)
    verdict = grade(usual, _SLOW_FLUSH, _HOPELESS_FLUSH)
    return Finding(
        "fsync",
        verdict,
        f"a flushed file takes {milliseconds(usual)}, at worst {milliseconds(max(took))}",
        f"With `durable: true` one publisher of single messages comes to {_rounded(1 / usual)} a second at most."
        if usual
        else "Flushing costs nothing here.",
        ""
        if verdict == OK
        else "Publish in bulk, or set `durable: false` where messages can be published again after a power cut.",
    )


def _rounded(count: float) -> str:
    """With two digits that mean something: `3,700`, `0.25`."""
    return f"{float(f'{count:.2g}'):,g}"


class Usage(NamedTuple):
    """Used and allowed, in one unit; `allowed` 0: without limit."""

    what: str
    used: float
    allowed: float

    @property
    def text(self) -> str:
        """How much is used, in words."""
        return f"{self.what} {100 * self.used / self.allowed:.0f}%" if self.allowed else f"{self.what} without limit"

    @property
    def verdict(self) -> str:
        """One of `findings`' words."""
        return grade(self.used / self.allowed, 0.9, 1.0) if self.allowed else OK


class _Tool(NamedTuple):
    types: tuple[str, ...]  # of file systems; none: all others
    command: Callable[[Probe], Sequence[str]]
    read: Callable[[str], list[Usage]]


def quota(probe: Probe) -> Finding:
    """What the file system's own tool says of this user's quota, where there is one. That it says nothing is no
    fault."""
    kind = probe.fs.mount.type
    tool = next(tool for tool in _TOOLS if kind in tool.types or not tool.types)
    command = tool.command(probe)
    nothing = "A quota that is used up refuses messages as a full disk does; nothing is lost."
    if not is_command(command[0]):
        return Finding("quota", OK, f"not told: no command `{command[0]}` here", nothing)
    answer = run_command(command, _TOOL_SECONDS)
    if answer.code == TIMED_OUT:
        return Finding("quota", OK, f"not told: `{command[0]}` did not answer in {_TOOL_SECONDS:g} s", nothing)
    usages = tool.read(answer.out)  # whatever its exit code, which may say that the quota is used up
    if not usages:
        return Finding("quota", OK, f"`{command[0]}` tells of none", nothing)
    verdict = worst(usage.verdict for usage in usages)
    return Finding(
        "quota",
        verdict,
        ", ".join(usage.text for usage in usages),
        nothing,
        "" if verdict == OK else "Remove files, publish in bulk (128 messages share one file), or ask for more.",
    )


def _number(text: str) -> float:
    """Of `1234`, `1234*`, `[12]`, `unlimited`, `none`."""
    digits = text.strip("*[]k")
    return float(digits) if digits.replace(".", "", 1).isdigit() else 0.0


def _usages(used: str, soft: str, hard: str, files: str, files_soft: str, files_hard: str) -> list[Usage]:
    """The tighter of the two limits counts where both are set: above the soft one a time begins to run."""

    def limit(one: str, other: str) -> float:
        return min((value for value in (_number(one), _number(other)) if value), default=0.0)

    return [
        Usage("space", _number(used), limit(soft, hard)),
        Usage("files", _number(files), limit(files_soft, files_hard)),
    ]


def _read_rows(text: str) -> list[Usage]:
    """`quota -wp` and `lfs quota -q`: a name, then blocks, soft, hard, grace, files, soft, hard, grace."""
    words = [word for line in text.splitlines() if not line.startswith("Disk quotas") for word in line.split()]
    for start in range(len(words) - 7):
        row = words[start : start + 8]
        if all(_is_number(row[column]) for column in (0, 1, 2, 4, 5, 6)) and not _is_number(words[start - 1]):
            return _usages(*row[:3], *row[4:7])
    return []


def _is_number(word: str) -> bool:
    return word.strip("*[]k").isdigit()


def _read_gpfs(text: str) -> list[Usage]:
    """`mmlsquota -Y`: a line of names, then one of values, with colons in between."""
    lines = [line.split(":") for line in text.splitlines() if line.count(":") > 10]
    for names, values in zip(lines, lines[1:]):
        row = dict(zip(names, values))
        if "HEADER" in names and "blockUsage" in row:
            keys = ("blockUsage", "blockQuota", "blockLimit", "filesUsage", "filesQuota", "filesLimit")
            return _usages(*(row.get(key, "") for key in keys))
    return []


def _read_beegfs(text: str) -> list[Usage]:
    """`beegfs-ctl --getquota --csv`: name, id, size, its limit, files, their limit."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) >= 6 and cells[1].isdigit():
            return _usages(cells[2], "", cells[3], cells[4], "", cells[5])
    return []


_TOOLS = (
    _Tool(("lustre",), lambda probe: ("lfs", "quota", "-q", "-u", str(os.getuid()), probe.path), _read_rows),
    _Tool(("gpfs",), lambda probe: ("mmlsquota", "-Y", "-u", str(os.getuid()), probe.fs.mount.source), _read_gpfs),
    _Tool(
        ("beegfs",),
        lambda probe: (
            *("beegfs-ctl", "--getquota", "--csv", "--uid", str(os.getuid())),
            f"--mount={probe.fs.mount.path}",
        ),
        _read_beegfs,
    ),
    _Tool((), lambda probe: ("quota", "-wp", "-f", probe.fs.mount.path), _read_rows),
)
