"""What became of one message: where it stands, or how it left the queue."""

from __future__ import annotations

from ddmq_hpc import journal
from ddmq_hpc.admin import Item, entries
from ddmq_hpc.attempts import DONE, REMOVED, Attempt
from ddmq_hpc.explaining.backlog import last_error, waits_for_groups
from ddmq_hpc.explaining.reasons import Reason, are, count
from ddmq_hpc.explaining.sight import Sight, holder_is_gone, told_owner
from ddmq_hpc.identity import Owner, host, kernel, user_name
from ddmq_hpc.names import parse_message_range
from ddmq_hpc.signing import DOUBTS
from ddmq_hpc.units import human

#: Lines of a task's output that are shown.
_TAIL = 10


def standing(sight: Sight, item: Item, history: list[Attempt]) -> Reason:
    """Of a message that is in the queue; `history` are the attempts at it."""
    if item.state == "done" and history:
        return gone(sight, history)
    tell = {"ready": _ready, "leased": _leased, "delayed": _delayed, "dead": _dead}.get(item.state, _damaged)
    return tell(sight, item, history)


def _ready(sight: Sight, item: Item, history: list[Attempt]) -> Reason:
    before = _before(sight, item)
    text = f"It is ready, and the next one: {_tries(item)}."
    if before:
        text = f"It is ready: {count(before, 'message')} {are(before)} before it, {_tries(item)}."
    fields = {"before": before, "priority": item.message.priority, "attempt": item.message.attempt}
    return Reason("ready", text, sight.command("peek"), fields)


def _before(sight: Sight, item: Item) -> int:
    """Messages that are taken before it, by listings."""
    pack, index = item.message.id.rsplit(".", 1)
    number = 0
    for found in entries(sight.queue, ("ready",)):
        entry = found.entry
        if found.priority > item.message.priority:
            break
        if entry.pack == pack and entry.first <= int(index) < entry.stop:
            return number + int(index) - entry.first
        number += entry.stop - entry.first
    return number


def _tries(item: Item) -> str:
    number = item.message.attempt - 1
    return f"tried {number} time{'s' * (number > 1)} before" if number else "not tried yet"


def _delayed(sight: Sight, item: Item, history: list[Attempt]) -> Reason:
    failed = item.message.failed
    if item.after:
        return waits_for_groups(sight, "It waits", 1, item.after)
    text = f"It is delayed until {sight.when(item.detail)}, {_tries(item)}."
    if failed:
        text += f" It failed {failed} time{'s' * (failed > 1)}{_with(history)}."
    fields = {"due": item.detail, "failed": failed, "attempt": item.message.attempt}
    return Reason("delayed", text, sight.command("show", item.message.id), fields, _tail(history))


def _leased(sight: Sight, item: Item, history: list[Attempt]) -> Reason:
    owner = Owner.parse(item.owner)
    worker = sight.worker_of(owner)
    alive, life = "unknown", "Whether it is alive cannot be seen from here."
    fix = sight.command("recover") if owner and owner.job else sight.command("list", "--state", "leased")
    if holder_is_gone(owner):
        alive, life, fix = "no", "Its process is gone: whoever takes next brings it back.", sight.command("clean")
    elif item.detail + sight.settings.grace < sight.now:
        alive, life, fix = "no", "The lease is over: whoever takes next brings it back.", sight.command("clean")
    elif owner and not owner.pid:
        life = "No process is bound to it: it ends by a receipt, or when the time is over."
    elif _is_here(owner):
        alive, life = "yes", "Its process is there."
    elif worker:
        alive = {"yes": "yes", "no": "no"}.get(worker.alive, "silent")
        life = f"Its last sign of life was {sight.ago(worker.seen)}."
    text = f"It is leased by {told_owner(owner, worker)}, until {sight.when(item.detail)}. {life}"
    fields = {
        "deadline": item.detail,
        "worker": worker.id if worker else "",
        "host": owner.host if owner else "",
        "pid": owner.pid if owner else 0,
        "job": owner.job if owner else "",
        "alive": alive,
        "attempt": item.message.attempt,
    }
    return Reason("leased", text, fix, fields)


def _is_here(owner: Owner | None) -> bool:
    """Whether its process can be looked for from here, and, not being gone, is there."""
    return bool(owner and owner.host == host() and owner.kernel == kernel())


def _dead(sight: Sight, item: Item, history: list[Attempt]) -> Reason:
    attempts = item.message.failed + item.message.lost
    text = f"It is a dead letter ({item.detail}) after {count(attempts, 'attempt')}{_with(history)}."
    fields = {"reason": item.detail, "attempts": attempts, "failed": item.message.failed, "lost": item.message.lost}
    fix = sight.command("retry", item.message.id)
    return Reason("dead", text, fix, {**fields, **_end(history)}, _tail(history))


def _damaged(sight: Sight, item: Item, history: list[Attempt]) -> Reason:
    fields = {"reason": item.detail}
    if item.detail in DOUBTS:
        text = f"It was not signed as it must be ({item.detail}): {DOUBTS[item.detail]}."
        return Reason("damaged", text, sight.command("retry", item.message.id, "--state", "damaged"), fields)
    text = f"It could not be read and was set aside ({item.detail}): a disk was full, or its file was changed."
    return Reason("damaged", text, sight.command("show", item.message.id), fields)


def gone(sight: Sight, history: list[Attempt]) -> Reason:
    """Of a message that is in the queue no more."""
    last = history[-1]
    if last.state == DONE:
        text = f"It is done: attempt {last.number} ended {sight.when(last.ended)}{_by(last)}"
        text += f", after {human(last.wall)}" if last.wall is not None else ""
        return Reason("done", f"{text}.", sight.command("show", _one(last)), _end(history))
    if last.state in REMOVED:
        user = _writer(sight, last)
        text = f"It was {last.state} {sight.when(last.ended)} by {user or 'somebody'}{_by(last)}."
        return Reason(last.state, text, sight.command("show", _one(last)), {**_end(history), "user": user})
    text = f"It is in no state. The journal has as the last of it: {last.state} {sight.when(last.ended)}{_by(last)}"
    text += f", to {last.to}" if last.to else ""
    return Reason("gone", f"{text}.", sight.command("doctor"), _end(history))


def _one(attempt: Attempt) -> str:
    return f"{attempt.pack}.{attempt.first}"


def _by(attempt: Attempt) -> str:
    """Where an attempt ended, and in which process."""
    worker = f" by worker {attempt.worker}" if attempt.worker else ""
    where = f" on {attempt.host} (process {attempt.pid})" if attempt.host else ""
    return worker + where + (f" in job {attempt.job}" if attempt.job else "")


def _writer(sight: Sight, attempt: Attempt) -> str:
    """The user who wrote a record: the owner of its file."""
    for path in journal.files(sight.queue.fs, sight.queue.paths):
        for record in journal.records(sight.queue.fs, path, attempt.pack):
            of = parse_message_range(record["id"])
            same_end = (record.get("state"), record.get("at")) == (attempt.state, attempt.ended)
            if same_end and of and of[0] == attempt.pack and of[1] <= attempt.first < of[2]:
                return user_name(sight.queue.fs.lstat(path).st_uid)
    return ""


def _failures(history: list[Attempt]) -> list[Attempt]:
    return [attempt for attempt in history if attempt.state in ("nacked", "lost")]


def _with(history: list[Attempt]) -> str:
    failures = _failures(history)
    return f", the last with: {last_error(failures[-1])}" if failures else ""


def _tail(history: list[Attempt]) -> tuple[str, ...]:
    """The end of the output of the last attempt that failed."""
    failures = _failures(history)
    return tuple(failures[-1].output.splitlines()[-_TAIL:]) if failures else ()


def _end(history: list[Attempt]) -> dict[str, object]:
    """The last attempt, for programs."""
    if not history:
        return {}
    last = history[-1]
    names = ("state", "number", "ended", "host", "pid", "job", "worker", "exit", "signal", "wall", "error")
    return {name: getattr(last, name) for name in names}
