"""The help of each command: examples that are valid, and lines that fit a terminal."""

from __future__ import annotations

import shlex

import click
import pytest

from ddmq_hpc.cli.main import COMMANDS, cli

_WIDTH = 80
#: What ends a command, for a shell.
_OPERATORS = ";<>|&"


def command_of(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli, info_name="ddmq-hpc"), name)
    assert found is not None
    return found


def help_of(name: str) -> list[str]:
    context = click.Context(cli, info_name="ddmq-hpc")
    inner = click.Context(
        command_of(name), info_name=name, parent=context, terminal_width=_WIDTH, help_option_names=["-h", "--help"]
    )
    return inner.get_help().splitlines()


def examples(lines: list[str]) -> list[list[str]]:
    """The words after `ddmq-hpc` of each line that is a command, up to what is for the shell."""
    found = []
    for line in lines:
        if line.strip().startswith("ddmq-hpc "):
            lexer = shlex.shlex(line.strip(), posix=True, punctuation_chars=_OPERATORS)
            lexer.whitespace_split = True
            words = list(lexer)
            end = next((at for at, word in enumerate(words) if set(word) <= set(_OPERATORS)), len(words))
            found.append(words[1:end])
    return found


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_an_example_of_itself(name: str) -> None:
    alias = {"extend": "touch"}
    assert [words for words in examples(help_of(name)) if words[0] == alias.get(name, name)]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_examples_are_valid(name: str) -> None:
    """As far as can be told without running them: commands, options, and the values of these."""
    for command, *words in examples(help_of(name)):
        assert command in COMMANDS
        command_of(command).make_context(command, words, parent=click.Context(cli))


def test_an_option_that_there_is_not_would_be_noticed() -> None:
    (example,) = examples(["  ddmq-hpc status ROOT --nonsense | less"])
    assert example == ["status", "ROOT", "--nonsense"]
    with pytest.raises(click.NoSuchOption):
        command_of("status").make_context("status", example[1:])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_fits_a_terminal(name: str) -> None:
    assert [line for line in help_of(name) if len(line) > _WIDTH] == []
