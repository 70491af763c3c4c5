"""Reasons that lie in what the queue holds: it is paused, or all of it is somewhere else than ready."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable

from ddmq_hpc import groups
from ddmq_hpc.admin import Found
from ddmq_hpc.attempts import Attempt
from ddmq_hpc.explaining.reasons import Reason, are, count, some
from ddmq_hpc.explaining.sight import Sight, holder_is_gone, told_owner
from ddmq_hpc.fs import GONE
from ddmq_hpc.identity import Owner, user_name
from ddmq_hpc.names import SETTINGS, Entry, Lease, message_id
from ddmq_hpc.settings import parse

_MOST_SETTINGS = 1 << 20
#: Why what comes after a group waits.
_GROUPS = {
    groups.UNKNOWN: "nobody has published to {} yet",
    groups.OPEN: "somebody publishes to {}",
    groups.UNFINISHED: "{} is not finished",
    groups.DEAD: "all that is left of {} are dead letters, to be retried or purged",
}


def paused(sight: Sight) -> Reason | None:
    """The settings say so: who did it and why, or else since the file was written last, by its owner."""
    settings = sight.settings
    if not settings.paused:
        return None
    path = _who_says_paused(sight)
    written = sight.queue.fs.lstat(path)
    by = user_name(written.st_uid)
    text = f"The queue is paused{settings.steered}."
    if not settings.steered:
        text = f"The queue is paused: {path} says so, last written by {by}, {sight.ago(written.st_mtime)}."
    fields = {"path": path, "since": written.st_mtime, "by": settings.paused_by or by, "reason": settings.paused_reason}
    return Reason("paused", text, sight.command("resume"), fields)


def draining(sight: Sight) -> Reason | None:
    """New messages are refused."""
    settings = sight.settings
    if not settings.draining:
        return None
    text = f"The queue takes no new messages, it was told to drain{settings.steered}."
    fields = {"by": settings.paused_by, "reason": settings.paused_reason}
    return Reason("draining", text, sight.command("resume"), fields)


def _who_says_paused(sight: Sight) -> str:
    """The settings file that does: the queue's overrides the root's."""
    paths = sight.queue.paths
    try:
        _, data = sight.queue.fs.read_some(paths.settings, _MOST_SETTINGS)
    except OSError as error:
        if error.errno not in GONE:
            raise
        data = b""
    own = "paused" in parse(data.decode("utf-8", "replace"), paths.settings)
    return paths.settings if own else f"{paths.root}/{SETTINGS}"


def empty(sight: Sight) -> Reason | None:
    """Nothing waits and nobody works."""
    found = sight.stats
    if found.ready or found.leased or found.delayed or found.dropped:
        return None
    left = [count(found.dead, "dead letter")] * (found.dead > 0)
    left += [f"{count(found.damaged, 'message')} set aside"] * (found.damaged > 0)
    but = f" but {' and '.join(left)}" if left else ""
    text = f"There is nothing in the queue{but}: all that was published is done, or nothing was."
    return Reason("empty", text, sight.command("publish", "TEXT"), {"dead": found.dead})


def delayed(sight: Sight) -> Reason | None:
    """What is to come, when nothing is ready."""
    first_tries = [found for found in sight.delayed if not (found.entry.failed or found.after)]
    if sight.stats.ready or not first_tries:
        return None
    number, first = _size(first_tries), first_tries[0].detail
    text = f"Nothing is ready: {count(number, 'message')} {are(number)} delayed, the first until {sight.when(first)}."
    fix = sight.work("--until", "drained")  # waits for them
    if first <= sight.now:
        text, fix = text + " Whoever looks next makes it ready.", sight.command("clean")
    return Reason("delayed", text, fix, {"messages": number, "first": first})


def retrying(sight: Sight) -> Reason | None:
    """What failed, and waits for its next attempt."""
    failed = [found for found in sight.delayed if found.entry.failed and not found.after]
    if not failed:
        return None
    number, first = _size(failed), failed[0].detail
    most = max(found.entry.failed for found in failed)
    ident = message_id(failed[0].entry.pack, failed[0].entry.first)
    text = f"{count(number, 'message')} failed, up to {count(most, 'time')}, and {'waits' if number == 1 else 'wait'} "
    text += f"to be tried again, the first until {sight.when(first)}."
    fields = {"messages": number, "first": first, "most_failures": most, "id": ident}
    return Reason("retrying", text, sight.command("explain", ident), fields)


def after_group(sight: Sight) -> Reason | None:
    """What comes after groups that are not finished, when nothing is ready."""
    waiting = [found for found in sight.delayed if found.after]
    if sight.stats.ready or not waiting:
        return None
    number, names = _size(waiting), sorted({name for found in waiting for name in found.after})
    return waits_for_groups(sight, f"{count(number, 'message')} {'waits' if number == 1 else 'wait'}", number, names)


def waits_for_groups(sight: Sight, who: str, number: int, names: Iterable[str]) -> Reason:
    """What holds up `number` messages that come after groups; `who` waits is said first."""
    states = {name: groups.state(sight.queue.fs, sight.queue.paths, name) for name in names}
    told = [_GROUPS[state].format(name) for name, state in states.items() if state != groups.FINISHED]
    text = f"{who} for groups: "
    text += some(told) + "." if told else "those are finished; whoever looks next makes them ready."
    fix = sight.command("groups") if told else sight.command("clean")
    return Reason("after-group", text, fix, {"messages": number, "groups": states})


def lost(sight: Sight) -> Reason | None:
    """Leases that are over, which nobody has noticed yet."""
    over = [lease for lease in sight.leases if _is_over(sight, lease)]
    if not over:
        return None
    number = _messages(over)
    text = f"{count(number, 'message')} {are(number)} leased by somebody who is gone: "
    text += f"{some(_holders(sight, over))}. Whoever takes next brings them back."
    return Reason("lost", text, sight.command("clean"), {"messages": number})


def _is_over(sight: Sight, lease: Lease) -> bool:
    late = lease.deadline < (sight.now - sight.settings.grace) * 1000
    return late or holder_is_gone(Owner.parse(lease.owner))


def leased(sight: Sight) -> Reason | None:
    """Everything that could run is at work."""
    held = [lease for lease in sight.leases if not _is_over(sight, lease)]
    if sight.stats.ready or not held:
        return None
    number = _messages(held)
    oldest, ends = (held[0].deadline - held[0].duration) / 1000, max(lease.deadline for lease in held) / 1000
    text = f"Nothing is ready: {count(number, 'message')} {are(number)} leased by {some(_holders(sight, held))}. "
    text += f"The oldest lease was taken or renewed {sight.ago(oldest)}, the last ends {sight.when(ends)}."
    fields = {"messages": number, "holders": _holders(sight, held), "oldest": oldest, "until": ends}
    return Reason("leased", text, sight.command("list", "--state", "leased"), fields)


def _messages(leases: list[Lease]) -> int:
    return sum(lease.entry.stop - lease.entry.first for lease in leases)


def _size(places: list[Found]) -> int:
    return sum(found.entry.stop - found.entry.first for found in places)


def _holders(sight: Sight, leases: list[Lease]) -> list[str]:
    """In words, those who hold most first."""
    names: Counter[str] = Counter()
    for lease in leases:
        owner = Owner.parse(lease.owner)
        names[told_owner(owner, sight.worker_of(owner))] += lease.entry.stop - lease.entry.first
    return [f"{name} ({number})" for name, number in names.most_common()]


def dead(sight: Sight) -> Reason | None:
    """Dead letters, and what the last of them died of."""
    number = _size(sight.dead)
    if not number:
        return None
    whys = Counter(found.detail for found in sight.dead)
    errors = Counter(map(last_error, _deaths(sight)))
    shown = [f"{text} ({count(times, 'time')})" for text, times in errors.most_common(3)]
    text = f"{count(number, 'dead letter')}: {some([str(why) for why, _ in whys.most_common()])}."
    text += f" The last of them ended with: {'; '.join(shown)}." if shown else ""
    newest = max(sight.dead, key=lambda found: found.entry.pack).entry
    fields = {"messages": number, "reasons": dict(whys), "errors": dict(errors.most_common(10))}
    fix = f"{sight.command('dead list')}; {sight.command('retry', '--all')}"
    return Reason("dead", text, fix, {**fields, "newest": message_id(newest.pack, newest.first)})


def _deaths(sight: Sight) -> Iterable[Attempt]:
    """The last attempt at each of what is dead now, as far as the journal's end tells: what was retried, and may have
    died a second time, counts once, what was purged not at all."""
    standing: dict[str, list[Entry]] = {}
    for found in sight.dead:
        standing.setdefault(found.entry.pack, []).append(found.entry)
    last = {
        (attempt.pack, attempt.first): attempt
        for attempt in sight.recent
        if attempt.to == "dead"
        and any(entry.first < attempt.stop and attempt.first < entry.stop for entry in standing.get(attempt.pack, ()))
    }
    return last.values()


def last_error(attempt: Attempt) -> str:
    """How an attempt ended, in a few words."""
    if attempt.error:
        return attempt.error.strip().splitlines()[-1][:120] if attempt.error.strip() else "an error without words"
    if attempt.oom:
        return "out of memory"
    if attempt.signal:
        return f"signal {attempt.signal}"
    if attempt.exit is not None:
        return f"exit code {attempt.exit}"
    return {"lost": "its worker was lost"}.get(attempt.state, attempt.reason or attempt.state)


def damaged(sight: Sight) -> Reason | None:
    """What was set aside, since it could not be read."""
    number = sight.stats.damaged
    if not number:
        return None
    text = f"{count(number, 'message')} {'was' if number == 1 else 'were'} set aside in {sight.queue.paths.damaged}: "
    text += "a disk was full, files were changed, or they were not signed as they must be."
    return Reason("damaged", text, sight.command("list", "--state", "damaged"), {"messages": number})


def foreign(sight: Sight) -> Reason | None:
    """Files that are none of a queue's."""
    names = sight.stats.foreign
    if not names:
        return None
    text = f"{count(len(names), 'file')} {are(len(names))} none of a queue's, and left alone: {some(names)}."
    fix = f"ls -ld {shlex.quote(os.path.join(sight.queue.paths.top, names[0]))}"
    return Reason("foreign", text, fix, {"files": len(names), "names": names[:20]})
