"""What starting costs, installed and as one file: `python benchmarks/startup.py [ROUNDS]` prints STARTUP.md's table.

Both are made by the Python that runs this, from this clone. Needs strace.
"""

from __future__ import annotations

import collections
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
#: What is asked of the file system, by system call. All but `read` are about names.
KINDS = {
    "opened": ("open", "openat"),
    "looked up": ("stat", "lstat", "newfstatat", "statx", "access", "faccessat2", "readlink", "readlinkat", "execve"),
    "listed": ("getdents64",),
}
CALLS = {call: kind for kind, calls in KINDS.items() for call in calls}
# Of a handle and of no name: nothing is looked up.
_BY_HANDLE = re.compile(r"AT_EMPTY_PATH|newfstatat\(\d+<")


def make(place: Path) -> dict[str, tuple[list[str], Path]]:
    """How each is started, and where its own files are."""
    subprocess.run([sys.executable, "-m", "venv", place / "tree"], check=True)
    python = str(place / "tree" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", TOP], check=True)
    file = place / "ddmq-hpc.pyz"
    subprocess.run(
        [sys.executable, TOP / "recipes" / "pyz.py", file],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {
        "installed": ([str(place / "tree" / "bin" / "ddmq-hpc")], place / "tree"),
        "one file": ([sys._base_executable, str(file)], file),  # type: ignore[attr-defined]
    }


def calls(command: list[str], own: Path, log: Path) -> collections.Counter[str]:
    """How often each is asked about the command's own files, and how many names these are."""
    traced = ",".join(CALLS)
    subprocess.run(
        ["strace", "-f", "-y", "-s", "500", "-o", log, "-e", f"trace=?{traced.replace(',', ',?')}", *command],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    found: collections.Counter[str] = collections.Counter()
    names = set()
    for line in log.read_text().splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        if not call or call[1] not in CALLS or str(own) not in line or _BY_HANDLE.search(line):
            continue
        found[CALLS[call[1]]] += 1
        names.update(re.findall(rf'"({re.escape(str(own))}[^"]*)"', line))
    found["names"] = len(names)
    return found


def median_times(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """Seconds from start to end of each, in turn."""
    took: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in took.items()}


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 30
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        ways = make(place)
        root = str(place / "root")
        subprocess.run([*ways["installed"][0], "create", "-f", root, "q"], check=True, capture_output=True)
        print("| | | time | opened | looked up | listed | different names |\n|---|---|---|---|---|---|---|")
        for words in (["--version"], ["publish", "-q", "--no-durable", root, "q", "text"]):
            commands = {name: [*start, *words] for name, (start, _) in ways.items()}
            times = median_times(commands, rounds)
            for name, (_, own) in ways.items():
                asked = calls(commands[name], own, place / "trace")
                ratio = times[name] / times["installed"]
                cells = " | ".join(str(asked[kind]) for kind in (*KINDS, "names"))
                print(f"| `{words[0]}` | {name} | {ratio:.2f} | {cells} |")


if __name__ == "__main__":
    main()
