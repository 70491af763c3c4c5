"""What mkdocs runs: pages of the repository beside docs/ become pages of the site, and links lead to them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

TOP = Path(__file__).resolve().parents[2]
#: Directories whose files are shown whole, each on a page.
SHOWN = [
    name
    for name in ("slurm", "workflows/consume-tasks", "workflows/parameter-sweep", "workflows/pilot-workers", "recipes")
    if (TOP / name).exists()
]
TITLES = {"slurm": "Job scripts"}
#: What runs of a workflow leave in its directory.
_LEFT = {"logs", "queues", "results"}
#: How each kind of file is coloured.
_KINDS = {".py": "python", ".yaml": "yaml", ".smk": "python", "": "python"}
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]*)(#[^)\s]*)?(?=\))")
#: Code, in which nothing is a link.
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def beside() -> dict[str, str]:
    """Markdown that is not in docs/: {its name in the site: its path in the repository}."""
    own = [
        path for place in (".", ".github") for path in sorted((TOP / place).glob("*.md")) if path.name != "README.md"
    ]
    found = {f"project/{path.name}": path.relative_to(TOP).as_posix() for path in own}
    for path in sorted(TOP.glob("benchmarks/*.md")):
        found[f"benchmarks/{path.name.replace('README', 'index')}"] = f"benchmarks/{path.name}"
    return found


def on_config(config: Any) -> Any:
    """The last part of the navigation is what is beside docs/. What mkdocs.yml does not name has a place there, too."""
    pages = list(beside())
    measured = [page for page in pages if page.startswith("benchmarks/")]
    own = [page for page in pages if page not in measured]
    named = set(_named(config.nav))
    there = [path.name for path in sorted(TOP.glob("docs/*.md"))] + [f"{name}/index.md" for name in SHOWN]
    more = [page for page in there if page not in named and page != "architecture.md"]
    config.nav.append({"Developers": ["architecture.md", *own, *more, {"Measurements": measured}]})
    return config


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named(part)


def on_files(files: Files, config: Any) -> Files:
    for uri, path in beside().items():
        files.append(File.generated(config, uri, content=(TOP / path).read_text(encoding="utf-8")))
    for directory in SHOWN:
        files.append(File.generated(config, f"{directory}/index.md", content=_listing(directory)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links between files of the repository become links between pages."""
    uri = page.file.src_uri
    here = _origin(uri)

    def led(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[2]))
        if not (TOP / target).exists():
            raise PluginError(f"{here} links to {match[2]}, which is not there")
        path, mark, anchor = f"{_place(target)}{match[3] or ''}".partition("#")
        return f"{match[1]}{posixpath.relpath(path, posixpath.dirname(uri) or '.')}{mark}{anchor}"

    parts = _CODE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(led, part) for number, part in enumerate(parts))


def _origin(uri: str) -> str:
    """The file of the repository that a page was made from: links in it are relative to that."""
    if posixpath.dirname(uri) in SHOWN:
        return f"{posixpath.dirname(uri)}/README.md"
    return beside().get(uri, f"docs/{uri}")


def _place(path: str) -> str:
    """Where a file or directory of the repository is in the site."""
    for uri, origin in beside().items():
        if origin == path:
            return uri
    for directory in SHOWN:
        if path in (directory, f"{directory}/README.md"):
            return f"{directory}/index.md"
        if path.startswith(f"{directory}/"):
            return f"{directory}/index.md#{_anchor(path)}"
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def _anchor(path: str) -> str:
    return re.sub(r"\W+", "-", path).lower()


def _listing(directory: str) -> str:
    """The README of a directory, or its title, and all its other files."""
    readme = TOP / directory / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else f"# {TITLES[directory]}\n"
    for path in sorted((TOP / directory).rglob("*")):
        name = path.relative_to(TOP).as_posix()
        if path == readme or not path.is_file() or _left_behind(path.relative_to(TOP / directory)):
            continue
        kind = _KINDS.get(path.suffix, "bash")
        text += f"\n## {path.relative_to(TOP / directory).as_posix()} {{ #{_anchor(name)} }}\n"
        text += f"\n````{kind}\n{path.read_text(encoding='utf-8').rstrip()}\n````\n"
    return text


def _left_behind(path: Path) -> bool:
    return path.parts[0] in _LEFT or any(part.startswith((".", "__")) for part in path.parts)
