"""Write reference.md from the code: `python docs/build_reference.py`. A test keeps the two alike."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

from ddmq_hpc import settings
from ddmq_hpc.cli.main import COMMANDS, cli
from ddmq_hpc.exporting import COLUMNS
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
| {demands} | override the settings {demanded}, see [signed messages](security.md#signed-messages) |

## Exit codes

{exit_codes}

## JSON operations

`ddmq-hpc json '{{"cmd": ..., "root": ..., "queue": ...}}'`, or `ddmq-hpc json -` for one object a line in and out. The other keys
are those of the Python methods; `receipt` or `receipts` for what settles a message. An answer is
`{{"ok": true, "result": ..., "schema_version": 1}}` or `{{"ok": false, "error": {{"type", "message", "exit_code"}}, ...}}`.

The commands: {operations}.

## Status

`ddmq-hpc status --format json` answers `{{"schema_version": 1, "root": ..., "queues": [...]}}`; each queue has {stats}. `oldest`
is the age in seconds of the oldest ready message, `foreign` names files that are none of ddmq-hpc's.

## Journal

`ROOT/QUEUE/journal/<host>.<boot>.<user>.<day>.jsonl` (days since 1970), one record a line, in the order in which that host wrote
them:

| key | meaning |
|---|---|
| `state` | `acked`, `nacked`, `released`, `lost` (the worker died or the lease ran out), `damaged`, `cancelled`, `deleted`, `purged`, `retried` (a dead letter made ready again, its attempts counted anew); `late` takes back the outcome before it of the same attempt: its lease was reclaimed already |
| `id` | of a message, or `<pack>.<first>-<stop>` for several (`stop` is not among them) |
| `attempt` | 1 for the first, also of a dead letter that was retried |
| `at`, `taken` | seconds since 1970 |
| `to` | where a nacked, released or lost message went: `ready`, `delayed` or `dead` |
| `exit`, `signal`, `wall`, `cpu` | of a task: exit code (128 + signal), signal, seconds of wall and of CPU |
| `rss`, `oom` | of a task: the most bytes of memory that its processes were seen to have, whether the kernel killed it for want of it |
| `error`, `output` | of a failed task: what it wrote into its error file, the end of its output |
| `worker`, `slot`, `slots` | the worker that ran it, in which of its slots; how many it took, when several |
| `task` | the first 120 letters of the message |
| `reason` | of a damaged message: what is wrong; of a cancelled one: what was given as `--reason` |
| `host`, `pid`, `job` | who wrote it |

A record is written before the message is let go. Records are flushed to the disk within a second; a power cut can take those of
the last second. A reader passes over lines that are not JSON. A worker that ends leaves a record with the state `worker`: its
name as `id`, when it began as `taken`, its `slots`; an `on_complete` that was run one with the state `completed`.

Files whose day is over for a day become compressed ones, `packed-<oldest>-<newest>-<token>.jsonl.gz`: when the first and the last of
them were written last, in milliseconds since 1970. The first line names what it contains; the lines of each file follow one with its
name as `section`. What was repeated or taken back is left out.

### As a table

`ddmq-hpc journal export` has a row for each attempt at each message, with these columns:

| column | meaning |
|---|---|
{columns}

## Commands

{commands}
"""


def page() -> str:
    """The whole page."""
    return PAGE.format(
        settings="\n".join(
            f"| `{name}` | `{settings.plain(getattr(settings.DEFAULTS, name))}` | {field.metadata['help']} |"
            for name, field in settings.FIELDS.items()
        ),
        demands=", ".join(f"`{variable}`" for variable in settings.ENVIRONMENT),
        demanded=", ".join(f"`{name}`" for name in settings.ENVIRONMENT.values()),
        options="\n".join(f"| `{option.name}` | {option.metadata['help']} |" for option in fields(Options)),
        message=_message_keys(),
        exit_codes=_of_readme("Exit codes"),
        operations=", ".join(f"`{name}`" for name in sorted(OPERATIONS)),
        stats=", ".join(f"`{field.name}`" for field in fields(Stats)),
        columns="\n".join(f"| `{name}` | {text} |" for name, text in COLUMNS.items()),
        commands="\n".join(_command(name) for name in COMMANDS),
    )


def _of_readme(section: str) -> str:
    text = Path(__file__).resolve().parents[1].joinpath("README.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {section}\n")[2].partition("\n## ")[0].strip()


def _message_keys() -> str:
    example = Message("0000000000000000000-0aaaaaaaa.0", "", "q")
    return ", ".join(f"`{name}`" for name in example.to_dict())


def _command(name: str) -> str:
    context = click.Context(cli, info_name="ddmq-hpc")
    command = cli.get_command(context, name)
    assert command is not None
    return _help(command, name, context, "###")


def _help(command: click.Command, name: str, parent: click.Context, heading: str) -> str:
    """The help of a command, and of those below it."""
    inner = click.Context(
        command,
        info_name=name,
        parent=parent,
        max_content_width=100,
        terminal_width=100,
        help_option_names=["-h", "--help"],
    )
    lines = [line.rstrip() for line in command.get_help(inner).splitlines()]
    path = inner.command_path.partition(" ")[2]
    found = f"{heading} {path}\n\n```text\n" + "\n".join(lines).strip() + "\n```\n"
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return "\n".join([found, *(_help(sub, word, inner, heading + "#") for word, sub in below)])


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(page().rstrip() + "\n", encoding="utf-8")
