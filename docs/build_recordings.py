"""Record terminals for the documentation: `python docs/build_recordings.py` writes pictures/session.svg and watch.svg.

Real commands in a real terminal, as an emulator sees it; each picture is one SVG whose lines appear and go by its own
style, without a script. It takes pyte and rich, and as root the workers of watch.svg are on hosts of other names.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import pyte

PICTURES = Path(__file__).resolve().parent / "pictures"
#: What stands for the temporary directory in which it all happens.
PLACE = b"/scratch/me"
#: Pixels of a letter, and of a line.
_WIDE, _HIGH, _EDGE = 8.4, 18, 14
#: Seconds: between two letters that are typed, and after a command.
_TYPING, _READING = 0.035, 1.2
#: Seconds: nothing happens for longer than this; the last picture stays for that long.
_IDLE, _LAST = 2.0, 5.0
_COLOURS = {
    "default": "#d7dce2", "black": "#5c6370", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341",
    "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#f0f6fc", "brightblack": "#8b949e",
}  # fmt: skip
_PAPER = "#161b22"

#: A stretch of a line: its first column, its text, its colour, whether it is bold.
Stretch = tuple[int, str, str, bool]
Line = tuple[Stretch, ...]

SCRIPT = """\
if [ "$1" = sample7 ] && [ ! -e repaired ]; then echo "no reads in $1" >&2; exit 3; fi
sleep 0.2
"""
SESSION = [
    "ddmq-hpc create -f tasks --set requeue_limit=1",
    "seq -f 'sample%g' 12 | ddmq-hpc publish tasks --each-line -",
    "ddmq-hpc work tasks -j 2 -- sh count.sh {}",
    "ddmq-hpc status",
    "ddmq-hpc explain tasks",
    "touch repaired",
    "ddmq-hpc retry tasks --exit-code 3",
    "ddmq-hpc work tasks -- sh count.sh {}",
]


class Recording:
    """A program in a terminal, and what its screen was like from moment to moment."""

    def __init__(self, columns: int, lines: int, command: list[str], directory: str, environment: dict[str, str]):
        self.screen = pyte.Screen(columns, lines)
        self.frames: list[tuple[float, list[Line]]] = []
        self._stream = pyte.ByteStream(self.screen)
        self._directory = directory.encode()
        self._start = time.monotonic()
        self._outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=directory,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)

    def watch(self, seconds: float) -> None:
        """Look for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._outer], [], [], left)[0]:
                try:
                    data = os.read(self._outer, 1 << 16)
                except OSError:  # EIO: nobody has the other end any more
                    return
                self._stream.feed(data.replace(self._directory, PLACE))
                self._keep()

    def type(self, text: str) -> None:
        for letter in text:
            os.write(self._outer, letter.encode())
            self.watch(_TYPING)

    def ready(self) -> bool:
        """Whether the shell asks for the next command."""
        row = self.screen.display[self.screen.cursor.y]
        return row.startswith("$ ") and self.screen.cursor.x == 2

    def run(self, command: str) -> None:
        """Type it, and look until it has ended."""
        self.type(command)
        self.watch(0.3)
        self.type("\n")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.watch(0.1)
            if self.ready():
                break
        self.watch(_READING)

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._outer)

    def _keep(self) -> None:
        lines = [self._line(row) for row in range(self.screen.lines)]
        if not self.frames or self.frames[-1][1] != lines:
            self.frames.append((time.monotonic() - self._start, lines))

    def _line(self, row: int) -> Line:
        cells = [self.screen.buffer[row][column] for column in range(self.screen.columns)]
        found: list[Stretch] = []
        column = 0
        for (colour, bold), group in groupby(cells, key=lambda cell: (_colour(cell), cell.bold)):
            text = "".join(cell.data for cell in group)
            if text.strip():
                lead = len(text) - len(text.lstrip())
                found.append((column + lead, text.strip(), colour, bold))
            column += len(text)
        return tuple(found)


def _colour(cell: pyte.screens.Char) -> str:
    name = cell.bg if cell.reverse and cell.bg != "default" else cell.fg
    return _COLOURS.get(name) or _COLOURS.get(name.removeprefix("bright")) or f"#{name}"


def svg(recording: Recording, title: str) -> str:
    """The picture: each line of each moment is a group that is visible for its time."""
    frames = _steady(recording.frames)
    total = frames[-1][0] + _LAST
    spans: dict[tuple[float, float], list[str]] = {}
    for row in range(recording.screen.lines):
        shown = [(at, lines[row]) for at, lines in frames]
        runs = [(next(group)[0], line) for line, group in groupby(shown, key=lambda pair: pair[1])]
        ends = [at for at, _ in runs[1:]] + [total]
        for (at, line), end in zip(runs, ends):
            if line:
                spans.setdefault((at, end), []).extend(_texts(row, line))
    styles, groups = [], []
    for number, ((at, end), texts) in enumerate(sorted(spans.items())):
        last = end == total
        moments = [(0.0, "hidden")] * (at > 0) + [(at, "visible")] + [(end, "hidden")] * (not last)
        steps = "".join(f"{100 * moment / total:.3f}%{{visibility:{how}}}" for moment, how in moments)
        styles.append(f"@keyframes k{number}{{{steps}}}.k{number}{{animation-name:k{number}}}")
        groups.append(f'<g class="k{number}{" last" * last}">{"".join(texts)}</g>')
    width = recording.screen.columns * _WIDE + 2 * _EDGE
    height = recording.screen.lines * _HIGH + 2 * _EDGE
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" \
height="{height:.0f}" role="img" aria-labelledby="title">
<title id="title">{escape(title)}</title>
<style>
text{{font:14px "DejaVu Sans Mono",ui-monospace,Menlo,Consolas,monospace;white-space:pre}}
g{{visibility:hidden;animation:{total:.2f}s step-end infinite}}.last{{visibility:visible}}
{"".join(styles)}
@media (prefers-reduced-motion:reduce){{g{{animation:none}}}}
</style>
<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>
{chr(10).join(groups)}
</svg>
"""


def _steady(frames: list[tuple[float, list[Line]]]) -> list[tuple[float, list[Line]]]:
    """From 0 on, without long pauses, and not faster than anybody can see."""
    found: list[tuple[float, list[Line]]] = []
    now = before = frames[0][0]
    start = now
    for at, lines in frames:
        now += min(at - before, _IDLE)
        before = at
        if found and now - start - found[-1][0] < 0.03:
            found[-1] = (found[-1][0], lines)
        else:
            found.append((round(now - start, 2), lines))
    return found


def _texts(row: int, line: Line) -> Iterator[str]:
    for column, text, colour, bold in line:
        x, y = _EDGE + column * _WIDE, _EDGE + (row + 0.75) * _HIGH
        weight = ' font-weight="bold"' * bold
        yield (
            f'<text x="{x:.1f}" y="{y:.1f}" textLength="{len(text) * _WIDE:.1f}" lengthAdjust="spacingAndGlyphs" '
            f'fill="{colour}"{weight}>{escape(text)}</text>'
        )


@contextmanager
def _stage() -> Iterator[tuple[str, dict[str, str]]]:
    """A directory with the script, and an environment in which the command is that of this interpreter."""
    directory = tempfile.mkdtemp(prefix="ddmq-hpc-recording-")
    try:
        Path(directory, "count.sh").write_text(SCRIPT, encoding="utf-8")
        Path(directory, ".inputrc").write_text("set enable-bracketed-paste off\n", encoding="utf-8")
        yield (
            directory,
            {
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": directory,
                "INPUTRC": f"{directory}/.inputrc",
                "TERM": "xterm-256color",
                "LC_ALL": "C.UTF-8",
                "PS1": "$ ",
                "DDMQ_HPC_ROOT": f"{directory}/queues",
            },
        )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def session() -> str:
    with _stage() as (directory, environment):
        recording = Recording(92, 25, ["bash", "--norc", "--noprofile"], directory, environment)
        try:
            recording.watch(1)
            for command in SESSION:
                recording.run(command)
        finally:
            recording.close()
        return svg(recording, "A session: a queue is made, filled, worked off, asked about, and worked off again")


def watch() -> str:
    with _stage() as (directory, environment):
        command = ["ddmq-hpc", "create", "-f", "tasks", "--set", "requeue_limit=0"]
        subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True)
        names = "".join(f"sample{number}\n" for number in range(1, 181))
        command = ["ddmq-hpc", "publish", "tasks", "--each-line", "-", "-q"]
        subprocess.run(command, cwd=directory, env=environment, check=True, input=names, text=True)
        task = 'case $1 in *[37]7) echo "no reads in $1" >&2; exit 3;; *9) sleep 4;; esac; sleep 1.$((${1#sample} % 7))'
        work = ["ddmq-hpc", "work", "tasks", "-j", "3", "--", "sh", "-c", task, "-", "{}"]
        workers = [
            subprocess.Popen([*_on(host), *work], cwd=directory, env=environment, stderr=subprocess.DEVNULL)
            for host in ("node1", "node2")
        ]
        try:
            time.sleep(12)
            recording = Recording(92, 24, ["ddmq-hpc", "status", "--watch", "1s"], directory, environment)
            try:
                recording.watch(16)
            finally:
                recording.close()
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
        return svg(recording, "A live view: messages of a queue by state, its pace, failures, workers and their tasks")


def _on(host: str) -> list[str]:
    """In front of a command: a host of that name, for root."""
    return ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "-"] if os.getuid() == 0 else []


if __name__ == "__main__":
    PICTURES.joinpath("session.svg").write_text(session(), encoding="utf-8")
    PICTURES.joinpath("watch.svg").write_text(watch(), encoding="utf-8")
