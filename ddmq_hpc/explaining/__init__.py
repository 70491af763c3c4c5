"""Why is nothing running, and what became of this message?

Each reason is a function of a `Sight` that answers a `Reason`, or None where it does not apply. To add one is to write
it and to name it in `STOPS`, `LACKS`, `HANDS` or `NOTES`, where it stands by its weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, Optional

from ddmq_hpc import admin
from ddmq_hpc.attempts import history
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import MessageNotFound, SettingsError, StorageError, storage_error
from ddmq_hpc.explaining import backlog, hands, message, place
from ddmq_hpc.explaining.reasons import Explanation, Reason, count
from ddmq_hpc.explaining.sight import Sight, Waiting
from ddmq_hpc.ids import whole

__all__ = ["CAUSES", "NOTES", "Explanation", "Reason", "Sight", "explain", "explain_message"]

Check = Callable[[Sight], Optional[Reason]]
#: What stops everything.
STOPS: tuple[Check, ...] = (place.settings, place.keys, backlog.paused, place.storage, place.forbidden)
#: Why there is nothing that is ready.
LACKS: tuple[Check, ...] = (
    backlog.lost,
    backlog.empty,
    backlog.leased,
    backlog.delayed,
    backlog.after_group,
    backlog.retrying,
)
#: Why nobody takes what is ready.
HANDS: tuple[Check, ...] = (
    hands.submitted,
    hands.no_worker,
    hands.stopping,
    hands.wrong_kind,
    place.untrusted,
    hands.too_large,
    hands.busy,
)
#: The most important one first.
CAUSES = (*STOPS, *LACKS, *HANDS)
#: What should be known, although work goes on.
NOTES: tuple[Check, ...] = (
    hands.bad_host,
    place.clocks,
    place.scarce,
    backlog.draining,
    backlog.dead,
    backlog.damaged,
    backlog.foreign,
)


def explain(broker: Broker, name: str, ask_scheduler: bool = False) -> Explanation:
    """All reasons why nothing runs in a queue, or the one that nothing is wrong. A scheduler is asked once at most, and
    only with `ask_scheduler`.

    The only thing that is changed: a file is made and removed. Raises `RootNotFound`, `QueueNotFound`, `BadName`.
    """
    try:
        sight = Sight(broker.queue(name), ask_scheduler)
    except StorageError as error:
        return Explanation(broker.root, name, (_unreadable(str(error)),))
    causes = _apply(CAUSES, sight)
    return Explanation(broker.root, name, (*(causes or [_at_work(sight)]), *_apply(NOTES, sight)))


def explain_message(broker: Broker, name: str, ident: str, ask_scheduler: bool = False) -> Explanation:
    """What became of a message; for one that waits, why it is not taken. Reads the journal, as `show` does. Raises
    `MessageNotFound` and, for an id that was cut too short, `UsageError`, as well as what `explain` raises."""
    try:
        queue = broker.queue(name)
        if broken := place.settings(Sight(queue)):
            return Explanation(broker.root, name, (broken,), ident)
        ident = whole(queue, ident)
        item, attempts = admin.find(queue, ident), history(queue, ident)
        waits = item is not None and item.state in ("ready", "delayed")
        found = admin.locate(queue, ident) if waits else None
    except StorageError as error:
        return Explanation(broker.root, name, (_unreadable(str(error)),), ident)
    except OSError as error:
        return Explanation(broker.root, name, (_unreadable(str(storage_error(error, "look for it"))),), ident)
    sight = Sight(queue, ask_scheduler, about=Waiting(found, item.message) if found and item else None)
    if item is None and not attempts:
        raise MessageNotFound(name, ident)
    first = message.standing(sight, item, attempts) if item else message.gone(sight, attempts)
    barriers = _apply((*STOPS, *HANDS), sight) if waits and not (item and item.after) else []
    return Explanation(broker.root, name, (first, *barriers), ident)


def _apply(checks: Iterable[Check], sight: Sight) -> list[Reason]:
    """The reasons that apply. What cannot be looked at is one, too; it does not keep the others from being found."""
    found, trouble = [], ""
    for check in checks:
        try:
            reason = check(sight)
        except SettingsError:
            continue  # `place.settings` tells
        except StorageError as error:
            reason, trouble = None, trouble or str(error)
        except OSError as error:
            reason, trouble = None, trouble or str(storage_error(error, "look into the queue"))
        if reason:
            found.append(reason)
    return [*found, _unreadable(trouble)] if trouble else found


def _unreadable(text: str) -> Reason:
    return Reason("unreadable", f"Not all can be seen: {text}.", "id", {"error": text})


def _at_work(sight: Sight) -> Reason:
    """Nothing is wrong."""
    found = sight.stats
    text = f"Nothing is in the way: {count(found.ready, 'message')} ready, {found.leased} leased, "
    text += f"{count(len(sight.live), 'worker')} alive. What is ready is taken within seconds."
    fields = {"ready": found.ready, "leased": found.leased, "workers": len(sight.live)}
    return Reason("at-work", text, sight.command("status"), fields)
