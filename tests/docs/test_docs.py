"""What the documentation says is what happens: every code block runs, every link leads somewhere."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pages
import pytest
from pages import BLOCK, TOP, is_there

PAGES = [path for path in [*TOP.glob("*.md"), *TOP.glob("docs/*.md")] if path.name != "reference.md"]
WITH_SNAKEMAKE = pytest.mark.skipif(
    importlib.util.find_spec("snakemake") is None, reason="snakemake cannot be imported; it wants Python 3.11"
)


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("README.md", "Hello"),
        ("docs/moving-from-ddmq.md", "Hello"),
        ("docs/workers.md", "squared: 400"),
        ("docs/locks.md", "one of four"),
        ("docs/monitoring.md", "\nddmq_hpc_attempts_last_hour{"),
        ("docs/steering.md", "retried 1 message"),
        ("docs/report.md", "Queue tasks: what happened"),
        ("docs/doctor.md", "0 failures"),
        ("docs/groups.md", "mail is done"),
        ("docs/shared.md", "holds  unknown"),
        ("docs/journal.md", " wall\n" if is_there("r") else "attempt,state,wall"),
        ("docs/shell.md", "_ddmq_hpc_completion"),
        ("docs/index.md", "holders"),
        ("docs/languages.md", "R: 225" if is_there("r") else "shell: 3 letters"),
        ("docs/moving-to.md", "#SBATCH --array=1-20"),
        ("docs/explain.md", "No worker is registered at this queue."),
        ("docs/clusters.md", "#SBATCH --time=04:00:00"),
        pytest.param("docs/snakemake.md", "\n81\n", marks=WITH_SNAKEMAKE),
    ],
)
def test_every_block_runs_as_printed(page: str, shown: str, tmp_path: Path) -> None:
    assert shown in pages.run(page, tmp_path)


def test_blocks_that_are_not_run_say_why() -> None:
    reasons = [match["reason"] for path in PAGES for match in BLOCK.finditer(path.read_text(encoding="utf-8"))]
    assert any(reasons)
    assert all(len(reason) > 10 for reason in reasons if reason)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_reference_is_what_the_code_says() -> None:
    """`python docs/build_reference.py` writes it. Help texts are laid out by click, whose versions differ in blanks."""
    sys.path.insert(0, str(TOP / "docs"))
    try:
        import build_reference
    finally:
        sys.path.pop(0)
    written = (TOP / "docs" / "reference.md").read_text(encoding="utf-8")
    assert re.findall(r"\S+", written) == re.findall(r"\S+", build_reference.page())


def test_every_reason_is_on_its_page() -> None:
    page = (TOP / "docs" / "explain.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (TOP / "ddmq_hpc" / "explaining").glob("*.py"))
    codes = set(re.findall(r'Reason\("([a-z-]+)"', sources))
    assert len(codes) > 25
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


def test_every_module_is_on_the_map() -> None:
    text = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (TOP / "ddmq_hpc").glob("*.py"):
        if not path.name.startswith("__") and path.name != "legacy_names.py":
            assert f"`{path.name}`" in text, path.name
