"""completion: what a shell asks when Tab is pressed, and the script that makes it ask."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import click

from ddmq_hpc.cli.common import PLACES, out
from ddmq_hpc.names import (
    DEAD,
    GROUPS,
    LEASED,
    READY,
    Entry,
    is_bucket,
    is_group_name,
    is_priority,
    is_queue_name,
    message_id,
    parse_dead,
    parse_entry,
    parse_lease,
)

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SHELLS = ("bash", "zsh", "fish")
#: Arguments that are directories, and those that may be any file.
_DIRECTORIES, _FILES = ("ROOT", "OLD_ROOT", "NEW_ROOT"), ("PATH",)
#: So many names of a directory are looked at, and so many ids offered: a person waits.
_MOST_LISTED, _MOST_OFFERED = 1000, 200


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def completion_command(shell: str) -> None:
    """Print the script that makes a shell complete commands, options, directories, queues, groups and message ids.

    \b
      ddmq-hpc completion bash >~/.ddmq-hpc.bash
      ddmq-hpc completion zsh >~/.zfunc/_ddmq-hpc
      ddmq-hpc completion fish >~/.config/fish/completions/ddmq-hpc.fish

    Then for bash (4.4 or later) write `source ~/.ddmq-hpc.bash` into ~/.bashrc; for zsh have `fpath+=~/.zfunc` before
    `compinit` in ~/.zshrc. To try it at once: eval "$(ddmq-hpc completion bash)".
    """
    out(script(shell))


def script(shell: str) -> str:
    """What makes a shell complete `ddmq-hpc`."""
    from click.shell_completion import get_completion_class

    from ddmq_hpc.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    return kind(cli, {}, "ddmq-hpc", "_DDMQ_HPC_COMPLETE").source().strip("\n")


def complete(ctx: click.Context, given: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """What may stand for `incomplete`, after the arguments `given` of a command, by what its help calls them.

    Never fails: there is a person in the middle of a line.
    """
    from click.shell_completion import CompletionItem

    if "--" in os.environ.get("COMP_WORDS", "").split():
        return [CompletionItem(incomplete, type="file")]
    place = _Place.of(ctx, given, incomplete)
    found = [CompletionItem(word) for word in place.words if word.startswith(incomplete)]
    if place.name == "QUEUE":
        return found + [CompletionItem(text) for text in _queues(place.root, incomplete)]
    if place.name == "ID":
        return found + [CompletionItem(text) for text in _ids(place.top, _is_about_dead(ctx), incomplete)]
    if place.name in (*_DIRECTORIES, *_FILES):
        return [CompletionItem(incomplete, type="dir" if place.name in _DIRECTORIES else "file"), *found]
    return found


def complete_group(ctx: click.Context, given: Sequence[str], incomplete: str) -> list[str]:
    """The groups of the queue before that are not finished, as far as they begin so."""
    names = _listed(f"{_Place.of(ctx, given, '').top}/{GROUPS}")
    return sorted(name for name in names if name.startswith(incomplete) and is_group_name(name))


def complete_reason(ctx: click.Context, given: Sequence[str], incomplete: str) -> list[str]:
    """Why dead letters of the queue before died, as far as it begins so."""
    letters = map(parse_dead, _listed(f"{_Place.of(ctx, given, '').top}/{DEAD}"))
    return sorted({letter.reason for letter in letters if letter and letter.reason.startswith(incomplete)})


class _Place(NamedTuple):
    """Where somebody is in a line: the root and the queue that are meant, what the argument is called that is next
    (nothing when there is none), and the words that may stand there as well."""

    root: str
    queue: str
    name: str
    words: list[str]

    @property
    def top(self) -> str:
        """The directory of the queue; one that is not there when none was said."""
        return f"{_expanded(self.root)}/{self.queue}" if self.root and is_queue_name(self.queue) else "/dev/null"

    @classmethod
    def of(cls, ctx: click.Context, given: Sequence[str], following: str) -> _Place:
        metavar = next((str(param.metavar) for param in ctx.command.params if param.name == "given"), "")
        names, repeated = _names(metavar)
        words: list[str] = []
        if names and names[0].islower():
            words = names.pop(0).split("|")
            given, words = (given[1:], []) if given[:1] and given[0] in words else (given, [] if given else words)
        root, queue = (os.environ.get(PLACES[name], "") for name in ("ROOT", "QUEUE"))
        if root and names[:1] == ["ROOT"] and "/" not in (given[0] if given else following):
            names = names[1:]  # the environment says where the queues are
        elif given:
            root = given[0]
        at = names.index("QUEUE") if "QUEUE" in names else len(given)
        if queue and names[at + 1 :] == ["ID"] and [*given, following][at : at + 1][0][:10].isdigit():
            names.pop(at)
        elif len(given) > at:
            queue = given[at]
        if len(given) >= len(names) and not (names and repeated):
            return cls(root, queue, "", words)
        return cls(root, queue, names[min(len(given), len(names) - 1)], words)


def _names(metavar: str) -> tuple[list[str], bool]:
    """What the arguments are called, in order; whether the last may be given several times."""
    before = metavar.partition("-- ")[0]
    once = re.sub(r"\[,[^]]*\]", "", before)  # `QUEUE[,QUEUE...]` is one word
    return re.findall(r"[A-Za-z_-]+(?:\|[A-Za-z_-]+)*", once), "..." in once


def _is_about_dead(ctx: click.Context) -> bool:
    return "dead" in (ctx.info_name, ctx.parent and ctx.parent.info_name) or ctx.info_name == "retry"


def _expanded(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))


def _listed(directory: str) -> list[str]:
    """The names in a directory, at most so many; none where it cannot be listed."""
    try:
        with os.scandir(directory) as found:
            return [entry.name for entry in islice(found, _MOST_LISTED)]
    except OSError:
        return []


def _queues(root: str, incomplete: str) -> list[str]:
    """The queues of a root whose names begin so; the last one of several with commas between."""
    before, comma, start = incomplete.rpartition(",")
    top = _expanded(root)
    names = sorted(name for name in _listed(top) if name.startswith(start) and is_queue_name(name))
    return [before + comma + name for name in names if os.path.isdir(f"{top}/{name}/{READY}")]


def _ids(top: str, dead_alone: bool, incomplete: str) -> list[str]:
    """The ids of messages that begin so, of those that people ask about: dead and leased ones, and those that are next;
    the last one of several with commas between."""
    before, comma, start = incomplete.rpartition(",")
    entries = [dead.entry for dead in map(parse_dead, _listed(f"{top}/{DEAD}")) if dead]
    if not dead_alone:
        entries += [lease.entry for lease in map(parse_lease, _listed(f"{top}/{LEASED}")) if lease]
        entries += _next(f"{top}/{READY}")
    found = {message_id(entry.pack, index) for entry in entries for index in range(entry.first, entry.stop)}
    return [before + comma + ident for ident in sorted(found) if ident.startswith(start)][:_MOST_OFFERED]


def _next(ready: str) -> list[Entry]:
    """Of the first bucket alone."""
    for priority in sorted(filter(is_priority, _listed(ready)), key=int):
        for bucket in sorted(filter(is_bucket, _listed(f"{ready}/{priority}"))):
            if found := list(filter(None, map(parse_entry, _listed(f"{ready}/{priority}/{bucket}")))):
                return found
    return []
