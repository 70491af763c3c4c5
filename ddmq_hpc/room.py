"""What a worker has for its tasks: slots and memory, so that those that run together do not want more than there is."""

from __future__ import annotations

from threading import Condition

from ddmq_hpc.messages import Message


class Room:
    """`slots` and bytes of `memory`, None where nobody said how much there is. Threads share it.

    A message takes 1 slot and no memory unless it says more.
    """

    def __init__(self, slots: int, memory: int | None = None) -> None:
        self.slots = slots
        self.memory = memory
        self._slots_left = slots
        self._memory_left = memory
        self._changed = Condition()

    def could_hold(self, message: Message) -> bool:
        """Whether the message fits while nothing else is here."""
        return message.slots <= self.slots and (self.memory is None or (message.memory or 0) <= self.memory)

    def take(self, message: Message) -> bool:
        """Take up what the message needs; False when so much is not left."""
        with self._changed:
            if not self._fits(message):
                return False
            self._add(message, -1)
            return True

    def give_back(self, message: Message) -> None:
        """The message is worked on no more."""
        with self._changed:
            self._add(message, 1)
            self._changed.notify_all()

    def wait_for(self, message: Message, seconds: float) -> bool:
        """Whether, within so many seconds, there is room for the message."""
        with self._changed:
            return self._changed.wait_for(lambda: self._fits(message), seconds)

    def wait_for_any(self, seconds: float) -> bool:
        """Whether, within so many seconds, a slot is left."""
        with self._changed:
            return self._changed.wait_for(lambda: self._slots_left > 0, seconds)

    def _fits(self, message: Message) -> bool:
        return message.slots <= self._slots_left and (
            self._memory_left is None or (message.memory or 0) <= self._memory_left
        )

    def _add(self, message: Message, sign: int) -> None:
        self._slots_left += sign * message.slots
        if self._memory_left is not None:
            self._memory_left += sign * (message.memory or 0)
