"""json: operations as JSON objects, one as an argument or a stream of lines."""

from __future__ import annotations

import os
import sys

import click

from ddmq_hpc.cli.common import legacy_flags, out_json
from ddmq_hpc.identity import Detached, Identity


@click.command("json")
@legacy_flags
@click.argument("request")
@click.pass_context
def json_command(ctx: click.Context, request: str) -> None:
    """Answer REQUEST, a JSON object; with `-` read one a line and answer one a line, until the end of the input.

    \b
      ddmq-hpc json '{"cmd": "publish", "root": ".", "queue": "q", "message": 1}'
      ddmq-hpc json '{"cmd": "consume", "root": ".", "queue": "q", "n": 1}'

    The commands: ack, cancel, clean, consume, create, delete, drain, extend, list, nack, pause, peek, publish,
    publish_many, pull, purge, release, resume, retry, show, status, touch, view. An answer is
    {"ok": true, "result": ...} or {"ok": false, "error": {"type", "message", "exit_code"}}.
    Leases of a stream come back when its process dies.
    """
    from ddmq_hpc.operations import Operations

    stream = request == "-"
    identity = Identity() if stream else Detached()
    operations = Operations(os.environ.get("DDMQ_HPC_ROOT"), os.environ.get("DDMQ_HPC_QUEUE"), identity)
    if not stream:
        answer = operations.answer(request)
        out_json(answer)
        operations.close()
        ctx.exit(answer["error"]["exit_code"] if not answer["ok"] else 0)
    for line in iter(sys.stdin.buffer.readline, b""):
        if line.strip():
            out_json(operations.answer(line.decode("utf-8", "surrogateescape")))
            sys.stdout.buffer.flush()
    operations.close()
