"""Three members of a group and a stranger, all of them real users. They need no accounts: numbers do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from members import LAB, OTHERS, User, interpreter

#: What the command needs beside the standard library.
_LIBRARIES = ("click", "yaml", "psutil", "filelock")


@pytest.fixture(scope="session")
def libraries() -> Iterator[Path]:
    if os.getuid() != 0 or not shutil.which("setpriv") or not Path(interpreter()).exists():
        if os.environ.get("CI"):
            pytest.fail("these tests need root, setpriv and an interpreter for everybody")
        pytest.skip("only root can act for other users")
    top = Path(tempfile.mkdtemp(prefix="ddmq-hpc-lib-"))
    top.chmod(0o755)
    shutil.copytree(Path(__file__).parents[2] / "ddmq_hpc", top / "ddmq_hpc", ignore=shutil.ignore_patterns("*.pyc"))
    for name in _LIBRARIES:
        found = __import__(name).__file__
        assert found
        shutil.copytree(Path(found).parent, top / name, ignore=shutil.ignore_patterns("*.pyc", "tests"))
    for path in (top, *top.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield top
    shutil.rmtree(top)


@pytest.fixture
def place(libraries: Path) -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="ddmq-hpc-shared-"))
    top.chmod(0o755)
    (top / "lib").symlink_to(libraries)
    for name, mode in (("node", 0o1777), ("home", 0o755)):
        (top / name).mkdir()
        (top / name).chmod(mode)
    os.chown(top / "home", 7001, 7001)
    yield top
    shutil.rmtree(top)


@pytest.fixture
def ann(place: Path) -> User:
    """Whose root it is. Nothing that she makes can be read by others, as far as her umask goes."""
    return User(place, 7001, 0o077)


@pytest.fixture
def ben(place: Path) -> User:
    """A member whose umask lets nobody else write."""
    return User(place, 7002, 0o022)


@pytest.fixture
def cleo(place: Path) -> User:
    """A member with the umask that suits a group."""
    return User(place, 7003, 0o007)


@pytest.fixture
def stranger(place: Path) -> User:
    return User(place, 7009, 0o022, OTHERS)


@pytest.fixture
def shared(ann: User) -> Path:
    """The queue `tasks`, which Ann made for the group."""
    ann.run("create", "-f", "tasks", "--group", str(LAB))
    return ann.root / "tasks"


@pytest.fixture
def enemy(place: Path) -> User:
    """Nobody that anything is shared with."""
    return User(place, 7010, 0o000, OTHERS)


@pytest.fixture
def box(ann: User) -> Path:
    """The queue `tasks` of Ann, into which everybody may drop messages."""
    ann.run("create", "-f", "tasks", "--mode", "0711")
    return ann.root / "tasks"


@pytest.fixture
def signed_box(ann: User, stranger: User, place: Path) -> Path:
    """The same for signed messages; both have the key."""
    for user in (ann, stranger):
        key = place / f"key{user.uid}"
        key.write_text("k" * 43)
        key.chmod(0o600)
        os.chown(key, user.uid, user.uid)
        user.environ["DDMQ_HPC_KEY_FILE"] = str(key)
    ann.environ["HOME"] = str(place / "home")
    ann.run("create", "-f", "tasks", "--mode", "0711", "--set", "sign=required")
    return ann.root / "tasks"
