"""groups: how far each is."""

from __future__ import annotations

import click

from ddmq_hpc.cli.common import arguments, formats, one_shot, out, out_answer, places
from ddmq_hpc.cli.tables import out_table

_COLUMNS = ("name", "state", "ready", "leased", "delayed", "dead", "waiting")


@click.command("groups")
@formats("table", "json", "yaml", default="table")
@arguments("[ROOT] [QUEUE]")
def groups_command(given: tuple[str, ...], shape: str) -> None:
    """Groups of messages: how far each is, and how many messages wait for it.

    A group is `finished` when all its messages are done or removed, `unknown` as long as nobody published to it, `open`
    while somebody does, `dead` when nothing but dead letters is left of it: what comes after it goes on waiting.

    \b
      ddmq-hpc publish ROOT tasks --glob 'data/*.gz' --group unpack
      ddmq-hpc publish ROOT tasks 'summarise all' --after unpack
      ddmq-hpc groups ROOT tasks
    """
    root, queue = places(given, "ROOT", "QUEUE")
    rows = [group.to_dict() for group in one_shot(root).groups(queue)]
    if shape != "table":
        out_answer(shape, queue=queue, groups=rows)
    elif rows:
        out_table(("group", *_COLUMNS[1:]), ([row[column] for column in _COLUMNS] for row in rows), numbers=5)
    else:
        out("no groups; make one with `ddmq-hpc publish ... --group NAME`")
