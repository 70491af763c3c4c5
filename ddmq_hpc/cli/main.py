"""The entry point: finds a command, imports what it needs and nothing else, and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from ddmq_hpc.errors import DdmqError

#: Command -> the module of this package that has it, and its line in the help.
COMMANDS = {
    "create": ("queues", "Make a queue, or several."),
    "publish": ("publishing", "Put messages into a queue."),
    "pull": ("pulling", "Lease messages: the verb for job scripts."),
    "consume": ("pulling", "Lease messages, printed as ddmq did."),
    "ack": ("settling", "A message is done."),
    "nack": ("settling", "A message failed."),
    "release": ("settling", "Put a message back, no attempt counted."),
    "touch": ("settling", "Hold on to a message for longer."),
    "extend": ("settling", "The same as touch."),
    "work": ("working", "Work on messages until there are none: the loop of batch jobs."),
    "exec": ("running", "Run a command for one message."),
    "lock": ("locking", "Run a command under a lock that all hosts share."),
    "submit": ("submitting", "Put workers on the cluster."),
    "scale": ("submitting", "Submit the workers that are missing."),
    "workers": ("workers", "Who works on what, and ask them to stop."),
    "status": ("looking", "Numbers of messages by state."),
    "view": ("looking", "Numbers of messages, printed as ddmq did."),
    "peek": ("looking", "The next messages, not taken."),
    "list": ("looking", "Messages and their states."),
    "show": ("looking", "One message and its history."),
    "json": ("operations", "Operations as JSON, one or a stream."),
    "purge": ("queues", "Remove all messages of a queue."),
    "clean": ("queues", "Do the housekeeping now."),
    "recover": ("recovering", "Requeue what batch jobs hold that have ended."),
    "del_msg": ("queues", "Remove one message."),
    "delete": ("queues", "Delete a queue with all that is in it."),
    "doctor": ("doctoring", "Check a directory before trusting it."),
    "import": ("importing", "Take over a root of ddmq."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"ddmq_hpc.cli.{COMMANDS[name][0]}")
        found: click.Command = getattr(module, f"{name}_command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table above: help needs no module of any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; see `ddmq-hpc --help`"
            raise click.UsageError(f"no such command {args[0][:60]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from ddmq_hpc import __version__

        click.echo(f"ddmq-hpc {__version__}")
        ctx.exit()


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print it.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """A message and task queue in a directory, for clusters where no server may run.

    ROOT is the directory, QUEUE a queue in it; either may be left out when $DDMQ_HPC_ROOT and $DDMQ_HPC_QUEUE are set.
    Durations: 90, 90s, 10m, 1h30m, HH:MM:SS, D-HH:MM:SS.

    \b
      ddmq-hpc create -f /scratch/me/queues tasks
      ddmq-hpc publish /scratch/me/queues tasks --each-line tasks.txt
      ddmq-hpc exec /scratch/me/queues tasks -- ./simulate {}
      ddmq-hpc status /scratch/me/queues

    Exit codes: 0 ok, 1 failure, 2 usage, 3 nothing there, 4 not found, 5 lease lost, 6 paused, 75 try again.
    `exec` and `lock` exit as their command does: 126 when it cannot be run, 127 when there is none.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    debug = "--debug" in sys.argv[1:]
    if sys.stdout is None:
        sys.exit(_fail("standard output is closed; send it to /dev/null when you do not want it", 2))
    try:
        code = cli.main(sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="ddmq-hpc")
        sys.stdout.flush()
    except DdmqError as error:
        if debug:
            raise
        code = _fail(str(error), error.exit_code)
    except click.ClickException as error:
        code = _fail(error.format_message(), 2 if isinstance(error, click.UsageError) else 1)
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what reads our output went away: nothing to complain about
        code = 1
    except OSError as error:
        if debug:
            raise
        code = _fail(f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str, code: int) -> int:
    line = " ".join(text.split())
    click.echo("ddmq-hpc: " + "".join(c if c.isprintable() else "?" for c in line), err=True)
    return code
