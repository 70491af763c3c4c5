"""What clients write for one another beside messages: locks, who works, what was submitted, how jobs ended, probes.

Loaded by those who use it: most commands take and settle messages, and nothing else.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ddmq_hpc.names.entries import NUMBER, PACK

#: The end of the directory of a lock for users.
LOCK_END = ".lock"
#: The directories that `doctor` works in, `PATH/.ddmq-hpc-doctor-<token>`.
_PROBE = ".ddmq-hpc-doctor-"
#: Made by who works on a queue with an `on_complete`, in locks/; taken away by who runs it.
HOOK_ARMED = "complete-armed"

_LOCK_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.(\d{10})(\.free|\.over|@[A-Za-z0-9.:=_-]{1,160})?", re.ASCII)
_TICKET_NAME = re.compile(r"want\.(\d{10})\.([a-z2-7]{8})", re.ASCII)
_SUBMISSION_NAME = re.compile(r"job-((?:slurm|pbs|sge)-[A-Za-z0-9._=-]{1,60})\.json", re.ASCII)
_PROBE_NAME = re.compile(rf"{re.escape(_PROBE)}[a-z2-7]{{8}}", re.ASCII)
_WORKER_ID = re.compile(r"[A-Za-z0-9._-]{1,120}", re.ASCII)
_REPORT_NAME = re.compile(rf"({PACK}\.(?:{NUMBER}))\.(\d{{1,3}})", re.ASCII)
_REPORT_DIRECTORY = re.compile(r"[a-z2-7]{16}", re.ASCII)


class Lock(NamedTuple):
    """A name in locks/: the newest generation of a lock says who holds it, or that it is free: let go, or taken away.

    `owner` is who got it from the one before; who took a generation by itself is told by the file."""

    what: str
    generation: int
    free: bool
    owner: str = ""

    @property
    def name(self) -> str:
        """Of one that is held."""
        return lock_name(self.what, self.generation, False) + (f"@{self.owner}" if self.owner else "")


class Ticket(NamedTuple):
    """The file of one who wants a lock: `seen` is the newest generation when it came. Sorted, they are in turn."""

    seen: int
    token: str

    @property
    def name(self) -> str:
        return f"want.{self.seen:010d}.{self.token}"


def parse_ticket(name: str) -> Ticket | None:
    found = _TICKET_NAME.fullmatch(name)
    return Ticket(int(found[1]), found[2]) if found else None


def lock_directory(path: str) -> str:
    """The directory of the lock of `path`, which may be a file that the lock protects. No queue has such a name."""
    top = path.rstrip("/") or "/"
    return top if top.endswith(LOCK_END) else top + LOCK_END


def lock_name(what: str, generation: int, free: bool) -> str:
    return f"{what}.{generation:010d}{'.free' * free}"


def evicted_name(what: str, generation: int) -> str:
    """A generation that was taken away from its holder."""
    return f"{what}.{generation:010d}.over"


def parse_lock(name: str) -> Lock | None:
    found = _LOCK_NAME.fullmatch(name)
    if found is None:
        return None
    end = found[3] or ""
    return Lock(found[1], int(found[2]), end.startswith("."), end[1:] if end.startswith("@") else "")


def minute_stamp(kind: str, minute: int) -> str:
    """The name in locks/ whose maker alone may do what `kind` says in that minute (since 1970)."""
    return f"{kind}-{minute}"


def stamped_minute(kind: str, name: str) -> int | None:
    """The minute of such a stamp; None for anything else."""
    prefix, _, minute = name.partition("-")
    return int(minute) if prefix == kind and minute.isascii() and minute.isdigit() else None


def is_worker_id(text: str) -> bool:
    return _WORKER_ID.fullmatch(text) is not None and not text.startswith(".")


def parse_worker_file(name: str) -> tuple[str, str] | None:
    """(worker id, "json" or "stop") of a name in workers/; None for other files, and for records of submissions."""
    ident, _, kind = name.rpartition(".")
    if kind not in ("json", "stop") or not is_worker_id(ident) or parse_submission(name):
        return None
    return ident, kind


def submission_name(label: str) -> str:
    """The file under workers/ that tells of the batch job (an array, as a rule) with that label."""
    return f"job-{label}.json"


def parse_submission(name: str) -> str | None:
    """The label of the batch job that a file under workers/ tells of; None for other files."""
    found = _SUBMISSION_NAME.fullmatch(name)
    return found[1] if found else None


def chain_name(label: str, attempt: int) -> str:
    """The name under locks/ of the n-th attempt to submit the successor of a submission: made once, by one worker."""
    return f"chain-{label}.{attempt}"


def chain_failed_name(label: str, attempt: int) -> str:
    """Says that an attempt submitted nothing, so that there may be another."""
    return f"chain-{label}.{attempt}.failed"


def is_chain_of(name: str, label: str) -> bool:
    """Whether a name under locks/ tells of an attempt to submit the successor of that submission."""
    return name.startswith(f"chain-{label}.")


def hook_fired_name(token: str) -> str:
    """The name in locks/ of what its maker took away."""
    return f"complete-fired-{token}"


def report_directory(of: str) -> str:
    """The directory under reports/ of one who waits for jobs, by the text that tells it from others."""
    from base64 import b32encode
    from hashlib import sha256

    return b32encode(sha256(of.encode("utf-8", "surrogatepass")).digest()[:10]).decode().lower()


def is_report_directory(name: str) -> bool:
    return _REPORT_DIRECTORY.fullmatch(name) is not None


def report_name(ident: str, code: int) -> str:
    """The file that says how the message of that id ended."""
    return f"{ident}.{code}"


def parse_report(name: str) -> tuple[str, int] | None:
    """(message id, exit code) of a report; None for other files."""
    found = _REPORT_NAME.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def probe_in_tmp(token: str) -> str:
    """The file that is made in tmp/ to see whether one can be."""
    return f"explain-{token}"


def probe_name(token: str) -> str:
    """The directory that one run of `doctor` works in."""
    return _PROBE + token


def is_probe(name: str) -> bool:
    return _PROBE_NAME.fullmatch(name) is not None
