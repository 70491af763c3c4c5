"""Starting from a network file system, installed and as one file: `python benchmarks/startup_on_nfs.py [ROUNDS]`.

A client (a guest of this host: see tests/nfs) starts whole processes from a mount, whose server answers after 1 ms:
right after mounting, so that nothing is remembered, and once more. Python itself is on the client's disk. Needs root.
Prints the second table of STARTUP.md.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "nfs"))

from guests import Guest, Site, running, why_not
from locks import calls
from startup import make

ANSWER_SECONDS = 0.001
_REMOUNT = "umount -l /{0} && mount -t nfs -o vers={1} server:{2} /{0}"
MOUNTS = {"nfs3": (3, "/export"), "nfs4": (4.2, "/")}
WAYS = ("installed", "one file")


class Start(NamedTuple):
    """What one start took: seconds, and requests to the server."""

    seconds: float
    requests: int


def start(client: Guest, mount: str, command: str) -> Start:
    before = calls(client, mount)
    script = f"s=$(date +%s%N); {command} >/dev/null; echo $(($(date +%s%N) - s))"
    seconds = client.check("bash", "-ec", script, PYTHONPATH="")
    return Start(int(seconds) / 1e9, calls(client, mount) - before)


def starts(client: Guest, mount: str, command: str) -> tuple[Start, Start]:
    """The first one after mounting, and the next one."""
    client.check("bash", "-c", _REMOUNT.format(mount, *MOUNTS[mount]))
    client.check("ls", f"/{mount}")
    return start(client, mount, command), start(client, mount, command)


def commands(mount: str, words: str) -> dict[str, str]:
    python = shlex.quote(sys._base_executable)  # type: ignore[attr-defined]
    return {
        "installed": f"/{mount}/start/tree/bin/python -m ddmq_hpc {words}",
        "one file": f"{python} /{mount}/start/ddmq-hpc.pyz {words}",
    }


def put_on_server(site: Site) -> None:
    place = site.server.home / "made"  # of this host's files it sees those, and what it is booted from
    place.mkdir()
    make(place)
    site.server.check("mkdir", "/export/start")
    for name in ("tree", "ddmq-hpc.pyz"):
        site.server.check("cp", "-a", str(place / name), "/export/start/", timeout=300)


def rows(client: Guest, rounds: int) -> Iterator[str]:
    client.check(sys.executable, "-m", "ddmq_hpc", "create", "-f", "/tmp/root", "q")
    for mount in MOUNTS:
        for words in ("--version", "publish -q --no-durable /tmp/root q text"):
            found: dict[str, list[tuple[Start, Start]]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way, command in commands(mount, words).items():
                    found[way].append(starts(client, mount, command))
            first, again = (median(pair[at].seconds for pair in found["installed"]) for at in (0, 1))
            for way in WAYS:
                cold, warm = ([pair[at] for pair in found[way]] for at in (0, 1))
                cells = [
                    f"{median(one.seconds for one in cold) / first:.2f}",
                    f"{median(one.requests for one in cold):.0f}",
                    f"{median(one.seconds for one in warm) / again:.2f}",
                    f"{median(one.requests for one in warm):.0f}",
                ]
                yield f"| {mount} | `{words.split()[0]}` | {way} | {' | '.join(cells)} |"


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    if reason := why_not():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as directory, running(Path(directory), clients=1) as site:
        put_on_server(site)
        site.network.delay(site.server, ANSWER_SECONDS)
        print("| mount | | | first start | requests | next start | requests |\n|---|---|---|--:|--:|--:|--:|")
        for row in rows(site.clients[0], rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
