"""create, delete, purge, clean, del_msg."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ddmq_hpc.cli.common import arguments, legacy_flags, one_shot, out, places, printable, root_and_queue
from ddmq_hpc.errors import MessageNotFound, RootNotFound, UsageError

if TYPE_CHECKING:
    from ddmq_hpc.doctor import Report


@click.command("create")
@click.option("-f", "--force", is_flag=True, help="Make the root, too, when it is missing.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting of the queue, e.g. timeout=1h.")
@click.option("--anyway", is_flag=True, help="Make the root even where queues cannot work.")
@legacy_flags
@arguments("[ROOT] QUEUE[,QUEUE...]")
def create_command(given: tuple[str, ...], force: bool, pairs: tuple[str, ...], anyway: bool) -> None:
    """Make a queue, or several.

    A new root is looked at first, as the quick part of `ddmq-hpc doctor` does. Where queues cannot work none is made.

    \b
      ddmq-hpc create -f /scratch/me/queues tasks
      ddmq-hpc create ROOT small,large --set timeout=2h --set requeue_limit=3
    """
    root, queues = places(given, "ROOT", "QUEUE")
    settings = _settings(pairs)
    if not force and not os.path.lexists(f"{root}/ddmq.yaml"):
        raise RootNotFound(root)
    broker = one_shot(root, create=force, admission=_tolerate if anyway else None)
    if broker.checkup:
        _warn(broker.checkup)
    for name in queues.split(","):
        broker.create_queue(name, **settings)


def _warn(report: Report) -> None:
    for finding in report.findings:
        if finding.verdict == "failure":
            text = f"{finding.check}: {finding.measured}. {finding.meaning} {finding.advice}"
            click.echo(f"ddmq-hpc: warning: {printable(text)} See `ddmq-hpc doctor`.", err=True)


def _tolerate(report: Report) -> None:
    """What `--anyway` says to any report."""


def _settings(pairs: tuple[str, ...]) -> dict[str, object]:
    from ddmq_hpc.settings import parse

    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"bad setting {pair[:60]!r}: write it as NAME=VALUE")
        found.update(parse(f"{name}: {value}\n", "--set"))
    return found


@click.command("delete")
@click.option("-f", "--force", is_flag=True, hidden=True)
@legacy_flags
@arguments("[ROOT] QUEUE[,QUEUE...]")
def delete_command(given: tuple[str, ...], force: bool) -> None:
    """Delete a queue with all that is in it."""
    root, queues = places(given, "ROOT", "QUEUE")
    broker = one_shot(root)
    for name in queues.split(","):
        broker.delete_queue(name)


@click.command("purge")
@click.option("-f", "--force", is_flag=True, hidden=True)
@legacy_flags
@arguments("[ROOT] QUEUE[,QUEUE...]")
def purge_command(given: tuple[str, ...], force: bool) -> None:
    """Remove every message that is ready, delayed or leased. Dead letters stay."""
    root, queues = places(given, "ROOT", "QUEUE")
    broker = one_shot(root)
    for name in queues.split(","):
        out(f"purged {broker.purge_queue(name)} messages from {name}")


@click.command("clean")
@click.option("-f", "--force", is_flag=True, hidden=True)
@legacy_flags
@arguments("[ROOT] [QUEUE[,QUEUE...]]")
def clean_command(given: tuple[str, ...], force: bool) -> None:
    """Requeue what ran out, make ready what is due, remove leftovers, now. Clients do this as they work."""
    root, *queues = root_and_queue(given)
    broker = one_shot(root)
    for name in queues[0].split(",") if queues else broker.list_queues():
        done = ", ".join(f"{count} {what}" for what, count in broker.clean(name)[name].items() if count)
        out(f"{name}: {done or 'nothing to do'}")


@click.command("del_msg")
@legacy_flags
@arguments("[ROOT] [QUEUE] ID-OR-RECEIPT[,...]")
def del_msg_command(given: tuple[str, ...]) -> None:
    """Remove messages, whatever their state but leased by somebody else: by id, or by receipt."""
    root, queue, wanted = places(given, "ROOT", "QUEUE", "ID-OR-RECEIPT")
    from ddmq_hpc.admin import remove_waiting

    target = one_shot(root).queue(queue)
    for text in wanted.split(","):
        if "/" in text:
            target.ack([text])
        elif not remove_waiting(target, text):
            raise MessageNotFound(queue, text)
        out(f"deleted {text}")
