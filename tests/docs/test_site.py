"""The documentation site: built strictly, each link and anchor leads somewhere, nothing takes a network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocstrings") is None,
        reason="what builds the site is not installed; it wants Python 3.11",
    ),
]

TOP = Path(__file__).resolve().parents[2]
#: Attributes by which a page loads something as it is opened.
LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """What a page loads, where its links lead, and what can be led to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag in LOADS and given.get(LOADS[tag]) and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given[LOADS[tag]] or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(TOP / "docs/site/mkdocs.yml")]
    # A proxy that nobody is: whatever asked for something elsewhere would fail.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:9", "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "-d", str(directory)], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO ")] == []
    return directory


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_in_the_site_and_its_navigation(site: Path, pages: dict[Path, Page]) -> None:
    listed = {(site / link.partition("#")[0]).resolve() for link in pages[site / "index.html"].links}
    for source in TOP.glob("docs/*.md"):
        page = site / f"{source.stem}.html"
        assert page in pages and (page in listed or source.name == "index.md"), source.name


def test_links_and_their_anchors_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            if re.match(r"[a-z]+:", link) or link == ".":
                continue
            target, _, anchor = unquote(link).partition("#")
            there = (path.parent / target).resolve() if target else path
            assert there.exists(), f"{path.relative_to(site)} links to {link}"
            if anchor and there in pages and not anchor.startswith("__"):
                assert anchor in pages[there].anchors, f"{path.relative_to(site)} links to {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert [loaded for loaded in page.loaded if re.match(r"([a-z]+:)?//", loaded)] == [], path.relative_to(site)
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\(['\"]?)\s*['\"]?(?:https?:)?//[^)]*", styles) == []


def test_it_is_searched_from_the_disk(site: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(TOP / "tests" / "report"))
    try:
        from browser import PATHS, Browser
    finally:
        sys.path.pop(0)
    if not all(PATHS):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("chromium or chromium-driver is not installed")
    browser = Browser(tmp_path / "profile")
    try:
        browser.visit(site / "slurm" / "index.html")
        browser.run(
            """
            const field = document.querySelector("input.md-search__input")
            field.focus()
            field.value = "containment"
            field.dispatchEvent(new Event("keyup"))
            """
        )
        found = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
        browser.wait(lambda: browser.run(found), 30)
        assert any("architecture.html" in link for link in browser.run(found))
        assert [address for address in browser.requests() if not address.startswith(("file:", "data:"))] == []
        assert browser.complaints() == []
    finally:
        browser.close()


def test_the_interface_of_python_is_in_the_reference(site: Path) -> None:
    import ddmq_hpc

    page = (site / "api.html").read_text(encoding="utf-8")
    names = [name for name in ddmq_hpc.__all__ if name != "broker"]  # `Broker`, as ddmq spelled it
    assert [name for name in names if not re.search(rf'id="ddmq_hpc\.(errors\.)?{name}"', page)] == []
    for method in ("publish", "publish_many", "consume", "ack", "nack", "extend", "retry", "wait"):
        assert f'id="ddmq_hpc.Broker.{method}"' in page, method


def test_the_journal_is_in_the_reference(site: Path) -> None:
    from ddmq_hpc.exporting import COLUMNS

    page = (site / "reference.html").read_text(encoding="utf-8")
    assert [column for column in COLUMNS if f"<code>{column}</code>" not in page] == []
