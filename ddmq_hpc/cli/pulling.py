"""pull and consume: lease messages and print them."""

from __future__ import annotations

import sys

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import DURATION, arguments, forced, formats, legacy_flags, one_shot, out, out_json, places
from ddmq_hpc.errors import NothingThere, UsageError
from ddmq_hpc.messages import Message, body_text


@click.command("pull")
@click.option("-n", "--number", type=click.IntRange(1), default=1, show_default=True, help="At most so many messages.")
@click.option("--wait", type=DURATION, default=0, help="Wait so long for the first one.")
@click.option("--lease", type=DURATION, help="Hold them so long; the default is the message's timeout.")
@formats("json", "plain", "yaml", "shell", "body", default="json")
@legacy_flags
@arguments("[ROOT] [QUEUE]")
def pull_command(given: tuple[str, ...], number: int, wait: float, lease: float | None, shape: str) -> None:
    """Lease messages: the verb for job scripts. Exits 3 when there is nothing.

    \b
      ddmq-hpc pull ROOT tasks --wait 1m --lease 2h
      while settings=$(ddmq-hpc pull ROOT tasks --format shell); do
          eval "$settings"
          if bash -c "$DDMQ_HPC_MESSAGE"
          then ddmq-hpc ack; else ddmq-hpc nack; fi
      done

    The shell format exports DDMQ_HPC_ROOT, _QUEUE, _MESSAGE, _ID, _RECEIPT and _ATTEMPT. A message that is not text, or
    has a NUL in it, is given as JSON by the shell and body formats.
    """
    root, queue = places(given, "ROOT", "QUEUE")
    if shape == "shell" and number != 1:
        raise UsageError("--format shell gives one message at a time; leave out -n")
    broker = one_shot(root)
    target = broker.queue(queue)
    messages = broker.consume(queue, number, wait, lease)
    if not messages:
        raise NothingThere(f"nothing is ready in queue {queue!r}{target.told_aside()}")
    _hand_out(broker, messages, shape)


@click.command("consume")
@click.option("-f", "--force", is_flag=True, help="Make root and queue when they are missing.")
@click.option("-n", "--number", type=click.IntRange(1), default=1, show_default=True, help="At most so many messages.")
@formats("plain", "json", "yaml", default="json")
@legacy_flags
@arguments("[ROOT] [QUEUE]")
def consume_command(given: tuple[str, ...], force: bool, number: int, shape: str) -> None:
    """Lease messages, printed as ddmq did: `filename` is the receipt to ack. Exits 3 when there is nothing.

    \b
      ddmq-hpc consume ROOT tasks -n 2 --format plain
    """
    root, queue = places(given, "ROOT", "QUEUE")
    broker = forced(root, force)
    messages = broker.consume(queue, number)
    if not messages:
        raise NothingThere(f"no more messages in {queue}")
    _hand_out(broker, messages, shape)


def _hand_out(broker: Broker, messages: list[Message], shape: str) -> None:
    """Print them; what nobody hears of is put back."""
    try:
        _print(messages, shape, broker.root)
        sys.stdout.flush()
    except OSError:
        broker.release(messages)
        raise


def _print(messages: list[Message], shape: str, root: str) -> None:
    from ddmq_hpc.cli.common import out_plain, out_yaml

    if shape == "json":
        for message in messages:
            out_json(message.to_dict())
    elif shape == "yaml":
        out_yaml([message.to_dict() for message in messages])
    elif shape == "plain":
        out_plain(message.to_dict() for message in messages)
    elif shape == "body":
        for message in messages:
            out(body_text(message.message))
    else:
        out(_exports(messages[0], root))


def _exports(message: Message, root: str) -> str:
    from shlex import quote

    values = {
        "ROOT": root,
        "QUEUE": message.queue,
        "MESSAGE": body_text(message.message),
        "ID": message.id,
        "RECEIPT": message.receipt or "",
        "ATTEMPT": str(message.attempt),
    }
    return "export " + " ".join(f"DDMQ_HPC_{name}={quote(value)}" for name, value in values.items())
