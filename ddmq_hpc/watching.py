"""Looking at queues again and again, at little cost for the file server.

A look lists the directories of a queue and reads what was appended to its journal; workers, of which each has a file,
are asked about as seldom as they tell news.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import DdmqError, RootNotFound, storage_error
from ddmq_hpc.hour import Follow
from ddmq_hpc.queue import Queue
from ddmq_hpc.stats import stats
from ddmq_hpc.views import Snapshot, Trouble, View, view
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import list_workers

#: Seconds between two listings of queues and of workers: of these more where there are many, since each has a file, and
#: so many are read in a second at most.
_LIST_EVERY, _WORKERS_A_SECOND = 10.0, 20
#: The rate now is that of the last so many seconds.
_BACK = 60.0


class Watch:
    """Looks at some queues of a root, or at all there are. Its calls are made by one thread."""

    def __init__(self, broker: Broker, queues: Sequence[str] = ()) -> None:
        self._broker = broker
        self._names = list(queues)
        self._all = not queues
        self._listed = -1e9
        self._watched: dict[str, _Watched] = {}

    def look(self) -> list[View | Trouble]:
        """What each queue is like now. Raises `DdmqError` when the queues cannot be listed."""
        clock = self._broker.fs.monotonic()
        if self._all and clock - self._listed > _LIST_EVERY:
            self._names, self._listed = self._list(), clock
        self._watched = {name: self._watched.get(name) or _Watched() for name in self._names}
        return [self._look(name) for name in self._names]

    def _list(self) -> list[str]:
        broker = self._broker
        try:
            found = broker.list_queues()
            if not found and not broker.fs.is_there(broker.root):
                raise RootNotFound(broker.root)
        except OSError as error:
            raise storage_error(error, "list queues") from error
        return found

    def _look(self, name: str) -> View | Trouble:
        try:
            queue = self._broker.queue(name)
            try:
                return self._watched[name].look(queue)
            except OSError as error:
                raise queue.trouble(error, f"look at queue {name!r}") from error
        except DdmqError as error:
            return Trouble(name, str(error))


class _Watched:
    """What is remembered of one queue from look to look."""

    def __init__(self) -> None:
        self._follow: Follow | None = None
        self._workers: Sequence[WorkerInfo] = ()
        self._listed = -1e9
        self._before: deque[Snapshot] = deque()

    def look(self, queue: Queue) -> View:
        """Raises OSError, `DdmqError`."""
        clock = queue.fs.monotonic()
        self._follow = self._follow or Follow(queue)
        if clock - self._listed > max(_LIST_EVERY, len(self._workers) / _WORKERS_A_SECOND):
            self._workers, self._listed = list_workers(queue), clock
        counts = stats(queue)
        now = queue.fs.now(queue.paths.tmp)
        snapshot = Snapshot(now, counts, self._workers, self._follow.look(now))
        while len(self._before) > 1 and now - self._before[1].at >= _BACK:
            self._before.popleft()
        before = self._before[0] if self._before else None
        self._before.append(snapshot)
        return view(before, snapshot)
