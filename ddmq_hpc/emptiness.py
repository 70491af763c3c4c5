"""Is there nothing? Clients move messages about meanwhile, so one listing of each directory cannot tell.

An entry that is being divided is in neither place for one moment and in `leased` for the next; whatever goes from one
state to another goes through `leased`, or from `delayed` to `ready`. So `leased` must have been unchanged while the
others were found empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddmq_hpc.names import any_divided, is_delay_directory, parse_delayed, parse_leases
from ddmq_hpc.settings import Settings

if TYPE_CHECKING:
    from ddmq_hpc.queue import Queue

#: How often a client looks again while others move messages about, the waits between (seconds), and the age from which
#: a directory's time of change is sure to tell of every change.
_LOOKS, _FIRST_WAIT, _LONGEST_WAIT, _QUIET = 40, 0.004, 0.05, 0.02


def looks_empty(queue: Queue, settings: Settings) -> bool:
    """Whether nothing is ready and nothing is about to be put back. False: take again. What is over is requeued, and
    what was dropped brought in. Raises OSError."""
    fs, leased = queue.fs, queue.paths.leased
    wait = _FIRST_WAIT
    if fs.network:
        fs.refresh(leased)
        fs.sleep(_QUIET)  # that touch shall not look like a change
    for _ in range(_LOOKS):
        if queue.fetch(settings):  # what another client fetches meanwhile is in the listings that follow
            return False
        before = fs.lstat(leased).st_mtime_ns
        if queue.taker.look_again():
            return False
        names = fs.names(leased)
        swept = queue.sweeper.sweep_names(names, settings)
        if swept.requeued or swept.due or _recovers(queue, names):
            queue.taker.forget()
            return False
        after = fs.lstat(leased).st_mtime_ns
        quiet = fs.now(queue.paths.tmp) - after / 1e9 > _QUIET
        if not any_divided(names) and before == after and (quiet or not names):
            return True
        fs.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)
    return True


def is_drained(queue: Queue, settings: Settings) -> bool:
    """Whether nothing is ready, leased, delayed or dropped, all at one moment. Raises OSError."""
    if not looks_empty(queue, settings):
        return False
    fs, paths = queue.fs, queue.paths
    for _ in range(_LOOKS):
        before = fs.lstat(paths.leased).st_mtime_ns
        if fs.now(paths.tmp) - before / 1e9 < _QUIET:
            fs.sleep(_QUIET)
            continue
        if queue.fetch(settings):
            return False
        windows = filter(is_delay_directory, fs.directories(paths.delayed))
        late = any(any(map(parse_delayed, fs.names(f"{paths.delayed}/{name}"))) for name in windows)
        if late or queue.taker.look_again() or parse_leases(fs.names(paths.leased)):
            return False
        if fs.lstat(paths.leased).st_mtime_ns == before:
            return True
    return False


def _recovers(queue: Queue, names: list[str]) -> bool:
    """Whether messages of batch jobs that have ended came back."""
    if queue.idle_hook is None or not queue.sweeper.other_jobs_hold(names):
        return False
    recovered = queue.idle_hook(queue)
    return recovered is not None and recovered.requeued > 0
