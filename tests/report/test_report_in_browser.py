"""The page as a browser shows it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from browser import Browser
from pasts import Past, a_day, many

from ddmq_hpc.report.page import report
from ddmq_hpc.report.texts import shown

pytestmark = pytest.mark.slow

#: What has no room: elements that reach beyond the window, but for what lies in a box that scrolls.
BEYOND = """
return [...document.querySelectorAll("body *")]
  .filter((one) => !one.closest(".scroll table") && one.getBoundingClientRect().right > window.innerWidth + 1)
  .map((one) => `${one.tagName}.${one.getAttribute("class")}`);
"""
#: Of each chart: how many bars, areas or images it has.
DRAWN = """
return Object.fromEntries([...document.querySelectorAll(".chart")].map((one) => [one.id, one.querySelectorAll(
  ".bars path, .scatterlayer path.js-fill, .heatmaplayer image").length]));
"""
COLOURS = """
const path = document.querySelector("#chart-throughput .bars path");
return [getComputedStyle(document.body.parentElement).backgroundColor, getComputedStyle(path).fill,
        getComputedStyle(document.querySelector("#chart-throughput .xtick text")).fill];
"""
HOSTILE = (
    "</script><script>window.hacked=1</script><!-- <img src=x onerror='window.hacked=2'> <b>bold</b> "
    "<a href='javascript:window.hacked=3'>here</a> &lt;i&gt; $x$ %{x} \u2028 \x1b[31m \u202etxt"
)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("day")
    (directory / "page.html").write_text(report(a_day(directory / "root", time.time())), encoding="utf-8")
    return directory / "page.html"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("crowd")
    (directory / "page.html").write_text(report(many(directory / "root", time.time(), 4000, 12, 4)), encoding="utf-8")
    return directory / "page.html"


@pytest.mark.parametrize("page", ["day", "crowd"])
@pytest.mark.parametrize("width", [1280, 390])
def test_all_is_drawn_and_has_room(browser: Browser, request: pytest.FixtureRequest, page: str, width: int) -> None:
    path = request.getfixturevalue(page)
    browser.requests(), browser.complaints()
    browser.open(path, width)
    assert browser.complaints() == []
    # Plotly makes the images of heat maps itself.
    assert [url for url in browser.requests() if not url.startswith("data:")] == [path.resolve().as_uri()]
    drawn = browser.run(DRAWN)
    assert len(drawn) >= 9 and all(drawn.values()), drawn
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run(BEYOND) == []


def test_few_tasks_have_a_bar_each(browser: Browser, day: Path) -> None:
    browser.open(day)
    bars = browser.run("return document.querySelectorAll('#chart-timeline .bars .point path').length")
    told = browser.run("return document.querySelector('section[aria-labelledby=timeline] .note').textContent")
    assert bars > 400 and told.startswith(f"{bars} attempts")


def test_dark_and_light_differ_and_follow(browser: Browser, day: Path) -> None:
    browser.open(day)
    light = browser.run(COLOURS)
    browser.look(1280, dark=True)
    dark = browser.run(COLOURS)
    assert all(one != other for one, other in zip(light, dark)), (light, dark)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run(COLOURS) == light
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert browser.run(COLOURS) == dark
    browser.look(1280)
    assert browser.run(COLOURS) == light and browser.complaints() == []


def test_the_page_follows_the_window(browser: Browser, day: Path) -> None:
    browser.open(day, 1280)
    browser.look(390)
    browser.wait(lambda: browser.run(BEYOND) == [])
    assert browser.run("return document.documentElement.scrollWidth") <= 390


def test_charts_fit_on_paper(browser: Browser, day: Path) -> None:
    browser.open(day)
    browser.on_paper()
    wrong = """
    return [...document.querySelectorAll(".chart")].filter((one) => {
      const drawn = one.querySelector(".main-svg").getBoundingClientRect().width;
      return drawn < 200 || drawn > one.clientWidth;
    }).map((one) => one.id);
    """
    assert browser.run(wrong) == []


def test_a_chart_can_be_looked_at_closer(browser: Browser, day: Path) -> None:
    browser.open(day)
    shown_from = "return document.getElementById('chart-backlog')._fullLayout.xaxis.range[0]"
    before = browser.run(shown_from)
    browser.drag("#chart-backlog .nsewdrag", 100)
    browser.wait(lambda: browser.run(shown_from) > before)


def test_tables_can_be_reached_by_keys(browser: Browser, day: Path) -> None:
    browser.open(day, 390)
    moved = """
    const box = [...document.querySelectorAll(".scroll")].pop();
    box.focus(); box.scrollLeft = 50;
    return [document.activeElement === box, box.scrollLeft > 0];
    """
    assert browser.run(moved) == [True, True]


@pytest.mark.parametrize("words", ["<b>bold</b>", "<i>a</i>&lt;", "<a href='#'>x</a>", "a<br>b", "%{x}$x$", "@done"])
def test_labels_of_charts_are_no_markup(browser: Browser, tmp_path: Path, words: str) -> None:
    """Plotly understands some HTML in them."""
    past = Past(tmp_path / "root", time.time() - 1000)
    past.attempt("nacked", f"{past.pack(0)}.0", 10, 20, words, exit=1, wall=10, worker=words, task=words)
    (tmp_path / "page.html").write_text(report(past.finish()), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    for chart in ("timeline", "hosts"):
        assert browser.run(f"return document.querySelector('#chart-{chart} .ytick text').textContent") == words
    browser.run("Plotly.Fx.hover('chart-timeline', [{curveNumber: 0, pointNumber: 0}])")
    browser.wait(lambda: browser.run("return document.querySelector('#chart-timeline .hoverlayer text') !== null"))
    first = "return document.querySelector('#chart-timeline .hoverlayer text .line').textContent"
    assert browser.run(first) == words
    assert browser.run("return document.querySelector('svg a, main b, main i') === null")


def test_the_words_of_others_stay_words(browser: Browser, tmp_path: Path) -> None:
    past = Past(tmp_path / "root", time.time() - 1000)
    pack = past.pack(0)
    words = {"worker": HOSTILE, "slot": 1, "task": HOSTILE, "error": HOSTILE, "job": HOSTILE}
    past.attempt("nacked", f"{pack}.0", 10, 20, HOSTILE, exit=1, wall=10, **words)
    (tmp_path / "page.html").write_text(report(past.finish()), encoding="utf-8")
    browser.requests(), browser.complaints()
    browser.open(tmp_path / "page.html")
    cell = browser.run("return document.querySelector('section[aria-labelledby=slowest] td.text').textContent")
    assert cell == shown(HOSTILE)
    tick = browser.run("return document.querySelector('#chart-timeline .ytick text').textContent")
    assert tick == shown(f"{HOSTILE} #1", 26)
    browser.run("Plotly.Fx.hover('chart-timeline', [{curveNumber: 0, pointNumber: 0}])")
    browser.wait(lambda: browser.run("return document.querySelector('#chart-timeline .hoverlayer text') !== null"))
    lines = browser.run("return document.querySelector('#chart-timeline .hoverlayer text').textContent")
    assert lines.startswith(shown(HOSTILE, 80))
    browser.run("Plotly.Fx.hover('chart-hosts', [{curveNumber: 0, pointNumber: 0}])")
    assert browser.run(
        "return window.hacked === undefined && !document.querySelector('main b, main img, main a, svg a')"
    )
    assert browser.complaints() == [] and len(browser.requests()) == 1


def test_nothing_but_the_page_can_be_asked_for(browser: Browser, day: Path) -> None:
    """The policy holds even for a script that is on the page."""
    browser.open(day)
    browser.run("fetch('http://127.0.0.1:9/').catch(() => {}); new Image().src = 'http://127.0.0.1:9/x.png'")
    browser.run("const s = document.createElement('script'); s.text = 'window.hacked = 4'; document.body.append(s)")
    found: list[str] = []
    browser.wait(lambda: found.extend(browser.complaints()) or len(found) >= 3)
    assert all("Content Security Policy" in complaint for complaint in found), found
    assert browser.run("return window.hacked") is None


def test_a_queue_without_a_past_has_a_page_too(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(report(Past(tmp_path / "root", time.time()).queue), encoding="utf-8")
    browser.open(tmp_path / "page.html", 390)
    assert browser.complaints() == []
    assert "Nothing was attempted" in browser.run("return document.body.innerText")
    assert json.loads(browser.run("return document.getElementById('charts').textContent")) == {}
