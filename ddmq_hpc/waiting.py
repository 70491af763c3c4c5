"""Waiting until a queue, or a group, is worked off, at a pace that costs the file server next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import uniform
from typing import Callable, Generic, Protocol, TypeVar

from ddmq_hpc import groups
from ddmq_hpc.errors import NothingThere
from ddmq_hpc.grouping import Group, overview
from ddmq_hpc.names import check_group_name, parse_after
from ddmq_hpc.queue import Queue
from ddmq_hpc.stats import Stats, count_delayed, stats

#: Seconds between two looks, at first and at last.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0


class Numbers(Protocol):
    """Messages by state."""

    @property
    def ready(self) -> int: ...
    @property
    def leased(self) -> int: ...
    @property
    def delayed(self) -> int: ...
    @property
    def dead(self) -> int: ...


Tell = Callable[[Numbers], None]
#: Told why nothing more can come; may raise, which ends the wait.
Stuck = Callable[[str], None]
_Numbers = TypeVar("_Numbers", bound=Numbers)


def wait_until_done(
    queue: Queue, timeout: float | None = None, tell: Tell | None = None, stuck: Stuck | None = None
) -> Stats:
    """Wait until nothing is ready, leased or delayed, all at one moment: the numbers then. Dead letters do not count.

    `tell` gets the numbers whenever it was looked and there is something left, `stuck` the reason whenever that was so
    at two looks in a row and nothing can come of it unless somebody does something: see `blocked`. Leases that ran out
    are requeued meanwhile, as every client does. Raises `NothingThere` when `timeout` seconds are over, `StorageError`,
    and what `stuck` raises.
    """
    goal = _Goal(f"queue {queue.name!r}", queue.is_drained, lambda: stats(queue), lambda: blocked(queue))
    return _wait(queue, goal, timeout, tell, stuck)


def wait_for_group(
    queue: Queue, group: str, timeout: float | None = None, tell: Tell | None = None, stuck: Stuck | None = None
) -> Group:
    """The same for the messages of a group; one that nobody has published to yet is waited for. Raises `UsageError` for
    what is no name of one, too."""
    check_group_name(group)

    def is_done() -> bool:
        queue.sweep()
        return groups.state(queue.fs, queue.paths, group) in (groups.FINISHED, groups.DEAD)

    def numbers() -> Group:
        return next((found for found in overview(queue) if found.name == group), Group(group, groups.UNKNOWN))

    goal = _Goal(f"group {group!r}", is_done, numbers, lambda: blocked(queue, group))
    return _wait(queue, goal, timeout, tell, stuck)


@dataclass(frozen=True)
class _Goal(Generic[_Numbers]):
    """What is waited for."""

    name: str
    is_done: Callable[[], bool]
    numbers: Callable[[], _Numbers]
    why_blocked: Callable[[], str]


def _wait(
    queue: Queue, goal: _Goal[_Numbers], timeout: float | None, tell: Tell | None, stuck: Stuck | None
) -> _Numbers:
    fs = queue.fs
    end = None if timeout is None else fs.monotonic() + timeout
    pause, before = FIRST_PAUSE, ""
    try:
        while not goal.is_done():
            left = LONGEST_PAUSE if end is None else end - fs.monotonic()
            if tell or left <= 0:
                found = goal.numbers()
                if left <= 0:
                    raise NothingThere(f"{goal.name} is not done: {what_is_left(found)}")
                if tell:
                    tell(found)
            if stuck:
                why = goal.why_blocked()
                if why and why == before:
                    stuck(f"{goal.name} is not done, and nothing more comes of it by itself: {why}")
                before = why
            fs.sleep(min(pause * uniform(0.75, 1.25), left))
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return goal.numbers()
    except OSError as error:
        raise queue.trouble(error, f"look into queue {queue.name!r}") from error


def blocked(queue: Queue, group: str | None = None) -> str:
    """Why what is left in a queue, or of a `group`, cannot be done unless somebody does something: all that is not dead
    comes after groups, and these are not finished by what there is. Empty as long as anything is ready, leased, delayed
    until a time or being published to a group: a task may yet publish something, or retry what died. Raises
    OSError."""
    fs, paths = queue.fs, queue.paths
    if fs.names(paths.leased) or queue.taker.look_again():
        return ""
    if any(fs.names(f"{paths.delayed}/{name}") for name in fs.directories(paths.delayed) if not parse_after(name)):
        return ""
    found = overview(queue)
    if any(one.state == groups.OPEN for one in found):
        return ""
    awaited = [one for one in found if one.waiting or one.name == group]
    if group and all(one.name != group or one.state == groups.UNKNOWN for one in found):
        awaited = [Group(group, groups.UNKNOWN)]
    roots = [one for one in awaited if one.state in (groups.DEAD, groups.UNKNOWN)]
    return "; ".join(_hindrance(queue, root) for root in roots) or _circle(
        [one for one in awaited if one.state != groups.FINISHED]
    )


def more_may_come(queue: Queue) -> bool:
    """Whether messages are leased or delayed: they may be ready again. Raises OSError."""
    fs, paths = queue.fs, queue.paths
    return bool(fs.names(paths.leased)) or any(
        fs.names(f"{paths.delayed}/{window}") for window in fs.directories(paths.delayed)
    )


def hindrance(queues: Sequence[Queue]) -> str:
    """Why nothing more comes of any of the queues, see `blocked`; empty where something may. Raises OSError."""
    whys = [blocked(queue) for queue in queues if more_may_come(queue)]
    return "; ".join(whys) if all(whys) else ""


def put_off(queues: Sequence[Queue]) -> str:
    """What a person should know who takes it for the end that nothing is ready, as the end of a sentence. Raises
    OSError."""
    count = sum(count_delayed(queue, []) for queue in queues)
    if not count:
        return ""
    why = hindrance(queues)
    return f", {count} message{'s are' if count > 1 else ' is'} delayed" + (
        f": {why}" if why else " (`--until drained` waits)"
    )


def _hindrance(queue: Queue, group: Group) -> str:
    waiting = f", and {group.waiting} message{'s come' if group.waiting != 1 else ' comes'} after it" * (
        group.waiting > 0
    )
    if group.state == groups.UNKNOWN:
        return f"nothing was ever published with group {group.name!r}{waiting} (see `{queue.paths.command('groups')}`)"
    return (
        f"only dead letters are left of group {group.name!r} ({group.dead}){waiting} "
        f"(retry or purge them: `{queue.paths.command('dead list', '--group', group.name)}`)"
    )


def _circle(unfinished: list[Group]) -> str:
    names = ", ".join(repr(group.name) for group in unfinished)
    return f"the messages of groups {names} come after each other" if unfinished else ""


def what_is_left(found: Numbers) -> str:
    """Its numbers as part of a sentence, and that nothing goes on when it is paused, or nothing was ever published."""
    if isinstance(found, Group) and found.state == groups.UNKNOWN:
        return "nothing was ever published with it"
    paused = ", paused" * bool(getattr(found, "paused", False))
    return f"{found.ready} ready, {found.leased} leased, {found.delayed} delayed{paused}"
