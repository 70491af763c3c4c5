"""Where the slots of a worker get their messages: in order, as many ahead as pays, none that cannot be finished."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import Callable

from ddmq_hpc.errors import DdmqError, LeaseLost, QueuePaused, StorageError, storage_error
from ddmq_hpc.idle import Backoff, Patience, Watch
from ddmq_hpc.messages import Message
from ddmq_hpc.queue import Queue
from ddmq_hpc.room import Room
from ddmq_hpc.units import human_memory
from ddmq_hpc.waiting import hindrance, more_may_come, put_off
from ddmq_hpc.window import Pace, Window

UNTIL = ("empty", "drained", "forever")
#: Why a worker ended whose job goes on too short.
NO_TIME = "no time is left for another task"
#: Messages are taken ahead for so many seconds of work of one slot, and never more than so many.
_AHEAD_SECONDS, _AHEAD_MOST = 1.0, 64
#: A message that asks for more time than is left is put back for so long (seconds); after so many the worker ends.
_UNFIT_DELAY, _UNFIT_MOST = 60.0, 32
#: One that needs more than this worker has at all is left to others for so long (seconds).
_TOO_LARGE_DELAY = 10.0
#: Seconds that a worker waits for room before it looks again what comes first, at first and at last.
_ROOM_FIRST, _ROOM_LONGEST = 5.0, 60.0
#: Seconds between two such messages, at first and at last: there may be nothing else in the queue.
_SIZE_FIRST, _SIZE_LONGEST = 0.01, 30.0
#: Seconds after which a worker asks again whether a queue is still paused: its settings are read twice a minute.
_PAUSED_LONGEST = 5.0
#: Seconds between two looks whether the worker was told to end meanwhile.
_HEED = 0.5
#: Seconds without anything to do after which a worker asks whether anything can still come.
_IN_VAIN = 5.0


@dataclass(frozen=True)
class Appetite:
    """What a worker takes: seconds, counts; None where there is no limit."""

    until: str = "empty"
    max_tasks: int | None = None
    idle_exit: float | None = None
    lease: float | None = None
    prefetch: int | None = None  # None: by the pace of tasks


class Feed:
    """Threads call `next` until it answers None; `reason` says then why there is no more."""

    def __init__(
        self,
        queues: Sequence[Queue],
        appetite: Appetite,
        window: Window,
        pace: Pace,
        room: Room,
        approve: Callable[[Queue, Message], None] = lambda queue, message: None,
        tell: Callable[[str], None] = lambda text: None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._queues = queues
        self._appetite = appetite
        self._window = window
        self._pace = pace
        self._room = room
        self._room_backoff = Backoff(_ROOM_FIRST, _ROOM_LONGEST)
        self._size_backoff = Backoff(_SIZE_FIRST, _SIZE_LONGEST)
        self._told_of_size = False
        self._paused: list[Queue] = []  # when it was last looked
        self._told_of_pauses: set[str] = set()
        self._hindrance = self._told_of_hindrance = ""
        self._approve = approve
        self._busy = busy
        self._turn = Lock()  # of the one slot that looks for messages; the others wait for it
        self._ahead: deque[tuple[Queue, Message]] = deque()
        self._ahead_lock = Lock()
        self._stop = Event()
        self._poked = Event()
        self._backoff = Backoff()
        self._watches = [Watch(queue) for queue in queues]
        self._idle_since: float | None = None
        self._handed_out = 0
        self._unfit = 0
        self._tell = tell
        self._patience = Patience(tell, self._stop.wait)
        self.reason = ""

    def next(self) -> tuple[Queue, Message] | None:
        """The next message to work on and its queue. Raises what taking or `approve` raises; what the file system
        refuses only when it does so for long."""
        with self._turn:
            while not self._stop.is_set():
                if self._appetite.max_tasks is not None and self._handed_out >= self._appetite.max_tasks:
                    self.end("did as many tasks as it was told to")
                    break
                try:
                    if found := self._look():
                        return found
                except StorageError as error:
                    self._patience.wait(error)
                except OSError as error:
                    self._patience.wait(storage_error(error, "look for messages"))
                else:
                    self._patience.succeeded()
            return None

    def _look(self) -> tuple[Queue, Message] | None:
        """A message that can be worked on; nothing after a wait, or at the end."""
        if not self._room.wait_for_any(_HEED):
            return None
        was_busy = self._busy()
        found = self._next_ahead() or self._take()
        if found is None:
            self._wait(was_busy)
            return None
        if not (self._approved(*found) and self._fits(*found) and self._has_room(*found)):
            return None
        self._handed_out += 1
        self._idle_since = None
        self._backoff.reset()
        self._patience.succeeded()
        return found

    def rest(self, seconds: float) -> None:
        """Wait, unless it ends meanwhile."""
        self._stop.wait(seconds)

    def finished(self, message: Message) -> None:
        """It was let go of: what it took up is free, and it may be ready again while a slot waits for what there is."""
        self._room.give_back(message)
        self.poke()

    def poke(self) -> None:
        """Messages are known to be there: a slot that waits for some looks at once."""
        self._poked.set()

    def ahead(self) -> list[tuple[Queue, Message]]:
        """What was taken and not handed out yet: leases to be kept alive."""
        with self._ahead_lock:
            return list(self._ahead)

    def end(self, reason: str) -> None:
        """Hand out no more. The first reason counts."""
        if not self._stop.is_set():
            self.reason = reason
            self._stop.set()
            self._poked.set()

    def release_ahead(self) -> int:
        """Give back what was not handed out; how many."""
        with self._ahead_lock:
            left, self._ahead = list(self._ahead), deque()
        for queue in self._queues:
            mine = [message for of, message in left if of is queue and message.receipt]
            if mine:
                queue.release(mine)
        return len(left)

    def _next_ahead(self) -> tuple[Queue, Message] | None:
        with self._ahead_lock:
            while self._ahead:
                queue, message = self._ahead.popleft()
                if message.receipt:  # else its lease was lost while it waited here: it is somebody else's
                    return queue, message
        return None

    def _take(self) -> tuple[Queue, Message] | None:
        self._paused.clear()
        trouble: StorageError | None = None
        for queue in self._queues:
            try:
                messages = queue.take(self._how_many(), duration=self._appetite.lease)
            except QueuePaused as error:
                self._paused.append(queue)
                self._tell_of_pause(error)
                continue
            except StorageError as error:
                trouble = error
                continue
            if not messages:
                continue
            with self._ahead_lock:
                self._ahead.extend((queue, message) for message in messages)
            return self._next_ahead()
        if trouble:
            raise trouble  # nobody knows whether anything is ready
        return None

    def _tell_of_pause(self, error: QueuePaused) -> None:
        """Once for each time that a queue is paused, or somebody says anew why."""
        text = f"{error}; waiting for it while there is something in it"
        if text not in self._told_of_pauses:
            self._told_of_pauses.add(text)
            self._tell(text)

    def _approved(self, queue: Queue, message: Message) -> bool:
        """False when the lease is lost already. Raises what `approve` has against the message, which is put back."""
        try:
            self._approve(queue, message)
            return True
        except LeaseLost:
            return False
        except DdmqError:
            queue.release([message])
            raise

    def _how_many(self) -> int:
        appetite = self._appetite
        if appetite.prefetch is not None:
            ahead = appetite.prefetch + 1
        elif self._pace.known:
            ahead = int(_AHEAD_SECONDS / max(self._pace.median, 1e-4))
        else:
            ahead = 1
        if appetite.max_tasks is not None:
            ahead = min(ahead, appetite.max_tasks - self._handed_out)
        return max(1, min(ahead, _AHEAD_MOST))

    def _fits(self, queue: Queue, message: Message) -> bool:
        """Whether the task can be finished in time; put back when not."""
        asked = message.time_request
        if self._window.has(self._pace.median if asked is None else asked):
            return True
        self._unfit += 1
        if asked is None or self._unfit > _UNFIT_MOST or not self._window.has(self._pace.median):
            queue.release([message])
            self.end(NO_TIME)
        else:
            queue.release([message], delay=_UNFIT_DELAY)
        return False

    def _has_room(self, queue: Queue, message: Message) -> bool:
        """Whether the message can be worked on beside what is; put back when not, for a worker that has more room. This
        one begins nothing else before it has looked again, or a large message would wait for ever behind small ones."""
        room = self._room
        if not room.could_hold(message):
            self._tell_of_size(message)
            queue.release([message], delay=_TOO_LARGE_DELAY)
            self._stop.wait(self._size_backoff.next())
            return False
        self._size_backoff.reset()
        if room.take(message):
            self._room_backoff.reset()
            return True
        queue.release([message])
        end = time.monotonic() + self._room_backoff.next()
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            if room.wait_for(message, min(left, _HEED)):
                break
        return False

    def _tell_of_size(self, message: Message) -> None:
        if not self._told_of_size:
            self._told_of_size = True
            needs, has = _size(message.slots, message.memory), _size(self._room.slots, self._room.memory)
            self._tell(f"{message.id} needs {needs}, this worker has {has}: what needs more is left to others")

    def _wait(self, was_busy: bool) -> None:
        """Wait until messages may have come, or it is time to end. Raises OSError. What other slots were busy with when
        nothing was found may be ready again since."""
        if self._stop.is_set():
            return
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        self._poked.clear()
        for watch in self._watches:
            watch.remember()
        while not self._stop.is_set():
            if any(not queue.settings.paused for queue in self._paused):
                return
            if self._appetite.until == "empty" and not self._busy() and not self._holds_back():
                if was_busy:
                    return
                self.end(f"nothing is ready{put_off(self._queues)}{self._told_aside()}")
            elif self._appetite.until == "drained" and not (
                any(map(more_may_come, self._queues)) or self._holds_back()
            ):
                self.end(f"the queue is drained{self._told_aside()}")
            elif self._appetite.idle_exit is not None and self._idle_for() >= self._appetite.idle_exit:
                self.end("nothing came for a while")
            elif not self._window.has(self._pace.median):
                self.end(NO_TIME)
            else:
                if self._appetite.until == "drained" and self._idle_for() > _IN_VAIN:
                    self._tell_of_hindrance()
                self._poked.wait(self._pause())
                if self._poked.is_set() or any(watch.calls_for_a_look() for watch in self._watches):
                    return

    def _holds_back(self) -> bool:
        """Whether something is ready in a queue that is paused: it is not empty. Raises OSError."""
        return any(queue.taker.look_again() for queue in self._paused)

    def _told_aside(self) -> str:
        return "".join(queue.told_aside() for queue in self._queues)

    def _tell_of_hindrance(self) -> None:
        """Once, what keeps all that is left from being done, when two looks in a row found it. Raises OSError."""
        before, self._hindrance = self._hindrance, hindrance(self._queues)
        if self._hindrance and self._hindrance == before != self._told_of_hindrance:
            self._told_of_hindrance = before
            self._tell(f"waiting for what does not come by itself: {before}; --idle-exit ends that")

    def _idle_for(self) -> float:
        return time.monotonic() - (self._idle_since or time.monotonic())

    def _pause(self) -> float:
        pause = self._backoff.next()
        if self._paused:
            pause = min(pause, _PAUSED_LONGEST)
        limit = self._appetite.idle_exit
        return pause if limit is None else min(pause, max(0.01, limit - self._idle_for()))


def _size(slots: int, memory: int | None) -> str:
    found = f"{slots} slot{'s' * (slots > 1)}"
    return f"{found} and {human_memory(memory)}" if memory else found
