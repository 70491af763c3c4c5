"""help: the same as --help, for those who ask that way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _commands(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return ctx.find_root().command.shell_complete(ctx.find_root(), incomplete)


@click.command("help")
@click.argument("command", required=False, shell_complete=_commands)
@click.pass_context
def help_command(ctx: click.Context, command: str | None) -> None:
    """Show the help of COMMAND, as `ddmq-hpc COMMAND --help` does, or what commands there are.

    The same texts are manual pages: `man ddmq-hpc`, `man ddmq-hpc-work`.

    \b
      ddmq-hpc help
      ddmq-hpc help work
    """
    top = ctx.find_root()
    assert isinstance(top.command, click.Group)
    if command is None:
        click.echo(top.get_help())
        return
    _, found, _ = top.command.resolve_command(top, [command])
    assert found is not None  # resolve_command raises for what is no command
    click.echo(found.get_help(click.Context(found, info_name=command, parent=top)))
