"""A virtual Ethernet switch for the guests, with the faults of networks: `python switch.py DIRECTORY`.

Guests connect by the "bess" transport of User Mode Linux, packets on DIRECTORY/switch.sock; the last byte of a guest's
MAC address is its number. DIRECTORY/control.sock takes one JSON object a connection and answers with one:

    {"cut": [A, B]}                 drop what A sends to B from now on, one way
    {"trap": [A, B], "holding": [HEX, ...], "then_cut": [C, D]}
                                    let the first frame from A to B that holds all of these bytes pass, then cut C, D
    {"delay": [A, SECONDS]}         deliver what A sends so much later, as a network between hosts does
    {"heal": true}                  no more faults and delays
    {}                              what was trapped (times), and how many frames were dropped
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LONGEST_FRAME = 65536
_FRAMES_A_TURN = 32
_BUFFER = 4 << 20
_BROADCAST = 1  # the bit of a MAC address


@dataclass(frozen=True)
class Trap:
    source: int
    target: int
    holding: tuple[bytes, ...]
    then_cut: tuple[int, int]


@dataclass
class Faults:
    """What is to go wrong, and what has."""

    cuts: set[tuple[int, int]] = field(default_factory=set)
    traps: list[Trap] = field(default_factory=list)
    trapped: list[float] = field(default_factory=list)
    delays: dict[int, float] = field(default_factory=dict)
    dropped: int = 0

    def passes(self, source: int, target: int, frame: bytes) -> bool:
        """Whether a frame arrives. Traps close behind it."""
        if (source, target) in self.cuts:
            self.dropped += 1
            return False
        for trap in [trap for trap in self.traps if (trap.source, trap.target) == (source, target)]:
            if all(part in frame for part in trap.holding):
                self.traps.remove(trap)
                self.trapped.append(time.time())
                self.cuts.add(trap.then_cut)
        return True

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        if "cut" in order:
            source, target = order["cut"]
            self.cuts.add((source, target))
        elif "trap" in order:
            source, target = order["trap"]
            cut_source, cut_target = order["then_cut"]
            holding = tuple(bytes.fromhex(part) for part in order["holding"])
            self.traps.append(Trap(source, target, holding, (cut_source, cut_target)))
        elif "delay" in order:
            source, seconds = order["delay"]
            self.delays[source] = seconds
        elif "heal" in order:
            self.cuts.clear()
            self.delays.clear()
            self.traps.clear()
            self.trapped.clear()
        return {"trapped": self.trapped, "dropped": self.dropped}


class Switch:
    def __init__(self, directory: Path) -> None:
        self._faults = Faults()
        self._ports: set[socket.socket] = set()
        self._behind: dict[bytes, socket.socket] = {}  # by MAC address
        self._late: deque[tuple[float, socket.socket, bytes]] = deque()  # when to send what to whom
        self._selector = selectors.SelectSelector()  # waits for fractions of a millisecond, which epoll does not
        packets = _listen(directory / "switch.sock", socket.SOCK_SEQPACKET)
        self._selector.register(packets, selectors.EVENT_READ, self._plug_in)
        orders = _listen(directory / "control.sock", socket.SOCK_STREAM)
        self._selector.register(orders, selectors.EVENT_READ, self._obey)

    def run(self) -> None:
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for key, _ in self._selector.select(wait):
                key.data(key.fileobj)
            self._send_late()

    def _plug_in(self, listener: socket.socket) -> None:
        port, _ = listener.accept()
        port.setblocking(False)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._ports.add(port)
        self._selector.register(port, selectors.EVENT_READ, self._forward)

    def _unplug(self, port: socket.socket) -> None:
        if port in self._ports:
            self._ports.remove(port)
            self._selector.unregister(port)
            self._behind = {mac: other for mac, other in self._behind.items() if other is not port}
            port.close()

    def _forward(self, port: socket.socket) -> None:
        for _ in range(_FRAMES_A_TURN):
            try:
                frame = port.recv(_LONGEST_FRAME)
            except BlockingIOError:
                return
            except OSError:
                frame = b""
            if not frame:
                self._unplug(port)
                return
            target, source = frame[:6], frame[6:12]
            self._behind[source] = port
            if target[0] & _BROADCAST or target not in self._behind:
                receivers = [other for other in self._ports if other is not port]
            elif self._faults.passes(source[5], target[5], frame):
                receivers = [self._behind[target]]
            else:
                receivers = []
            delay = self._faults.delays.get(source[5], 0.0)
            for receiver in receivers:
                if delay:
                    self._late.append((time.monotonic() + delay, receiver, frame))
                else:
                    self._send(receiver, frame)

    def _send_late(self) -> None:
        """Send what has waited long enough, in the order it came: with one length of delay that is the order of being
        due."""
        while self._late and self._late[0][0] <= time.monotonic():
            _, receiver, frame = self._late.popleft()
            if receiver in self._ports:
                self._send(receiver, frame)

    def _send(self, port: socket.socket, frame: bytes) -> None:
        try:
            port.send(frame)
        except BlockingIOError:
            pass  # a full queue: real switches drop, too
        except OSError:
            self._unplug(port)

    def _obey(self, listener: socket.socket) -> None:
        caller, _ = listener.accept()
        with caller:
            caller.settimeout(2)
            try:
                caller.sendall(json.dumps(self._faults.command(json.loads(caller.recv(_LONGEST_FRAME)))).encode())
            except OSError:
                pass  # whoever asked has gone


def _listen(path: Path, kind: socket.SocketKind) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    listener.listen(16)
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    Switch(Path(sys.argv[1])).run()
