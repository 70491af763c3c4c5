"""The page as a whole: one file that needs no other, and that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from ddmq_hpc import __version__
from ddmq_hpc.errors import DdmqError
from ddmq_hpc.installation import data
from ddmq_hpc.queue import Queue
from ddmq_hpc.report import numbers
from ddmq_hpc.report.collecting import Collected, collect
from ddmq_hpc.report.sections import notes, sections, tiles
from ddmq_hpc.report.texts import Clock, duration, shown


def report(queue: Queue, last: float | None = None) -> str:
    """The page about what happened in a queue, in the `last` seconds when given. Raises `StorageError`, and `DdmqError`
    when what draws the charts is not installed."""
    _need_extra()
    try:
        found = collect(queue, last)
    except OSError as error:
        raise queue.trouble(error, "read the journal") from error
    return render(found)


def render(found: Collected) -> str:
    """The page of what was collected."""
    from jinja2 import Environment
    from plotly.offline import get_plotlyjs

    period, clock = numbers.period(found), Clock(found.made)
    rows = list(sections(found, period, clock))
    plotly, program = get_plotlyjs(), data("report/report.js")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["zip"] = zip
    template = environment.from_string(data("report/report.html"))
    page: str = template.render(
        policy=_policy(plotly, program),
        generator=f"ddmq-hpc {__version__}",
        style=_trusted(data("report/report.css")),
        queue=found.queue,
        root=shown(found.root, 400),
        began=clock.text(period.began),
        ended=clock.text(period.ended),
        span=duration(period.span),
        asked=f", the last {duration(found.made - found.since)} asked for" if found.since else "",
        made=clock.text(found.made),
        zone=clock.zone,
        tiles=tiles(found, numbers.totals(found), period),
        rows=rows,
        attempts=len(found.runs),
        notes=notes(found),
        charts=_trusted(
            _json({part.chart.name: part.chart.to_dict() for row in rows for part in row.sections if part.chart})
        ),
        plotly=_trusted(plotly),
        program=_trusted(program),
    )
    return page


def _need_extra() -> None:
    from importlib.util import find_spec

    for module in ("jinja2", "plotly"):
        if find_spec(module) is None:
            raise DdmqError(f"reports need {module}, which is not installed: python3 -m pip install 'ddmq-hpc[report]'")


def _trusted(text: str) -> Any:
    """What goes into the page as it is: the project's own, plotly's, or made by `_json`."""
    from markupsafe import Markup

    return Markup(text)


def _json(value: Any) -> str:
    """JSON that means nothing to HTML: no tag, no comment, no entity can begin in it, and no line of a script ends."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _policy(*scripts: str) -> str:
    """No request to anywhere, and no script but these. Plotly sets styles of elements, and makes images from data."""
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
