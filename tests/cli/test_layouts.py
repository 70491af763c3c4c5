"""Roots as older versions left them are read; of layouts that this version does not know every command says so, and
changes nothing."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from command import Run

from ddmq_hpc.cli.main import COMMANDS
from ddmq_hpc.settings import LAYOUT

KEPT = Path(__file__).parents[1] / "data" / "layouts"
ID = "1795743404890634240-0frqnajxe.0"
LEASE = "tasks/2.1795743405895505408-06rzedcjd.0-1.0-0~1795743415220+5000@vm:0:0:f0b9d397:z4jopzbw.1"
#: Commands that look into no root: `doctor` tests what is below one.
WITHOUT = {"completion", "doctor", "help", "lock", "progress"}
#: What each of the others is given. ROOT stands for the root.
GIVEN = {
    "create": "ROOT more",
    "publish": "ROOT tasks text",
    "groups": "ROOT tasks",
    "list": "ROOT tasks",
    "show": f"ROOT tasks {ID}",
    "history": f"ROOT tasks {ID}",
    "logs": f"ROOT tasks {ID}",
    "peek": "ROOT tasks",
    "explain": "ROOT tasks",
    "retry": "ROOT tasks --all",
    "wait": "ROOT tasks --timeout 1s",
    "report": "ROOT tasks -o /dev/null",
    "work": "ROOT tasks -- true",
    "exec": "ROOT tasks -- true",
    "pull": "ROOT tasks",
    "ack": f"ROOT {LEASE}",
    "nack": f"ROOT {LEASE}",
    "release": f"ROOT {LEASE}",
    "touch": f"ROOT {LEASE}",
    "extend": f"ROOT {LEASE}",
    "submit": "ROOT tasks --scheduler slurm --dry-run -- true",
    "scale": "ROOT tasks --max 1",
    "workers": "ROOT",
    "recover": "ROOT",
    "dead": "list ROOT tasks",
    "cancel": "ROOT tasks --all --yes",
    "pause": "ROOT tasks",
    "resume": "ROOT tasks",
    "drain": "ROOT tasks",
    "journal": "export ROOT tasks",
    "metrics": "ROOT",
    "status": "ROOT",
    "clean": "ROOT",
    "purge": "ROOT tasks --yes",
    "delete": "ROOT tasks --yes",
    "import": "ddmq ROOT",
    "consume": "ROOT tasks",
    "view": "ROOT",
    "del_msg": f"ROOT tasks {ID}",
}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A root of layout 1 as data/layouts/make-1 made it."""
    with tarfile.open(KEPT / "1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(tmp_path)
    return tmp_path / "root"


def everything(place: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in place.rglob("*")
    }


def test_layout_1_is_read(kept: Path, run: Run) -> None:
    root = str(kept)
    listed = run("list", "--format", "json", root, "tasks").stdout
    for text in ("line 6", "tried before", "of a group", "after the group", "later", "broken"):
        assert text in listed
    assert "layout-1" in run("list", "--state", "done", "--format", "json", root, "tasks").stdout
    assert "no-requeue" in run("dead", "list", root, "tasks").stdout
    assert run("groups", root, "tasks").stdout.splitlines()[1].split()[:3] == ["first", "unfinished", "1"]
    assert "nacked" in run("journal", "export", root, "tasks").stdout


def test_layout_1_is_worked_off(kept: Path, run: Run) -> None:
    """What was leased when it was kept, too: that lease is over."""
    root = str(kept)
    run("retry", root, "tasks", "--all")
    run("publish", root, "tasks", "again", "--key", "once")
    seen = kept.parent / "seen"
    run("work", root, "tasks", "--", "sh", "-c", 'echo "$1" >>"$2"', "sh", "{}", str(seen))
    done = seen.read_text()
    expected = ["broken", "tried before", '"seed"', "of a group", "after the group", "line 1", "line 6", "later"]
    assert [text for text in expected if text not in done] == []
    assert "again" not in done and len(done.splitlines()) == 12
    run("pull", root, "tasks", code=3)


def test_a_root_of_this_layout_is_kept() -> None:
    assert (KEPT / f"{LAYOUT}.tar.gz").exists()


def test_every_command_is_tried() -> None:
    assert set(GIVEN) | WITHOUT | {"json"} == set(COMMANDS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("layout: 2", "layout 2 is newer than what this version reads (1); update ddmq-hpc"),
        ("{layout: 2, sharding: {depth: 3}}", "layout 2 is newer than what this version reads (1); update ddmq-hpc"),
        ("layout: one", "layout 'one' is none that this version reads; the line was `layout: 1`"),
        ("layout: true", "layout True is none that this version reads; the line was `layout: 1`"),
        ("timeout: 600", "has no line `layout: 1`: is it of ddmq?"),
    ],
)
def test_other_layouts_are_refused(line: str, said: str, kept: Path, run: Run) -> None:
    (kept / "ddmq.yaml").write_text(f"{line}\n")
    before = everything(kept)
    commands = GIVEN if line == "layout: 2" else {name: GIVEN[name] for name in ("publish", "list", "delete")}
    for name, words in commands.items():
        answer = run(name, *words.replace("ROOT", str(kept)).split(), code=2, cwd=old_root(kept))
        assert answer.stdout == "", name
        assert f"{kept}/ddmq.yaml: {said}" in answer.stderr, (name, answer.stderr)
    assert everything(kept) == before


def old_root(kept: Path) -> str:
    """The directory above, in which there is a root of ddmq named `ddmq`, too."""
    queue = kept.parent / "ddmq" / "old" / "work"
    if not queue.exists():
        os.makedirs(queue)
        (kept.parent / "ddmq" / "ddmq.yaml").write_text("message_timeout: 600\n")
    return str(kept.parent)


def test_other_layouts_are_refused_in_json(kept: Path, run: Run) -> None:
    (kept / "ddmq.yaml").write_text("layout: 2\n")
    asked = json.dumps({"cmd": "publish", "root": str(kept), "queue": "tasks", "message": 1})
    answer = json.loads(run("json", "-", stdin=f"{asked}\n", code=None).stdout)
    assert answer["ok"] is False and "update ddmq-hpc" in json.dumps(answer)


def test_a_root_of_ddmq_is_told_what_to_do(kept: Path, run: Run) -> None:
    place = old_root(kept)
    assert "take it over with `ddmq-hpc import" in run("status", "ddmq", cwd=place, code=2).stderr
