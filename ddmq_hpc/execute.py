"""Run a command for one message, and settle the message by how the command ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from threading import Event, Thread
from typing import Any

from ddmq_hpc.beats import CANCELLED, Beats, how_lost
from ddmq_hpc.broker import Broker
from ddmq_hpc.child import Child
from ddmq_hpc.errors import BadMessage, CannotRun, DdmqError, LeaseLost, NothingThere, TaskCancelled, Untrusted
from ddmq_hpc.messages import Message, body_text
from ddmq_hpc.stopping import was_stopped
from ddmq_hpc.tasks import environment, fill
from ddmq_hpc.trust import Trust

#: Seconds between two looks at its own clock whether anything is due.
_LONGEST_PAUSE = 5.0


def execute(
    broker: Broker,
    queue: str,
    command: list[str],
    wait: float = 0.0,
    lease: float | None = None,
    feed_stdin: bool = False,
    users: Iterable[str] = (),
) -> int:
    """Take one message and run `command` with it in the environment, in place of `{}` and, if asked, on stdin.

    Acks when the command exits 0, nacks otherwise, and releases it when this process is told to stop. The lease is kept
    alive meanwhile; when it is lost all the same the command is stopped, and when this process is killed it is, too.
    The command's exit code, 128 + signal when one ended it. Raises `NothingThere`, `Untrusted` when others than this
    user, root and `users` could have written the message, `BadMessage` when the command names a field that it does not
    have, `CommandNotFound` or `CannotRun` when the command is to blame, and `LeaseLost` when somebody else has it now.
    """
    target = broker.queue(queue)
    trust = Trust(target, users=users)
    trust.check_place()
    messages = broker.consume(queue, 1, wait, lease)
    if not messages:
        raise NothingThere(f"nothing is ready in queue {queue!r}{target.told_aside()}")
    try:
        trust.check_pack(messages[0])
    except Untrusted:
        broker.release(messages[0])
        raise
    try:
        run = _Run(broker, messages[0], command, feed_stdin)
    except BadMessage:
        broker.release(messages[0])
        raise
    return run.result()


class _Run:
    def __init__(self, broker: Broker, message: Message, command: list[str], feed_stdin: bool) -> None:
        self._broker = broker
        self._message = message
        text = body_text(message.message)
        self._command = fill(command, message.message)
        self._input = os.fsencode(text.encode("utf-8", "surrogatepass")) if feed_stdin else None
        self._lost = False
        self._done = Event()
        self._child = Child()

    def result(self) -> int:
        with self._child:
            try:
                return self._run()
            finally:
                self._done.set()

    def _run(self) -> int:
        broker, message, started = self._broker, self._message, time.monotonic()
        try:
            self._child.start(
                self._command, {**os.environ, **environment(broker.root, message)}, self._input is not None
            )
        except CannotRun as error:
            broker.release(message)
            raise type(error)(error.command, f"{error.why}; the message was released") from None
        Thread(target=self._beat, daemon=True).start()
        code = self._child.wait(self._input)
        self._done.set()
        outcome: dict[str, Any] = {"exit": code, "wall": round(time.monotonic() - started, 3)}
        if self._lost:
            raise self._loss()
        if code == 0:
            broker.ack(message, **outcome)
        elif was_stopped(code, lambda: bool(self._child.stopped_by)):
            broker.release(message)
        else:
            broker.nack(message, **outcome)
        return code

    def _loss(self) -> DdmqError:
        queue, ident = self._message.queue, self._message.id
        if how_lost(self._broker.queue(queue), self._message) == CANCELLED:
            return TaskCancelled(queue, ident)
        return LeaseLost([ident])

    def _beat(self) -> None:
        """Renew the lease as a worker does, and end the command once the lease is somebody else's."""
        beats = Beats(self._broker.queue(self._message.queue))
        while not self._done.wait(self._pause()):
            if beats.renew([self._message]) and not self._done.is_set():
                self._lost = True
                self._child.end()
                return

    def _pause(self) -> float:
        """Seconds between two looks: often enough for a lease that is renewed when a third of it is over, or whose
        message was cancelled."""
        held = self._message.held
        lease = held.run_of(self._message.index) if held else None
        return min(lease.duration / 12000, _LONGEST_PAUSE) if lease else 1.0
