"""The tasks that a worker has under way, as the thread sees them that watches over it: their leases are renewed, they
get signals, and those that take too long or fall silent are ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Callable

from ddmq_hpc.advance import Progress
from ddmq_hpc.beats import Beats, how_lost
from ddmq_hpc.handlers import Handler
from ddmq_hpc.messages import Message
from ddmq_hpc.queue import Queue
from ddmq_hpc.tasks import Task
from ddmq_hpc.terms import WorkerOptions
from ddmq_hpc.units import human


@dataclass
class Work:
    """A task in a slot, as the watching thread sees it."""

    queue: Queue
    task: Task
    started: float
    began: float  # the same in seconds since 1970
    signals: set[int] = field(default_factory=set)
    kill_at: float | None = None
    lost: str = ""  # how, once it is
    ended_for: str = ""  # why it was told to end
    settling: bool = False
    #: What it told of itself last, when it did (seconds since 1970), and when that was noticed.
    progress: Progress | None = None
    told: float = 0.0
    heard: float = 0.0


class UnderWay:
    """One task a slot. Slots begin and finish them, from their threads; the rest is for the watching one."""

    def __init__(self, handler: Handler, options: WorkerOptions, queues: Iterable[Queue]) -> None:
        self._handler = handler
        self._options = options
        self._beats = [(queue, Beats(queue)) for queue in queues]
        self._works: dict[int, Work] = {}  # by slot
        self._lock = Lock()

    def __bool__(self) -> bool:
        return bool(self._works)

    def all(self) -> list[Work]:
        """Those of now."""
        with self._lock:
            return list(self._works.values())

    def begin(self, slot: int, work: Work) -> None:
        """A slot has a task."""
        with self._lock:
            self._works[slot] = work

    def finish(self, slot: int) -> None:
        """It has none any more."""
        with self._lock:
            del self._works[slot]

    def pass_on(self, number: int) -> None:
        """Send a signal to all of them, once each, but a kill as often as it takes; not to those that are just about to
        begin, so as long as it matters it is to be sent again."""
        for work in self.all():
            self._signal(work, number)

    def _signal(self, work: Work, number: int) -> None:
        if number == signal.SIGKILL:
            if not work.settling:
                self._handler.signal(work.task, number)
        elif number not in work.signals and self._handler.signal(work.task, number):
            work.signals.add(number)

    def heed_limits(self) -> None:
        """End those that take too long, and kill those that were told to end and have had their time for it."""
        now = time.monotonic()
        for work in self.all():
            if self._options.timeout is not None and now - work.started > self._options.timeout:
                self._end_for(work, f"took longer than {self._options.timeout:g} s")
            if work.kill_at is not None:
                self._signal(work, signal.SIGTERM if now < work.kill_at else signal.SIGKILL)

    def hear(self) -> None:
        """What the tasks tell of themselves; those that fell silent, if the queue says for how long they may."""
        now = time.monotonic()
        for work in self.all():
            told = work.task.progress()
            if told and told[0] != work.told:
                work.told, work.progress, work.heard = *told, now
            limit = work.queue.settings.progress_timeout if work.told else None
            if limit is not None and now - work.heard > limit:
                self._end_for(work, f"no progress for {human(limit)}")

    def beat(self, ahead: Callable[[], Sequence[tuple[Queue, Message]]]) -> None:
        """Renew the leases that are due, also of what was taken ahead. Raises `DdmqError`."""
        works, held_ahead = self.all(), ahead()
        for queue, beats in self._beats:
            mine = {id(work.task.message): work for work in works if work.queue is queue}
            waiting = [message for of, message in held_ahead if of is queue]
            held = [work.task.message for work in mine.values()] + waiting
            for message in beats.renew(held) if held else ():
                work = mine.get(id(message))
                if work is not None and not work.settling and not work.lost:
                    self._lost(work)

    def _end_for(self, work: Work, reason: str) -> None:
        if not work.ended_for:
            work.ended_for = reason
            self._end_task(work)

    def _end_task(self, work: Work) -> None:
        work.kill_at = time.monotonic() + self._options.grace
        self._signal(work, signal.SIGTERM)

    def _lost(self, work: Work) -> None:
        work.lost = how_lost(work.queue, work.task.message)
        choice = self._options.on_lost or work.queue.settings.on_lost
        if choice == "kill":
            self._end_task(work)
