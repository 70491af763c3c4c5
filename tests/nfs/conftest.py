"""The site that the tests of this directory share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import gluster
import pytest
from guests import Site, running, why_not


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server and three clients. Where there can be none the tests are skipped, but in CI they fail."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with running(Path(tmp_path_factory.mktemp("nfs"))) as it:
        yield it


#: Whether the test before failed, or hung.
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if outcome.get_result().failed:
        item.session.stash[_FAILED] = True


@pytest.fixture(autouse=True)
def as_new(site: Site, request: pytest.FixtureRequest) -> None:
    """What a test leaves that failed, a cut in the network or commands that hang, is not for the next one. Nor is a
    guest whose kernel hung."""
    stash = request.session.stash
    guests = (site.server, *site.clients)
    if stash.get(_FAILED, False) or not all(guest.is_up() and guest.answers() for guest in guests):
        site.renew()
        stash[_FAILED] = False


@pytest.fixture(scope="session")
def volume(site: Site) -> str:
    """Where each client has GlusterFS."""
    gluster.serve(site)
    return gluster.MOUNT


@pytest.fixture(params=["NFS v3", "NFS v4.2", "GlusterFS"])
def place(request: pytest.FixtureRequest, site: Site) -> str:
    """A directory that all clients share, on each kind of file system in turn."""
    if request.param == "GlusterFS":
        return str(request.getfixturevalue("volume"))
    return {"NFS v3": "/nfs3", "NFS v4.2": "/nfs4"}[request.param]
