"""Make the manual pages from the commands: `python docs/build_man.py DIRECTORY`. The build of a wheel does so, too."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from inspect import cleandoc
from pathlib import Path

import click

from ddmq_hpc import __version__
from ddmq_hpc.cli.main import COMMANDS, cli

_PROGRAM = "ddmq-hpc"
_WIDTH = 78
#: How click marks a block that is not to be filled.
_VERBATIM = "\b\n"


def pages() -> dict[str, str]:
    """Every page, by the name of its file."""
    top = click.Context(cli, info_name=_PROGRAM, help_option_names=["-h", "--help"])
    made = {f"{_PROGRAM}.1": _page(_PROGRAM, "a message and task queue in a directory", cli, top, _commands())}
    for name, (_, line) in COMMANDS.items():
        command = cli.get_command(top, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=top, help_option_names=["-h", "--help"])
        see = [".SH SEE ALSO", f"{_bold(_PROGRAM)}(1)"]
        made[f"{_PROGRAM}-{name}.1"] = _page(f"{_PROGRAM}-{name}", line.rstrip("."), command, context, see)
    return made


def _page(title: str, line: str, command: click.Command, context: click.Context, more: list[str]) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH {_literal(title.upper())} 1 {_date()} "{_PROGRAM} {__version__}" "{_PROGRAM}"',
        ".SH NAME",
        f"{_literal(title)} \\- {_escaped(line)}",
        ".SH SYNOPSIS",
        f"{_bold(context.command_path)} {_literal(usage)}",
        ".SH DESCRIPTION",
        *_description(command.help or ""),
        ".SH OPTIONS",
        *(each for parameter in command.get_params(context) for each in _option(parameter, context)),
        *more,
    ]
    return "\n".join(lines) + "\n"


def _date() -> str:
    """The day of the build, or the one that reproducible builds are told."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))


def _description(text: str) -> list[str]:
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", cleandoc(text)):
        found += [".PP"] if found else []
        if paragraph.startswith(_VERBATIM):
            found += [
                ".nf",
                ".RS 2",
                *(_literal(line.strip("\n")) for line in paragraph.splitlines()[1:]),
                ".RE",
                ".fi",
            ]
        else:
            found += _filled(paragraph)
    return found


def _option(parameter: click.Parameter, context: click.Context) -> list[str]:
    record = parameter.get_help_record(context)
    if record is None:
        return []  # hidden, or an argument
    return [".TP", _bold(record[0]), *_filled(record[1] or "See above.")]


def _commands() -> list[str]:
    lines = [".SH COMMANDS"]
    for name, (_, line) in COMMANDS.items():
        lines += [".TP", f"{_bold(f'{_PROGRAM}-{name}')}(1)", *_filled(line)]
    return lines


def _filled(text: str) -> list[str]:
    """Lines that may be filled anew. None is long, and none begins with what would be a request."""
    return [_escaped(line) for line in textwrap.wrap(" ".join(text.split()), _WIDTH, break_on_hyphens=False)]


def _escaped(text: str) -> str:
    """Dashes of options are such that one can paste them; others are hyphens."""
    return _safe(re.sub(r"(?<![\w\\])-(?=[\w-])|(?<=-)-", r"\\-", text.replace("\\", "\\e")))


def _literal(text: str) -> str:
    return _safe(text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga"))


def _safe(line: str) -> str:
    return f"\\&{line}" if line[:1] in (".", "'") else line


def _bold(text: str) -> str:
    return f"\\fB{_literal(text)}\\fR"


def write(directory: Path) -> list[Path]:
    """Write all pages; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in pages().items():
        paths.append(directory / name)
        paths[-1].write_text(text, encoding="utf-8")
    return paths


if __name__ == "__main__":
    write(Path(sys.argv[1]))
