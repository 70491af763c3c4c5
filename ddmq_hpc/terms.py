"""How a worker is to work, and what it did in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from ddmq_hpc.errors import UsageError
from ddmq_hpc.feed import UNTIL, Appetite
from ddmq_hpc.settings import ON_LOST
from ddmq_hpc.units import human


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works. Times are seconds; None where there is no limit, or the queue's settings say.

    `walltime` is how long it may run, None: as long as its batch job; no task is begun that would not be done `margin`
    before that: 5 minutes, or a tenth of the time there is if that is less. `timeout` ends a task that takes longer, as
    failed. `grace` is what tasks get between a signal and the kill. `memory` is what its tasks may use together, in
    bytes, as far as they say what they need.
    """

    slots: int = 1
    memory: int | None = None
    appetite: Appetite = field(default_factory=Appetite)
    walltime: float | None = None
    margin: float | None = None
    timeout: float | None = None
    grace: float = 20.0
    on_lost: str | None = None
    delay: float = 0.0  # before the first message is taken: workers of an array do not all begin at once

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise UsageError(f"bad number of slots {self.slots}: it must be 1 or more")
        if self.appetite.until not in UNTIL:
            raise UsageError(f"bad until {self.appetite.until!r:.40}: use {', '.join(UNTIL)}")
        if self.on_lost not in (None, *ON_LOST):
            raise UsageError(f"bad on_lost {self.on_lost!r:.40}: use {', '.join(ON_LOST)}")


@dataclass
class Report:
    """What a worker did, in messages. `reason` says why it ended; `out_of_time` that it was for want of time, so there
    may be messages left."""

    done: int = 0
    failed: int = 0
    released: int = 0
    lost: int = 0
    cancelled: int = 0
    reason: str = ""
    seconds: float = 0.0
    out_of_time: bool = False
    last_failure: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        parts = [
            f"{self.done} done" * (self.done > 0),
            f"{self.failed} attempt{'s' * (self.failed != 1)} failed" * (self.failed > 0),
            f"{self.released} released" * (self.released > 0),
            f"{self.lost} lost" * (self.lost > 0),
            f"{self.cancelled} cancelled" * (self.cancelled > 0),
        ]
        failure = f"; the last failure was {self.last_failure}" if self.last_failure else ""
        return f"{', '.join(filter(None, parts)) or 'nothing done'} in {human(self.seconds)}: {self.reason}{failure}"
