"""Job scripts from the templates in slurm/: option lines and the last line replaced, all else as the template has it.

In an installed package the templates are in ddmq_hpc/templates, in a checkout beside the package.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from ddmq_hpc.errors import UsageError
from ddmq_hpc.installation import data, own_directory

#: The template of each scheduler.
WORKERS = {"slurm": "worker.sbatch", "pbs": "worker.pbs", "sge": "worker.sge"}
_LAST = re.compile(r"(?:exec|eval) ")


def template(scheduler: str) -> str:
    """The text of the worker's job script for a scheduler."""
    name = WORKERS[scheduler]
    return data(f"templates/{name}", f"../slurm/{name}")


def render(
    text: str,
    prefix: str,
    options: Sequence[str],
    directory: str,
    command: Sequence[str],
    variables: Mapping[str, str],
) -> str:
    """The template `text` for one submission.

    `options` are whole lines that begin with `prefix` (`#SBATCH`). A template's own option stays, with the comment
    above it, unless one of them sets the same. The job runs `command`, quoted for the shell, in `directory`, with
    these environment `variables`, and finds the ddmq-hpc that this process is before any other.
    """
    head, _, body = text.partition("\n\n")
    shebang, *lines = head.splitlines()
    set_here = {_ARRAY[prefix]}.union(*(_keys(option, prefix) for option in options))
    kept = _kept(lines, prefix, set_here)
    before = body.rstrip("\n").splitlines()
    if not _LAST.match(before[-1]):
        raise UsageError("the last line of the job script is not `exec ddmq-hpc work`")
    place = own_directory()
    return "\n".join(
        [
            shebang,
            "# Made by `ddmq-hpc submit` from the job script that comes with it.",
            "#",
            *options,
            *kept,
            "",
            f"export PATH={quote(place)}:$PATH",
            *(f"export {name}={quote(value)}" for name, value in variables.items()),
            f"cd -- {quote(directory)} || exit 1",
            *(line for line in before[:-1] if not line.startswith("cd ")),
            f"exec {' '.join(map(quote, command))}",
            "",
        ]
    )


def _kept(lines: Iterable[str], prefix: str, replaced: set[str]) -> list[str]:
    """The options of a template that nothing replaces, each with its comment; without the usage at its head."""
    kept: list[str] = []
    comment: list[str] = []
    for line in lines:
        if line == "#":
            comment = []
        elif line.startswith(prefix + " "):
            if replaced.isdisjoint(_keys(line, prefix)):
                kept += [*comment, line]
            comment = []
        else:
            comment.append(line)
    return kept


def _keys(option: str, prefix: str) -> list[str]:
    """What an option line sets: `--time`; of resources (`-l h_rt=...,s_rt=...`) each by its name."""
    words = option[len(prefix) :].split(None, 1)
    if not words:
        return []
    name = words[0].partition("=")[0]
    if name == "-l" and len(words) > 1:
        return [f"-l {resource.partition('=')[0]}" for resource in words[1].split(",")]
    return [_SHORT.get(name, name)] if prefix == "#SBATCH" else [name]


#: A template's own array goes in any case: PBS has none of a single task.
_ARRAY = {"#SBATCH": "--array", "#PBS": "-J", "#$": "-t"}
#: Slurm has two names for an option: `-O -t2:00:00` must replace the template's --time.
_SHORT = {"-J": "--job-name", "-a": "--array", "-t": "--time", "-c": "--cpus-per-task"}


def quote(word: str) -> str:
    """A word for bash on one line, whatever is in it: SGE reads options in all lines that look like one."""
    if word.isprintable():
        return shlex.quote(word)
    return (
        "$'" + "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in os.fsencode(word)) + "'"
    )
