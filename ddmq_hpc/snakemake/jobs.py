"""A job of Snakemake as a message: what its executor `ddmq` publishes and `ddmq-hpc work --snakemake` runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from typing import Any

from ddmq_hpc.errors import BadMessage
from ddmq_hpc.names import is_report_directory
from ddmq_hpc.tasks import JOB_MARK

#: Of the messages; others are refused.
_VERSION = 1
#: Arguments of snakemake whose values are directories or files of one run.
_OF_A_RUN = ("--runtime-source-cache-path", "--wait-for-files-file")
FORK, DIRECT, PLAIN = MODES = ("fork", "direct", "plain")


@dataclass(frozen=True)
class Job:
    """One job. `name` is for people. It runs in `directory` with `environment` over the worker's own.

    `arguments` are those of snakemake under the interpreter `python`, in a fork of a process that has it loaded with
    `fork`; or `shell` is a command line for bash, which begins once the `inputs` are seen, or after `latency` seconds.
    `outputs` are its files, relative to `directory`. How it ended is reported in the directory `reports`.
    """

    reports: str
    name: str
    directory: str
    python: str = ""
    arguments: Sequence[str] = ()
    fork: bool = False
    shell: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    inputs: Sequence[str] = ()
    latency: float = 0.0

    def body(self) -> dict[str, Any]:
        """The message."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {JOB_MARK: _VERSION, **values}

    def is_same(self, other: Job) -> bool:
        """Whether both do the same, in whichever run of Snakemake they were made."""
        return _without_run(self) == _without_run(other)


def _without_run(job: Job) -> Job:
    kept, arguments = [], iter(job.arguments)
    for argument in arguments:
        kept.append(argument)
        if argument in _OF_A_RUN:
            next(arguments, None)
    # Sorted: Snakemake writes sets in an order that is another one in each of its processes.
    return replace(
        job, arguments=sorted(kept), environment=dict(job.environment), outputs=[*job.outputs], inputs=[*job.inputs]
    )


def parse(body: Any) -> Job:
    """The job of a message. Raises `BadMessage` for any other message."""
    if not isinstance(body, dict) or JOB_MARK not in body:
        raise BadMessage("not a job of Snakemake's executor ddmq: without --snakemake a worker runs commands")
    values = {name: value for name, value in body.items() if name != JOB_MARK}
    if body[JOB_MARK] != _VERSION or values.keys() != {each.name for each in fields(Job)}:
        raise BadMessage("a job from another version of ddmq-hpc; use the same one for Snakemake and for workers")
    texts = [values[name] for name in ("reports", "name", "directory", "python", "shell")]
    texts += [text for name in ("arguments", "outputs", "inputs") for text in _list_of(values[name])]
    if not isinstance(values["environment"], dict) or not isinstance(values["fork"], bool):
        raise BadMessage("a damaged job: its environment is no mapping, or `fork` neither true nor false")
    if isinstance(values["latency"], bool) or not isinstance(values["latency"], (int, float)):
        raise BadMessage("a damaged job: its latency is no number")
    texts += [*values["environment"], *values["environment"].values()]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise BadMessage("a damaged job: something in it is not the text that it should be")
    if not is_report_directory(values["reports"]) or not values["directory"].startswith("/"):
        raise BadMessage("a damaged job: it does not say where it runs and where it reports")
    return Job(**values)


def _list_of(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadMessage("a damaged job: its arguments, inputs or outputs are no list")
    return value


def key_of(directory: str, rules: Sequence[str], outputs: Sequence[str], ident: str) -> str:
    """The key that a job is published under: the same in each run of a workflow in that directory. Jobs without outputs
    are told apart by `ident`."""
    parts = [directory, *sorted(rules), "", *(sorted(outputs) or [ident])]
    return "snakemake-" + sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
