"""create, delete, purge, clean, del_msg."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ddmq_hpc.cli.common import (
    arguments,
    legacy_flags,
    make_sure,
    one_shot,
    out,
    places,
    printable,
    root_and_list,
    root_and_maybe_list,
    tell_of_root,
)
from ddmq_hpc.cli.several import Failures, queues_of
from ddmq_hpc.errors import MessageNotFound, RootNotFound, UsageError
from ddmq_hpc.roots import is_root
from ddmq_hpc.sharing import sharing

if TYPE_CHECKING:
    from ddmq_hpc.doctor import Report


@click.command("create")
@click.option("-f", "--force", is_flag=True, help="Make the root, too, when it is missing.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting of the queue, e.g. timeout=1h.")
@click.option("--group", metavar="GROUP", help="Share it with a group: its members may do all that you may.")
@click.option("--mode", metavar="OCTAL", help="Permissions of the directory: 2770 with --group, else 0700.")
@click.option("--anyway", is_flag=True, help="Make the root even where queues cannot work.")
@legacy_flags
@arguments("[ROOT] QUEUE[,QUEUE...]")
def create_command(
    given: tuple[str, ...], force: bool, pairs: tuple[str, ...], group: str | None, mode: str | None, anyway: bool
) -> None:
    """Make a queue, or several; it says which it made, and where.

    Of one that is there nothing changes but the settings that --set gives. A new root is looked at
    first, as the quick part of `ddmq-hpc doctor` does. Where queues cannot work none is made.

    With --group the queue is the group's, and the root, too, if this makes it; what anybody may do then is told in
    docs/shared.md. Modes with which everybody could write are refused. With --mode 0711 everybody may publish to it,
    and do nothing else; with --group and --mode 2710 the group may.

    \b
      ddmq-hpc create -f /scratch/me/queues tasks
      ddmq-hpc create ROOT small,large --set timeout=2h --set requeue_limit=3
      ddmq-hpc create -f /scratch/lab/queues tasks --group lab
      ddmq-hpc create -f /scratch/me/inbox requests --mode 0711
    """
    root, queues = root_and_list(given)
    settings, shared = _settings(pairs), sharing(group, mode)
    if not force and not is_root(root):
        raise RootNotFound(root)
    broker = one_shot(root, create=force, admission=_tolerate if anyway else None, sharing=shared)
    tell_of_root(broker)
    if broker.checkup:
        _warn(broker.checkup)
    for name in queues:
        made = broker.create_queue(name, **settings)
        changed = f"; changed: {', '.join(settings)}" if settings and not made else ""
        out(f"{'made' if made else 'there already:'} queue {name} in {printable(broker.root)}{changed}")
        if shared and shared.mode & 0o077 and (closed := broker.closed_to_users(name)):
            who, at = closed
            click.echo(f"ddmq-hpc: warning: {who} cannot get past {printable(at)}: see chmod and chgrp", err=True)


def _warn(report: Report) -> None:
    for finding in report.findings:
        if finding.verdict == "failure":
            text = f"{finding.check}: {finding.measured}. {finding.meaning} {finding.advice}"
            click.echo(f"ddmq-hpc: warning: {printable(text)} See `ddmq-hpc doctor`.", err=True)


def _tolerate(report: Report) -> None:
    """What `--anyway` says to any report."""


def _settings(pairs: tuple[str, ...]) -> dict[str, object]:
    from ddmq_hpc.settings import DEFAULTS, apply, parse

    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"bad setting {pair[:60]!r}: write it as NAME=VALUE")
        found.update(parse(f"{name}: {value}\n", "--set"))
    apply(DEFAULTS, found, "--set")
    return found


@click.command("delete")
@click.option("-f", "--force", is_flag=True, hidden=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@legacy_flags
@arguments("[ROOT] QUEUE[,QUEUE...]")
def delete_command(given: tuple[str, ...], force: bool, yes: bool) -> None:
    """Delete a queue with all that is in it. Asks before, on a terminal.

    \b
      ddmq-hpc delete ROOT tasks
    """
    root, queues = root_and_list(given)
    broker = one_shot(root)
    broker.demand(queues)
    for name in queues:
        make_sure(f"Delete queue {name} with all messages, dead letters and its journal?", force or yes)
        broker.delete_queue(name)
        out(f"deleted {name}")


@click.command("purge")
@click.option("-f", "--force", is_flag=True, hidden=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@legacy_flags
@arguments("[ROOT] QUEUE[,QUEUE...]")
def purge_command(given: tuple[str, ...], force: bool, yes: bool) -> None:
    """Remove every message that is ready, delayed or leased. Dead letters stay. Asks before, on a terminal.

    \b
      ddmq-hpc purge ROOT tasks
    """
    root, queues = root_and_list(given)
    broker = one_shot(root)
    broker.demand(queues)
    for name in queues:
        make_sure(f"Remove all messages of {name} but dead letters?", force or yes)
        out(f"purged {broker.purge_queue(name)} messages from {name}")


@click.command("clean")
@click.option("-f", "--force", is_flag=True, hidden=True)
@legacy_flags
@arguments("[ROOT] [QUEUE[,QUEUE...]]")
def clean_command(given: tuple[str, ...], force: bool) -> None:
    """Requeue what ran out, make ready what is due, remove leftovers, now. Clients do this as they work.

    \b
      ddmq-hpc clean ROOT
      ddmq-hpc clean ROOT tasks
    """
    root, queues = root_and_maybe_list(given)
    broker, failures = one_shot(root), Failures()
    for name in queues or queues_of(broker, failures):
        with failures.going_on():
            done = ", ".join(f"{count} {what}" for what, count in broker.clean(name)[name].items() if count)
            out(f"{name}: {done or 'nothing to do'}")
    failures.end()


@click.command("del_msg")
@legacy_flags
@arguments("[ROOT] [QUEUE] ID-OR-RECEIPT[,...]")
def del_msg_command(given: tuple[str, ...]) -> None:
    """Remove messages, whatever their state but leased by somebody else: by id, or by receipt.

    \b
      ddmq-hpc del_msg ROOT tasks 1718000000000000000-0abcdefgh.0
    """
    root, queue, wanted = places(given, "ROOT", "QUEUE", "ID-OR-RECEIPT")
    from ddmq_hpc.removing import remove_waiting

    target = one_shot(root).queue(queue)
    for text in wanted.split(","):
        if "/" in text:
            target.ack([text])
        elif not remove_waiting(target, text):
            raise MessageNotFound(queue, text)
        out(f"deleted {text}")
