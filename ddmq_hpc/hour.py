"""The last hour of a queue as its journal tells: how many tasks ended how, and how long they took.

Only the ends of the files are read, and what is appended from then on. Where the ends do not reach back an hour, the
rest is taken to have been like them, and it is said that the numbers are about right (`about`).
"""

from __future__ import annotations

import re
import statistics
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from ddmq_hpc import attempts, journal
from ddmq_hpc.attempts import DONE, FAILED, LOST, Attempt
from ddmq_hpc.following import Follower
from ddmq_hpc.queue import Queue

HOUR = 3600.0
#: Bytes that are read of the end of each file.
_TAIL = 1 << 16
#: Seconds that the clock of a client may be ahead: what ended later did not.
_AHEAD = 300.0
#: Seconds of one bucket, tasks whose times are remembered, and how many different causes in a bucket.
_WIDTH, _TIMES, _CAUSES = 10, 1001, 100
_OTHER = "other causes"
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Hour:
    """Attempts of the last hour by outcome (`acked`, `nacked`, `lost`, `released` ...), in messages. `span` is how long
    ago the first of them ended, in seconds.

    `failed` are those that failed or were lost, `cause` is why most of them did, which is `cause_part` of those whose
    cause is known (0 to 1). `typical` is the median of the seconds that tasks took, None when too few are known. `ever`
    is how many were done since the journal began, but for what was compressed. `seen_done` and `seen_ended` are how
    many were done, and done or made dead letters, since this reader began. With `about` the numbers are estimates, with
    `ever_about` that one is.
    """

    outcomes: dict[str, float]
    span: float = HOUR
    cause: str = ""
    cause_part: float = 0.0
    typical: float | None = None
    ever: float = 0.0
    seen_done: int = 0
    seen_ended: int = 0
    about: bool = False
    ever_about: bool = False

    @property
    def done(self) -> float:
        """Messages."""
        return self.outcomes.get(DONE, 0.0)

    @property
    def failed(self) -> float:
        """Attempts."""
        return self.outcomes.get(FAILED, 0.0) + self.outcomes.get(LOST, 0.0)


class Tally:
    """Counts attempts by the time when they ended. Memory does not grow with their number."""

    def __init__(self) -> None:
        self._outcomes: dict[int, Counter[str]] = {}  # by bucket; of a filled one parts of attempts
        self._causes: dict[int, Counter[str]] = {}
        self._words: dict[str, str] = {}  # kind of cause -> the latest one in full
        self._times: deque[float] = deque(maxlen=_TIMES)
        self._filled_until = 0.0
        self._ever = 0.0
        self._ever_about = False
        self._seen_done = self._seen_ended = 0

    def saw(self, found: Iterable[Attempt]) -> None:
        """Attempts that ended while somebody was looking."""
        for attempt in found:
            self._add(attempt)
            if attempt.state == DONE:
                self._seen_done += attempt.count
            if attempt.state == DONE or attempt.to == "dead":
                self._seen_ended += attempt.count

    def begin(self, tails: Iterable[journal.Tail], files: int, now: float) -> None:
        """What the ends of files tell, and what may be taken from that about the rest; there are so many `files`."""
        tails = list(tails)
        known: Counter[str] = Counter()
        span = 0.0
        for tail in tails:
            found = sorted(_attempts(tail.lines), key=lambda attempt: attempt.ended)
            for attempt in found:
                self._add(attempt)
            if found:
                counts = _outcomes(found)
                known, span = known + counts, span + max(now - found[0].ended, 1.0)
                self._before(tail, found, counts, now)
        read = sum(tail.end > tail.start for tail in tails)
        awake = [tail for tail in tails if tail.changed > now - HOUR]
        hidden = sum(tail.end == tail.start > 0 for tail in awake) + _part(len(awake), len(tails), files - len(tails))
        if read and span:
            if hidden:
                self._fill(now - HOUR, now, {state: count * hidden / span for state, count in known.items()})
            self._guess(known[DONE] / sum(tail.end - tail.start for tail in tails), tails, files)

    def _before(self, tail: journal.Tail, found: list[Attempt], counts: Counter[str], now: float) -> None:
        """What a file has before its end that was read: at the pace, and as dense, as that end."""
        if not tail.start:
            return
        dense = tail.start / (tail.end - tail.start)
        self._ever += counts[DONE] * dense
        self._ever_about = True
        first = found[0].ended
        span = max(now - first, 1.0)
        part = min(1.0, dense * span / max(first - (now - HOUR), 1.0))  # there may be less than an hour of it
        self._fill(now - HOUR, first, {state: count / span * part for state, count in counts.items()})

    def _guess(self, density: float, tails: list[journal.Tail], files: int) -> None:
        size = sum(tail.start for tail in tails if tail.end == tail.start)
        size += int(_part(sum(tail.end for tail in tails), len(tails), files - len(tails)))
        self._ever += density * size
        self._ever_about |= size > 0

    def _fill(self, since: float, until: float, rates: dict[str, float]) -> None:
        for bucket in range(int(since // _WIDTH), int(until // _WIDTH)):
            counts = self._outcomes.setdefault(bucket, Counter())
            for state, rate in rates.items():
                counts[state] += rate * _WIDTH  # type: ignore[assignment]
            self._filled_until = max(self._filled_until, (bucket + 1) * _WIDTH)

    def _add(self, attempt: Attempt) -> None:
        bucket = int(attempt.ended // _WIDTH)
        self._outcomes.setdefault(bucket, Counter())[attempt.state] += attempt.count
        if attempt.state == DONE:
            self._ever += attempt.count
            if attempt.count == 1 and (took := _seconds(attempt)) is not None:
                self._times.append(took)
        if attempt.state in (FAILED, LOST):
            words = cause(attempt)
            kind = _DIGITS.sub("0", words) if attempt.error else words  # an exit code is no number of a line
            causes = self._causes.setdefault(bucket, Counter())
            if len(causes) >= _CAUSES and kind not in causes:
                words = kind = _OTHER
            causes[kind] += attempt.count
            self._words[kind] = words

    def hour(self, now: float) -> Hour:
        """The hour before `now`."""
        oldest, newest = int((now - HOUR) // _WIDTH), int((now + _AHEAD) // _WIDTH)
        for buckets in (self._outcomes, self._causes):
            for bucket in [bucket for bucket in buckets if not oldest <= bucket <= newest]:
                del buckets[bucket]
        outcomes = sum(self._outcomes.values(), Counter())
        causes = sum(self._causes.values(), Counter())
        self._words = {kind: self._words[kind] for kind in causes}
        kind, count = causes.most_common(1)[0] if causes else ("", 0)
        return Hour(
            outcomes=dict(outcomes),
            span=min(HOUR, max(now - min(self._outcomes, default=0) * _WIDTH, 1.0)),
            cause=self._words.get(kind, ""),
            cause_part=count / sum(causes.values()) if causes else 0.0,
            typical=statistics.median(self._times) if len(self._times) >= 3 else None,
            ever=self._ever,
            seen_done=self._seen_done,
            seen_ended=self._seen_ended,
            about=self._filled_until > now - HOUR,
            ever_about=self._ever_about,
        )


class Follow:
    """The last hour of one queue, kept up with. Raises OSError."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._follower = Follower(queue.fs, queue.paths)
        self._tally = Tally()
        self._begun = False

    def look(self, now: float) -> Hour:
        """The hour before `now`, in the file system's clock."""
        if not self._begun:
            tails, files = self._follower.begin_at_tails(_TAIL)
            self._tally.begin(tails, files, now)
            self._begun = True
        else:
            for lines in self._follower.appended(self._follower.grown()):
                self._tally.saw(_attempts(lines.split(b"\n")))
        return self._tally.hour(now)


def _part(some: int, of: int, more: int) -> float:
    """How many of `more` are like the `some` among `of`, if they are alike."""
    return some / of * more if of else 0.0


def cause(attempt: Attempt) -> str:
    """Why an attempt failed, in a few words: what its task said, else how it ended."""
    if attempt.state == LOST:
        return "its worker was lost"
    if attempt.error:
        return attempt.error.splitlines()[0][:200]
    if attempt.oom:
        return "out of memory"
    if attempt.signal:
        return f"signal {attempt.signal}"
    return f"exit code {attempt.exit}" if attempt.exit is not None else "nacked"


def _seconds(attempt: Attempt) -> float | None:
    if attempt.wall is not None:
        return attempt.wall
    return max(0.0, attempt.ended - attempt.began) if attempt.began else None


def _attempts(lines: Iterable[bytes]) -> list[Attempt]:
    return [found for found in attempts.of(journal.parsed(lines)) if isinstance(found, Attempt)]


def _outcomes(found: Iterable[Attempt]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for attempt in found:
        counts[attempt.state] += attempt.count
    return counts
