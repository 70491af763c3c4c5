"""What several commands share: where the queue is, options with the same meaning, output formats."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Callable, TextIO

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import DdmqError, UsageError
from ddmq_hpc.identity import Detached, Identity
from ddmq_hpc.names import check_queue_name
from ddmq_hpc.units import escaped, memory_bytes, seconds

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SCHEMA_VERSION = 1
#: What the arguments of commands for several queues are called.
QUEUES = "QUEUE[,QUEUE...]"
#: Arguments that may be left out, and the variables that stand for them.
PLACES = {"ROOT": "DDMQ_HPC_ROOT", "QUEUE": "DDMQ_HPC_QUEUE", QUEUES: "DDMQ_HPC_QUEUE"}


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Seconds, given as any text that `units.seconds` reads."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; what is no duration is wrong usage."""
        try:
            return seconds(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


class Memory(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Bytes, given as any text that `units.memory_bytes` reads."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes; what is no amount of memory is wrong usage."""
        try:
            return memory_bytes(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()
MEMORY = Memory()


def places(given: tuple[str, ...], *names: str) -> list[str]:
    """The arguments `names` from those given: ROOT, then QUEUE, are taken from the environment when there are too
    few. Raises `BadName`, and `UsageError`, also for a word without a slash that would be ROOT where $DDMQ_HPC_ROOT
    says another one and none is there: it may be meant for a queue."""
    found = list(given)
    missing = len(names) - len(given)
    if missing < 0:
        raise _too_many(given, names)
    if not missing and (taken := _taken_for_root(given, names)):
        hints = [f"write ./{given[0][:60]} for a directory here", _several(given) if QUEUES in names else ""]
        raise UsageError("; ".join(filter(None, [taken, *hints])))
    filled = []
    for name in names:
        given_root = name == "ROOT" and bool(found) and "/" in found[0]  # no queue has a slash in its name
        if missing and not given_root and name in PLACES and (value := os.environ.get(PLACES[name])):
            filled.append(value)
            missing -= 1
        elif found:
            filled.append(found.pop(0))
        else:
            raise UsageError(f"{name} is missing: expected {' '.join(names)}{_stand_ins(names)}")
    if "ROOT" in names and not filled[names.index("ROOT")]:
        raise UsageError("ROOT is empty: is a variable not set?")
    if "QUEUE" in names:
        check_queue_name(filled[names.index("QUEUE")])  # before a root is made for it
    return filled


def _too_many(given: Sequence[str], names: Sequence[str]) -> UsageError:
    taken = _taken_for_root(given, names)
    hints = [taken, _several(given if taken else given[1:]) if QUEUES in names else ""]
    text = f"too many arguments: {given[len(names)][:60]!r}; expected {' '.join(names)}"
    text += ", in quotes where it has blanks" if names[-1] == "TEXT" else ", and a command only after `--`"
    return UsageError("; ".join(filter(None, [text, *hints])))


def _stand_ins(names: Sequence[str]) -> str:
    """Of arguments that may be left out, the variables that would stand for them, and do not."""
    unset = {name: PLACES[name] for name in names if name in PLACES and not os.environ.get(PLACES[name])}
    return "".join(f"; set ${variable} to leave out {name}" for name, variable in unset.items())


def _taken_for_root(given: Sequence[str], names: Sequence[str]) -> str:
    """What is wrong with a first word that would be ROOT where $DDMQ_HPC_ROOT says another one; nothing when it is a
    root."""
    default = os.environ.get(PLACES["ROOT"])
    if not default or names[0] != "ROOT" or not given[0] or "/" in given[0]:
        return ""
    from ddmq_hpc.roots import has_queue, is_root

    if is_root(given[0]):
        return ""
    what = (
        "a queue of $DDMQ_HPC_ROOT, no root" if has_queue(default, given[0]) else "no root, and $DDMQ_HPC_ROOT is set"
    )
    return f"{given[0][:60]!r} is {what}"


def _several(words: Sequence[str]) -> str:
    return f"several queues are written {','.join(words)[:120]}"


def root_and_list(given: tuple[str, ...]) -> tuple[str, list[str]]:
    """ROOT, and the queues that are given with commas between."""
    root, queues = places(given, "ROOT", QUEUES)
    return root, _names(queues)


def _names(*words: str) -> list[str]:
    """The queues that words name, with commas between, each once. Raises `BadName` before anything is done to any."""
    return list(dict.fromkeys(check_queue_name(name) for word in words for name in word.split(",")))


def root_and_maybe_list(given: tuple[str, ...]) -> tuple[str, list[str]]:
    """The same for commands that are for all queues when none is given. With $DDMQ_HPC_ROOT set, a lone word without a
    slash is a queue."""
    if len(given) == 1 and "/" not in given[0] and os.environ.get(PLACES["ROOT"]):
        return os.environ[PLACES["ROOT"]], _names(given[0])
    return root_and_list(given) if len(given) > 1 else (places(given, "ROOT")[0], [])


def root_and_queues(given: tuple[str, ...]) -> tuple[str, list[str]]:
    """ROOT, and any number of queues, with blanks or commas between. With $DDMQ_HPC_ROOT set, a first word without a
    slash is a queue."""
    default = os.environ.get("DDMQ_HPC_ROOT")
    if default and (not given or "/" not in given[0]):
        return default, _names(*given)
    root = places(given[:1], "ROOT")[0]
    return root, _names(*given[1:])


def queue_and_ids(given: tuple[str, ...]) -> tuple[str, str, list[str]]:
    """ROOT, QUEUE, and the message ids after them, with blanks or commas between. The first two are taken from the
    environment where they are left out: a root has a slash, and an id, also one cut short, begins with ten digits."""
    words = list(given)
    default = os.environ.get("DDMQ_HPC_ROOT")
    root = default if default and not (words and "/" in words[0]) else places(tuple(words[:1]), "ROOT")[0]
    words = words if root is default else words[1:]
    queue = os.environ.get("DDMQ_HPC_QUEUE", "")
    if not queue or (words and not words[0][:10].isdigit()):
        queue, words = places(tuple(words[:1]), "QUEUE")[0], words[1:]
    return root, queue, [ident for word in words for ident in word.split(",")]


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


def work_kind(command: list[str], shell: bool, snakemake: bool, known: bool = False) -> None:
    """What workers do is said in one way: by a command, unless it is `known` from before, by --shell or --snakemake.
    Raises `UsageError`."""
    if shell and snakemake:
        raise UsageError("--shell and --snakemake say different things of the messages: give one of them")
    if command and shell:
        raise UsageError("with --shell the messages are the commands: leave out what stands after `--`")
    if command and snakemake:
        raise UsageError("with --snakemake the messages are jobs: leave out what stands after `--`")
    if not (command or shell or snakemake or known):
        raise UsageError("no command: write it after `--`, or say --shell when the messages are the commands")


def one_shot(root: str, create: bool = False, **more: Any) -> Broker:
    """For commands that end before the message is settled: their leases outlive them. `more`: as for `Broker`."""
    return Broker(root, create=create, identity=Detached(), **more)


def forced(root: str, force: bool) -> Broker:
    """The same for commands that may make the root on the way: that is told, since it may have been a slip."""
    broker = one_shot(root, force)
    tell_of_root(broker)
    return broker


def tell_of_root(broker: Broker) -> None:
    """Tell that the root was made, if it was."""
    if broker.checkup:
        click.echo(f"ddmq-hpc: made the root {printable(broker.root)}", err=True)


@contextmanager
def writing(path: str, mode: int | None = None) -> Iterator[IO[str]]:
    """What `-o` names, to be written to: stdout for -, or a file that is there whole, with `mode`, when the block ends.
    Raises as `replacing.replaced`."""
    from ddmq_hpc.replacing import replaced

    if path == "-":
        with click.open_file("-", "w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
            file.flush()
    else:
        with replaced(path, mode) as file:
            yield file


def staying(root: str, create: bool = False) -> Broker:
    """For commands that work on what they lease until they end."""
    return Broker(root, create=create, identity=Identity())


def make_sure(question: str, yes: bool) -> None:
    """Ask a person at a terminal before something is removed for good, unless `yes` was said. Raises `DdmqError` when
    the answer is no."""
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise DdmqError("nothing was removed")


class Group(click.Group):
    """Commands below one name. Where none of them is said it prints its help to stderr, and exits with 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, but for no words at all."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)


def legacy_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """ddmq's flags for printing more or cleaning less; accepted, and nothing is done differently."""
    for flags in (("-v", "--verbose"), ("-d", "--debug"), ("-s", "--silent"), ("-C", "--skip-cleaning")):
        command = click.option(*flags, is_flag=True, expose_value=False, hidden=True)(command)
    return command


def arguments(names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Positional arguments, counted by `places`, shown in the help as `names`, from which a shell completes them."""
    return click.argument("given", nargs=-1, metavar=names, type=click.UNPROCESSED, shell_complete=_complete)


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ddmq_hpc.cli import offering

    return offering.arguments(ctx, param, incomplete)


def formats(*choices: str, default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option --format with these `choices`."""
    return click.option(
        "--format", "shape", type=click.Choice(choices), default=default, show_default=True, help="How to print."
    )


def out(text: str) -> None:
    """A line to stdout, whatever letters it has."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")


def out_done(line: str, done: str) -> None:
    """A line about what is `done`, at once. Who cannot print it must not take it for a failure, or it is done again:
    raises `DdmqError`."""
    try:
        out(line)
        sys.stdout.flush()
    except OSError as error:
        raise DdmqError(f"{done}, but this could not be printed: {error.strerror}") from error


def out_answer(shape: str, **fields: Any) -> None:
    """What programs read, with the version of its schema, as JSON unless `shape` is yaml."""
    answer = {"schema_version": SCHEMA_VERSION, **fields}
    out_yaml(answer) if shape == "yaml" else out_json(answer)


def out_json(value: Any) -> None:
    """A value as one line of JSON."""
    from ddmq_hpc.messages import to_json

    out(to_json(value))


def out_yaml(value: Any) -> None:
    """A value as a YAML document."""
    import yaml

    from ddmq_hpc.messages import UNPRINTABLE

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False)
    if UNPRINTABLE.search(text):
        text = yaml.safe_dump(value, sort_keys=False, default_flow_style=False)
    out(text.rstrip("\n"))


def coloured(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to write colours to a stream: on terminals, unless $NO_COLOR, or $CLICOLOR=0, says no; everywhere when
    $FORCE_COLOR or $CLICOLOR_FORCE says yes (no-color.org, force-color.org, bixense.com/clicolors)."""
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return stream.isatty() and environ.get("CLICOLOR") != "0" and environ.get("TERM", "dumb") != "dumb"


def printable(value: Any) -> str:
    """A value for a person's terminal: what queues hold could steer it."""
    return escaped(value if isinstance(value, str) else _short(value))


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None when it is none: what goes into a pipe or a file is not cut."""
    from shutil import get_terminal_size

    return get_terminal_size().columns or 80 if sys.stdout.isatty() else None  # 0 before 3.10 where nobody set a size


def cut(text: str, width: int | None) -> str:
    """Text on one line of a terminal that has so many columns."""
    return text if width is None or len(text) <= width else text[: max(width - 3, 0)] + "..."


def _short(value: Any) -> str:
    from ddmq_hpc.messages import body_text

    return body_text(value)


def out_rows(rows: Iterable[dict[str, Any]], shape: str) -> None:
    """Rows as lines of json, as a yaml list, or plain."""
    if shape == "json":
        for row in rows:
            out_json(row)
    elif shape == "yaml":
        out_yaml(list(rows))
    else:
        out_plain(rows)


def out_plain(rows: Iterable[dict[str, Any]]) -> None:
    """`key = value` lines, sorted, one block a row: as ddmq printed messages."""
    for row in rows:
        out("\n".join(f"{key} = {printable(value)}" for key, value in sorted(row.items())) + "\n")
