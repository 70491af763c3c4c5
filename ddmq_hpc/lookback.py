"""What happened to a message: its attempts, and how it is now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ddmq_hpc import attempts
from ddmq_hpc.admin import Item, find
from ddmq_hpc.attempts import Attempt
from ddmq_hpc.errors import MessageNotFound
from ddmq_hpc.messages import body_text
from ddmq_hpc.queue import Queue

_MOST_LETTERS = 120


@dataclass(frozen=True)
class History:
    """`state` is where the message stands, or what became of it: done, cancelled, deleted, purged, or gone when nobody
    wrote that down. `detail` is that of its `Item`: until when it is leased or delayed, why it is dead. `owner` is who
    has it leased, `after` names the groups that it waits for."""

    id: str
    state: str
    detail: Any
    owner: str
    after: Sequence[str]
    task: str
    attempts: Sequence[Attempt]

    @property
    def waits(self) -> list[float | None]:
        """Of each attempt, the seconds for which the message had waited for it: since it was published, or since the
        attempt before. None where nobody knows when it began."""
        since = [attempt.ended for attempt in self.attempts]
        before = [self.attempts[0].published, *since] if self.attempts else []
        return [max(0.0, one.began - at) if one.began else None for one, at in zip(self.attempts, before)]

    def to_dict(self) -> dict[str, Any]:
        attempts = [
            {"id": attempt.id, "attempt": attempt.number, "waited": waited, **_without_number(attempt)}
            for attempt, waited in zip(self.attempts, self.waits)
        ]
        return {**asdict(self), "attempts": attempts}


def look_back(queue: Queue, ident: str) -> History:
    """Everything that is known of a message. Raises `MessageNotFound` when nothing is, `StorageError`."""
    try:
        # Where it stands is looked up first: what becomes of it then is in the journal.
        item, made = find(queue, ident), attempts.history(queue, ident)
    except OSError as error:
        raise queue.trouble(error, "look into the journal") from error
    if item is not None:
        return History(ident, item.state, item.detail, item.owner, item.after, _label(item), made)
    if not made:
        raise MessageNotFound(queue.name, ident)
    return History(ident, _became(made[-1]), None, "", (), made[-1].task, made)


def _without_number(attempt: Attempt) -> dict[str, Any]:
    found = asdict(attempt)
    del found["number"]  # which is called `attempt` everywhere else
    return found


def _became(last: Attempt) -> str:
    if last.state == attempts.DONE:
        return "done"
    return last.state if last.state in attempts.REMOVED else "gone"


def _label(item: Item) -> str:
    return body_text(item.message.message)[:_MOST_LETTERS]
