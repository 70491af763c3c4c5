"""exec: run a command for one message."""

from __future__ import annotations

import click

from ddmq_hpc.cli.common import DURATION, arguments, places, split_command, staying
from ddmq_hpc.errors import UsageError


@click.command("exec", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": True})
@click.option("--wait", type=DURATION, default=0, help="Wait so long for a message.")
@click.option("--lease", type=DURATION, help="Length of the lease; it is renewed while CMD runs.")
@click.option("--stdin", "feed_stdin", is_flag=True, help="Give the message to CMD on stdin.")
@click.option("--trust", "users", multiple=True, metavar="USER", help="Run commands of USER, too.")
@click.option("-d", "--debug", is_flag=True, hidden=True)
@arguments("[ROOT] [QUEUE] -- CMD [ARG]...")
@click.pass_context
def exec_command(
    ctx: click.Context,
    given: tuple[str, ...],
    wait: float,
    lease: float | None,
    feed_stdin: bool,
    users: tuple[str, ...],
    debug: bool,
) -> None:
    """Take one message and run CMD with it: {} in CMD is the message, $DDMQ_HPC_MESSAGE holds it.

    Acks when CMD exits 0, nacks otherwise, and exits as CMD did. The lease is renewed while CMD runs. Nothing is
    run that others than you, root and --trust could have written; see docs/security.md.

    \b
      ddmq-hpc exec ROOT tasks -- ./simulate --input {}
      ddmq-hpc exec ROOT tasks -- sh -c "$(cat task.sh)"
    """
    from ddmq_hpc.execute import execute

    before, command = split_command(given)
    if not command:
        raise UsageError("write the command after `--`: ddmq-hpc exec ROOT QUEUE -- CMD ARG...")
    root, queue = places(before, "ROOT", "QUEUE")
    broker = staying(root)
    try:
        ctx.exit(execute(broker, queue, command, wait, lease, feed_stdin, users))
    finally:
        broker.close()
