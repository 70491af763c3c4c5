"""Write reference.md from the code: `python docs/build_reference.py`. A test keeps the two alike."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

from ddmq_hpc import settings
from ddmq_hpc.cli.main import COMMANDS, cli
from ddmq_hpc.messages import Message, Options
from ddmq_hpc.operations import _TABLE as OPERATIONS
from ddmq_hpc.stats import Stats

PAGE = """# Reference

Made from the code by `python docs/build_reference.py`.

## Settings

In `ROOT/ddmq.yaml` for all queues, in `ROOT/QUEUE/ddmq.yaml` for one; clients read them again within half a minute. The
properties of a message override both. Durations are seconds, or text such as `10m`, `1h30m`, `HH:MM:SS`, `D-HH:MM:SS`.

| setting | default | meaning |
|---|---|---|
{settings}

## Properties of a message

| property | meaning |
|---|---|
{options}

A message that was taken has these attributes in Python, and these keys in JSON and YAML: {message}. `filename` is the receipt
under the name that ddmq gave it.

## Environment

| variable | meaning |
|---|---|
| `DDMQ_HPC_ROOT`, `DDMQ_HPC_QUEUE` | stand for ROOT and QUEUE where they are left out |
| `DDMQ_HPC_RECEIPT` | the receipt for `ack`, `nack`, `release` and `touch` without one |
| `DDMQ_HPC_MESSAGE`, `DDMQ_HPC_ID`, `DDMQ_HPC_ATTEMPT` | set by `pull --format shell` and `exec`, with the ones above |

## JSON operations

`ddmq-hpc json '{{"cmd": ..., "root": ..., "queue": ...}}'`, or `ddmq-hpc json -` for one object a line in and out. The other keys
are those of the Python methods; `receipt` or `receipts` for what settles a message. An answer is
`{{"ok": true, "result": ..., "schema_version": 1}}` or `{{"ok": false, "error": {{"type", "message", "exit_code"}}, ...}}`.

The commands: {operations}.

## Status

`ddmq-hpc status --format json` answers `{{"schema_version": 1, "root": ..., "queues": [...]}}`; each queue has {stats}. `oldest`
is the age in seconds of the oldest ready message, `foreign` names files that are none of ddmq-hpc's.

## Journal

`ROOT/QUEUE/journal/<host>.<boot>.<user>.jsonl`, one record a line, in the order in which that host wrote them:

| key | meaning |
|---|---|
| `state` | `acked`, `nacked`, `released`, `lost` (the worker died or the lease ran out), `damaged`, `deleted`, `purged`; `late` takes back the outcome before it of the same attempt: its lease was reclaimed already |
| `id` | of a message, or `<pack>.<first>-<stop>` for several (`stop` is not among them) |
| `attempt` | 1 for the first |
| `at`, `taken` | seconds since 1970 |
| `to` | where a nacked, released or lost message went: `ready`, `delayed` or `dead` |
| `exit`, `signal`, `wall`, `cpu` | of a task: exit code (128 + signal), signal, seconds of wall and of CPU |
| `rss`, `oom` | of a task: the most bytes of memory that its processes were seen to have, whether the kernel killed it for want of it |
| `error`, `output` | of a failed task: what it wrote into its error file, the end of its output |
| `worker` | the worker that ran it |
| `host`, `pid`, `job` | who wrote it |

A record is written before the message is let go. Records are flushed to the disk within a second; a power cut can take those of
the last second. A reader passes over lines that are not JSON.

## Commands

{commands}
"""


def page() -> str:
    """The whole page."""
    return PAGE.format(
        settings="\n".join(
            f"| `{name}` | `{settings._plain(getattr(settings.DEFAULTS, name))}` | {field.metadata['help']} |"
            for name, field in settings.FIELDS.items()
        ),
        options="\n".join(f"| `{option.name}` | {option.metadata['help']} |" for option in fields(Options)),
        message=_message_keys(),
        operations=", ".join(f"`{name}`" for name in sorted(OPERATIONS)),
        stats=", ".join(f"`{field.name}`" for field in fields(Stats)),
        commands="\n".join(_command(name) for name in COMMANDS),
    )


def _message_keys() -> str:
    example = Message("0000000000000000000-0aaaaaaaa.0", "", "q")
    return ", ".join(f"`{name}`" for name in example.to_dict())


def _command(name: str) -> str:
    context = click.Context(cli, info_name="ddmq-hpc")
    command = cli.get_command(context, name)
    assert command is not None
    inner = click.Context(
        command,
        info_name=name,
        parent=context,
        max_content_width=100,
        terminal_width=100,
        help_option_names=["-h", "--help"],
    )
    lines = [line.rstrip() for line in command.get_help(inner).splitlines()]
    return f"### {name}\n\n```text\n" + "\n".join(lines).strip() + "\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(page().rstrip() + "\n", encoding="utf-8")
