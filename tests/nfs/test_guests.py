"""The guests are what the other tests take them for."""

from __future__ import annotations

import time

import pytest
from guests import Site

pytestmark = pytest.mark.nfs


def test_clients_are_hosts_of_their_own_on_one_file_system(site: Site) -> None:
    one, other, _ = site.clients
    assert {client.check("hostname").strip() for client in site.clients} == {"c1", "c2", "c3"}
    boots = {client.check("cat", "/proc/sys/kernel/random/boot_id") for client in site.clients}
    assert len(boots) == 3
    one.check("bash", "-c", "echo seen >/nfs4/by-all")
    assert other.check("cat", "/nfs3/by-all") == "seen\n"
    assert "vers=3," in other.check("grep", "nfs3", "/proc/mounts")
    assert "vers=4.2," in other.check("grep", "nfs4", "/proc/mounts")


def test_replies_are_late_when_told_to_be(site: Site) -> None:
    client = site.clients[0]
    site.network.delay(site.server, 0.5)
    try:
        begun = time.monotonic()
        client.check("touch", "/nfs4/late")
        assert time.monotonic() - begun > 0.5
    finally:
        site.network.heal()


def test_a_server_comes_back_with_what_it_was_told_to_keep(site: Site) -> None:
    client = site.clients[0]
    client.check("bash", "-c", "echo kept >/nfs4/kept; sync")
    site.server.cut_power()
    reading = client.start("cat", "/nfs4/kept", "/nfs4/kept")
    site.boot(site.server)
    assert reading.wait().stdout == "kept\nkept\n"


@pytest.mark.timeout(120)
def test_what_a_failed_test_leaves_is_gone_when_the_site_is_renewed(site: Site) -> None:
    one = site.clients[0]
    site.network.cut(site.server, one)
    hanging = one.start("touch", "/nfs3/unanswered")
    time.sleep(1)
    assert not hanging.has_ended()
    site.renew()
    assert {client.run("touch", "/nfs3/answered", "/nfs4/answered").returncode for client in site.clients} == {0}
