"""cancel, pause, resume, drain, wait: a queue steered while others work on it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable

import click

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.choosing import choosing, criteria, dry_run, everything, ids, tell
from ddmq_hpc.cli.common import (
    DURATION,
    arguments,
    make_sure,
    one_shot,
    out,
    places,
    printable,
    queue_and_ids,
    root_and_list,
)
from ddmq_hpc.cli.offering import groups
from ddmq_hpc.errors import DdmqError
from ddmq_hpc.names import STANDING

if TYPE_CHECKING:
    from ddmq_hpc.waiting import Numbers

#: So many of the messages that are cancelled are shown.
_SHOWN = 10


@click.command("cancel")
@choosing
@click.option("--state", "states", type=click.Choice(STANDING), multiple=True, help="Only those in this state.")
@everything
@click.option("--reason", default="", help="Why, for the journal.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@dry_run
@ids
def cancel_command(
    given: tuple[str, ...],
    states: tuple[str, ...],
    reason: str,
    yes: bool,
    dry_run: bool,
    all_of_them: bool,
    **options: Any,
) -> None:
    """Remove messages for good, wherever they are; workers end what they run of them within half a minute.

    Prints the ids and the beginning of the texts of the first ones. Asks before, on a terminal. An ID may be cut short,
    to ten characters or more, as long as it is unique. Without IDs, dead letters are meant only with --state dead.

    \b
      ddmq-hpc cancel ROOT tasks 1786000000123456789-0abcdefgh.0
      ddmq-hpc cancel ROOT tasks --match 'sample7' --reason "wrong reference"
      ddmq-hpc cancel ROOT tasks --state leased --host n042 --dry-run
    """
    from ddmq_hpc.selection import ids_of
    from ddmq_hpc.steering import cancel, cancellable, texts

    root, name, wanted = queue_and_ids(given)
    queue = one_shot(root).queue(name)
    found = cancellable(queue, criteria(wanted, all_of_them, **options), states)
    if dry_run or not found.number:
        tell(ids_of(found.chosen), "cancelled", "cancel", dry_run)
        return
    shown = [f"{ident}  {printable(text)[:100]}" for ident, text in texts(queue, found.chosen, _SHOWN).items()]
    what = (
        shown[0] if len(shown) == found.number == 1 else f"{found.number} message{'s' * (found.number != 1)} of {name}"
    )
    make_sure(f"Remove {what} for good?", yes)
    done = cancel(queue, found, reason)
    _list_first(done, shown)
    tell(done, "cancelled", "cancel", dry_run)


def _list_first(done: list[str], shown: list[str]) -> None:
    """Those of the lines about the first messages that are about what was done, and how many more there are."""
    removed = set(done)
    lines = [line for line in shown if line.partition(" ")[0] in removed]
    for line in lines:
        out(line)
    if len(done) > len(lines) > 0:
        out(f"... and {len(done) - len(lines)} more")


_reason = click.option("--reason", default="", help="Why, for others: `status` and errors tell it.")
_queues = arguments("[ROOT] QUEUE[,QUEUE...]")


def _steer(given: tuple[str, ...], act: Callable[[Broker, str], str]) -> None:
    """Do that to each queue, and print what it says was done."""
    root, queues = root_and_list(given)
    broker = one_shot(root)
    broker.demand(queues)
    for name in queues:
        out(act(broker, name))


@click.command("pause")
@_reason
@_queues
def pause_command(given: tuple[str, ...], reason: str) -> None:
    """Hand out nothing until `resume`. Publishing goes on, and what is worked on is finished.

    It is written into the queue's ddmq.yaml; clients heed it within half a minute. Workers wait. Said again without
    --reason, the reason that was given before stays.

    \b
      ddmq-hpc pause ROOT tasks --reason "the scratch disk is full"
      ddmq-hpc resume ROOT tasks
    """

    def pause(broker: Broker, name: str) -> str:
        broker.pause(name, reason)
        return f"paused {name}"

    _steer(given, pause)


@click.command("drain")
@_reason
@_queues
def drain_command(given: tuple[str, ...], reason: str) -> None:
    """Refuse new messages until `resume`; what is there is worked off, also what fails and is tried again.

    Publishing exits with 6. Clients heed it within half a minute. A reason that was given before stays, as with
    `pause`.

    \b
      ddmq-hpc drain ROOT tasks --reason "maintenance on Monday"
      ddmq-hpc wait ROOT tasks
    """

    def drain(broker: Broker, name: str) -> str:
        broker.drain(name, reason)
        return f"draining {name}"

    _steer(given, drain)


@click.command("resume")
@_queues
def resume_command(given: tuple[str, ...]) -> None:
    """End what `pause` and `drain` began. Where neither did, it says so, and exits with 0.

    \b
      ddmq-hpc resume ROOT tasks
    """
    _steer(
        given,
        lambda broker, name: f"resumed {name}" if broker.resume(name) else f"{name} was neither paused nor draining",
    )


@click.command("wait")
@click.option("--timeout", type=DURATION, help="Give up after so long, and exit with 3.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when some are dead or damaged then, or nothing can come.")
@click.option("--group", metavar="NAME", shell_complete=groups, help="Wait for the messages of that group alone.")
@arguments("[ROOT] [QUEUE]")
def wait_command(given: tuple[str, ...], timeout: float | None, exit_code: bool, group: str | None) -> None:
    """Wait until nothing is ready, leased or delayed.

    It looks after a second, later every half minute. On a terminal a line tells what is left. Where all that is left
    comes after groups of which only dead letters are left, or with which nothing was ever published, it says so, and
    waits on for somebody to do something about it; with --exit-code it ends.

    \b
      ddmq-hpc wait ROOT tasks && ./summarize
      ddmq-hpc wait ROOT tasks --timeout 2h --exit-code
      ddmq-hpc wait ROOT tasks --group align
    """
    from ddmq_hpc.stats import Stats
    from ddmq_hpc.waiting import wait_for_group, wait_until_done

    root, name = places(given, "ROOT", "QUEUE")
    line = _Line(group or name)
    queue, tell = one_shot(root).queue(name), line.show if sys.stderr.isatty() else None
    stuck = _give_up if exit_code else line.say
    found: Numbers
    try:
        if group:
            found = wait_for_group(queue, group, timeout, tell, stuck)
        else:
            found = wait_until_done(queue, timeout, tell, stuck)
    finally:
        line.close()
    see = queue.paths.command
    if found.dead and group:
        letters = see("dead list", "--group", group)
        _say(f"only dead letters are left of group {group!r}: {found.dead}; see `{letters}`")
    elif found.dead and exit_code:
        _say(f"{found.dead} dead in {name}; see `{see('dead list')}`")
    damaged = found.damaged if isinstance(found, Stats) and exit_code else 0
    if damaged:
        _say(f"{damaged} damaged in {name}; see `{see('list', '--state', 'damaged')}`")
    if exit_code and (found.dead or damaged):
        sys.exit(1)


def _say(text: str) -> None:
    click.echo(f"ddmq-hpc: {printable(text)}", err=True)


def _give_up(why: str) -> None:
    raise DdmqError(why)


class _Line:
    """One line on stderr that is written over again and again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = False
        self._said = ""

    def show(self, found: Numbers) -> None:
        """What is left, in place of what stood there."""
        from ddmq_hpc.waiting import what_is_left

        self._shown = True
        click.echo(f"\r{printable(self._name)}: {what_is_left(found)}\033[K", nl=False, err=True)

    def say(self, text: str) -> None:
        """A line that stays, once."""
        if text != self._said:
            self.close()
            self._shown, self._said = False, text
            _say(text)

    def close(self) -> None:
        """End the line, if there is one."""
        if self._shown:
            click.echo(err=True)
