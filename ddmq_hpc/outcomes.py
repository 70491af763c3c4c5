"""How a message is let go by the way its task ended."""

from __future__ import annotations

from typing import Any, NamedTuple

from ddmq_hpc.errors import LeaseLost, StorageError
from ddmq_hpc.idle import Patience
from ddmq_hpc.messages import Message
from ddmq_hpc.queue import Queue
from ddmq_hpc.tasks import Result, Task

#: The least time for which a task that asks to be released is left alone, in seconds.
_RELEASED_FOR = 1.0


class Ending(NamedTuple):
    """What befell a task besides its own end."""

    lost: bool = False  # its lease is somebody else's
    timed_out: float | None = None  # it was ended for taking longer than so many seconds
    stopped: bool = False  # it was told to stop because its worker was


class Settled(NamedTuple):
    """`how` is done, failed, released or lost; `stop` says why the worker shall end, if it shall."""

    how: str
    stop: str = ""


def settle(queue: Queue, task: Task, result: Result, ending: Ending, patience: Patience) -> Settled:
    """Let go of a task's message, with the result in the journal. What the file system refuses is tried again: the
    outcome is known, and the work was done."""
    while True:
        try:
            settled = _settle(queue, task, result, ending)
        except LeaseLost:
            return Settled("lost")
        except StorageError as error:
            patience.wait(error)
        else:
            patience.succeeded()
            return settled


def _settle(queue: Queue, task: Task, result: Result, ending: Ending) -> Settled:
    outcome = {**result.outcome(), "worker": task.worker}
    messages = [task.message]
    if result.code == 0:
        queue.ack(messages, **outcome)
        queue.fs.remove_tree(task.state_directory)
        return Settled("done")
    if ending.lost:
        return Settled("lost")
    if ending.timed_out is not None:
        queue.nack(messages, **{**outcome, "error": f"took longer than {ending.timed_out:g} s"})
        return Settled("failed")
    if ending.stopped:
        queue.release(messages, **outcome)
        return Settled("released")
    if result.hopeless:
        queue.nack(messages, requeue=False, **outcome)
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
