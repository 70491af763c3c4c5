"""One look at a queue, for all who judge it: each thing is found out when it is first asked for, and once.

Nothing here costs more for a long queue than `status` does: listings, and the few files that come first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from ddmq_hpc import admin
from ddmq_hpc import submitted as _submitted
from ddmq_hpc.admin import Found
from ddmq_hpc.attempts import Attempt, recent
from ddmq_hpc.fs import GONE, NO_FILE
from ddmq_hpc.identity import Owner, is_gone, token, user_name
from ddmq_hpc.messages import Message
from ddmq_hpc.names import Lease, message_id, parse_leases, probe_in_tmp
from ddmq_hpc.queue import Queue
from ddmq_hpc.settings import Settings
from ddmq_hpc.stats import Stats, stats
from ddmq_hpc.submitted import Record
from ddmq_hpc.tasks import JOB_MARK
from ddmq_hpc.units import human, moment
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import list_workers

#: Messages at the head of the queue that are opened.
_OPENED = 8
#: What the file system has to take before it counts as one that can be written to: a block.
_PROBE_BYTES = 4096


class Probe(NamedTuple):
    """What came of making a file: the error, or what the file system's clock said then."""

    error: OSError | None
    stamp: float = 0.0


class Waiting(NamedTuple):
    """A message that waits, and where it stands."""

    found: Found
    message: Message


class Sight:
    """What there is to see of `queue`. `about` is the one message that is asked about. Attributes raise OSError."""

    def __init__(self, queue: Queue, ask_scheduler: bool = False, about: Waiting | None = None) -> None:
        self.queue = queue
        self.ask_scheduler = ask_scheduler
        self.about = about
        self.me = user_name(os.geteuid())

    # -- the queue

    @cached_property
    def settings(self) -> Settings:
        """Raises `SettingsError`, `StorageError` as well."""
        return self.queue.settings

    @cached_property
    def now(self) -> float:
        return self.queue.fs.now(self.queue.paths.tmp)

    @cached_property
    def stats(self) -> Stats:
        return stats(self.queue)

    @cached_property
    def leases(self) -> list[Lease]:
        names = self.queue.fs.names(self.queue.paths.leased)
        return sorted(parse_leases(names), key=lambda lease: lease.deadline - lease.duration)

    @cached_property
    def delayed(self) -> list[Found]:
        """The first one to be due comes first."""
        return list(admin.entries(self.queue, ("delayed",)))

    @cached_property
    def dead(self) -> list[Found]:
        return list(admin.entries(self.queue, ("dead",)))

    @cached_property
    def recent(self) -> list[Attempt]:
        """What the journal told last."""
        return recent(self.queue)

    @cached_property
    def head(self) -> list[Waiting]:
        """The message that is asked about, else the first of some packs that are ready, or due first."""
        if self.about:
            return [self.about]
        ready = list(islice(admin.entries(self.queue, ("ready",)), _OPENED))
        return list(self._opened(ready or self.delayed[:_OPENED]))

    def _opened(self, places: list[Found]) -> Iterator[Waiting]:
        for found in places:
            entry = found.entry.part(found.entry.first, found.entry.first + 1)
            try:
                good, _ = self.queue.reader.read(found.path, entry)
            except OSError as error:
                if error.errno in GONE | NO_FILE:
                    continue
                raise
            for index, body, options in good:
                ident = message_id(entry.pack, index)
                yield Waiting(found, Message(ident, body, self.queue.name, options, self.settings))

    @property
    def is_for_snakemake(self) -> bool:
        """Whether what comes first are jobs of Snakemake's executor."""
        return any(isinstance(each.message.message, dict) and JOB_MARK in each.message.message for each in self.head)

    # -- those who work

    @cached_property
    def workers(self) -> list[WorkerInfo]:
        return list_workers(self.queue)

    @cached_property
    def live(self) -> list[WorkerInfo]:
        return [info for info in self.workers if info.alive == "yes"]

    @cached_property
    def submitted(self) -> list[Record]:
        """The newest one comes first."""
        return _submitted.records(self.queue)[::-1]

    def worker_of(self, owner: Owner | None) -> WorkerInfo | None:
        """The registered worker that leases under this name."""
        return next((info for info in self.workers if owner and info.is_process_of(owner)), None)

    # -- the file system

    @cached_property
    def probe(self) -> Probe:
        """A file is made in tmp/, and removed."""
        fs = self.queue.fs
        path = self.queue.paths.in_tmp(probe_in_tmp(token()))
        try:
            fs.create(path, b"\n" * _PROBE_BYTES, sync=fs.network)
            stamp = fs.lstat(path).st_mtime
            fs.drop(path)
        except OSError as error:
            return Probe(error)
        return Probe(None, stamp)

    # -- words

    def command(self, verb: str, *words: str) -> str:
        """A command of ddmq-hpc on this queue, for a shell."""
        return self.queue.paths.command(verb, *words)

    def work(self, *options: str, verb: str = "work") -> str:
        """What starts a worker. Which command it runs nobody but the user knows."""
        kinds = {tuple(info.command) for info in self.workers if info.user == self.me}
        if self.is_for_snakemake:
            return self.command(verb, *options, "--snakemake")
        if kinds == {("--shell",)}:
            return self.command(verb, *options, "--shell")
        return self.command(verb, *options) + " -- COMMAND {}"

    def ago(self, at: float) -> str:
        return f"{human(max(0.0, self.now - at))} ago"

    def when(self, at: float) -> str:
        """A moment, by the clock on the wall here and as time from now."""
        return f"{moment(at)}, " + (self.ago(at) if at <= self.now else f"in {human(at - self.now)}")


def holder_is_gone(owner: Owner | None) -> bool:
    """Whether the process that leased is known to be gone: only on its own host."""
    return bool(owner and owner.pid and is_gone(owner.host, owner.pid, owner.start, owner.kernel))


def told_owner(owner: Owner | None, worker: WorkerInfo | None) -> str:
    """Who holds a lease, in words."""
    if owner is None:
        return "somebody who does not say who"
    who = f"worker {worker.id}" if worker else "a command of a script" if not owner.pid else f"process {owner.pid}"
    return f"{who} on {owner.host}" + (f" in job {owner.job}" if owner.job else "")
