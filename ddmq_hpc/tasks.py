"""One message as a task: the command made of it, and what the command finds in its environment and directories."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ddmq_hpc import advance
from ddmq_hpc.advance import Progress
from ddmq_hpc.errors import BadMessage
from ddmq_hpc.messages import Message, body_text

#: Longer text cannot be passed in a variable or an argument: MAX_ARG_STRLEN of Linux, execve(2). The file has it.
MAX_TEXT = 128 * 1024 - 64
#: So much of the error file of a task is kept, in bytes.
MAX_ERROR = 2048
#: So many letters of a message tell people in the journal which task it was.
MAX_LABEL = 120
#: `${NAME}` is the shell's.
_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_.-]*)?\}", re.ASCII)


def environment(root: str, message: Message) -> dict[str, str]:
    """What a command finds in its environment about its message."""
    return {
        "DDMQ_HPC_ROOT": root,
        "DDMQ_HPC_QUEUE": message.queue,
        "DDMQ_HPC_MESSAGE": body_text(message.message),
        "DDMQ_HPC_ID": message.id,
        "DDMQ_HPC_RECEIPT": message.receipt or "",
        "DDMQ_HPC_ATTEMPT": str(message.attempt),
    }


#: The first key of a job of Snakemake's executor.
JOB_MARK = "snakemake_job"


def refuse_jobs(body: Any) -> None:
    """No command is made of a job of Snakemake: nobody would learn how it ended. Raises `BadMessage`."""
    if isinstance(body, Mapping) and JOB_MARK in body:
        raise BadMessage("a job of Snakemake's executor, for `ddmq-hpc work --snakemake` alone")


def fill(command: Sequence[str], body: Any) -> list[str]:
    """`command` with the message in place of `{}`, and the fields of a JSON object in place of `{field}`.

    Other messages have no fields: there it stays as it is (`awk '{print}'`). What was put in is not looked at again.
    Raises `BadMessage` for a field that the object does not have: the command would do something else.
    """
    refuse_jobs(body)
    text = body_text(body)

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return text
        if not isinstance(body, Mapping):
            return found[0]
        if name not in body:
            raise BadMessage(f"the command says {{{name}}}, but the message has {', '.join(map(str, body))[:200]}")
        return body_text(body[name])

    return [_PLACEHOLDER.sub(value, part) if "{" in part else part for part in command]


@dataclass(frozen=True)
class Task:
    """A leased message and the place where it is worked on. `deadline` is in seconds since 1970 by this host's clock:
    the worker has to be done by then; None when it has all the time in the world."""

    message: Message
    root: str
    directory: str
    state_directory: str
    worker: str
    slot: int = 0
    deadline: float | None = None

    @property
    def payload_file(self) -> str:
        return f"{self.directory}/message"

    @property
    def error_file(self) -> str:
        return f"{self.directory}/error"

    @cached_property
    def label(self) -> str:
        """The beginning of the message, for people."""
        return body_text(self.message.message)[:MAX_LABEL]

    def prepare(self) -> None:
        """Make its directory, empty but for the message in a file. Raises OSError."""
        os.mkdir(self.directory, 0o700)
        with open(self.payload_file, "xb") as file:
            file.write(body_text(self.message.message).encode("utf-8", "surrogatepass"))

    def environment(self) -> dict[str, str]:
        found = environment(self.root, self.message)
        if len(os.fsencode(found["DDMQ_HPC_MESSAGE"].encode("utf-8", "surrogatepass"))) > MAX_TEXT:
            del found["DDMQ_HPC_MESSAGE"]
        found.update(
            DDMQ_HPC_WORKER=self.worker,
            DDMQ_HPC_SLOT=str(self.slot),
            DDMQ_HPC_DEADLINE="" if self.deadline is None else str(int(self.deadline)),
            DDMQ_HPC_PAYLOAD_FILE=self.payload_file,
            DDMQ_HPC_TASK_DIR=self.directory,
            DDMQ_HPC_STATE_DIR=self.state_directory,
            DDMQ_HPC_ERROR_FILE=self.error_file,
        )
        return found

    def outcome(self) -> dict[str, Any]:
        """What the journal tells of it besides how it ended."""
        found = {"worker": self.worker, "slot": self.slot, "task": self.label}
        if self.message.slots > 1:
            found["slots"] = self.message.slots
        return found

    def error(self) -> str:
        """What the task wrote into its error file, or nothing."""
        _, data = _beginning(self.error_file, MAX_ERROR)
        return data.decode("utf-8", "replace").strip()

    def progress(self) -> tuple[float, Progress] | None:
        """When the task last told how far it is (seconds since 1970 by this host's clock), and what; None when it did
        not."""
        at, data = _beginning(f"{self.directory}/{advance.FILE}", advance.MAX_BYTES)
        found = Progress.decode(data) if data else None
        return (at, found) if found else None

    def clear(self) -> None:
        """Remove its directory with all that is in it."""
        for name in ("message", "error", advance.FILE):
            try:
                os.unlink(f"{self.directory}/{name}")
            except OSError:
                pass
        try:
            os.rmdir(self.directory)
        except OSError:
            from shutil import rmtree

            rmtree(self.directory, ignore_errors=True)


def _beginning(path: str, most: int) -> tuple[float, bytes]:
    """When a file that a task wrote was changed, and its first `most` bytes; nothing when it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0.0, b""
    try:
        return os.fstat(handle).st_mtime, os.read(handle, most)
    except OSError:
        return 0.0, b""
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Result:
    """How a task ended: `code` is its exit status, 128 + `signal` when one ended it. Times are seconds, `rss` (bytes)
    is the most memory that its processes had together, as far as it was seen. `hopeless`: it can only end like this.
    Not `seen`: that it is over is all that is known."""

    code: int
    signal: int = 0
    wall: float = 0.0
    cpu: float | None = None
    rss: int | None = None
    oom: bool = False
    error: str = ""
    output: str = ""
    hopeless: bool = False
    seen: bool = True

    def words(self) -> str:
        """The end of a failed task in a few words: its own, if it left some."""
        said = self.error or self.output.strip().rpartition("\n")[2]
        how = f"signal {self.signal}" if self.signal else f"exit code {self.code}"
        return f"{how}: {said[:200]}" if said else how

    def outcome(self) -> dict[str, Any]:
        """The fields of its record in the journal; what is unknown is left out."""
        found: dict[str, Any] = {"exit": self.code, "wall": round(self.wall, 3)}
        if self.signal:
            found["signal"] = self.signal
        if self.cpu is not None:
            found["cpu"] = round(self.cpu, 3)
        if self.rss is not None:
            found["rss"] = self.rss
        if self.oom:
            found["oom"] = True
        if self.error:
            found["error"] = self.error
        if self.output:
            found["output"] = self.output
        return found
