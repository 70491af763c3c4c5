"""status --watch: the terminal that it is shown on, its keys and signals, and the thread that looks meanwhile."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Mapping, Sequence
from threading import Thread
from types import TracebackType
from typing import Any

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli.common import coloured
from ddmq_hpc.errors import DdmqError, UsageError
from ddmq_hpc.units import human
from ddmq_hpc.views import Trouble, View, interval
from ddmq_hpc.watching import Watch

#: Another screen than the one with the shell's lines, no cursor, and back (xterm; terminfo's smcup, civis).
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
#: Seconds after which a look that still goes on is told of.
_LONG = 3.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(broker: Broker, queues: Sequence[str], seconds: float) -> None:
    """Show queues every so many seconds, or more seldom where looking takes long, until the user has seen enough.
    Raises `UsageError` when there is no terminal or no rich."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("--watch is for a terminal; programs read `ddmq-hpc status --format json`")
    try:
        import rich  # noqa: F401
    except ImportError:
        raise UsageError("--watch needs rich: python3 -m pip install 'ddmq-hpc[rich]'") from None
    from ddmq_hpc.cli.screen import Drawing

    looker = _Looker(Watch(broker, queues), seconds)
    ascii_only = not shows_unicode(os.environ, sys.stdout.encoding)
    with _Terminal() as terminal:
        looker.start(terminal.wake)
        while not terminal.over:
            width, height = terminal.size()
            terminal.show(Drawing(width, ascii_only).lines(looker.found, (broker.root, looker.state()), height), width)
            terminal.wait(1.0)


def shows_unicode(environ: Mapping[str, str], encoding: str) -> bool:
    """Whether a terminal shows letters beyond ASCII: where the locale says nothing Python takes UTF-8 (PEP 538, 540),
    which is no reason to believe that the terminal has it."""
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    said = next((environ[name] for name in names if environ.get(name)), "C")
    coerced = not environ.get("LC_ALL") and said == "C.UTF-8" and environ.get("LANG", "") in ("", "C", "POSIX")
    return said not in ("C", "POSIX") and not coerced and encoding.lower().replace("-", "") == "utf8"


class _Looker:
    """Looks again and again, in a thread of its own: a file server that hangs does not hold up the keys."""

    def __init__(self, watch: Watch, seconds: float) -> None:
        self._watch = watch
        self._seconds = self._pause = seconds
        self._began: float | None = None
        self._at = ""
        self._trouble = ""
        self.found: Sequence[View | Trouble] | None = None

    def start(self, tell: Any) -> None:
        """Begin; `tell` is called, in that thread, after each look."""
        self._began = time.monotonic()
        Thread(target=self._go_on, args=(tell,), daemon=True).start()

    def _go_on(self, tell: Any) -> None:
        while True:
            self._began = began = time.monotonic()
            try:
                self.found, self._trouble = self._watch.look(), ""
            except DdmqError as error:
                self._trouble = str(error)
            except Exception as error:
                self._trouble = f"{type(error).__name__}: {error}"
            took = time.monotonic() - began
            self._pause = interval(self._seconds, took)
            self._at, self._began = time.strftime("%H:%M:%S"), None
            tell()
            time.sleep(self._pause)

    def state(self) -> str:
        """When it looked, and how often it does, for people."""
        began = self._began
        if began is not None and (not self._at or time.monotonic() - began > _LONG):
            return f"looking for {human(time.monotonic() - began)}"
        slowed = f", every {human(self._pause)}" if self._pause > self._seconds else ""
        return f"{self._trouble}  {self._at}{slowed}".strip()


class _Terminal:
    """The user's terminal, given back as it was. Signals are noted, and heeded by `wait`."""

    def __init__(self) -> None:
        from io import StringIO

        from rich.console import Console

        self.over = False
        self._out = sys.stdout.fileno()
        self._keys: int | None = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._caught: list[int] = []
        self._console = Console(
            file=StringIO(), force_terminal=True, color_system="standard" if coloured(sys.stdout) else None
        )

    def __enter__(self) -> _Terminal:
        self._hear, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        self._wakeup = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        numbers = (*_ENDING, signal.SIGTSTP, signal.SIGWINCH)
        self._before = {number: signal.signal(number, self._catch) for number in numbers}
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        for caught in self._caught:
            if caught in _ENDING and caught != signal.SIGINT:
                os.kill(os.getpid(), caught)

    def _catch(self, number: int, frame: Any) -> None:
        self._caught.append(number)

    def _take(self) -> None:
        if self._keys is not None:
            self._mode = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)
        self._write(_ENTER)

    def _give_back(self) -> None:
        try:
            self._write(_LEAVE)
            if self._keys is not None:
                termios.tcsetattr(self._keys, termios.TCSANOW, self._mode)
        except (OSError, termios.error):
            pass  # EIO: the terminal is gone

    def wake(self) -> None:
        """Let `wait` return. Any thread may call this."""
        try:
            os.write(self._tell, b"\0")
        except BlockingIOError:
            pass  # it will

    def wait(self, seconds: float) -> None:
        """Until a key, a signal, a call of `wake`, or the time is over."""
        watched = [self._hear, *([] if self._keys is None else [self._keys])]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._hear in ready:
            os.read(self._hear, 4096)
        if self._keys in ready:
            self._heed_keys()
        if signal.SIGTSTP in self._caught:
            self._caught = [number for number in self._caught if number != signal.SIGTSTP]
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
        self.over |= any(number in _ENDING for number in self._caught)

    def _heed_keys(self) -> None:
        assert self._keys is not None
        try:
            pressed = os.read(self._keys, 4096)
        except OSError:
            pressed = b""
        self.over |= not pressed or b"q" in pressed.lower()

    def size(self) -> tuple[int, int]:
        """Columns and lines; where nobody knows (a serial line), those of the first ones."""
        width, height = os.get_terminal_size(self._out)
        return width or 80, height or 24

    def show(self, lines: Sequence[Any], width: int) -> None:
        """Draw lines over what is there."""
        self._console.width = width + 1  # nothing is to be broken: the lines fit
        with self._console.capture() as captured:
            for line in lines:
                self._console.print(line, end="\n", no_wrap=True, crop=False, overflow="ignore", soft_wrap=True)
        shown = captured.get().split("\n")[:-1]
        self._write("\x1b[H" + "\r\n".join(f"\x1b[K{line}" for line in shown))

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._out, data) :]
