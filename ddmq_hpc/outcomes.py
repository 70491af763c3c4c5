"""How a message is let go by the way its task ended."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ddmq_hpc.beats import how_lost
from ddmq_hpc.errors import LeaseLost, StorageError
from ddmq_hpc.idle import Patience
from ddmq_hpc.messages import Message
from ddmq_hpc.queue import Queue
from ddmq_hpc.tasks import Result, Task

#: The least time for which a task that asks to be released is left alone, in seconds.
_RELEASED_FOR = 1.0


class Ending(NamedTuple):
    """What befell a task besides its own end."""

    lost: str = ""  # its lease is not its own any more, and how it was lost
    ended_for: str = ""  # the worker ended it, for this reason
    stopped: bool = False  # it was told to stop because its worker was


class Settled(NamedTuple):
    """`how` is done, failed, released, lost or cancelled; `stop` says why the worker shall end, if it shall."""

    how: str
    stop: str = ""


#: Called before a message is let go for good, done or dead, with how that ended: what has to be known by then.
Conclusion = Callable[[Queue, Task, Result], None]


def settle(
    queue: Queue,
    task: Task,
    result: Result,
    ending: Ending,
    patience: Patience,
    conclude: Conclusion,
) -> Settled:
    """Let go of a task's message, with the result in the journal. What the file system refuses is tried again: the
    outcome is known, and the work was done."""
    while True:
        try:
            settled = _settle(queue, task, result, ending, conclude)
        except LeaseLost:
            return Settled(ending.lost or how_lost(queue, task.message))
        except StorageError as error:
            patience.wait(error)
        else:
            patience.succeeded()
            return settled


def _settle(queue: Queue, task: Task, result: Result, ending: Ending, conclude: Conclusion) -> Settled:
    messages = [task.message]
    outcome = {**result.outcome(), **task.outcome()}
    if result.code == 0:
        conclude(queue, task, result)
        queue.ack(messages, **outcome)
        queue.fs.remove_tree(task.state_directory)
        return Settled("done")
    if ending.lost:
        return Settled(ending.lost)
    if ending.stopped and not ending.ended_for:
        queue.release(messages, **outcome)
        return Settled("released")
    if result.hopeless:
        conclude(queue, task, result)
        queue.nack(messages, requeue=False, **outcome)
        return Settled("failed")
    if ending.ended_for:
        queue.nack(messages, **outcome)
        return Settled("failed")
    return _settle_failure(queue, messages, result.code, outcome)


def _settle_failure(queue: Queue, messages: list[Message], code: int, outcome: dict[str, Any]) -> Settled:
    action = queue.settings.exit_codes.get(code, "retry")
    if action == "release":
        queue.release(messages, max(_RELEASED_FOR, queue.settings.retry_delay), **outcome)
        return Settled("released")
    if action == "stop-worker":
        queue.release(messages, **outcome)
        return Settled("released", f"a task told it to stop by exit code {code}")
    queue.nack(messages, requeue=False if action == "dead" else None, **outcome)
    return Settled("failed")
