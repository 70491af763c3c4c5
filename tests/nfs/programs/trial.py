"""Do operations one after another, each up to one call, and that when told to: `trial.py HOME TRIALS`.

TRIALS is a JSON array of [root, operation, number of the call among those that change names, call]. Before that call
{"call": ..., "paths": [...]} is printed and HOME/go-<number of the trial> is waited for; after an operation its
report. When the call fails with EIO that is printed, too, and HOME/seen-<number> is waited for before the operation
hears of it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from typing import Any, Callable

from engine_tools import Watched
from truth import OPERATIONS, ack_what_was_taken, is_changing, new_broker

from ddmq_hpc.errors import StorageError

#: Seconds: the widest bucket of ready, and how near to its end no operation is begun. Past it there were more calls.
_BUCKET, _MARGIN = 64, 2


def tell(**report: Any) -> None:
    print(json.dumps(report), flush=True)


class Pause:
    """Stops before the `at`-th call that changes a name."""

    def __init__(self, home: str, number: int, at: int) -> None:
        self._go, self._seen = f"{home}/go-{number}", f"{home}/seen-{number}"
        self._at = at
        self._count = 0
        self.call = ""
        self.errno: int | None = None

    def __call__(self, name: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
        if not is_changing(name, args):
            return call()
        self._count += 1
        if self._count != self._at:
            return call()
        self.call = name
        tell(call=name, paths=[arg for arg in args if isinstance(arg, str)])
        _wait_for(self._go)
        try:
            return call()
        except OSError as error:
            self.errno = error.errno
            if error.errno == errno.EIO:
                tell(errno=error.errno)
                _wait_for(self._seen)
            raise


def _wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


def attempt(home: str, number: int, root: str, name: str, at: int) -> None:
    operation = OPERATIONS[name]
    if (left := _BUCKET - time.time() % _BUCKET) < _MARGIN:
        time.sleep(left)
    failure: StorageError | None = None
    answer: Any = None
    with new_broker(root) as broker:
        state = operation.prepare(broker)
        assert isinstance(broker.fs, Watched)
        broker.fs.around = pause = Pause(home, number, at)
        try:
            answer = operation.act(broker, state)
        except StorageError as error:
            failure = error
        broker.fs.around = None
        acked = [] if failure else ack_what_was_taken(broker, operation, state, answer, name)
    failed = str(failure) if failure else None
    tell(operation=name, failed=failed, called=pause.call, errno=pause.errno, acked=acked)


if __name__ == "__main__":
    for number, (root, name, at) in enumerate(json.loads(sys.argv[2])):
        attempt(sys.argv[1], number, root, name, at)
