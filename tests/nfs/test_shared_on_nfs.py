"""A queue that a group shares, on an export that takes root of the clients for nobody (`root_squash`, as most are):
three members, each on a host of their own, with umasks that let nobody else write, work on each other's messages and
clear away what one of them left; root of a client is no member."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from guests import Guest, Run, Site

pytestmark = [pytest.mark.nfs, pytest.mark.timeout(240)]

LAB = 7100
EXPORT = "/export/squashed"
MOUNTS = {"NFS v3": "/squashed3", "NFS v4.2": "/squashed4"}
OPTIONS = "acdirmin=1,acdirmax=3"
#: NFS v4 looks for options of their own at mount points alone.
EXPORTING = f"""
mkdir -p {EXPORT}
mountpoint -q {EXPORT} || mount --bind {EXPORT} {EXPORT}
exportfs -o rw,sync,root_squash,no_subtree_check,fsid=2,insecure 10.77.0.0/24:{EXPORT}
"""
MOUNTING = f"""
mkdir -p /squashed3 /squashed4
mountpoint -q /squashed3 || mount -t nfs -o vers=3,{OPTIONS} server:{EXPORT} /squashed3
mountpoint -q /squashed4 || mount -t nfs -o vers=4.2,{OPTIONS} server:/squashed /squashed4
"""
#: What nobody but its maker could change, whatever it is.
CLOSED = r"\( -type d ! -perm -2070 -o -type f ! -perm -060 -o ! -group 7100 \) ! -name 'ddmq*'"


class Member:
    """A user of the group at a client, or one who is not."""

    def __init__(self, client: Guest, root: str, uid: int, umask: int, group: int = LAB) -> None:
        self.client, self.root = client, root
        # Here the user may read what only root may, such as the interpreter. The server asks for the user alone.
        self._as = [
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={group}"),
            *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
            *("sh", "-c", f'umask {umask:03o}; exec "$@"', "sh"),
        ]

    def start(self, *words: object) -> Run:
        return self.client.start(*self._as, *map(str, words))

    def command(self, verb: str, *words: object) -> Run:
        return self.start(sys.executable, "-m", "ddmq_hpc", verb, *words)

    def run(self, verb: str, *words: object) -> str:
        """What `ddmq-hpc` prints of the queue `tasks`."""
        return done(self.command(verb, self.root, "tasks", *words))


def done(run: Run) -> str:
    ended = run.wait(60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def ready(member: Member) -> int:
    (found,) = json.loads(member.run("status", "--format", "json"))["queues"]
    return int(found["ready"])


@pytest.fixture(params=MOUNTS)
def root(request: pytest.FixtureRequest, site: Site) -> Iterator[str]:
    site.server.check("bash", "-ec", EXPORTING)
    for client in site.clients:
        client.check("bash", "-ec", MOUNTING)
    site.server.check("bash", "-ec", f"rm -rf {EXPORT}/*; mkdir {EXPORT}/home; chown 7001:7001 {EXPORT}/home")
    yield f"{MOUNTS[request.param]}/home/root"
    for client in site.clients:
        client.check("umount", *MOUNTS.values())


@pytest.fixture
def members(site: Site, root: str) -> tuple[Member, Member, Member]:
    """Ann, who makes the queue, Ben and Cleo."""
    uids = ((7001, 0o077), (7002, 0o022), (7003, 0o077))
    ann, ben, cleo = (Member(client, root, *one) for client, one in zip(site.clients, uids))
    done(ann.command("create", "-f", root, "tasks", "--group", LAB))
    return ann, ben, cleo


def test_members_work_on_each_others_messages(site: Site, members: tuple[Member, Member, Member]) -> None:
    ann, ben, cleo = members
    for member in members:
        member.run("publish", f"of {member.client.name}")
    for taker, settler in ((ben, cleo), (cleo, ann), (ann, ben)):
        receipt = json.loads(taker.run("pull"))["receipt"]
        settler.run("ack", receipt)
    assert ready(ann) == 0
    outcomes = site.server.check("bash", "-c", f"cat {EXPORT}/home/root/tasks/journal/*")
    assert sorted(json.loads(line)["state"] for line in outcomes.splitlines()) == ["acked"] * 3


def test_what_one_left_is_cleared_away_by_another(site: Site, members: tuple[Member, Member, Member]) -> None:
    """A lease that ran out, and half a file."""
    ann, ben, cleo = members
    ben.run("publish", "again")
    ben.run("pull", "--lease", "1s")
    half = f"{ben.root}/tasks/tmp/1700000000000000000-0aaaaaaaa"
    done(ben.start("sh", "-c", f"echo half > {half}; touch -d '2 hours ago' {half}"))
    message = json.loads(cleo.run("pull", "--wait", "30s"))
    assert (message["message"], message["attempt"]) == ("again", 2)
    cleo.run("ack", message["receipt"])
    ann.run("clean")
    assert site.server.check("ls", f"{EXPORT}/home/root/tasks/tmp") == ""


def test_workers_of_members_run_what_members_published(members: tuple[Member, Member, Member]) -> None:
    ann, ben, cleo = members
    for member in members:
        member.run("publish", f"of {member.client.name}")
    ann.run("work", "--max-tasks", "1", "--", "true")
    refused = ben.command("work", ben.root, "tasks", "--", "true").wait(60)
    assert refused.returncode == 1 and "--trust" in refused.stderr, "whose queue it is he has to trust by name"
    # Numbers without accounts are members as far as the server knows; clients cannot know.
    ben.run("work", "--trust", "7001", "--trust", "7003", "--", "true")
    assert ready(cleo) == 0


def test_all_that_is_made_is_the_groups(site: Site, members: tuple[Member, Member, Member]) -> None:
    for number, member in enumerate(members):
        member.run("publish", "now", "--priority", number)
        member.run("publish", "later", "--delay", "1h")
        member.run("publish", "keyed", "--key", f"k{number}")
    for member in members:
        member.run("pull")
        member.run("nack", "--no-requeue", json.loads(member.run("pull"))["receipt"])
    assert site.server.check("bash", "-c", f"find {EXPORT}/home/root {CLOSED}") == ""


def test_strangers_drop_messages_and_the_owner_brings_them_in(site: Site, root: str) -> None:
    """Root of a client is a stranger here as any other."""
    ann = Member(site.clients[0], root, 7001, 0o077)
    stranger = Member(site.clients[1], root, 7009, 0o077, 7999)
    done(ann.command("create", "-f", root, "tasks", "--mode", "0711"))
    stranger.run("publish", "of a stranger")
    done(site.command(site.clients[2], "publish", root, "tasks", "of root"))
    for verb in ("pull", "status"):
        refused = stranger.command(verb, root, "tasks").wait(60)
        assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1, refused
    # In the order of the server's clock, by which those publish who may only touch what is theirs.
    pulled = [json.loads(ann.run("pull", "--wait", "20s"))["message"] for _ in range(2)]
    assert pulled == ["of a stranger", "of root"]
    assert site.server.check("ls", f"{EXPORT}/home/root/tasks/drop", f"{EXPORT}/home/root/tasks/damaged").split() == [
        f"{EXPORT}/home/root/tasks/damaged:",
        f"{EXPORT}/home/root/tasks/drop:",
    ]


def test_root_of_a_client_is_no_member(site: Site, members: tuple[Member, Member, Member]) -> None:
    ann, ben, _ = members
    ann.run("publish", "one")
    for verb, *words in (("publish", "evil"), ("pull",), ("status",), ("work", "--", "true"), ("delete", "--yes")):
        ended = site.command(site.clients[1], verb, ann.root, "tasks", *words).wait(60)
        assert ended.returncode not in (0, 3), (verb, ended.stdout)
        assert len(ended.stderr.splitlines()) == 1 and "Traceback" not in ended.stderr, (verb, ended.stderr)
    assert json.loads(ben.run("pull"))["message"] == "one"
