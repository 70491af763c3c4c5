"""Jobs sent to workers through a queue, and what became of them: the end of Snakemake's executor that knows queues.

A job is published under a key made of its working directory, rules and outputs. So whoever runs the same workflow there
again, after the first one was killed, finds the jobs that still wait or run and takes them for its own. A round of
looking is one listing of the reports and one of the dead letters, however many jobs there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ddmq_hpc import admin, keyed, removing
from ddmq_hpc.errors import BadMessage, storage_error
from ddmq_hpc.messages import Options
from ddmq_hpc.names import message_id, parse_dead, parse_leases
from ddmq_hpc.publishing import AT_ONCE
from ddmq_hpc.queue import Queue
from ddmq_hpc.recovery import maybe as maybe_recover
from ddmq_hpc.snakemake import reports
from ddmq_hpc.snakemake.jobs import Job, parse
from ddmq_hpc.snakemake.reports import Report
from ddmq_hpc.workers import list_workers

#: Seconds between two looks for jobs that vanished.
_MISSING_EVERY = 30.0
#: Seconds after which it is told that no worker is there, the first time, and how much longer it takes each time.
_WORKERS_FIRST, _WORKERS_LONGER = 30.0, 4.0
#: Seconds between two looks for jobs that became dead letters without a report.
_DEAD_EVERY = 5.0
#: What a job is told to have ended with of which there is no report.
_NO_REPORT = 1
_GONE = "its message was removed from the queue: by somebody, or by a worker that knows nothing of Snakemake's jobs"
#: Seconds within which a worker that reported a job lets go of it.
_LET_GO = 2.0
_WORKING = ("ready", "delayed", "leased")


class Dispatch:
    """Jobs of one working directory in one queue; `directory` is that of its reports, see `names.report_directory`.

    Not for several processes at a time, nor threads. Raises `StorageError` for what the file system refuses.
    """

    def __init__(self, queue: Queue, directory: str) -> None:
        self._queue = queue
        self._directory = directory
        self._keys: dict[str, str] = {}  # of the jobs that wait or run, by message
        self._over: dict[str, tuple[str, Report]] = {}  # done, but their messages may be there still
        self._ended: set[str] = set()
        self._missing: set[str] = set()  # when last looked
        self._next_missing = queue.fs.monotonic() + _MISSING_EVERY
        self._next_dead = 0.0
        self._workers_every = _WORKERS_FIRST
        self._next_workers = queue.fs.monotonic() + _WORKERS_FIRST
        queue.fs.make_directories(f"{queue.paths.reports}/{directory}")
        #: Of earlier runs that did not live to read them.
        self._left = {report.ident: report for report in reports.listed(queue, directory)}

    # -- send

    def find(self, key: str, job: Job, interrupted: Collection[str]) -> str | None:
        """The message of an earlier run that stands for this very job: it waits, is worked on, or was done and not
        reported yet. `interrupted` are the messages that the job was given to and not seen to end. None when the job
        has to be published."""
        try:
            found = keyed.find(self._queue, key)
            if found is None:
                return None
            ident, there = found
            if ident in self._ended:
                return None
            report = self._left.get(ident)
            if report is not None:
                adopted = report.code == 0 and ident in interrupted
            else:
                adopted = there and self._stands_for(ident, job)
        except BadMessage:
            return None  # the key's record is damaged; publishing replaces it
        except OSError as error:
            raise storage_error(error, "look for an earlier run of a job") from error
        if not adopted:
            return None
        self._keys[ident] = key
        return ident

    def _stands_for(self, ident: str, job: Job) -> bool:
        """Whether a message that is there is as good as a new one: what runs is, what waits if it says the same."""
        found = admin.find(self._queue, ident)
        if found is None or found.state not in _WORKING:
            return False
        return found.state == "leased" or parse(found.message.message).is_same(job)

    def publish(self, key: str, job: Job, options: Options) -> str:
        """Send a job to the workers; the id of its message. What is there under the key is replaced."""
        try:
            if found := keyed.find(self._queue, key):
                if report := self._left.pop(found[0], None):
                    reports.remove(self._queue, self._directory, report)
                self._wait_for_end(found[0])
            ident = keyed.publish_once(self._queue, job.body(), options, key, "replace", AT_ONCE)
        except OSError as error:
            raise storage_error(error, "publish a job") from error
        self._keys[ident] = key
        return ident

    def _wait_for_end(self, ident: str) -> None:
        """A job that was reported is let go of a moment later."""
        fs = self._queue.fs
        end = fs.monotonic() + _LET_GO
        while ident in self._ended and fs.monotonic() < end:
            found = admin.locate(self._queue, ident)
            if found is None or found.state != "leased":
                return
            fs.sleep(0.05)

    # -- look

    def ended(self) -> list[Report]:
        """The jobs that ended since this was last asked."""
        queue = self._queue
        try:
            self._clear()
            queue.sweeper.maybe(queue.settings)
            maybe_recover(queue)
            listed = reports.listed(queue, self._directory)
            found = [self._read(report) for report in listed if report.ident in self._keys]
            told = {each.ident for each in found}
            found += [each for each in self._dead() if each.ident not in told]
            found += self._vanished({each.ident for each in found})
        except OSError as error:
            raise storage_error(error, "look for jobs that ended") from error
        for each in found:
            del self._keys[each.ident]
            self._ended.add(each.ident)
        return found

    def _read(self, report: Report) -> Report:
        self._over[report.ident] = (self._keys[report.ident], report)
        return reports.with_text(self._queue, self._directory, report) if report.code else report

    def _dead(self) -> Iterable[Report]:
        """Jobs that became dead letters without a report: the workers that had them died each time."""
        queue = self._queue
        if not self._keys or queue.fs.monotonic() < self._next_dead:
            return
        self._next_dead = queue.fs.monotonic() + _DEAD_EVERY
        for name in queue.fs.names(queue.paths.dead):
            if dead := parse_dead(name):
                ident = message_id(dead.entry.pack, dead.entry.first)
                if ident in self._keys:
                    failed, lost = dead.entry.failed, dead.entry.lost
                    how = f"{lost} workers died or lost it, {failed} could not run it"
                    yield Report(ident, _NO_REPORT, f"it became a dead letter ({dead.reason}) without a report: {how}")

    def _vanished(self, known: set[str]) -> list[Report]:
        """Jobs whose messages are gone, at two looks, without a report: somebody purged the queue."""
        queue = self._queue
        if queue.fs.monotonic() < self._next_missing:
            return []
        self._next_missing = queue.fs.monotonic() + _MISSING_EVERY
        gone = {ident for ident, key in self._keys.items() if ident not in known and not self._is_there(key, ident)}
        found, self._missing = gone & self._missing, gone - self._missing
        return [Report(ident, _NO_REPORT, _GONE) for ident in sorted(found)]

    def _is_there(self, key: str, ident: str) -> bool:
        return keyed.find(self._queue, key) == (ident, True)

    def _clear(self) -> None:
        """Remove the reports and keys of what is over, once no message is left that a worker could take for work."""
        for ident, (key, report) in list(self._over.items()):
            found = keyed.find(self._queue, key)
            if found == (ident, True) and report.code == 0:
                continue
            reports.remove(self._queue, self._directory, report)
            if found == (ident, False):
                keyed.forget(self._queue, key)
            del self._over[ident]

    def withdraw(self) -> list[Report]:
        """Remove the jobs that nobody has begun."""
        try:
            gone = [ident for ident in self._keys if removing.remove_waiting(self._queue, ident)]
        except OSError as error:
            raise storage_error(error, "withdraw jobs") from error
        for ident in gone:
            del self._keys[ident]
            self._ended.add(ident)
        return [Report(ident, _NO_REPORT, "withdrawn before it began, since Snakemake is to end") for ident in gone]

    def hindrance(self) -> str | None:
        """Why nothing seems to go on, asked half a minute after the beginning and then ever less often: no worker is
        there, or those that are there have begun none of the jobs. None when all is well, or it is not yet time."""
        queue = self._queue
        if not self._keys or queue.fs.monotonic() < self._next_workers:
            return None
        found = None
        if all(worker.alive == "no" for worker in list_workers(queue)):
            found = "no worker is there"
        elif not self._keys.keys() & self._leased():
            found = "the workers that are there take none of them"
        self._workers_every *= _WORKERS_LONGER if found else 1.0
        self._next_workers = queue.fs.monotonic() + self._workers_every
        return found

    def _leased(self) -> set[str]:
        """The messages that somebody works on. A job is alone in its pack."""
        leases = parse_leases(self._queue.fs.names(self._queue.paths.leased))
        return {message_id(lease.entry.pack, lease.entry.first) for lease in leases}

    # -- end

    def cancel(self, idents: Iterable[str]) -> None:
        """These are not wanted any more: what waits is removed, what runs is ended by its worker within half a
        minute."""
        try:
            for ident in idents:
                removing.cancel(self._queue, ident)
                if key := self._keys.pop(ident, None):
                    keyed.forget(self._queue, key)
        except OSError as error:
            raise storage_error(error, "cancel jobs") from error

    def close(self) -> None:
        """Remove what nobody needs any more."""
        try:
            self._clear()
            self._queue.fs.remove_empty(f"{self._queue.paths.reports}/{self._directory}")
        except OSError as error:
            raise storage_error(error, "clear up after jobs") from error
