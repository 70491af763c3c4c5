"""How doctors on several hosts find each other in a directory, and talk by files in it.

Each has a probe directory of its own. While it waits it renames a file there, so that the others see that it lives
whatever the clocks say; what a killed one left does not change. Who finds as many as were asked for, itself the first
of them by rank and name, writes down who they are, and leads. From then on each says things by files in its own
directory that appear whole, and hears those of the others by fresh listings. No lock is needed, and no clock.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from stat import S_ISDIR
from typing import Any, NamedTuple

from ddmq_hpc.doctor.probing import Probe
from ddmq_hpc.fs import GONE
from ddmq_hpc.identity import boot, host
from ddmq_hpc.names import is_probe

#: Seconds between two signs of life of one who waits.
_BEAT = 0.3
#: Seconds that a member has for an answer that takes no work.
ANSWER_SECONDS = 30.0
_MOST_BYTES = 1 << 20
_HELLO, _GROUP, _BEATS = "hello", "group", "beat-"


class Lost(Exception):
    """Somebody did not come, or does not answer any more; the text is for a person."""


class Member(NamedTuple):
    """A doctor as the others know it; `kernel` names the boot of its host. They come in this order."""

    rank: int
    name: str  # of its probe directory
    host: str
    kernel: str


class Meeting(NamedTuple):
    """Who met. The first member leads."""

    probe: Probe
    members: tuple[Member, ...]
    me: Member

    @property
    def leads(self) -> bool:
        return self.me == self.members[0]

    @property
    def others(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member != self.me)

    @property
    def hosts(self) -> int:
        return len({member.kernel for member in self.members})

    def say(self, what: str, value: Any) -> None:
        """Put a message in place whole. Raises OSError."""
        _say(self.probe, what, value)

    def hear(self, member: Member, what: str, patience: float = ANSWER_SECONDS) -> Any:
        """The message of that name of a member, once it is there. Raises `Lost` when it does not come, OSError."""
        fs, directory = self.probe.fs, f"{self.probe.path}/{member.name}"
        for _ in _polls(self.probe, directory, patience):
            if what in fs.names(directory):
                return _read(self.probe, f"{directory}/{what}")
            if not fs.is_there(directory):
                raise Lost(f"the doctor on {member.host} went away")
        raise Lost(f"the doctor on {member.host} did not answer within {patience:g} s")


def gather(probe: Probe, count: int, patience: float, rank: int = 0) -> Meeting:
    """Meet `count` - 1 others; the lowest rank leads. Raises `Lost` when they do not come within `patience` seconds,
    OSError."""
    fs = probe.fs
    me = Member(rank, probe.place.rpartition("/")[2], host(), boot())
    own = fs.lstat(probe.place)
    _say(probe, _HELLO, {"count": count, "rank": rank, "host": me.host, "kernel": me.kernel})
    beats, beaten = 0, fs.monotonic()
    fs.create(probe.at(f"{_BEATS}{beats}"), b"", False)
    first: dict[str, str] = {}  # name of another's directory -> the beat that it was first seen with
    alive: dict[str, Member] = {me.name: me}
    for _ in _polls(probe, probe.path, patience):
        if fs.monotonic() - beaten > _BEAT:
            fs.rename(probe.at(f"{_BEATS}{beats}"), probe.at(f"{_BEATS}{beats + 1}"))
            beats, beaten = beats + 1, fs.monotonic()
        for name in fs.names(probe.path):
            if name == me.name or not is_probe(name) or not _is_ours(probe, name, own):
                continue
            said = fs.names(f"{probe.path}/{name}")
            if _GROUP in said and (found := _group(probe, name, me)):
                return Meeting(probe, found, me)
            beat = next((one for one in said if one.startswith(_BEATS)), None)
            if beat and name not in alive and first.setdefault(name, beat) != beat:
                found_member = _member(probe, name, count)
                if found_member:
                    alive[name] = found_member
        chosen = tuple(sorted(alive.values())[:count])
        if len(chosen) == count and chosen[0] == me:
            _say(probe, _GROUP, [member._asdict() for member in chosen])
            return Meeting(probe, chosen, me)
    raise Lost(f"{len(alive)} of {count} came within {patience:g} s")


def _polls(probe: Probe, directory: str, patience: float) -> Iterator[None]:
    """Turns of a loop that waits for a name to appear in a directory: quick at first, then slower. The directory is
    refreshed now and then, since on NFS v3 a listing can stay incomplete for good."""
    fs = probe.fs
    began, pause, turns = fs.monotonic(), 0.001, 0
    while fs.monotonic() - began < patience:
        yield
        fs.sleep(pause)
        pause, turns = min(pause * 1.2, 0.02), turns + 1
        if turns % 16 == 0:
            fs.refresh(directory)


def _is_ours(probe: Probe, name: str, own: os.stat_result) -> bool:
    """A directory of this user's that is no more open to others than his `own` probe, so neither a link nor another
    one of his that somebody put there."""
    try:
        found = probe.fs.lstat(f"{probe.path}/{name}")
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    return S_ISDIR(found.st_mode) and found.st_uid == own.st_uid and not found.st_mode & ~own.st_mode & 0o077


def _member(probe: Probe, name: str, count: int) -> Member | None:
    """Who waits there, when it waits for as many as we do."""
    hello = _read(probe, f"{probe.path}/{name}/{_HELLO}")
    if not isinstance(hello, dict) or hello.get("count") != count or not isinstance(hello.get("rank"), int):
        return None
    return Member(hello["rank"], name, str(hello.get("host")), str(hello.get("kernel")))


def _group(probe: Probe, leader: str, me: Member) -> tuple[Member, ...] | None:
    """The members of the group of that leader, when we are among them."""
    found = _read(probe, f"{probe.path}/{leader}/{_GROUP}")
    try:
        members = tuple(
            Member(int(one["rank"]), str(one["name"]), str(one["host"]), str(one["kernel"])) for one in found
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    ours = all(is_probe(member.name) for member in members) and me in members and members[0].name == leader
    return members if ours else None


def _say(probe: Probe, what: str, value: Any) -> None:
    aside = probe.at(f".{what}")
    probe.fs.create(aside, json.dumps(value).encode(), False)
    probe.fs.rename(aside, probe.at(what))


def _read(probe: Probe, path: str) -> Any:
    """What a message says; None for what is none."""
    try:
        return json.loads(probe.fs.read_some(path, _MOST_BYTES)[1])
    except (ValueError, RecursionError):
        return None
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
