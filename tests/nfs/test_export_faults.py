"""An export that fills up, uses up a quota, becomes read-only or takes a user's permission away while publishers,
takers and workers use it, on NFS v3 and v4.2 at once, and is cured. Guarantee: who asks meanwhile gets one clear line
and the exit code that is documented; looking works wherever reading does; no message is lost or doubled, and no outcome
of one; and when it is cured the same processes, and new commands, go on."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from guests import HERE, Guest, Run, Site
from traps import PATIENCE, until

pytestmark = [pytest.mark.nfs, pytest.mark.slow, pytest.mark.timeout(600)]

#: All clients are a user who is not root: a server lets root have the last blocks of a disk, and no quota holds it.
USER = 4001
#: In the client this user may read what only root may, such as the interpreter. The server asks for the user alone.
AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
MOUNTS = {3: "/small3", 4: "/small4"}
#: By default clients may remember for a minute what a directory permits, which is long to wait for.
OPTIONS = "acdirmin=1,acdirmax=3"
MOUNTING = f"""
mkdir -p /small3 /small4
mountpoint -q /small3 || mount -t nfs -o vers=3,{OPTIONS} server:/export/small /small3
mountpoint -q /small4 || mount -t nfs -o vers=4.2,{OPTIONS} server:/small /small4
"""
PLACE = "faults"
EXPORT = f"/export/small/{PLACE}"
EXPORTING = "exportfs -o {},sync,no_root_squash,no_subtree_check,fsid=1,insecure 10.77.0.0/24:/export/small"
#: For programs, for workers whose tasks take longer than their leases last without heartbeats, for commands.
LOAD, LONG, SINGLE = QUEUES = ("load", "long", "single")
LEASE, TASK, TASKS = 1.5, 2, 200
#: How long each fault lasts at least: longer than a lease.
FAULT_SECONDS = 3.0
TRY_AGAIN, FAILURE = 75, 1


@dataclass(frozen=True)
class Fault:
    """What the server's shell does to the export, and undoes. Meanwhile it says one of `errnos`, and commands exit with
    `code`. `strict`: it never lets anybody publish. `moves`: names may be changed. `reads`: all can be looked at."""

    breaks: str
    cures: str
    errnos: frozenset[int]
    code: int
    strict: bool = True
    moves: bool = False
    reads: bool = True


FAULTS = {
    # Acks free some room again and again, which is filled again and again.
    "full": Fault(
        f"""fill() {{ {" ".join(AS_USER)} dd if=/dev/zero of=/export/small/filler bs=1M oflag=append conv=notrunc; }}
        (until [ -e /tmp/cured ]; do fill; done; rm /export/small/filler /tmp/cured) >/dev/null 2>&1 &
        until [ $(stat -f -c %a /export/small) -lt 8 ]; do sleep 0.02; done""",
        "touch /tmp/cured; while [ -e /tmp/cured ]; do sleep 0.02; done",
        frozenset({errno.ENOSPC}),
        TRY_AGAIN,
        strict=False,
        moves=True,
    ),
    "quota": Fault(
        f"setquota -u {USER} 1 1 1 1 /export/small",
        f"setquota -u {USER} 0 0 0 0 /export/small",
        frozenset({errno.EDQUOT}),
        TRY_AGAIN,
        moves=True,
    ),
    # Exported so: a file system with files open for writing is not remounted, but by force, and then not always back.
    # On v3 a file that cannot be opened for writing is said to be forbidden.
    "read-only": Fault(
        EXPORTING.format("ro"),
        EXPORTING.format("rw"),
        frozenset({errno.EROFS, errno.EACCES}),
        FAILURE,
    ),
    "no permission to write": Fault(
        # Buckets go away meanwhile.
        f"until find {EXPORT} -type d -exec chmod u-w {{}} +; do true; done",
        f"find {EXPORT} -type d -exec chmod u+w {{}} +",
        frozenset({errno.EACCES}),
        FAILURE,
    ),
    # Clients remember for a while what they were permitted, and what not.
    "no permission": Fault(
        f"chmod 0 {EXPORT}",
        f"chmod 755 {EXPORT}",
        frozenset({errno.EACCES}),
        FAILURE,
        strict=False,
        reads=False,
    ),
}

#: Prints the receipts of so many messages, whose leases outlive the program, and publishes as many more.
HOLD = """
import sys
from ddmq_hpc import Broker
from ddmq_hpc.identity import Detached
root, queue, count, label = sys.argv[1:]
with Broker(root, identity=Detached()) as broker:
    for number in range(int(count)):
        broker.publish(queue, f"held {label}.{number}", priority=0)
        print(broker.consume(queue)[0].receipt)
    for number in range(int(count)):
        broker.publish(queue, f"ready {label}.{number}")
"""


def root(version: int) -> str:
    return f"{MOUNTS[version]}/{PLACE}"


def python(client: Guest, *arguments: object) -> Run:
    return client.start(*AS_USER, sys.executable, *map(str, arguments))


def command(client: Guest, *arguments: object) -> Run:
    return python(client, "-m", "ddmq_hpc", *arguments)


def succeed(run: Run) -> str:
    done = run.wait(PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Load:
    """What goes on all the time: programs that publish, take and ack, and workers."""

    def __init__(self, site: Site) -> None:
        self.site = site
        one, two, three = site.clients
        for client in site.clients:
            (client.home / "stop").unlink(missing_ok=True)
        self.programs = [
            self._program(client, version, *words)
            for client, version, *words in (
                (one, 3, "publish", "a"),
                (two, 4, "publish", "b"),
                (two, 3, "take", 8),
                (three, 4, "take", 1),
                (one, 4, "take", 8),
            )
        ]
        self.workers = [self._worker(three, 3), self._worker(one, 4)]
        self.breaking = [0] * len(self.programs)

    @staticmethod
    def _program(client: Guest, version: int, *words: object) -> Run:
        return python(client, HERE / "programs" / "stubborn.py", client.home, root(version), LOAD, *words)

    @staticmethod
    def _worker(client: Guest, version: int) -> Run:
        words = ("work", "-j", 2, "--lease", f"{LEASE}s", "--until", "forever", root(version), LONG)
        return command(client, *words, "--", "sh", "-c", f"sleep {TASK} && echo $DDMQ_HPC_ID >>/tmp/ended")

    @staticmethod
    def _events(run: Run, start: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in run.output()[start:].splitlines(True) if line.endswith("\n")]

    def events(self) -> list[dict[str, Any]]:
        return [event for run in self.programs for event in self._events(run)]

    def is_about_to_meet_a_fault(self) -> None:
        self.breaking = [len(run.output()) for run in self.programs]

    def meets(self, fault: Fault) -> None:
        """Publishers are refused; all that are (takers may find nothing to take) are by such errors and no others."""
        asking = list(zip(self.programs, self.breaking))
        for run, start in asking[:2] if fault.strict or fault.moves else ():
            until(lambda: any("refused" in event for event in self._events(run, start)), "refused")  # noqa: B023
        for event in (event for run, start in asking for event in self._events(run, start) if "refused" in event):
            assert event["errno"] in fault.errnos and event["code"] == fault.code, event

    def goes_on(self) -> None:
        """From now on each program does something, other than being refused, and each worker acks what it does."""

        def done(run: Run) -> int:
            assert not run.has_ended(), run.wait().stderr[-3000:]
            return sum("refused" not in event for event in self._events(run))

        runs = [*self.programs]
        before, acked = [done(run) for run in runs], len(self.acked(LONG))
        until(lambda: all(done(run) > count for run, count in zip(runs, before)), "all programs go on")
        until(lambda: len(self.acked(LONG)) > acked, "workers go on")
        for worker in self.workers:
            assert not worker.has_ended(), worker.wait().stderr[-3000:]

    def records(self, queue: str) -> list[dict[str, Any]]:
        """What the journal says; a full disk takes half a record, or leaves zeros in place of some: those are written
        again."""
        text = self.site.server.check("bash", "-c", f"cat {EXPORT}/{queue}/journal/* 2>/dev/null || true")
        lines = [line for line in text.split("\n") if line.startswith("{") and line.endswith("}") and "\0" not in line]
        return list(map(json.loads, lines))

    def acked(self, queue: str) -> set[str]:
        return set(_ids(self.records(queue), "acked"))

    def stop(self) -> None:
        """The programs once nothing is left, and the workers, as they would be by their scheduler."""
        for client in self.site.clients:
            (client.home / "stop").touch()
        for client in self.site.clients:
            client.run("bash", "-c", f"pkill -TERM -u {USER} -f 'ddmq_hpc [w]ork'")
        for run in (*self.programs, *self.workers):
            succeed(run)


def _ids(records: list[dict[str, Any]], state: str) -> Iterator[str]:
    """The messages that records in this state tell of."""
    for record in records:
        if record["state"] == state:
            pack, _, number = record["id"].rpartition(".")
            first, _, stop = number.partition("-")
            yield from (f"{pack}.{index}" for index in range(int(first), int(stop or int(first) + 1)))


#: What commands are asked in the middle of a fault, on each version; those that only look where names may not change.
CHANGING = {3: ("publish", "ack"), 4: ("pull", "ack")}
LOOKING = {3: ("view", "doctor"), 4: ("status", "peek")}


@dataclass
class Asker:
    """Who asks by commands, on one version of NFS, in the middle of a fault and after it."""

    client: Guest
    version: int
    receipts: list[str]
    there: set[str]  # what was published by all of them and is not gone
    again: list[str] = field(default_factory=list)  # receipts to be acked when the fault is over

    def ask(self, fault: Fault, name: str) -> dict[str, Run]:
        words = {"publish": (SINGLE, name), "pull": (SINGLE,), "ack": (SINGLE, self.receipts[-1]), "peek": (SINGLE,)}
        verbs = CHANGING[self.version] + (() if fault.moves else LOOKING[self.version])
        return {verb: command(self.client, verb, root(self.version), *words.get(verb, ())) for verb in verbs}

    def hear(self, fault: Fault, name: str, runs: dict[str, Run]) -> None:
        """Each command did what it is for and said nothing, or did nothing and said why in one line."""
        self.again = [self.receipts.pop()]
        for verb, run in runs.items():
            done = run.wait(PATIENCE)
            where = f"{verb} with {name!r} on v{self.version}: {done}"
            if verb == "doctor":
                assert done.returncode == FAILURE and "failure  writable" in done.stdout, where
            elif done.returncode == 0:
                assert done.stderr == "", where
                assert verb != "publish" or not fault.strict, where
                self._took_note_of(verb, name, done.stdout)
            else:
                assert done.returncode == fault.code, where
                assert verb not in LOOKING[self.version] or not fault.reads, where
                assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("ddmq-hpc: cannot "), where
                assert any(os.strerror(code) in done.stderr for code in fault.errnos), where
                assert "nothing was lost: " in done.stderr, where

    def _took_note_of(self, verb: str, name: str, said: str) -> None:
        if verb == "publish":
            self.there.add(name)
        elif verb == "ack":
            self.again.pop(0)
        elif verb == "pull":
            message = json.loads(said)
            self.again.append(message["receipt"])
            self.there.discard(message["message"])

    def go_on(self, name: str) -> list[Run]:
        """After the cure: what was refused is done, what was pulled is settled, all of which must succeed."""
        at, late = root(self.version), f"after {name} on v{self.version}"
        self.client.check(*AS_USER, "bash", "-c", f"until ls {at}/*; do sleep 0.1; done")
        self.there.add(late)
        acks = [command(self.client, "ack", at, SINGLE, ",".join(self.again))] if self.again else []
        return [*acks, command(self.client, "publish", at, SINGLE, late)]


@pytest.fixture
def load(site: Site) -> Iterator[Load]:
    for client in site.clients:
        client.check("bash", "-ec", MOUNTING)
    site.server.check("rm", "-rf", EXPORT)
    for queue in QUEUES:
        succeed(command(site.clients[0], "create", "-f", root(4), queue, "--set", "requeue_limit=1000"))
    tasks = Path(site.clients[0].home / "tasks")
    tasks.write_text("".join(f"{number}\n" for number in range(TASKS)))
    succeed(command(site.clients[0], "publish", root(4), LONG, "--each-line", tasks))
    it = Load(site)
    yield it
    for run in (*it.programs, *it.workers):
        if not run.has_ended():
            run.kill()


def test_an_export_that_fails_and_is_cured(load: Load) -> None:
    site = load.site
    askers: list[Asker] = []
    there: set[str] = set()
    for version, client in ((3, site.clients[1]), (4, site.clients[2])):
        receipts = succeed(python(client, "-c", HOLD, root(version), SINGLE, len(FAULTS), version)).split()
        there |= {f"ready {version}.{number}" for number in range(len(FAULTS))}
        askers.append(Asker(client, version, receipts, there))
    for name, fault in FAULTS.items():
        load.goes_on()
        load.is_about_to_meet_a_fault()
        site.server.check("bash", "-c", fault.breaks)
        begun = time.monotonic()
        asked = [asker.ask(fault, name) for asker in askers]
        for asker, runs in zip(askers, asked):
            asker.hear(fault, name, runs)
        load.meets(fault)
        time.sleep(max(0, begun + FAULT_SECONDS - time.monotonic()))
        site.server.check("bash", "-c", fault.cures)
        for run in [run for asker in askers for run in asker.go_on(name)]:
            succeed(run)
    load.goes_on()
    load.stop()
    check_programs(load)
    check_workers(load)
    pulled = succeed(command(site.clients[0], "pull", "-n", 100, root(4), SINGLE)).splitlines()
    assert sorted(json.loads(line)["message"] for line in pulled) == sorted(there)


def check_programs(load: Load) -> None:
    counts = {word: Counter[str]() for word in ("published", "unknown", "taken", "done", "ids")}
    for event in load.events():
        for word, count in counts.items():
            count.update(event.get(word, ()))
    published, unknown, taken, done, ids = counts.values()
    assert published - taken == Counter(), "lost"
    assert taken - (published | unknown) == Counter(), "doubled, or published in spite of an error"
    assert done == taken and len(done) > 500
    assert ids.keys() - load.acked(LOAD) == set(), "outcomes are lost"
    find = f"cd {EXPORT}/{LOAD}; find ready leased delayed dead damaged -type f"
    assert load.site.server.check("bash", "-c", find) == "", "something is in the way"


def check_workers(load: Load) -> None:
    """A task whose lease was lost is done once more, no other is, but one that its worker's end met between its last
    word and its exit: that was put back. What is not done is there."""
    records = load.records(LONG)
    acked, lost, released = (Counter(_ids(records, state)) for state in ("acked", "lost", "released"))
    ended = Counter[str]()
    for client in load.site.clients:
        ended.update(client.run("cat", "/tmp/ended").stdout.split())
    assert sum(ended.values()) <= len(acked) + sum(lost.values()) + sum(released.values())
    left = succeed(command(load.site.clients[0], "pull", "-n", TASKS, root(4), LONG)).splitlines()
    assert len(acked) == TASKS - len(left) > 20
    assert acked.keys() <= ended.keys() <= acked.keys() | released.keys()
