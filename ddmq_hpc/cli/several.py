"""Several queues, some of which may be broken or not to be looked into."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import printable
from ddmq_hpc.errors import DdmqError, storage_error


class Failures:
    """What was wrong with some queues, from which others do not suffer: told on stderr as it comes."""

    def __init__(self) -> None:
        self.last: DdmqError | None = None

    def add(self, error: DdmqError) -> None:
        """Tell of an error."""
        click.echo(f"ddmq-hpc: {printable(str(error))}", err=True)
        self.last = error

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """What ends the block is told of, and not raised."""
        try:
            yield
        except DdmqError as error:
            self.add(error)

    def end(self) -> None:
        """When all else is printed: exit as the last error says, if there was one."""
        if self.last:
            sys.stdout.flush()
            sys.exit(self.last.exit_code)


def queues_of(broker: Broker, failures: Failures) -> list[str]:
    """All queues that may be looked into; of the others it is told, all at once: in a shared root they may be many."""
    found = broker.list_queues()
    if closed := broker.closed:
        shown = ", ".join(closed[:5]) + ", ..." * (len(closed) > 5)
        failures.add(storage_error(OSError(errno.EACCES, ""), f"look into {shown}"))
    return found
