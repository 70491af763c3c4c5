"""What works on the tasks of a worker: a function in its threads; `runner` has the one that starts commands."""

from __future__ import annotations

import time
from typing import Callable, Protocol, Union

from ddmq_hpc.messages import Message
from ddmq_hpc.tasks import MAX_ERROR, Result, Task


class Handler(Protocol):
    """What works on tasks."""

    def run(self, task: Task) -> Result:
        """Work on a task to its end, in the thread of a slot. An error that is raised ends the worker."""

    def signal(self, task: Task, number: int) -> bool:
        """Pass on a signal to a task. False when it is not there yet, or any more: then it is passed on again."""

    def look(self) -> None:
        """Called about once a second, by the thread that watches over the slots."""


Function = Callable[[Message], object]
AnyHandler = Union[Handler, Function]


class CallableHandler:
    """Calls a function with each message: done when it returns, failed when it raises. A call cannot be broken off."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def run(self, task: Task) -> Result:
        started, used = time.monotonic(), time.thread_time()
        error = ""
        try:
            self._function(task.message)
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"[:MAX_ERROR]
        wall, cpu = time.monotonic() - started, time.thread_time() - used
        return Result(code=1 if error else 0, wall=wall, cpu=cpu, error=error)

    def signal(self, task: Task, number: int) -> bool:
        return True

    def look(self) -> None:
        pass


def handler_of(given: AnyHandler) -> Handler:
    """A handler as it is, a function as one."""
    return CallableHandler(given) if callable(given) else given
