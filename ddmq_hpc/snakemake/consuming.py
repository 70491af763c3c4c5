"""Rules whose jobs are made of a queue's messages: `tasks()`, what a Snakefile uses.

Snakemake asks for more input once every `--queue-input-wait-time`, in its main thread and between two changes of its
graph of jobs. All that is done about the queue is done then, or when it writes to its log; heartbeats alone have a
thread. So a Snakefile that is only read, as it is by each process that runs a job, takes nothing.
"""

from __future__ import annotations

import atexit
import os
import queue as _queue
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Callable

from ddmq_hpc.admin import Found, locate
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import MessageNotFound, UsageError
from ddmq_hpc.feed import UNTIL
from ddmq_hpc.fs import GONE, NO_FILE
from ddmq_hpc.identity import Identity
from ddmq_hpc.names import check_queue_name, parse_message_id
from ddmq_hpc.queue import Queue
from ddmq_hpc.settings import lease_duration
from ddmq_hpc.snakemake.claims import ACKED, NACKED, RELEASED, Claims, release_all_of
from ddmq_hpc.snakemake.intake import Intake, Limits
from ddmq_hpc.snakemake.internals import Run, from_queue, require, say
from ddmq_hpc.snakemake.workdir import WorkingDirectory, marker
from ddmq_hpc.trust import Trust
from ddmq_hpc.units import seconds

_END = object()
_TASK = "{task}"
#: How often a message is looked for before it is taken to be gone.
_LOOKS = 3


def tasks(
    queue: str | os.PathLike[str],
    *,
    workflow: Any,
    target: str,
    lease: float | str | None = None,
    max_inflight: int = 200,
    until: str = "empty",
    max_tasks: int | None = None,
    idle_exit: float | str | None = None,
    trust: Sequence[str] = (),
) -> Tasks:
    """The tasks of a queue as jobs of this workflow.

    `queue` is the path ROOT/QUEUE, or a queue's name when $DDMQ_HPC_ROOT is set. `target` is the file that the job of a
    task makes; `{task}` in it stands for the id of the message, and is the wildcard of the rule that makes the file.

    A message is acked when Snakemake has found the outputs of its job to be there, nacked when that job, or one that it
    alone needs, failed for good (`retries:` come first), and otherwise released, no attempt counted, when the run ends.
    Each task is done at least once: after a lost lease or a kill at a bad moment it is done again.

    `lease` seconds (default: the timeout of message or queue) are for how long others wait for a run that died on
    another host; heartbeats renew it. At most `max_inflight` messages are held at a time. Tasks are taken `until` the
    queue is "empty", or "drained" (nothing is ready, and nothing that could come back is delayed or held by others), or
    "forever"; in any case no more than `max_tasks`, and until nothing came for `idle_exit` seconds. `trust` are users
    besides this one whose messages are worked on.

    Touches nothing before jobs are run. Raises `UsageError`, `BadName`, `SnakemakeUnfit`; later, in the run,
    `QueueNotFound`, `Untrusted`, `StorageError`.
    """
    require()
    root, name = _split(queue)
    if until not in UNTIL:
        raise UsageError(f"bad until {until!r:.40}: use {', '.join(UNTIL)}")
    for what, value in (("max_inflight", max_inflight), ("max_tasks", max_tasks)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(f"bad {what} {value!r:.40}: it must be 1 or more")
    place = Place(root, name, None if lease is None else lease_duration(lease), tuple(trust))
    limits = Limits(until, max_inflight, max_tasks, None if idle_exit is None else seconds(idle_exit))
    return Tasks(place, workflow, _checked_target(target), limits)


def _split(queue: str | os.PathLike[str]) -> tuple[str, str]:
    path = os.fspath(queue).rstrip("/")
    root, slash, name = path.rpartition("/")
    if not slash:
        root = os.environ.get("DDMQ_HPC_ROOT", "")
        if not root:
            raise UsageError(f"where is queue {path!r:.80}? Give it as ROOT/QUEUE, or set $DDMQ_HPC_ROOT")
    return os.path.abspath(root or "/"), check_queue_name(name)


def _checked_target(target: str) -> str:
    if target.count(_TASK) != 1 or set("{}") & set(target.replace(_TASK, "")):
        raise UsageError(f"bad target {target!r:.80}: it has {_TASK} once, and nothing else in braces")
    return os.path.normpath(target)


class Tasks:
    """What `tasks()` gives: `feed()` is the input of the rule that wants all tasks done, `body` the function for
    `params:` of the rule that does one, `settle()` goes into `onsuccess:` and `onerror:`."""

    def __init__(self, place: Place, workflow: Any, target: str, limits: Limits) -> None:
        self._place, self._target, self._limits = place, target, limits
        self._run = Run(workflow)
        self._is_fed = False
        self._taking: Taking | None = None

    def feed(self) -> Any:
        """Input that grows by the target of each message that is taken, and is complete when no more are. For one rule,
        without wildcards. The last file of it is an empty one of ours."""
        if self._is_fed:
            raise UsageError("feed() is for one rule; let others depend on the outputs of that rule")
        self._is_fed = True
        return from_queue(_Stream(self._next_items), _END)

    def body(self, wildcards: Any) -> Any:
        """What was published, for the job with this wildcard `{task}`. Raises `MessageNotFound` when the message is in
        the queue no more."""
        ident = getattr(wildcards, "task", None)
        if not isinstance(ident, str) or parse_message_id(ident) is None:
            raise UsageError(f"no message has the id {ident!r:.80}: the output of the rule needs the wildcard {_TASK}")
        if self._taking and ident in self._taking.claims.bodies:
            return self._taking.claims.bodies[ident]
        return self._place.read(ident)  # in a process of its own, as of `run:` and of jobs on other nodes

    def settle(self) -> None:
        """Let go of everything: what is done is acked, what failed is nacked, the rest is released. Nothing happens the
        second time, nor where nothing was taken. Also done when the process ends, which may be seconds later."""
        if self._taking:
            self._taking.end()

    def _next_items(self) -> list[Any]:
        """What Snakemake gets when it asks: targets, and in the end the end."""
        run = self._run
        if not run.is_scheduling:
            return []
        if run.is_real:
            if self._taking is None:
                self._taking = Taking(self._place, run, self._target, self._limits)
            targets = self._taking.next_targets()
            if targets is not None:
                return targets
        # Never the end alone: Snakemake looks for ready jobs when the input has changed (9.27.1: `DAG.
        # update_queue_input_jobs`), and ends with "Out of jobs ready to be started" when it has not.
        return [marker(run.directory), _END]


@dataclass(frozen=True)
class Place:
    """A queue as a Snakefile names it, and how to take from it."""

    root: str
    name: str
    lease: float | None
    trust: tuple[str, ...]

    def read(self, ident: str) -> Any:
        """The body of a message, wherever it is, read as strictly as one that is taken. Raises `MessageNotFound`,
        `Untrusted`."""
        with Broker(self.root) as broker:
            queue = broker.queue(self.name)
            trust = Trust(queue, users=self.trust)
            for _ in range(_LOOKS):
                if found := locate(queue, ident):
                    trust.check_file(found.path)
                    for body in _bodies(queue, found, ident):
                        return body
                queue.fs.refresh(queue.paths.leased)  # a heartbeat may have renamed it while the names were read
        raise MessageNotFound(self.name, ident)


def _bodies(queue: Queue, found: Found, ident: str) -> list[Any]:
    """The body of a message where it was found; none when it moved, or is not to be believed. Raises OSError,
    `KeyFileError`."""
    index = int(ident.rpartition(".")[2])
    try:
        good, _ = queue.reader.read(found.path, found.entry.part(index, index + 1), queue.doubt(queue.settings))
    except OSError as error:
        if error.errno in GONE | NO_FILE:
            return []
        raise
    return [body for _, body, _ in good]


class Taking:
    """From the first look at the queue to the end of the run: everything that is opened, and is to be closed."""

    def __init__(self, place: Place, run: Run, target: str, limits: Limits) -> None:
        run.check()
        identity = Identity()
        with ExitStack() as opened:
            broker = opened.enter_context(Broker(place.root, identity=identity))
            queue = broker.queue(place.name)
            trust = Trust(queue, users=place.trust)
            trust.check_place()
            lease = place.lease or queue.settings.timeout
            self._directory = opened.enter_context(WorkingDirectory.of(run.directory, queue, lease))
            if (owner := self._directory.last_owner(queue)) and (count := release_all_of(queue, owner)):
                say(f"{count} tasks of a run that was killed are put back")
            self._directory.remember(queue, identity.owner())
            self.claims = Claims(queue, trust, target, place.lease)
            opened.callback(self.claims.end)
            self._intake = Intake(run, self.claims, limits)
            opened.callback(self._intake.end)
            self._opened = opened.pop_all()
        self._process = os.getpid()
        atexit.register(self.end)

    def next_targets(self) -> list[str] | None:
        """See `Intake.next_targets`; also raises `UsageError` when another run may be in the directory."""
        if self._directory.is_lost:
            raise UsageError("this process slept for so long that another run may take tasks in this directory")
        return self._intake.next_targets()

    def end(self) -> None:
        """Settle and close everything, once. Raises `StorageError`."""
        if os.getpid() == self._process:  # not a fork's copy
            self._process = 0
            atexit.unregister(self.end)
            self._opened.close()
            counts = self.claims.counts
            say(f"tasks: {counts[ACKED]} acked, {counts[NACKED]} nacked, {counts[RELEASED]} released")


class _Stream:
    """What `from_queue` asks for items: as much of `queue.Queue` as it uses (9.27.1: `QueueInfo.consume`)."""

    def __init__(self, ask: Callable[[], list[Any]]) -> None:
        self._ask = ask
        self._items: deque[Any] | None = None

    def get_nowait(self) -> Any:
        """The next item of this round; `queue.Empty` at its end."""
        if self._items is None:
            self._items = deque(self._ask())
        if not self._items:
            self._items = None
            raise _queue.Empty
        return self._items.popleft()

    def task_done(self) -> None:
        pass
