"""Pausing and draining: settings of a queue that a person changes while clients work, told with who did it and why.

Clients read settings again within half a minute. What is leased is not touched by either.
"""

from __future__ import annotations

import errno
import os
from datetime import datetime, timezone
from typing import Any

from ddmq_hpc.changing import change_settings
from ddmq_hpc.errors import storage_error
from ddmq_hpc.identity import user_name
from ddmq_hpc.locks import locked
from ddmq_hpc.queue import Queue
from ddmq_hpc.settings import note

_LOCK = "settings"
#: How often, and after what pauses (seconds), somebody who changes the same file is waited for.
_TRIES, _PAUSE = 100, 0.1


def pause(queue: Queue, reason: str = "") -> None:
    """Hand out nothing from now on; publishing goes on. Without a `reason` one that was given before stays. Raises
    `UsageError`, `SettingsError`, `StorageError`."""
    _change(queue, {"paused": True, **_told(queue, reason)})


def drain(queue: Queue, reason: str = "") -> None:
    """Refuse what is published from now on; what is there is worked off. Raises as `pause`."""
    _change(queue, {"draining": True, **_told(queue, reason)})


def resume(queue: Queue) -> bool:
    """End both, also where the root's settings say otherwise; False when there was nothing to end, as far as the
    queue's settings were read anew. Raises as `pause`."""
    if not (queue.settings.paused or queue.settings.draining):
        return False
    _change(queue, {"paused": False, "draining": False, "paused_reason": None, "paused_by": None})
    return True


def _told(queue: Queue, reason: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(queue.fs.now(queue.paths.tmp), timezone.utc)
    told = {"paused_by": f"{user_name(os.geteuid())} at {at:%Y-%m-%d %H:%M} UTC"}
    return {"paused_reason": note(reason), **told} if reason else told


def _change(queue: Queue, changes: dict[str, Any]) -> None:
    """One who changes them at a time: the file is read and written as a whole."""
    doing = f"change the settings of queue {queue.name!r}"
    try:
        for _ in range(_TRIES):
            with locked(queue.fs, queue.paths, _LOCK) as taken:
                if taken:
                    change_settings(queue.fs, queue.paths, changes)
                    return
            queue.fs.sleep(_PAUSE)
    except OSError as error:
        raise queue.trouble(error, doing) from error
    raise storage_error(OSError(errno.EBUSY, "somebody else is doing so", queue.paths.settings), doing)
