"""All errors of ddmq-hpc: one tree, an exit code each, one line that says what is wrong and what to do next."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import ClassVar


class DdmqError(Exception):
    """The root of the tree. `str()` of each error is one line for a person; the attributes are for programs."""

    exit_code: ClassVar[int] = 1
    #: Of an error that ended a bulk publish: how many messages are in the queue.
    published: int | None = None

    def __str__(self) -> str:
        text = super().__str__()
        if self.published is None:
            return text
        count = f"{self.published or 'no'} message{'s' * (self.published != 1)} published before it"
        return f"{text} ({count}{f'; to go on from there: --skip {self.published}' * bool(self.published)})"


class UsageError(DdmqError, ValueError):
    """Something given is not valid; nothing was changed."""

    exit_code = 2


class BadName(UsageError):
    """A queue name outside `[A-Za-z0-9_-]{1,64}`."""

    def __init__(self, name: object) -> None:
        self.name = name
        super().__init__(f"bad queue name {str(name)[:80]!r}: use 1 to 64 letters, digits, '_' or '-'")


class BadMessage(UsageError):
    """A message or one of its properties that cannot be published."""


class BadReceipt(UsageError):
    """A receipt that is not one, or one of another queue."""

    def __init__(self, receipt: object, why: str = "not a receipt") -> None:
        self.receipt = receipt
        super().__init__(f"{why}: {str(receipt)[:200]!r}; give one as `ddmq-hpc pull` or `consume` printed it")


class SettingsError(UsageError):
    """A settings file that cannot be used; `path` is the file."""

    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(f"{path}: {why}")


class KeyFileError(UsageError):
    """A file of keys that cannot be used, or none (then `path` is None) where messages must be signed."""

    def __init__(self, path: str | None, why: str) -> None:
        self.path = path
        super().__init__(f"key file {path}: {why}" if path else f"no key file: {why}")


class NothingThere(DdmqError):
    """No message is ready, or the wait ran out."""

    exit_code = 3


class NotFound(DdmqError, LookupError):
    """No such root, queue or message."""

    exit_code = 4


class RootNotFound(NotFound):
    """The directory is not a ddmq-hpc root."""

    def __init__(self, root: str) -> None:
        self.root = root
        super().__init__(f"no ddmq-hpc root at {root}; make one with `ddmq-hpc create -f {root} QUEUE`")


class QueueNotFound(NotFound):
    """The root has no such queue; `nearest` is one with a name that is much alike, empty when there is none."""

    def __init__(self, root: str, queue: str, nearest: str = "") -> None:
        self.root, self.queue, self.nearest = root, queue, nearest
        meant = f"did you mean {nearest!r}? Else " * bool(nearest)
        super().__init__(f"no queue {queue!r} in {root}; {meant}make it with `ddmq-hpc create {root} {queue}`")


class IncompleteQueue(QueueNotFound):
    """Not all directories of the queue are there: making it was interrupted, or somebody removed some."""

    def __init__(self, root: str, queue: str) -> None:
        self.root, self.queue = root, queue
        NotFound.__init__(
            self,
            f"queue {queue!r} in {root} is not whole; complete it with `ddmq-hpc create {root} {queue}`, what is in it "
            "stays",
        )


class LegacyQueue(NotFound):
    """It is a queue of ddmq, the predecessor."""

    def __init__(self, root: str, queue: str) -> None:
        self.root, self.queue = root, queue
        super().__init__(f"{queue!r} in {root} is a queue of ddmq; take it over with `ddmq-hpc import {root} NEW_ROOT`")


class MessageNotFound(NotFound):
    """The queue has no such message, in no state."""

    def __init__(self, queue: str, message_id: str) -> None:
        self.queue, self.message_id = queue, message_id
        super().__init__(f"no message {message_id[:200]!r} in queue {queue!r}; `ddmq-hpc list` shows what is there")


class MessageElsewhere(MessageNotFound):
    """The message is in another state than it was looked for in."""

    def __init__(self, queue: str, message_id: str, state: str, wanted: Sequence[str]) -> None:
        self.queue, self.message_id, self.state, self.wanted = queue, message_id, state, tuple(wanted)
        NotFound.__init__(
            self,
            f"message {message_id} of queue {queue!r} is {state}, not {' or '.join(wanted)}; see `ddmq-hpc show`",
        )


class NoOutputKept(NotFound):
    """Of what a task printed nothing was kept."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        super().__init__(
            f"no output of {message_id[:200]} was kept: of failed tasks workers keep the end, of all tasks all of it "
            "with `work --output segment` or `files`"
        )


class NoOutputYet(NotFound):
    """A task runs, and what it prints is elsewhere until it ends; `where` says that in words."""

    def __init__(self, message_id: str, where: str) -> None:
        self.message_id = message_id
        super().__init__(f"no output of {message_id[:200]} yet: it {where}")


class WorkerNotFound(NotFound):
    """No worker of that name is registered."""

    def __init__(self, queue: str, worker: str) -> None:
        self.queue, self.worker = queue, worker
        super().__init__(f"no worker {worker[:140]!r} at queue {queue!r}; `ddmq-hpc workers` shows those there are")


class Untrusted(DdmqError):
    """Somebody else could have written what is about to be run: `path`, `why`, and `advice` what to do about it. `fix`
    is the command that does it, where there is one."""

    def __init__(self, path: str, why: str, advice: str, fix: str = "") -> None:
        self.path, self.why, self.advice, self.fix = path, why, advice, fix
        super().__init__(f"nothing was run: {path} {why}; {advice}")


class KeyExists(DdmqError):
    """A message with this key was published before; `message_id` is its id."""

    def __init__(self, key: str, message_id: str) -> None:
        self.key, self.message_id = key, message_id
        super().__init__(f"key {key!r} was published before, as {message_id}; see --if-exists skip|replace")


class LeaseLost(DdmqError):
    """The lease ran out and was reclaimed, or the message was settled or removed: it is no longer this holder's."""

    exit_code = 5

    def __init__(self, receipts: list[str]) -> None:
        self.receipts = receipts
        more = f" and {len(receipts) - 1} more" if len(receipts) > 1 else ""
        super().__init__(
            f"lease lost: {receipts[0]}{more}; the message was requeued or settled by somebody else, "
            "drop this result or pull with a longer --lease"
        )


class TaskCancelled(DdmqError):
    """Somebody removed the message while its command ran, which was ended."""

    exit_code = 5

    def __init__(self, queue: str, message_id: str) -> None:
        self.queue, self.message_id = queue, message_id
        super().__init__(f"message {message_id} was cancelled, its command was ended; see `ddmq-hpc history {queue}`")


class CannotRun(DdmqError):
    """A command is there and cannot be run (exit code 126, as with shells: POSIX, 2.8.2)."""

    exit_code = 126

    def __init__(self, command: str, why: str) -> None:
        self.command, self.why = command, why
        super().__init__(f"cannot run {command!r:.100}: {why}")


class CommandNotFound(CannotRun):
    """There is no such command (exit code 127, as with shells)."""

    exit_code = 127


class LockBusy(DdmqError):
    """Others hold the lock, and the wait is over. Try again (exit code 75, EX_TEMPFAIL)."""

    exit_code = 75

    def __init__(self, path: str, holders: Sequence[str]) -> None:
        self.path, self.holders = path, holders
        super().__init__(f"{path} is held by {'; '.join(holders) or 'somebody else'}; wait longer with --wait")


class LockLost(DdmqError):
    """The lock was broken, or gave no sign of life for its lease: somebody else may hold it now."""

    exit_code = 5

    def __init__(self, path: str, token: int) -> None:
        self.path, self.token = path, token
        super().__init__(
            f"lock lost: {path}, token {token}; somebody else may hold it, drop this result or ask for a longer --lease"
        )


class QueuePaused(DdmqError):
    """The queue's settings say `paused: true`: it hands out nothing. `why` tells who said so, as the end of a
    sentence."""

    exit_code = 6

    def __init__(self, queue: str, why: str = "") -> None:
        self.queue, self.why = queue, why
        super().__init__(f"queue {queue!r} was paused{why}; `ddmq-hpc resume` ends that (`paused` in ddmq.yaml)")


class QueueDraining(DdmqError):
    """The queue's settings say `draining: true`: it takes no new messages. `why` as above."""

    exit_code = 6

    def __init__(self, queue: str, why: str = "") -> None:
        self.queue, self.why = queue, why
        super().__init__(
            f"queue {queue!r} takes no new messages, it was told to drain{why}; `ddmq-hpc resume` ends that "
            "(`draining` in ddmq.yaml)"
        )


class SchedulerError(DdmqError):
    """The batch scheduler refused, or said something that is not understood."""

    #: The ids of jobs that were submitted before it refused: a large submission is several jobs.
    submitted: Sequence[str] = ()

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} (submitted before: {', '.join(self.submitted)})" if self.submitted else text


class SchedulerBusy(SchedulerError):
    """The scheduler does not answer, or not clearly. Try again (exit code 75, EX_TEMPFAIL)."""

    exit_code = 75


class SubmissionUnknown(SchedulerBusy):
    """The scheduler did not answer in time when it was given a job: it may have taken it or not."""


class UnfitDirectory(DdmqError):
    """Queues cannot work on the file system of `path`: `measured` is what was seen, `advice` what to do about it."""

    def __init__(self, path: str, measured: str, meaning: str, advice: str) -> None:
        self.path, self.measured, self.meaning, self.advice = path, measured, meaning, advice
        super().__init__(
            f"no root was made at {path}: {measured}. {meaning} {advice} "
            "See `ddmq-hpc doctor`; `ddmq-hpc create --anyway` makes it all the same"
        )


class UnfitNow(UnfitDirectory):
    """So it is, by a failure that may pass. Try again (exit code 75, EX_TEMPFAIL)."""

    exit_code = 75


class SnakemakeUnfit(DdmqError):
    """Snakemake is not there, is too old, or lacks a part that is needed: `why`; `wanted` is a version that has it."""

    def __init__(self, why: str, wanted: str) -> None:
        self.why, self.wanted = why, wanted
        remedy = "pip install 'ddmq-hpc[snakemake]' (Python 3.11 or later)"
        super().__init__(f"{why}; have snakemake {wanted} or later: {remedy}")


class StorageError(DdmqError):
    """The file system refused: `errno` and `path` say what and where.

    What was to be done was not, unless `may_be_done`: then the file system did not answer, as on soft mounts, or would
    not let it be undone, and nobody knows.
    """

    def __init__(self, error: OSError, doing: str) -> None:
        self.errno = error.errno
        self.may_be_done = bool(getattr(error, "may_be_done", False))
        self.path = error.filename if isinstance(error.filename, str) else None
        self.doing = doing
        reason = os.strerror(error.errno) if error.errno else str(error)
        advice = _ADVICE.get(error.errno or 0, "see `ddmq-hpc --debug`")
        if self.may_be_done:
            advice = f"{advice}; look whether it was done" if error.errno in _REFUSALS else _UNANSWERED
        where = f" ({self.path})" if self.path else ""
        super().__init__(f"cannot {doing}: {reason}{where}; {advice}")


class DropOnly(StorageError):
    """The queue is a drop box for this user: he may publish to it, and do nothing else with it."""

    def __init__(self, error: OSError, queue: str) -> None:
        self.queue = queue
        super().__init__(error, f"open queue {queue!r}")
        self.args = (f"permission denied: you may only publish to queue {queue!r}, without --key, --group and --after",)


class StorageBusy(StorageError):
    """A failure that may pass: full disk or quota, I/O error, stale handle. Try again (exit code 75, EX_TEMPFAIL)."""

    exit_code = 75


#: Where the file system says one of these it did answer.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
# NFS v3 says EACCES of a read-only export, too, to whoever opens a file (measured).
_FORBIDDEN = "nothing was lost: ask its owner for permission, or whether the file system is read-only now"
_UNANSWERED = "the file server did not answer, nothing was lost: look whether it was done, or try again"
_ADVICE = {
    errno.ENOSPC: "the disk is full, nothing was lost: free some space or inodes and try again",
    errno.EDQUOT: "the quota is used up, nothing was lost: free some space or inodes and try again",
    errno.EROFS: "the file system is read-only, nothing was lost: have it made writable and try again",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EIO: "the file system had a fault, nothing was lost: try again",
    errno.ESTALE: "the file server changed something under us, nothing was lost: try again",
    errno.ETIMEDOUT: "the file server does not answer, nothing was lost: try again",
    errno.ENOENT: "the directory is not there, or was removed meanwhile",
    errno.ENOTDIR: "something that is not a directory is in the way",
    errno.EEXIST: "something else is there: move it away or give another path",
    errno.ENAMETOOLONG: "names can have 255 bytes, paths 4095: give a shorter one",
    errno.ELOOP: "a symbolic link is in the way: queues do not follow them",
    **dict.fromkeys((errno.EISDIR, errno.ENXIO, errno.ENODEV), "what is there is no regular file: move it away"),
    errno.EFBIG: "no file of a queue is that large: move it away",
}

_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY}


def storage_error(error: OSError, doing: str) -> StorageError:
    """The error of this tree for what the operating system said while `doing` something (an infinitive)."""
    return (StorageBusy if error.errno in _PASSING else StorageError)(error, doing)
