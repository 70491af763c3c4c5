"""The spellings of ddmq 0.9 that still work in Python."""

from __future__ import annotations

from typing import Any

from ddmq_hpc.errors import UsageError


def message_of(message: Any, missing: Any, legacy: dict[str, Any]) -> Any:
    """The body given as `message` or as ddmq's `msg_text`; `clean` is accepted and means nothing here."""
    legacy.pop("clean", None)
    text = legacy.pop("msg_text", missing)
    if legacy:
        raise TypeError(f"publish() got an unexpected keyword argument {sorted(legacy)[0]!r}")
    if (message is missing) == (text is missing):
        raise UsageError("give the message once, as `message`")
    return text if message is missing else message
