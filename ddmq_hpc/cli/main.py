"""The entry point: finds a command, imports what it needs and nothing else, and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ddmq_hpc.errors import DdmqError, storage_error

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: What the help has under one heading each: command -> the module of this package that has it, and its line.
GROUPS = {
    "Daily": {
        "create": ("queues", "Make a queue, or several."),
        "publish": ("publishing", "Put messages into a queue."),
        "status": ("looking", "Numbers of messages by state."),
        "groups": ("grouping", "How far each group of messages is."),
        "list": ("looking", "Messages and their states."),
        "show": ("looking", "One message and its history."),
        "history": ("lookingback", "Every attempt at a message."),
        "logs": ("lookingback", "What a task printed."),
        "peek": ("looking", "The next messages, not taken."),
        "explain": ("explaining", "Why nothing is running, or what became of a message."),
        "retry": ("dead", "Make dead letters ready again."),
        "wait": ("steering", "Wait until a queue is worked off."),
        "report": ("reporting", "What happened in a queue, as a page."),
    },
    "In job scripts": {
        "work": ("working", "Work on messages until there are none: the loop of batch jobs."),
        "exec": ("running", "Run a command for one message."),
        "pull": ("pulling", "Lease messages: the verb for job scripts."),
        "ack": ("settling", "A message is done."),
        "nack": ("settling", "A message failed."),
        "release": ("settling", "Put a message back, no attempt counted."),
        "touch": ("settling", "Hold on to a message for longer."),
        "extend": ("settling", "The same as touch."),
        "progress": ("telling", "How far a task is, told from inside it."),
        "lock": ("locking", "Run a command under a lock that all hosts share."),
    },
    "Workers": {
        "submit": ("submitting", "Put workers on the cluster."),
        "scale": ("submitting", "Submit the workers that are missing."),
        "workers": ("workers", "Who works on what, and ask them to stop."),
        "recover": ("recovering", "Requeue what batch jobs hold that have ended."),
    },
    "Admin": {
        "dead": ("dead", "Dead letters: list, show, retry, purge."),
        "cancel": ("steering", "Remove messages wherever they are; workers end their tasks."),
        "pause": ("steering", "Hand out nothing for now."),
        "resume": ("steering", "End what pause and drain began."),
        "drain": ("steering", "Refuse new messages, work off the rest."),
        "doctor": ("doctoring", "Check a directory before trusting it."),
        "journal": ("journaling", "Outcomes as a table, and old ones made small."),
        "metrics": ("metrics", "Numbers for Prometheus."),
        "clean": ("queues", "Do the housekeeping now."),
        "purge": ("queues", "Remove all messages of a queue."),
        "delete": ("queues", "Delete a queue with all that is in it."),
        "json": ("operations", "Operations as JSON, one or a stream."),
        "completion": ("completing", "Print what makes a shell complete commands and queues."),
        "help": ("helping", "The same as --help."),
    },
    "From ddmq": {
        "import": ("importing", "Take over a root of ddmq."),
        "consume": ("pulling", "Lease messages, printed as ddmq did."),
        "view": ("looking", "Numbers of messages, printed as ddmq did."),
        "del_msg": ("queues", "Remove one message."),
    },
}
COMMANDS = {name: found for group in GROUPS.values() for name, found in group.items()}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a name, whose module is imported now; None when there is none."""
        if name not in COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"ddmq_hpc.cli.{COMMANDS[name][0]}")
        found: click.Command = getattr(module, f"{name}_command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table above: help needs no module of any command."""
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in group.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table above, too, and the options that there are before a command."""
        from click.shell_completion import CompletionItem

        names = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name][1]) for name in names] + options

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does it, but for a word that is no command: the error names the one that is nearest."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS and not ctx.resilient_parsing:
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

    Exit codes: 0 ok, 1 failure, 2 usage, 3 nothing there, 4 not found, 5 lease lost, 6 paused or
    draining, 75 try again.
    `exec` and `lock` exit as their command does: 126 when it cannot be run, 127 when there is none.
    """


def main() -> NoReturn:
    """Run the command line and exit."""
    if sys.stdout is None:
        sys.exit(_fail("standard output is closed; send it to /dev/null when you do not want it", 2))
    try:
        sys.exit(_run("--debug" in sys.argv[1:]))
    finally:
        _let_go_of_output()


def _run(debug: bool) -> int:
    """The exit code of a command; of an error it is told in a line, with `debug` where it came from."""
    try:
        code = cli.main(sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="ddmq-hpc")
        sys.stdout.flush()
    except DdmqError as error:
        if debug:
            _trace()
        code = _fail(str(error), error.exit_code)
    except click.ClickException as error:
        code = _fail(error.format_message(), 2 if isinstance(error, click.UsageError) else 1)
    except (KeyboardInterrupt, click.Abort):
        code = 130
    except BrokenPipeError:
        code = 1  # what reads our output went away: nothing to complain about
    except OSError as error:
        if debug:
            _trace()
        trouble = storage_error(error, "go on" if error.filename else "print")  # write(2) knows no name
        code = _fail(str(trouble), trouble.exit_code)
    return code if isinstance(code, int) else 0


def _trace() -> None:
    """What is being handled, with all that led to it, before it is told in a line."""
    from traceback import print_exc

    print_exc()


def _let_go_of_output() -> None:
    """What cannot be printed is dropped: the interpreter would try again when it ends, complain, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(text: str, code: int) -> int:
    line = " ".join(text.split())
    click.echo("ddmq-hpc: " + "".join(c if c.isprintable() else "?" for c in line), err=True)
    return code
