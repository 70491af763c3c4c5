"""What a shell completes where something is to be given; what it takes to find that is loaded when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def directories(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Where a directory is to be given."""
    return _of_type("dir", incomplete)


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Where a file is to be given."""
    return _of_type("file", incomplete)


def arguments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Where an argument is to be given: what it is called in the help tells."""
    from ddmq_hpc.cli.completing import complete

    return complete(ctx, _given(ctx), incomplete)


def groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Where a group is to be given."""
    from ddmq_hpc.cli.completing import complete_group

    return complete_group(ctx, _given(ctx), incomplete)


def reasons(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Where the word for why messages died is to be given."""
    from ddmq_hpc.cli.completing import complete_reason

    return complete_reason(ctx, _given(ctx), incomplete)


def _given(ctx: click.Context) -> list[str]:
    """The arguments so far. After an option that lacks its value click leaves them unparsed."""
    return [str(word) for word in ctx.params.get("given") or ctx.args]


def _of_type(kind: str, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type=kind)]
