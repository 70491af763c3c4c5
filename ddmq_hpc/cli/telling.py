"""progress: how far a task is, told from inside it."""

from __future__ import annotations

import click

from ddmq_hpc.advance import Progress
from ddmq_hpc.errors import UsageError
from ddmq_hpc.telling import tell


@click.command("progress")
@click.option("-m", "--message", "text", default="", help="What it is at, for people.")
@click.argument("done", required=False, metavar="[DONE/TOTAL|PERCENT%|DONE]")
def progress_command(done: str | None, text: str) -> None:
    """Tell how far the task is that this runs in: `workers` and `status --watch` show it.

    \b
      ddmq-hpc progress 3/10 -m "epoch 3"
      ddmq-hpc progress 30%
      ddmq-hpc progress -m "reading the index"

    In a task of `work` it costs the file server nothing, and it is a sign of life: see the setting progress_timeout.
    After `pull` it extends the lease for as long as it was taken for. Exits 5 when the lease was lost.
    """
    if done is None and not text:
        raise UsageError("tell how far the task is: `ddmq-hpc progress 3/10`, or say it in words with -m")
    tell(Progress.parse(done, text) if done is not None else Progress.checked(text=text))
