"""What only several hosts together can measure: each measurement is a dialogue, led by one.

The leader sends `ask-<number>-<member>`, a word and its values; the member does its half, a function of `_HALVES`, and
answers `answer-<number>`. All that a member remembers between two questions is what it holds open.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, NamedTuple

from ddmq_hpc.doctor.meeting import ANSWER_SECONDS, Lost, Meeting, Member
from ddmq_hpc.doctor.semantics import offset
from ddmq_hpc.fs import GONE, Filesystem

_ECHOES = 20
_ROUNDS = 100
_TRIALS = 100
#: Seconds in which the trials must be done, and how long a reader waits for the first name of one.
_TRIALS_SECONDS, _TRIAL_SECONDS = 10.0, 3.0
#: Seconds after which a stale name or listing is given up on: they last up to 47 s on NFS (measured).
STALE_SECONDS = 10.0
#: Seconds after which a race ends, and the making of names for it, however many are left.
_RACE_SECONDS = _MAKING_SECONDS = 5.0
#: Seconds between the word to race and its start, for all to have heard it.
_TO_START = 0.3
#: Seconds between the names of a race: all go for each of them at the same time, as well as their clocks are known, and
#: who is first by that error shall not always be.
_PACE, _SCATTER = 0.01, 0.001
#: Seconds that members wait for the next question: the leader may be busy with another, or have been killed.
_BETWEEN_SECONDS = 120.0
#: Seconds that members have to go.
_LEAVING_SECONDS = 5.0
#: How moves are contested, each by what the engine itself uses for it.
RACES = ("rename", "link", "create")


class Clock(NamedTuple):
    """The clock of one host: by how much it is ahead of the leader's, and by how much times of its new files are ahead
    of itself, each with the most that it may be wrong by. Seconds."""

    host: str
    ahead: float
    ahead_error: float
    files_ahead: float
    files_error: float


class Stale(NamedTuple):
    """Seconds until a host saw a new name in a directory that it held open, and by a name that it had found missing;
    None: not within `STALE_SECONDS`."""

    host: str
    held: float | None
    missing: float | None


class Trials(NamedTuple):
    """Of how many directories the listing was complete at last, stayed incomplete, and was cured by touching."""

    host: str
    tried: int
    incomplete: int
    cured: int


@dataclass
class Measured:
    """What the hosts found together."""

    hosts: tuple[str, ...]
    kernels: int
    round_trips: list[float] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)
    stale: list[Stale] = field(default_factory=list)
    #: By kind of race, how often each contested name was won, and how many each member won.
    races: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    trials: list[Trials] = field(default_factory=list)


def lead(meeting: Meeting) -> Measured:
    """All measurements. Raises `Lost` when a member does not answer, OSError."""
    leader = _Leader(meeting)
    measured = Measured(tuple(member.host for member in meeting.members), meeting.hosts)
    leader.clocks_and_round_trips(measured)
    leader.races(measured)
    leader.trials(measured)
    leader.stale(measured)
    leader.dismiss()
    return measured


def follow(meeting: Meeting) -> None:
    """Do one's half until the leader has no more questions. Raises `Lost` when the leader goes away, OSError."""
    leader, me = meeting.members[0], meeting.members.index(meeting.me)
    kept: dict[str, Any] = {}
    try:
        for number in range(1_000_000):
            asked = meeting.hear(leader, f"ask-{number}-{me}", _BETWEEN_SECONDS)
            half = _HALVES.get(asked.pop("do"))
            if half is None:
                return
            _demand_inside(f"{meeting.probe.path}/{leader.name}/", asked)
            meeting.say(f"answer-{number}", half(meeting, kept, **asked))
    finally:
        if "handle" in kept:
            meeting.probe.fs.close(kept["handle"])


def _demand_inside(place: str, asked: dict[str, Any]) -> None:
    """Raises `Lost` for a question about a directory that is not in that place."""
    for name in ("directory", "held", "missing"):
        path = asked.get(name, place)
        if not isinstance(path, str) or not path.startswith(place) or ".." in path.split("/"):
            raise Lost("the first of them asked for something outside of its directory")


class _Leader:
    def __init__(self, meeting: Meeting) -> None:
        self._meeting = meeting
        self._probe = meeting.probe
        self._fs = meeting.probe.fs
        self._asked = dict.fromkeys(meeting.others, 0)

    def _tell(self, member: Member, do: str, **values: Any) -> int:
        number = self._asked[member]
        self._asked[member] += 1
        self._meeting.say(f"ask-{number}-{self._meeting.members.index(member)}", {"do": do, **values})
        return number

    def _ask(self, member: Member, do: str, **values: Any) -> Any:
        return self._meeting.hear(member, f"answer-{self._tell(member, do, **values)}")

    def _ask_all(self, do: str, patience: float = ANSWER_SECONDS, **values: Any) -> dict[Member, Any]:
        """The answers of all, who work at the same time."""
        numbers = {member: self._tell(member, do, **values) for member in self._meeting.others}
        return {member: self._meeting.hear(member, f"answer-{number}", patience) for member, number in numbers.items()}

    def dismiss(self) -> None:
        """Let them go, and wait for it: this directory, in which they read it, goes next."""
        numbers = {member: self._tell(member, "end") for member in self._meeting.others}
        for member, number in numbers.items():
            try:
                self._meeting.hear(member, f"answer-{number}", _LEAVING_SECONDS)
            except Lost:
                pass  # gone, as it was told

    def clocks_and_round_trips(self, measured: Measured) -> None:
        """A question and its answer carry the member's clock, and show how long a new name takes to be seen."""
        ahead, error = offset(self._fs, self._probe.place)
        measured.clocks.append(Clock(self._meeting.me.host, 0.0, 0.0, ahead, error))
        for member in self._meeting.others:
            best = (0.0, float("inf"))
            for _ in range(_ECHOES):
                began, before = self._fs.monotonic(), self._fs.time()
                there = self._ask(member, "tell_time")["time"]
                took = self._fs.monotonic() - began
                measured.round_trips.append(took)
                best = min(best, (there - before - took / 2, took / 2), key=lambda pair: pair[1])
            answer = self._ask(member, "stamp")
            measured.clocks.append(Clock(member.host, *best, answer["ahead"], answer["error"]))

    def races(self, measured: Measured) -> None:
        """All want the same names at the same time; each says which it got."""
        ahead = dict(zip(self._meeting.members, (clock.ahead for clock in measured.clocks)))
        for kind in RACES:
            directory = self._probe.at(f"race-{kind}")
            self._fs.mkdir(directory)
            rounds = _ROUNDS
            if kind == "rename":
                rounds = self._as_many(_ROUNDS, partial(self._create_in, directory))
            start = self._fs.time() + _TO_START
            numbers = {
                member: self._tell(
                    member, "race", kind=kind, directory=directory, rounds=rounds, start=start + ahead[member]
                )
                for member in self._meeting.others
            }
            answers = [race(self._meeting, {}, kind, directory, rounds, start)]
            for member, number in numbers.items():
                answers.append(self._meeting.hear(member, f"answer-{number}", 2 * ANSWER_SECONDS))
            tried = min(answer["tried"] for answer in answers)
            wins = [sum(number in answer["won"] for answer in answers) for number in range(tried)]
            measured.races[kind] = (wins, [sum(number < tried for number in answer["won"]) for answer in answers])

    def _create_in(self, directory: str, number: int) -> None:
        self._fs.create(f"{directory}/{number}", b"", False)

    def _as_many(self, most: int, make: Callable[[int], None]) -> int:
        """Make things of these numbers, and say how many: fewer where that takes long."""
        began, made = self._fs.monotonic(), 0
        while made < most and self._fs.monotonic() - began < _MAKING_SECONDS:
            make(made)
            made += 1
        return made

    def trials(self, measured: Measured) -> None:
        """Two changes of a directory in quick succession while another host lists it (the tick bug of NFS v3)."""
        directory = self._probe.at("trials")
        self._fs.mkdir(directory)
        count = self._as_many(_TRIALS, lambda number: self._fs.mkdir(f"{directory}/{number}"))
        numbers = {
            member: self._tell(member, "watch_trials", directory=directory, count=count)
            for member in self._meeting.others
        }
        for member in self._meeting.others:
            self._meeting.hear(member, "watching")
        began = self._fs.monotonic()
        done = 0
        while done < count and self._fs.monotonic() - began < _TRIALS_SECONDS:
            self._fs.sleep(random.uniform(0.002, 0.012))  # at any moment of the server's tick
            for name in ("one", "other"):
                self._fs.create(f"{directory}/{done}/{name}", b"", False)
            done += 1
        self._meeting.say("trials-done", {"done": done})
        for member, number in numbers.items():
            answer = self._meeting.hear(member, f"answer-{number}", 3 * ANSWER_SECONDS)
            measured.trials.append(Trials(member.host, done, answer["incomplete"], answer["cured"]))

    def stale(self, measured: Measured) -> None:
        """How long others hold on to what they knew of a directory. Those are in one that nobody lists: a listing by
        READDIRPLUS, as of the directory that the questions are in, brings the times of all that is in it up to date."""
        apart = self._probe.at("stale")
        self._fs.mkdir(apart)
        held, missing = f"{apart}/held", f"{apart}/missing"
        for directory in (held, missing):
            self._fs.mkdir(directory)
            self._fs.create(f"{directory}/old", b"", False)
        self._ask_all("hold", held=held, missing=missing)
        for directory in (held, missing):
            self._fs.create(f"{directory}/new", b"", False)
        for member, answer in self._ask_all("find", STALE_SECONDS + ANSWER_SECONDS, missing=missing).items():
            measured.stale.append(Stale(member.host, answer["held"], answer["missing"]))


# -- the halves of members


def tell_time(meeting: Meeting, kept: dict[str, Any]) -> dict[str, Any]:
    return {"time": meeting.probe.fs.time()}


def stamp(meeting: Meeting, kept: dict[str, Any]) -> dict[str, Any]:
    ahead, error = offset(meeting.probe.fs, meeting.probe.place)
    return {"ahead": ahead, "error": error}


def race(
    meeting: Meeting, kept: dict[str, Any], kind: str, directory: str, rounds: int, start: float
) -> dict[str, Any]:
    """How many names this member tried in its time, and the numbers of those that it got."""
    fs, me = meeting.probe.fs, meeting.members.index(meeting.me)
    attempt = _ATTEMPTS[kind](fs, directory, me)
    fs.sleep(min(max(0.0, start - fs.time()), 2 * _TO_START))
    began, won, tried = fs.monotonic(), [], 0
    while tried < rounds and fs.monotonic() - began < _RACE_SECONDS:
        fs.sleep(max(0.0, began + tried * _PACE + random.uniform(0, _SCATTER) - fs.monotonic()))
        if attempt(tried):
            won.append(tried)
        tried += 1
    return {"tried": tried, "won": won}


def _by_rename(fs: Filesystem, directory: str, me: int) -> Callable[[int], bool]:
    return lambda number: fs.claim(f"{directory}/{number}", f"{directory}/won-{number}-{me}")


def _by_link(fs: Filesystem, directory: str, me: int) -> Callable[[int], bool]:
    def attempt(number: int) -> bool:
        mine = f"{directory}/mine-{number}-{me}"  # one for each: some file systems allow few links to one file
        fs.create(mine, b"", False)
        return fs.link_new(mine, f"{directory}/{number}")

    return attempt


def _by_create(fs: Filesystem, directory: str, me: int) -> Callable[[int], bool]:
    def attempt(number: int) -> bool:
        try:
            fs.create(f"{directory}/{number}", b"", False)
            return True
        except FileExistsError:
            return False

    return attempt


_ATTEMPTS = {"rename": _by_rename, "link": _by_link, "create": _by_create}


def watch_trials(meeting: Meeting, kept: dict[str, Any], directory: str, count: int) -> dict[str, Any]:
    """List each directory until it has a name, then leave it; look at all of them again when the last is made."""
    fs = meeting.probe.fs
    meeting.say("watching", True)
    until = fs.monotonic() + _TRIALS_SECONDS
    for number in range(count):
        give_up = min(until, fs.monotonic() + _TRIAL_SECONDS)
        while not fs.names(f"{directory}/{number}") and fs.monotonic() < give_up:
            pass
    done = meeting.hear(meeting.members[0], "trials-done", _TRIALS_SECONDS)["done"]
    incomplete = _incomplete(fs, directory, range(done))
    if incomplete:
        fs.sleep(1.0)
        incomplete = _incomplete(fs, directory, incomplete)
    for number in incomplete:
        fs.refresh(f"{directory}/{number}")
    return {"incomplete": len(incomplete), "cured": len(incomplete) - len(_incomplete(fs, directory, incomplete))}


def _incomplete(fs: Filesystem, directory: str, numbers: Iterable[int]) -> list[int]:
    return [number for number in numbers if len(fs.names(f"{directory}/{number}")) < 2]


def hold(meeting: Meeting, kept: dict[str, Any], held: str, missing: str) -> dict[str, Any]:
    """Open a directory and list it, and find a name missing in another."""
    fs = meeting.probe.fs
    kept["handle"] = fs.hold_directory(held)
    fs.list_held(kept["handle"])
    fs.names(missing)
    _exists(fs, f"{missing}/new")
    return {}


def find(meeting: Meeting, kept: dict[str, Any], missing: str) -> dict[str, Any]:
    """Seconds until each shows the new name, without opening anything anew."""
    fs = meeting.probe.fs
    looks: dict[str, Callable[[], bool]] = {
        "held": lambda: "new" in fs.list_held(kept["handle"]),
        "missing": lambda: _exists(fs, f"{missing}/new"),
    }
    found: dict[str, float | None] = dict.fromkeys(looks)
    began = fs.monotonic()
    while None in found.values() and fs.monotonic() - began < STALE_SECONDS:
        for name, look in looks.items():
            if found[name] is None and look():
                found[name] = fs.monotonic() - began
        fs.sleep(0.02)
    return found


def _exists(fs: Filesystem, path: str) -> bool:
    try:
        fs.lstat(path)
        return True
    except OSError as error:
        if error.errno in GONE:
            return False
        raise


_HALVES: dict[str, Callable[..., dict[str, Any]]] = {
    half.__name__: half for half in (tell_time, stamp, race, watch_trials, hold, find)
}
