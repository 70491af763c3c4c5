"""Locks for users beside filelock's and flufl's, on one NFS: `python benchmarks/locks.py [ROUNDS]`.

Twelve processes on three clients (guests of this host: see tests/nfs) take and let go of one lock for eight seconds.
Needs root, and flufl.lock from requirements.txt. Prints the table of LOCKS.md.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "nfs"))

from guests import Guest, Site, running, why_not

KINDS = {"ours": "ddmq-hpc", "filelock": "filelock StrictSoftFileLock", "flufl": "flufl.lock"}
SECONDS, PROCESSES = 8, 4


def calls(client: Guest, mount: str) -> int:
    """Requests that a client has sent to its server for a mount."""
    _, _, stats = client.check("cat", "/proc/self/mountstats").partition(f"mounted on /{mount} ")
    return sum(map(int, re.findall(r"^\s+[A-Z_]+: (\d+) ", stats.partition("\ndevice ")[0], re.MULTILINE)))


def violations(lines: list[str]) -> int:
    inside, wrong = "", 0
    for line in lines:
        what, _, who = line.partition(" ")
        wrong += bool(inside) if what == "begin" else inside != who
        inside = who if what == "begin" else ""
    return wrong


def measure(site: Site, mount: str, kind: str, name: str) -> dict[str, float]:
    top = f"/{mount}/{name}"
    site.clients[0].check("mkdir", top)
    site.clients[0].check("touch", f"{top}/log")
    before = sum(calls(client, mount) for client in site.clients)
    begin = time.time() + 6
    runs = [
        site.python(client, "contend", kind, f"{top}/it", f"{top}/log", SECONDS, PROCESSES, begin)
        for client in site.clients
    ]
    done = [json.loads(line) for run in runs for line in run.wait(200).stdout.splitlines()]
    turns = [one["turns"] for one in done]
    lines = site.server.check("cat", f"/export/{name}/log").splitlines()
    total = sum(turns)
    return {
        "rate": total / SECONDS,
        "fewest": min(turns),
        "most": max(turns),
        "longest": max(one["longest"] for one in done),
        "calls": (sum(calls(client, mount) for client in site.clients) - before) / max(total, 1),
        "violations": violations(lines) + abs(len(lines) - 2 * total),
        "errors": sum(len(one["errors"]) for one in done),
    }


def main() -> None:
    if reason := why_not():
        sys.exit(reason)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as home, running(Path(home)) as site:
        for number in range(rounds):
            for mount in ("nfs3", "nfs4"):
                for kind in KINDS:
                    one = measure(site, mount, kind, f"{mount}-{kind}-{number}")
                    print(mount, kind, one, file=sys.stderr, flush=True)
                    found[mount, kind].append(one)
    print("| | | turns a second | fewest-most of one | longest wait (s) | requests a turn | violations | errors |")
    print("|---|---|---|---|---|---|---|---|")
    for (mount, kind), all_of in found.items():
        rate, longest, asked = (median(one[key] for one in all_of) for key in ("rate", "longest", "calls"))
        spread = ", ".join(f"{one['fewest']}-{one['most']}" for one in all_of)
        wrong, errors = (sum(one[key] for one in all_of) for key in ("violations", "errors"))
        row = (mount, KINDS[kind], f"{rate:.1f}", spread, f"{longest:.1f}", f"{asked:.0f}", wrong, errors)
        print("| " + " | ".join(map(str, row)) + " |")


if __name__ == "__main__":
    main()
