"""help: the same as --help, for those who ask that way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ddmq_hpc.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _commands(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return ctx.find_root().command.shell_complete(ctx.find_root(), incomplete)


@click.command("help")
@click.argument("command", nargs=-1, shell_complete=_commands)
@click.pass_context
def help_command(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of COMMAND, as `ddmq-hpc COMMAND --help` does, or what commands there are.

    The same texts are manual pages: `man ddmq-hpc`, `man ddmq-hpc-work`.

    \b
      ddmq-hpc help
      ddmq-hpc help work
      ddmq-hpc help dead retry
    """
    at = ctx.find_root()
    for word in command:
        if not isinstance(at.command, click.Group):
            raise UsageError(f"{at.command_path} has no commands, and so no {word[:60]!r}")
        _, found, _ = at.command.resolve_command(at, [word])
        assert found is not None  # resolve_command raises for what is no command
        at = click.Context(found, info_name=word, parent=at)
    click.echo(at.get_help())
