"""What the documentation says is what happens: every code block runs, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PAGES = [path for path in [*TOP.glob("*.md"), *TOP.glob("docs/*.md")] if path.name != "reference.md"]
#: A fenced block, with the reason why it is not run when there is one.
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)
#: Blocks that install or test the project itself: they run wherever these tests run, around them.
AROUND = ("make demo", "pip install")


def blocks(path: Path) -> list[tuple[str, str]]:
    found = []
    for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
        text = match["text"]
        if match["reason"] or match["kind"] not in ("sh", "python") or any(word in text for word in AROUND):
            continue
        found.append((match["kind"], text))
    return found


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("README.md", "Hello"),
        ("docs/moving-from-ddmq.md", "Hello"),
        ("docs/workers.md", "squared: 400"),
        ("docs/locks.md", "one of four"),
        ("docs/doctor.md", "0 failures"),
        ("docs/clusters.md", "#SBATCH --time=04:00:00"),
    ],
)
def test_every_block_runs_as_printed(page: str, shown: str, tmp_path: Path) -> None:
    """In one shell, one after the other, as a reader would type them."""
    found = blocks(TOP / page)
    assert found
    script = ["set -euo pipefail"]
    for number, (kind, text) in enumerate(found):
        if kind == "python":
            (tmp_path / f"block{number}.py").write_text(text, encoding="utf-8")
            text = f"python block{number}.py\n"
        script.append(text)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DDMQ_HPC_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["TMPDIR"] = str(tmp_path)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert shown in done.stdout


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


def test_every_module_is_on_the_map() -> None:
    text = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (TOP / "ddmq_hpc").glob("*.py"):
        if not path.name.startswith("__") and path.name != "legacy_names.py":
            assert f"`{path.name}`" in text, path.name
