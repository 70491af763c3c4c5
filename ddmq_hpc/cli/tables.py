"""Tables for people: columns with widths, and on a terminal no wider than it is."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Callable

from ddmq_hpc.cli.common import out, printable, terminal_width

_GAP = "  "
#: Letters of a column of text that are left when the terminal is narrow.
_LEAST = 12


def out_table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numbers: int = 0,
    paint: Callable[[int, list[str]], list[str]] = lambda line, cells: cells,
    spare: Sequence[str] = (),
) -> None:
    """Rows below their head, in columns; the last `numbers` of them are set right. `paint` may colour the cells of a
    line, when they have their widths; line 0 is the head.

    On a terminal that is too narrow the columns `spare` are left out, the first ones first, and then texts are cut. A
    pipe gets everything.
    """
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    texts = len(head) - numbers
    shown, widths = _fitted(cells, texts, spare, terminal_width())
    for number, line in enumerate(cells):
        padded = []
        for at, width in enumerate(widths):
            cell = _shortened(line[at], width)
            padded.append(cell.ljust(width) if at < texts else cell.rjust(width))
        painted = paint(number, padded)
        out(_GAP.join(painted[at] for at in shown).rstrip())


def out_csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Rows as csv below their head: those `columns` of them."""
    import csv

    from ddmq_hpc.exporting import harmless

    writer = csv.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: harmless(value) for name, value in row.items()} for row in rows)


def _fitted(
    cells: Sequence[Sequence[str]], texts: int, spare: Sequence[str], room: int | None
) -> tuple[list[int], list[int]]:
    """Which columns are shown, and the widths of all."""
    head = cells[0]
    widths = [max(map(len, column)) for column in zip(*cells)]
    shown = list(range(len(head)))
    if room is None:
        return shown, widths
    for name in spare:
        if _total(shown, widths) > room and name in head:
            shown.remove(head.index(name))
    while (over := _total(shown, widths) - room) > 0:
        longest = max((at for at in shown if at < texts), key=lambda at: widths[at])
        if widths[longest] <= _LEAST:
            break
        second = max((widths[at] for at in shown if at < texts and at != longest), default=0)
        widths[longest] = max(widths[longest] - over, _LEAST, min(second, widths[longest] - 1))
    return shown, widths


def _shortened(text: str, width: int) -> str:
    """Both ends of it: names differ in their ends, and a queue's is followed by `(paused)`."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[-end:]}"


def _total(shown: Sequence[int], widths: Sequence[int]) -> int:
    return sum(widths[at] for at in shown) + len(_GAP) * (len(shown) - 1)
