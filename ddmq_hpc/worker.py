"""A worker: takes messages, has each worked on, settles it by how that ended, and ends well itself.

Its slots are threads that take, run and settle; the thread that called `run` watches over them: heartbeats, signals,
time limits, the end of the batch job, requests to stop.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from shutil import rmtree
from threading import Event, Lock, Thread, current_thread, main_thread
from typing import Callable

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import DdmqError
from ddmq_hpc.feed import NO_TIME, Feed
from ddmq_hpc.handlers import AnyHandler, handler_of
from ddmq_hpc.identity import host, token
from ddmq_hpc.idle import Patience
from ddmq_hpc.messages import Message
from ddmq_hpc.names import Lease
from ddmq_hpc.outcomes import Conclusion, Ending, Settled, settle
from ddmq_hpc.queue import Queue
from ddmq_hpc.recovery import maybe as maybe_recover
from ddmq_hpc.room import Room
from ddmq_hpc.stopping import STOPPING, was_stopped
from ddmq_hpc.tasks import Result, Task
from ddmq_hpc.terms import Report, WorkerOptions
from ddmq_hpc.under_way import UnderWay, Work
from ddmq_hpc.units import human
from ddmq_hpc.window import Pace, Window
from ddmq_hpc.worker_info import Running

#: Seconds between two rounds of the watching thread, at most; less where leases are short.
_ROUND = 1.0
#: A worker stops its tasks so long before the end of its job, besides `grace`: for giving back what they worked on.
_LAST_SECONDS = 5.0
_JOB_ENDS = "its job is about to end"
#: What schedulers send ahead of the end of a job, and users do not send to cancel it.
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


class Worker:
    """Works on the messages of one queue or several, the first ones first.

    `handler` is a function of a `Message`, or what implements `Handler`. Each message is acked when it was worked on
    well and nacked otherwise; released, no attempt counted, when the worker is told to stop before it is finished.
    """

    def __init__(
        self,
        broker: Broker,
        queues: str | Sequence[str],
        handler: AnyHandler,
        options: WorkerOptions | None = None,
        *,
        name: str | None = None,
        directory: str | None = None,
        approve: Callable[[Queue, Message], None] = lambda queue, message: None,
    ) -> None:
        self.options = options or WorkerOptions()
        self.broker = broker
        self.queues = [broker.queue(of) for of in ([queues] if isinstance(queues, str) else queues)]
        self.name = name or new_name()
        self.report = Report()
        self._handler = handler_of(handler)
        self._window = Window(self._end_of_job(), self.options.margin)
        if self.options.walltime is not None:
            self._window.job_end()
        self._pace = Pace()
        #: Told in a line what a person at a terminal wants to know at once.
        self.tell: Callable[[str], None] = lambda text: None
        self._patience = Patience(self._say, time.sleep)
        room = Room(self.options.slots, self.options.memory)
        self.feed = Feed(
            self.queues, self.options.appetite, self._window, self._pace, room, approve, self._say, self._is_busy
        )
        #: Called about once a second, by the watching thread.
        self.watchers: list[Callable[[], None]] = []
        #: Called by slots before a message is let go for good.
        self.conclude: Conclusion = lambda queue, task, result: None
        #: Called by slots when a message was let go.
        self.observers: list[Callable[[Task, Result, Settled], None]] = []
        self._under_way = UnderWay(self._handler, self.options, self.queues)
        self._lock = Lock()
        self._wake = Event()
        self._signals: list[int] = []
        self._stopping: int | None = None
        self._kill_at: float | None = None
        self._trouble: BaseException | None = None
        #: Where its tasks have their directories, on this node's own disk.
        self.directory = directory or tempfile.mkdtemp(prefix=f"ddmq-hpc-{self.name}-")

    def _say(self, text: str) -> None:
        self.tell(text)

    def _is_busy(self) -> bool:
        return bool(self._under_way)

    def _end_of_job(self) -> Callable[[], float | None]:
        """What tells when the job ends, in seconds since 1970."""
        if self.options.walltime is not None:
            ends = time.time() + self.options.walltime
            return lambda: ends
        from ddmq_hpc.walltime import job_end

        return lambda: job_end(os.environ)

    # -- from outside

    def run(self) -> Report:
        """Work until there is nothing left to do, as the options say, or until told to stop. Raises the error that
        ended it, when everything is settled or given back."""
        started = time.monotonic()
        try:
            with self._handling_signals():
                self._work()
        finally:
            rmtree(self.directory, ignore_errors=True)
            self.report.seconds = time.monotonic() - started
            self.report.reason = self.feed.reason
            self.report.out_of_time = self.feed.reason in (NO_TIME, _JOB_ENDS) or self._stopping in _WARNINGS
        if self._trouble is not None:
            raise self._trouble
        return self.report

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End in good order: pass `number` on to the tasks, give back what they do not finish in time. SIGKILL leaves
        them no time. Any thread may call this."""
        self._signals.append(number)
        self._wake.set()

    @property
    def running(self) -> list[Running]:
        """What is worked on now; times are by this host's clock."""
        return [
            Running(work.task.message.id, work.queue.name, work.task.label, work.began, work.told, work.progress)
            for work in self._under_way.all()
        ]

    @property
    def ends(self) -> float | None:
        """When its last task has to be done, in seconds since 1970, as far as it is known; None for never."""
        return None if self._window.known_end() is None else self._window.end()

    # -- the watching thread

    def _work(self) -> None:
        if self.options.delay:
            self._wake.wait(self.options.delay)
            self._heed_signals()
        slots = [Thread(target=self._slot, args=(number,), daemon=True) for number in range(1, self.options.slots + 1)]
        for slot in slots:
            slot.start()
        while any(slot.is_alive() for slot in slots):
            self._wake.wait(self._pause())
            self._wake.clear()
            self._round()
            if self._kill_at is not None and time.monotonic() > self._kill_at + _LAST_SECONDS:
                self._abandon()
                break
        self._give_back()

    def _abandon(self) -> None:
        """What even a kill does not end, a function or a process that hangs in the kernel, is left to itself."""
        for work in self._under_way.all():
            work.settling = True
            try:
                work.queue.release([work.task.message])
                self._count("released")
            except DdmqError:
                continue

    def _pause(self) -> float:
        messages = [work.task.message for work in self._under_way.all()] + [message for _, message in self.feed.ahead()]
        leases = [lease for message in messages if (lease := _lease_of(message))]
        return min([_ROUND, *(lease.duration / 12000 for lease in leases)])

    def _round(self) -> None:
        try:
            self._heed_signals()
            self._heed_the_clock()
            self._under_way.heed_limits()
            self._under_way.beat(self.feed.ahead)
            self._handler.look()
            self._under_way.hear()
            self._recover()
            for watcher in self.watchers:
                watcher()
        except Exception as error:
            self._fail(error)

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if current_thread() is not main_thread():
            yield
            return
        before = {number: signal.signal(number, lambda caught, _: self.stop(caught)) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heed_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            again = self._stopping is not None and number == signal.SIGINT == self._stopping
            if self._stopping is None:
                self._stopping = number
                self.feed.end(f"was told to stop by {signal.Signals(number).name}")
                self._tell_of_stopping(number)
                self._give_back()
            if again or number == signal.SIGKILL:
                self._kill_at = time.monotonic()
            elif self._kill_at is None:
                self._kill_at = time.monotonic() + self.options.grace
            if number != signal.SIGKILL:
                self._under_way.pass_on(number)
        if self._stopping is not None:
            self._under_way.pass_on(self._stopping)  # to what began meanwhile
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._under_way.pass_on(signal.SIGKILL)

    def _tell_of_stopping(self, number: int) -> None:
        if running := len(self._under_way.all()):
            again = "; again kills them" if number == signal.SIGINT else ""
            tasks = f"{running} task{'s' * (running != 1)}"
            self.tell(f"stopping: {tasks} may take up to {human(self.options.grace)}{again}")

    def _heed_the_clock(self) -> None:
        ends = self._window.known_end()
        if self._stopping is None and ends is not None and time.time() > ends - self.options.grace - _LAST_SECONDS:
            self.feed.end(_JOB_ENDS)
            self._signals.append(signal.SIGTERM)

    def _recover(self) -> None:
        """What other jobs held that have ended comes back within a minute, also while this worker is busy."""
        for queue in self.queues:
            swept = maybe_recover(queue)
            if swept is not None and swept.requeued:
                self.feed.poke()

    def _give_back(self) -> None:
        try:
            self._count("released", self.feed.release_ahead())
        except DdmqError:
            pass  # they come back when their leases run out

    def _fail(self, error: BaseException) -> None:
        """Something that is no task's fault: end, and raise it in the end."""
        if self._trouble is None:
            self._trouble = error
        self.feed.end("had to stop")
        self._wake.set()

    # -- the slots

    def _slot(self, number: int) -> None:
        try:
            while found := self.feed.next():
                self._do(*found, number)
        except BaseException as error:
            self._fail(error)
        finally:
            self._wake.set()

    def _do(self, queue: Queue, message: Message, number: int) -> None:
        task = Task(
            message=message,
            root=self.broker.root,
            directory=f"{self.directory}/{number}.{message.id}",
            state_directory=queue.paths.in_state(message.id),
            worker=self.name,
            slot=number,
            deadline=self._deadline(),
        )
        work = Work(queue, task, time.monotonic(), time.time())
        self._under_way.begin(number, work)
        try:
            try:
                result: Result = self._handler.run(task)
            except BaseException:
                queue.release([message])
                raise
            work.settling = True
            self._settle(work, result)
        finally:
            self._under_way.finish(number)
            self.feed.finished(message)

    def _deadline(self) -> float | None:
        limits = [self._window.known_end(), time.time() + self.options.timeout if self.options.timeout else None]
        return min((limit for limit in limits if limit is not None), default=None)

    def _count(self, what: str, number: int = 1) -> None:
        with self._lock:
            setattr(self.report, what, getattr(self.report, what) + number)

    def _was_stopped(self, work: Work, result: Result) -> bool:
        """Whether a task ended because its worker was told to."""
        if not result.code or work.ended_for or work.lost:
            return False
        return was_stopped(result.code, lambda: self._stopping is not None or bool(self._signals))

    def _settle(self, work: Work, result: Result) -> None:
        if result.code and work.ended_for:
            result = replace(result, error=work.ended_for)
        ending = Ending(work.lost, work.ended_for, self._was_stopped(work, result))
        settled = settle(work.queue, work.task, result, ending, self._patience, self.conclude)
        if settled.how == "done":
            self._pace.add(result.wall)
        self._count(settled.how)
        if settled.how == "failed":
            self.report.last_failure = f"{work.task.message.id}, {result.words()}"
        if settled.stop:
            self.feed.end(settled.stop)
        for observer in self.observers:
            observer(work.task, result, settled)


def new_name() -> str:
    """A name for a worker that no other one has."""
    return f"{host()}-{os.getpid()}-{token()}"


def _lease_of(message: Message) -> Lease | None:
    return message.held.run_of(message.index) if message.held else None
