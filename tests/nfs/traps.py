"""Operations whose replies get lost between real kernels, each at one call that is known: the host's side of
`programs/trial.py` and `programs/deliver.py`."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any, Callable, NamedTuple

from guests import PROJECT, Guest, Site
from truth import CREATE_EMPTY, OPERATIONS, changing_calls, check_whereabouts

#: Where clients have the server's /export, by the version of NFS.
MOUNTS = {3: "/nfs3", 4: "/nfs4"}
VARIABLES = {"PYTHONPATH": f"{PROJECT}:{PROJECT}/tests/engine"}
#: Seconds: servers boot in few, but clients may take a minute to ask again.
PATIENCE = 150
_POLL = 0.02

#: Beginnings of the requests for each call: of RFC 1813 program, version and procedure; of RFC 7530 and 5661 the
#: operation.
_PROCEDURES_3 = {"create_open": 8, "mkdir": 9, "unlink": 12, "rmdir": 13, "rename": 14, "link": 15, "write": 7}
_OPERATIONS_4 = {"create_open": 18, "mkdir": 6, "unlink": 28, "rmdir": 28, "rename": 29, "link": 11, "write": 38}
_A_DIRECTORY = b"\0\0\0\2"
_NFS_3 = (100003).to_bytes(4, "big") + (3).to_bytes(4, "big")
#: What is tried of a call that an operation does, where that is not just the call.
_KINDS = {"create_open": ("create_open", "write"), CREATE_EMPTY: ("create_open",), "": ()}
#: What the server's state tells of a call once it was executed.
_EXECUTED = {
    "rename": "-e {1}",
    "link": "-e {1}",
    "unlink": "! -e {0}",
    "mkdir": "-d {0}",
    "create_open": "-e {0}",
    "write": "-s {0}",
}


class Trial(NamedTuple):
    """An operation and one call of it, the `at`-th that changes a name, on one version of NFS. The call "write" is a
    create_open of which the content is watched."""

    operation: str
    at: int
    call: str
    version: int

    def __str__(self) -> str:
        return f"{self.call} {self.at} of {self.operation!r} on NFS v{self.version}"

    def root(self, mounts: Mapping[int, str], place: str) -> str:
        label = "".join(letter if letter.isalnum() else "-" for letter in self.operation)
        return f"{mounts[self.version]}/{place}/{label}.{self.at}.{self.call}"


def trials_of(operations: Iterable[str], scratch: Path) -> list[Trial]:
    """Each call of each operation that changes a name, on the versions of NFS in turn for each kind of call."""
    found: list[Trial] = []
    versions: defaultdict[str, Iterator[int]] = defaultdict(lambda: cycle(MOUNTS))
    for number, name in enumerate(operations):
        for at, call in enumerate(changing_calls(OPERATIONS[name], str(scratch / str(number))), 1):
            for kind in _KINDS.get(call, (call,)):
                found.append(Trial(name, at, kind, next(versions[kind])))
    return found


def request(trial: Trial, paths: list[str]) -> tuple[bytes, ...]:
    """What the frame of a trial's call holds, and no other frame of its client."""
    if trial.call == "write":
        written = json.dumps(next(iter(OPERATIONS[trial.operation].new))).encode()
        return request_of("write", trial.version, written)
    name = paths[1] if trial.call == "link" else paths[0]
    return request_of(trial.call, trial.version, component(name))


def request_of(call: str, version: int, content: bytes) -> tuple[bytes, ...]:
    """What the frame of a call with this content holds: what it writes, or the first of the names that it is about."""
    if version == 3:
        return _NFS_3 + _PROCEDURES_3[call].to_bytes(4, "big"), content
    operation = _OPERATIONS_4[call].to_bytes(4, "big")
    if call in ("write", "create_open"):  # much stands between them
        return operation, content
    return (operation + (_A_DIRECTORY if call == "mkdir" else b"") + content,)


def component(path: str) -> bytes:
    """The name at the end of a path as requests have it."""
    name = path.rpartition("/")[2].encode()
    return len(name).to_bytes(4, "big") + name


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first answer of `condition` that is true."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(_POLL)
    return answer


class Trials:
    """A client that does trials one after another, in a `place` below these mounts."""

    def __init__(self, site: Site, client: Guest, trials: list[Trial], mounts: Mapping[int, str], place: str) -> None:
        self.client = client
        self.trials = trials
        self._mounts = mounts
        for old in (*client.home.glob("go-*"), *client.home.glob("seen-*")):
            old.unlink()
        orders = json.dumps([(trial.root(mounts, place), trial.operation, trial.at) for trial in trials])
        self._run = site.python(client, "trial", client.home, orders, **VARIABLES)
        self._said = self._lines()
        self.paths: list[str] = []

    def _lines(self) -> Iterator[dict[str, Any]]:
        heard = 0
        while True:
            lines = until(self._more_than(heard), f"a word of {self.client.name}")
            for line in lines[heard:]:
                yield json.loads(line)
            heard = len(lines)

    def _more_than(self, heard: int) -> Callable[[], list[str]]:
        def look() -> list[str]:
            ended = self._run.has_ended()
            lines = self._run.output().split("\n")[:-1]
            if ended and len(lines) <= heard:
                raise AssertionError(f"{self.client.name}: {self._run.wait().stderr[-3000:]}")
            return lines if len(lines) > heard else []

        return look

    def next(self) -> dict[str, Any]:
        return next(self._said)

    def reach(self, number: int) -> None:
        """Wait until it is about to do the call of a trial."""
        said, trial = self.next(), self.trials[number]
        call = "create_open" if trial.call == "write" else trial.call
        assert said["call"] == call, f"{trial}: {said}"
        self.paths = said["paths"]

    def go(self, number: int) -> None:
        (self.client.home / f"go-{number}").touch()

    def go_on(self, number: int) -> None:
        """Let the operation hear of the EIO that its call got."""
        (self.client.home / f"seen-{number}").touch()

    def executed(self, number: int) -> str:
        """A shell's condition that is true on the server once the call was executed."""
        trial = self.trials[number]
        mount = self._mounts[trial.version]
        there = [path.replace(mount, "/export", 1) for path in self.paths]
        return f"[ {_EXECUTED[trial.call].format(*there)} ]"

    def end(self) -> None:
        done = self._run.wait(PATIENCE)
        assert done.returncode == 0, done.stderr[-3000:]


def wait_until_executed(site: Site, conditions: list[str]) -> None:
    """Once as many requests were met as there are conditions of the server's shell: until these are true, and on its
    disk."""
    until(lambda: site.network.trapped() == len(conditions), f"the requests for {conditions}", 20)
    waits = [f"until {condition}; do sleep 0.02; done" for condition in conditions]
    site.server.check("bash", "-c", "; ".join([*waits, "sync"]), timeout=20)


def forget_replies(site: Site, executed: list[str]) -> None:
    """Cut the server's power behind the requests that it `executed`, and boot it again: it knows nothing of them."""
    wait_until_executed(site, executed)
    site.server.cut_power()
    site.network.heal()
    site.boot(site.server)


def check_deliveries(site: Site, client: Guest, trials: list[Trial], place: str, reports: list[dict[str, Any]]) -> None:
    """What `client`, which had no part in these trials, gets of them. It looks by the other version of NFS."""
    roots = [trial.root({3: MOUNTS[4], 4: MOUNTS[3]}, place) for trial in trials]
    done = site.python(client, "deliver", *roots, **VARIABLES).wait(PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    for trial, report, line in zip(trials, reports, done.stdout.splitlines()):
        dead, delivered = json.loads(line)
        failed = report["failed"] is not None
        check_whereabouts(OPERATIONS[trial.operation], failed, dead, report["acked"] + delivered, f"{trial}: {report}")
