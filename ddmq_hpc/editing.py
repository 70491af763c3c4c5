"""A settings file changed as a person would do it: a line here and there, all the rest left as it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ddmq_hpc.errors import SettingsError
from ddmq_hpc.settings import parse, plain


def edited(text: str, path: str, changes: Mapping[str, Any]) -> str:
    """The text of a settings file with some settings changed, None for those that shall not stand in it any more; every
    other line and comment stays as it is.

    Raises `SettingsError` for a file that cannot be read as settings, or in which that would change anything else: such
    a file is for a person to edit.
    """
    kept = {name: value for name, value in parse(text, path).items() if name not in changes}
    lines = text.splitlines(keepends=True)
    for name, value in changes.items():
        lines = _with_setting(lines, name, value)
    after = "".join(lines)
    if _means(after, path) == {**kept, **{name: value for name, value in changes.items() if value is not None}}:
        return after
    told = ", ".join(f"`{name}: {plain(value)}`" for name, value in changes.items() if value is not None)
    raise SettingsError(path, f"is not plain `name: value` lines, nothing was changed; write {told} into it yourself")


def _means(text: str, path: str) -> dict[Any, Any] | None:
    try:
        return dict(parse(text, path))
    except SettingsError:
        return None


def _with_setting(lines: list[str], name: str, value: Any) -> list[str]:
    """Lines with that setting in the place where it stood, a comment behind it kept, or at the end."""
    quoted, bare, rest = r'"(?:[^"\\]|\\.)*"', r'[^#"\r\n]*?', r"(?:[ \t]+#.*)?[ \t]*[\r\n]*"
    line = re.compile(rf"{name}[ \t]*:[ \t]*(?:{quoted}|{bare})(?P<rest>{rest})")
    matches = [(old, line.fullmatch(old)) for old in lines]
    if value is None:
        return [old for old, match in matches if not match]
    if any(match for _, match in matches):
        return [f"{name}: {plain(value)}{match['rest']}" if match else old for old, match in matches]
    if lines and not lines[-1].endswith("\n"):
        lines = [*lines[:-1], lines[-1] + "\n"]
    return [*lines, f"{name}: {plain(value)}\n"]
