"""What several commands share: where the queue is, options with the same meaning, output formats."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import UsageError
from ddmq_hpc.identity import Detached, Identity
from ddmq_hpc.units import seconds

if TYPE_CHECKING:
    from ddmq_hpc.doctor import Report

SCHEMA_VERSION = 1
_PLACES = {"ROOT": "DDMQ_HPC_ROOT", "QUEUE": "DDMQ_HPC_QUEUE"}


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Seconds, given as any text that `units.seconds` reads."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return seconds(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()


def places(given: tuple[str, ...], *names: str) -> list[str]:
    """The arguments `names` from those given: ROOT, then QUEUE, are taken from the environment when there are too
    few."""
    found = list(given)
    missing = len(names) - len(given)
    if missing < 0:
        extra = found[len(names)][:60]
        raise UsageError(f"too many arguments: {extra!r}; expected {' '.join(names)}, and a command only after `--`")
    filled = []
    for name in names:
        given_root = name == "ROOT" and bool(found) and "/" in found[0]  # no queue has a slash in its name
        if missing and not given_root and name in _PLACES and (value := os.environ.get(_PLACES[name])):
            filled.append(value)
            missing -= 1
        elif found:
            filled.append(found.pop(0))
        else:
            hint = f", or set ${_PLACES[name]}" if name in _PLACES else ""
            raise UsageError(f"{name} is missing: expected {' '.join(names)}{hint}")
    return filled


def root_and_queue(given: tuple[str, ...]) -> list[str]:
    """[ROOT], or [ROOT, QUEUE] for commands that are for all queues when none is given. With $DDMQ_HPC_ROOT set, a lone
    word without a slash is a queue."""
    if len(given) == 1 and "/" not in given[0] and os.environ.get(_PLACES["ROOT"]):
        return [os.environ[_PLACES["ROOT"]], given[0]]
    return places(given, *(("ROOT", "QUEUE") if len(given) > 1 else ("ROOT",)))


def split_command(given: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """What stands before `--`, and the command after it: click drops the dashes, so they are looked for in what the
    shell gave."""
    words = sys.argv
    if "--" not in words:
        return given, []
    count = len(words) - words.index("--") - 1
    if count == 0:
        raise UsageError("no command after `--`")
    return given[: len(given) - count], list(given[len(given) - count :])


def one_shot(root: str, create: bool = False, admission: Callable[[Report], None] | None = None) -> Broker:
    """For commands that end before the message is settled: their leases outlive them."""
    return Broker(root, create=create, identity=Detached(), admission=admission)


def forced(root: str, force: bool) -> Broker:
    """The same for commands that may make the root on the way: that is told, since it may have been a slip."""
    broker = one_shot(root, force)
    if broker.checkup:
        click.echo(f"ddmq-hpc: made the root {printable(broker.root)}", err=True)
    return broker


def queues_of(broker: Broker) -> list[str]:
    """All queues that can be looked at; of the others it is told."""
    found = broker.list_queues()
    if broker.closed:
        shown = ", ".join(broker.closed[:5]) + ", ..." * (len(broker.closed) > 5)
        click.echo(f"ddmq-hpc: left out, you may not read them: {shown}", err=True)
    return found


def staying(root: str, create: bool = False) -> Broker:
    """For commands that work on what they lease until they end."""
    return Broker(root, create=create, identity=Identity())


def legacy_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """ddmq's flags for printing more or cleaning less; accepted, and nothing is done differently."""
    for flags in (("-v", "--verbose"), ("-d", "--debug"), ("-s", "--silent"), ("-C", "--skip-cleaning")):
        command = click.option(*flags, is_flag=True, expose_value=False, hidden=True)(command)
    return command


def arguments(names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Positional arguments, counted by `places`, shown in the help as `names`."""
    return click.argument("given", nargs=-1, metavar=names)


def formats(*choices: str, default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option --format with these `choices`."""
    return click.option(
        "--format", "shape", type=click.Choice(choices), default=default, show_default=True, help="How to print."
    )


def out(text: str) -> None:
    """A line to stdout, whatever letters it has."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")


def out_json(value: Any) -> None:
    """A value as one line of JSON."""
    from ddmq_hpc.messages import to_json

    out(to_json(value))


def out_yaml(value: Any) -> None:
    """A value as a YAML document."""
    import yaml

    out(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip("\n"))


def printable(value: Any) -> str:
    """A value for a person's terminal: what queues hold could steer it."""
    text = value if isinstance(value, str) else _short(value)
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


def _short(value: Any) -> str:
    from ddmq_hpc.messages import body_text

    return body_text(value)


def out_plain(rows: Iterable[dict[str, Any]]) -> None:
    """`key = value` lines, sorted, one block a row: as ddmq printed messages."""
    for row in rows:
        out("\n".join(f"{key} = {printable(value)}" for key, value in sorted(row.items())) + "\n")
