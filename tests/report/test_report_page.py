"""The page that `ddmq-hpc report` writes: one file, harmless whatever the journal says, put in place whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pasts import Past, a_day, many

from ddmq_hpc import Broker
from ddmq_hpc.cli.main import cli
from ddmq_hpc.report.page import _json, report
from ddmq_hpc.report.texts import duration, hours, label, memory, number, percent, shown

COMMAND = str(Path(sys.executable).with_name("ddmq-hpc"))
HOSTILE = "</script><script>alert(1)</script><!-- \u2028 <b>bold</b> &amp; \x1b[31m \u202etxt"


class Outline(HTMLParser):
    """Tags that a browser would see, and the text of the charts' data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def charts(self) -> dict[str, Any]:
        return json.loads(next(text for text in self.texts if text.startswith('{"timeline":')))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(a_day(tmp_path_factory.mktemp("day") / "root", time.time()))


def test_the_page_needs_nothing_else(day: str) -> None:
    outline = Outline(day)
    assert not outline.named("link") and not outline.named("img")
    assert all("src" not in attributes for attributes in outline.named("script"))
    (policy,) = (str(meta["content"]) for meta in outline.named("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "http" not in policy
    assert not re.search(r"script-src[^;]*unsafe-inline", policy)


def test_the_page_says_who_it_is_for(day: str) -> None:
    outline = Outline(day)
    assert outline.named("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in outline.named("meta"))
    headings = [tag for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1" and set(headings[1:]) == {"h2"}
    assert all(attributes.get("scope") == "col" for attributes in outline.named("th"))
    scrolled = [attributes for attributes in outline.named("div") if attributes.get("class") == "scroll"]
    assert scrolled and all(attributes["tabindex"] == "0" and attributes["role"] for attributes in scrolled)
    charts = [attributes for attributes in outline.named("div") if attributes.get("class") == "chart"]
    assert charts and all(attributes["aria-label"] for attributes in charts)


def test_plotly_understands_every_chart(day: str, tmp_path: Path) -> None:
    """It knows each property, and each value but for colours, which the page looks up."""
    from plotly.graph_objects import Figure

    for page in (day, report(many(tmp_path / "root", time.time(), 3000, 4, 4))):
        charts = Outline(page).charts
        assert {"timeline", "throughput", "backlog", "efficiency", "durations", "memory"} <= charts.keys()
        for chart in charts.values():
            text = re.sub(r'"@[a-z]+"', '"red"', json.dumps({"data": chart["data"], "layout": chart["layout"]}))
            assert Figure(json.loads(text)).data


def test_every_colour_has_a_meaning(day: str) -> None:
    used = set(re.findall(r'"@([a-z]+)"', json.dumps(Outline(day).charts)))
    light, dark = (
        re.findall(r"--([a-z]+):", day.split("@media (prefers-color-scheme: dark)")[0]),
        re.findall(r"--([a-z]+):", day.split("@media (prefers-color-scheme: dark)")[1].split("</style>")[0]),
    )
    assert used and used <= set(light) and used <= set(dark)


def test_the_words_of_others_are_no_html(tmp_path: Path) -> None:
    past = Past(tmp_path / "root", time.time() - 1000)
    pack = past.pack(0)
    words = {"worker": HOSTILE, "slot": 1, "task": HOSTILE, "error": HOSTILE, "job": HOSTILE}
    past.attempt("nacked", f"{pack}.0", 10, 20, HOSTILE, exit=1, **words)
    page = report(past.finish())
    clean = report(Past(tmp_path / "other", time.time()).queue)
    assert page.lower().count("<script") == clean.lower().count("<script") == 3
    assert page.count("</script") == 3 and "<!--" not in page
    assert not Outline(page).named("b")
    for letter in "\u2028\x1b\u202e":
        assert letter not in page
    assert "\\u2028" in page and "\\x1b[31m" in page and "\\u202e" in page
    ((hover,),) = (trace["hovertext"] for trace in Outline(page).charts["timeline"]["data"])
    assert re.findall("<[^>]*>", hover) == ["<br>", "<br>"]
    assert "<" not in Outline(page).charts["timeline"]["layout"]["yaxis"]["ticktext"][0]


def test_data_in_a_script_means_nothing_to_html() -> None:
    text = _json({"<!--": HOSTILE})
    assert not re.search("[<>&\u2028\u2029]", text) and json.loads(text) == {"<!--": HOSTILE}


def test_texts_are_cut_and_on_one_line() -> None:
    assert shown("a" * 50, 20) == "a" * 14 + "…" + "a" * 5
    assert shown("a\nb\t\x07\x00") == "a\\nb\\t\\x07\\x00"
    assert shown("\ud800") == "\\ud800"
    assert shown("Zürich ☃") == "Zürich ☃"
    assert len(shown("b" * 10**7)) == 200
    assert label("<b>&lt;") == "&lt;b&gt;&amp;lt;"


def test_numbers_as_people_read_them() -> None:
    assert [duration(value) for value in (0.0021, 4.25, 60, 3600, 3725, 7260)] == [
        "2.1 ms",
        "4.25 s",
        "1m",
        "1h",
        "1h02m",
        "2h01m",
    ]
    assert [hours(value) for value in (0.002, 90, 3600, 4.5e6)] == ["2 ms", "1m30s", "1 h", "1\u202f250 h"]
    assert [memory(value) for value in (100, 2048, 3 * 1024**3)] == ["100 B", "2 KiB", "3 GiB"]
    assert number(1234567) == "1\u202f234\u202f567"
    assert [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)] == ["0 %", "<1 %", "50 %", ">99 %", "100 %"]


def test_the_command(tmp_path: Path) -> None:
    root = tmp_path / "root"
    broker = Broker(root, create=True)
    broker.publish("q", "first")
    broker.ack(broker.consume("q"))
    broker.close()

    def call(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([COMMAND, "report", *arguments], cwd=tmp_path, capture_output=True, timeout=120)

    done = call(str(root), "q")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"wrote report.html\n")
    assert "<h1>Queue q</h1>" in (tmp_path / "report.html").read_text()
    done = call(str(root), "q", "--last", "1h", "-o", "-")
    assert done.returncode == 0 and done.stderr == b""
    assert b"the last 1h asked for" in done.stdout and done.stdout.rstrip().endswith(b"</html>")
    assert call(str(root), "nothing").returncode == 4
    assert call(str(root), "q", "-o", str(tmp_path)).returncode == 2
    done = call(str(root), "q", "-o", "no/such/directory.html")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Broker(tmp_path / "root", create=True).create_queue("q")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = CliRunner().invoke(cli, ["report", str(tmp_path / "root"), "q", "-o", str(tmp_path / "page.html")])
    assert found.exit_code == 1 and "ddmq-hpc[report]" in str(found.exception)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_a_hundred_thousand_tasks_take_seconds_and_a_small_page(tmp_path: Path) -> None:
    """Of its own time: how much others take of this machine says nothing about it."""
    queue = many(tmp_path / "root", time.time())
    began = time.process_time()
    page = report(queue)
    assert time.process_time() - began < 10
    assert len(page.encode()) < 10_000_000
    assert re.search("<dt>done</dt><dd>9\\d\u202f\\d{3}</dd>", page)
