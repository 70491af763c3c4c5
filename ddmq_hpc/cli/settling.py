"""ack, nack, release, touch: settle by receipt, from the arguments or from the environment of a job script."""

from __future__ import annotations

import os
from typing import Any, Callable

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import DURATION, arguments, legacy_flags, one_shot, out_done, places
from ddmq_hpc.errors import DdmqError, UsageError

_RECEIPTS = "[ROOT] [QUEUE] [RECEIPT[,...]]"


def _settle(given: tuple[str, ...], word: str, act: Callable[[Broker, str, str], Any]) -> None:
    """`act` on each receipt; the first error is raised when all were tried."""
    root, queue, receipts = _receipts(given)
    broker = one_shot(root)
    failures: list[DdmqError] = []
    for receipt in receipts:
        try:
            act(broker, queue, receipt)
            out_done(f"{word} {receipt}", f"{receipt} is {word}")
        except DdmqError as error:
            if len(receipts) > 1:
                click.echo(f"ddmq-hpc: {error}", err=True)
            failures.append(error)
    broker.close()
    if failures:
        raise failures[0]


def _receipts(given: tuple[str, ...]) -> tuple[str, str, list[str]]:
    """Root, queue and receipts: the last argument when it is one, else $DDMQ_HPC_RECEIPT."""
    if given and "~" in given[-1]:
        *rest, last = given
    else:
        rest, last = list(given), os.environ.get("DDMQ_HPC_RECEIPT", "")
    if not last:
        if given:
            raise UsageError(f"{given[-1][:80]!r} is no receipt: give one as `ddmq-hpc pull` printed it")
        raise UsageError("no receipt: give one as `ddmq-hpc pull` printed it, or set $DDMQ_HPC_RECEIPT")
    receipts = [receipt for receipt in last.split(",") if receipt]
    has_queue = len(rest) > 1 or os.environ.get("DDMQ_HPC_QUEUE") or _is_queue(rest)
    if not has_queue:
        rest = [*rest, receipts[0].rpartition("/")[0].rpartition("/")[2]]  # a receipt says its queue
    root, queue = places(tuple(rest), "ROOT", "QUEUE")
    return root, queue, receipts


def _is_queue(words: list[str]) -> bool:
    """A lone word without a slash is one where the environment says the root."""
    return len(words) == 1 and "/" not in words[0] and bool(os.environ.get("DDMQ_HPC_ROOT"))


@click.command("ack")
@click.option("-r", "--requeue", is_flag=True, hidden=True)
@legacy_flags
@arguments(_RECEIPTS)
def ack_command(given: tuple[str, ...], requeue: bool) -> None:
    """The message is done. Exits 5 when the lease was lost: somebody else may have worked on it, too.

    \b
      ddmq-hpc ack
      ddmq-hpc ack ROOT "$DDMQ_HPC_RECEIPT"
    """
    _settle(given, "acked", lambda broker, queue, receipt: broker.ack(receipt, queue))


@click.command("nack")
@click.option("-r/-R", "--requeue/--no-requeue", default=None, help="Requeue it in any case, or make it a dead letter.")
@click.option("--delay", type=DURATION, help="Not ready again before this long from now.")
@legacy_flags
@arguments(_RECEIPTS)
def nack_command(given: tuple[str, ...], requeue: bool | None, delay: float | None) -> None:
    """The message failed: requeued, or made a dead letter, as message and queue say.

    \b
      ddmq-hpc nack --delay 10m
      ddmq-hpc nack --no-requeue ROOT "$DDMQ_HPC_RECEIPT"
    """
    _settle(given, "nacked", lambda broker, queue, receipt: broker.nack(receipt, queue, requeue, delay))


@click.command("release")
@click.option("--delay", type=DURATION, default=0, help="Not ready again before this long from now.")
@legacy_flags
@arguments(_RECEIPTS)
def release_command(given: tuple[str, ...], delay: float) -> None:
    """Put the message back in its place, no attempt counted.

    \b
      ddmq-hpc release --delay 1m
    """
    _settle(given, "released", lambda broker, queue, receipt: broker.release(receipt, queue, delay))


def _touch(given: tuple[str, ...], lease: float | None) -> None:
    """Hold on to the message from now on for as long as it was taken for, or for --lease.

    \b
      ddmq-hpc touch
      ddmq-hpc touch --lease 2h ROOT "$DDMQ_HPC_RECEIPT"
    """
    _settle(given, "extended", lambda broker, queue, receipt: broker.extend(receipt, lease, queue))


def _touching(name: str) -> click.Command:
    command = click.option("--lease", type=DURATION, help="So long from now; the default is as long as before.")(_touch)
    return click.command(name)(legacy_flags(arguments(_RECEIPTS)(command)))


touch_command = _touching("touch")
extend_command = _touching("extend")
