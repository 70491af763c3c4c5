"""metrics: numbers for Prometheus."""

from __future__ import annotations

import click

from ddmq_hpc.cli.common import arguments, one_shot, root_and_queues, writing
from ddmq_hpc.cli.several import Failures
from ddmq_hpc.metrics import collect

#: The collector runs as another user.
_MODE = 0o644


@click.command("metrics")
@click.option("-o", "--output", default="-", metavar="FILE", help="Write it there, whole at once, for node_exporter.")
@arguments("[ROOT [QUEUE...]]")
def metrics_command(given: tuple[str, ...], output: str) -> None:
    """Numbers for Prometheus: messages, workers, leases, and the attempts of the last hour.

    \b
      ddmq-hpc metrics ROOT
      ddmq-hpc metrics ROOT -o /var/lib/textfile/ddmq-hpc.prom
    """
    root, queues = root_and_queues(given)
    broker, failures = one_shot(root), Failures()
    found, failed = collect(broker, queues)
    for error in failed:
        failures.add(error)
    with writing(output, _MODE) as file:
        file.write(found.text())
    failures.end()
