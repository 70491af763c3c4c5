"""Whose commands run: each rule with real users. `me` works on a queue; what a test changes, it changes as root."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from ddmq_hpc import party, trust
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import DdmqError, Untrusted, UsageError
from ddmq_hpc.execute import execute

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can act for other users")

#: Accounts that every Debian has. `daemon` and `bin` have private groups, `sync` and `nobody` share `nogroup`.
ME, MALLORY, ALICE = "daemon", "bin", "sync"
SHARED, UNKNOWN = grp.getgrnam("nogroup").gr_gid, 54321


def uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def gid(name: str) -> int:
    return pwd.getpwnam(name).pw_gid


def as_user(name: str, act: Callable[[], object], umask: int = 0o022) -> str:
    """What `act` raised, in a process of that user: the class and the line; nothing when it came to its end."""
    import warnings

    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        answer = ""
        try:
            os.umask(umask)
            os.initgroups(name, gid(name))
            os.setgid(gid(name))
            os.setuid(uid(name))
            act()
        except DdmqError as error:
            answer = f"{type(error).__name__}: {error}"
        except BaseException:
            answer = traceback.format_exc()
        finally:
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        answer = json.load(pipe)
    os.waitpid(pid, 0)
    return str(answer)


class Place:
    """`top/home/root/q`: a root with a queue of mine in it and one message, below what root owns."""

    def __init__(self, top: Path) -> None:
        self.top, self.home = top, top / "home"
        self.root, self.queue = self.home / "root", self.home / "root" / "q"

    def make(self, umask: int = 0o022) -> None:
        self.home.mkdir()
        self.give(self.home, ME)
        assert as_user(ME, lambda: Broker(self.root, create=True).publish("q", "true"), umask) == ""

    def give(self, path: Path, name: str) -> None:
        os.chown(path, uid(name), gid(name), follow_symlinks=False)

    def open_to(self, group: int, mode: int = 0o2770) -> None:
        """As one shares a queue: all directories for a group, and packs that it may link."""
        for path in (self.queue, *self.queue.rglob("*")):
            os.chown(path, -1, group)
            path.chmod(mode if path.is_dir() else 0o644)

    def settings(self, text: str, where: Path | None = None) -> None:
        (where or self.queue).joinpath("ddmq.yaml").write_text(text)

    def pack(self) -> Path:
        (found,) = self.queue.glob("ready/*/*/*")
        return found

    def judged(self, *users: str, shell: bool = False, name: str = ME) -> str:
        """What is said of place and message."""

        def judge() -> None:
            queue = Broker(self.root).queue("q")
            judge = trust.Trust(queue, shell, users)
            judge.check_place()
            for message in queue.take():
                judge.check_pack(message)
                judge.check_pack(message)
                return
            raise AssertionError("no message")

        return as_user(name, judge)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have all imported that the other users need: the interpreter may be where they cannot read."""
    root = tmp_path_factory.mktemp("imported") / "root"
    with Broker(root, create=True) as broker:
        broker.publish("q", "true")
        broker.publish("q", "true")
        execute(broker, "q", ["true"])
        queue = broker.queue("q")
        (message,) = queue.take()
        queue.extend([message])
        queue.release([message])
    (root / "ddmq.yaml").write_text("layout: 1\ntrusted_users: [root]\ntrusted_group: root\n")
    root.chmod(0o775)
    for shell in (False, True):
        trust.Trust(Broker(root).queue("q"), shell, ["root"]).check_place()
    with pytest.raises(DdmqError):
        execute(Broker(root), "p", ["true"])
    "x".encode("ascii"), b"x".decode("unicode_escape"), "x".encode("idna")
    party.unmapped_user()


@pytest.fixture
def place(imported: None) -> Iterator[Place]:
    top = Path(tempfile.mkdtemp(prefix="ddmq-hpc-trust-"))
    top.chmod(0o755)
    (top / "node").mkdir(mode=0o777)
    (top / "node").chmod(0o1777)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(top / "node")
    made = Place(top)
    made.make()
    party._has_only.cache_clear()
    yield made
    os.environ.pop("TMPDIR") if before is None else os.environ.__setitem__("TMPDIR", before)
    shutil.rmtree(top)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))


def own(path: Callable[[Place], Path], name: str) -> Callable[[Place], None]:
    return lambda place: place.give(path(place), name)


def mode(path: Callable[[Place], Path], bits: int, group: int = -1) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        os.chown(path(place), -1, group)
        path(place).chmod(bits)

    return change


def both(*changes: Callable[[Place], object]) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        for one in changes:
            one(place)

    return change


def home(place: Place) -> Path:
    return place.home


def root(place: Place) -> Path:
    return place.root


def queue(place: Place) -> Path:
    return place.queue


def ready(place: Place) -> Path:
    return place.queue / "ready"


def pack(place: Place) -> Path:
    return place.pack()


def root_settings(place: Place) -> Path:
    return place.root / "ddmq.yaml"


def settings(place: Place) -> Path:
    return place.queue / "ddmq.yaml"


def nothing(place: Place) -> None:
    pass


def shared(place: Place) -> None:
    """A queue that alice, too, may write to, since her group is named, with a message of hers."""
    place.settings("trusted_group: nogroup\n")
    place.open_to(SHARED)
    place.settings("trusted_group: nogroup\n")
    place.give(place.pack(), ALICE)


def opened(place: Place) -> None:
    """A queue that I share with a group by its mode alone, with a message of alice."""
    place.open_to(SHARED)
    place.give(place.pack(), ALICE)


#: name: (what is changed, what is said; nothing when it is trusted)
RULES: dict[str, tuple[Callable[[Place], None], str]] = {
    "as made": (nothing, ""),
    # the place
    "root's parent": (own(home, "root"), ""),
    "somebody's parent": (own(home, MALLORY), "home belongs to user bin; .*--trust bin"),
    "somebody's root": (own(root, MALLORY), "root belongs to user bin"),
    "somebody's state directory": (own(ready, MALLORY), "q/ready belongs to user bin"),
    "root's own": (both(own(root, "root"), own(root_settings, "root")), ""),
    "a parent for all": (mode(home, 0o777), "home can be written by everybody; chmod o-w /"),
    "a sticky parent for all": (mode(home, 0o1777), ""),
    "somebody's sticky parent": (both(own(home, MALLORY), mode(home, 0o1777)), "home belongs to user bin"),
    "a sticky root": (mode(root, 0o1777), ""),
    "a sticky queue": (mode(queue, 0o1777), "q can be written by everybody"),
    "a root for all": (mode(root, 0o777), "root can be written by everybody"),
    "a queue for all": (mode(queue, 0o777), "q can be written by everybody"),
    "a state directory for all": (both(mode(queue, 0o755), mode(ready, 0o777)), "ready can be written by everybody"),
    "a state directory for all in a closed queue": (mode(ready, 0o777), ""),
    "my private group": (mode(root, 0o775, gid(ME)), ""),
    "somebody's private group": (mode(root, 0o775, gid(MALLORY)), "can be written by group bin; chmod g-w"),
    "root's private group": (mode(home, 0o775, 0), ""),
    "a group of several": (mode(root, 0o775, SHARED), "group nogroup; chmod g-w .*trusted_group: nogroup"),
    "a group that nobody knows": (mode(root, 0o775, UNKNOWN), "can be written by group 54321"),
    "a group that may read": (mode(root, 0o755, SHARED), ""),
    # links
    "a link as queue": (lambda place: replace_by_link(place.queue), "no queue 'q'"),
    "a link as root": (lambda place: replace_by_link(place.root), r"root is a symbolic link; .*home/real$"),
    "a link of mine on the way": (
        lambda place: (replace_by_link(place.home), place.give(place.home, ME), None)[2],
        "",
    ),
    "a link of somebody on the way": (
        lambda place: (replace_by_link(place.home), place.give(place.home, MALLORY), None)[2],
        "home belongs to user bin",
    ),
    "a link on the way to a place for all": (
        lambda place: (
            place.home.rename(place.top / "real"),
            (place.top / "open").mkdir(),
            (place.top / "real").rename(place.top / "open/home"),
            (place.top / "open").chmod(0o777),
            place.home.symlink_to("open/home"),
            None,
        )[-1],
        "open can be written by everybody",
    ),
    # settings
    "somebody's settings of the queue": (own(settings, MALLORY), "q/ddmq.yaml belongs to user bin"),
    "somebody's settings of the root": (own(root_settings, MALLORY), "root/ddmq.yaml belongs to user bin"),
    "settings that somebody can write": (mode(root_settings, 0o666), "root/ddmq.yaml can be written by everybody"),
    "settings of a closed queue": (mode(settings, 0o666), ""),
    "settings as a link": (lambda place: replace_by_link(root_settings(place)), "ddmq.yaml"),
    # packs
    "somebody's pack": (own(pack, MALLORY), "belongs to user bin"),
    "root's pack": (own(pack, "root"), ""),
    "a pack that somebody can write": (both(mode(queue, 0o755), mode(pack, 0o666)), "can be written by everybody"),
    "a pack that a group can write": (both(mode(queue, 0o755), mode(pack, 0o664, SHARED)), "by group nogroup"),
    "a pack of my private group": (both(mode(queue, 0o755), mode(pack, 0o664)), ""),
    "a pack for all in a closed queue": (mode(pack, 0o666), ""),
    # whom the settings name
    "a named user's pack": (both(lambda place: place.settings("trusted_users: [bin]"), own(pack, MALLORY)), ""),
    "named in the root's settings": (
        both(lambda place: place.settings("layout: 1\ntrusted_users: [bin]", place.root), own(pack, MALLORY)),
        "",
    ),
    "another user than the named one": (
        both(lambda place: place.settings("trusted_users: [sync]"), own(pack, MALLORY)),
        "belongs to user bin",
    ),
    "a named user's place": (both(lambda place: place.settings("trusted_users: [bin]"), own(root, MALLORY)), ""),
    "named by somebody": (
        both(lambda place: place.settings("trusted_users: [bin]"), own(settings, MALLORY), own(pack, MALLORY)),
        "ddmq.yaml belongs to user bin",
    ),
    "named where all can write": (
        both(lambda place: place.settings("trusted_users: [bin]"), mode(queue, 0o755), mode(settings, 0o666)),
        "ddmq.yaml can be written by everybody",
    ),
    "named by a file with a second name": (
        both(
            lambda place: place.settings("trusted_users: [bin]"),
            lambda place: os.link(settings(place), place.home / "ddmq.yaml"),
        ),
        "several hard links",
    ),
    "an unknown user named": (
        lambda place: place.settings("trusted_users: [nobody-at-all]"),
        "no user 'nobody-at-all'",
    ),
    "an unknown group named": (lambda place: place.settings("trusted_group: no-group-at-all"), "no group"),
    "a named group": (shared, ""),
    "a member's directory": (both(shared, own(lambda place: place.queue / "dead", ALICE)), ""),
    "a member's settings": (
        both(shared, own(settings, ALICE)),
        "ddmq.yaml belongs to user sync",
    ),
    "a queue that I share": (opened, ""),
    "no member's pack in a queue that I share": (both(opened, own(pack, MALLORY)), "belongs to user bin"),
    "another group in a queue that I share": (
        both(opened, mode(ready, 0o2770, UNKNOWN)),
        "ready can be written by group 54321",
    ),
    "a queue that a group can write, not shared": (
        both(opened, mode(queue, 0o770)),
        "q can be written by group nogroup",
    ),
    "a queue that root shares": (both(opened, own(queue, "root"), mode(queue, 0o2775, SHARED)), ""),
    "a queue that somebody shares": (
        both(opened, own(queue, MALLORY), mode(queue, 0o2775, SHARED)),
        "q belongs to user bin",
    ),
    "a queue that a member shares": (
        both(opened, own(queue, ALICE), mode(queue, 0o2775, SHARED)),
        "q belongs to user sync",
    ),
    "a member's settings in a queue that I share": (both(opened, own(settings, ALICE)), ""),
    "no member's pack": (both(shared, own(pack, MALLORY)), "belongs to user bin"),
    "another group than the named one": (both(shared, mode(ready, 0o2770, UNKNOWN)), "ready can be written by group"),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(place: Place, name: str) -> None:
    change, expected = RULES[name]
    change(place)
    said = place.judged()
    if not expected:
        assert said == ""
        return
    import re

    assert re.search(expected, said), said
    assert "Traceback" not in said and "\n" not in said


#: As above, for a worker that runs the messages themselves.
SHELL_RULES: dict[str, tuple[Callable[[Place], None], str]] = {
    "as made": (nothing, ""),
    "root's pack": (own(pack, "root"), "belongs to user root"),
    "a named user's pack": (RULES["a named user's pack"][0], ""),
    "a named group": (shared, "q can be written by group nogroup; chmod g-w .*--shell trusts no group"),
    "a queue that I share": (opened, "q can be written by group nogroup; .*--shell trusts no group"),
    "a closed queue with a member's pack": (both(shared, mode(queue, 0o700)), "belongs to user sync"),
    "a place of my private group": (both(mode(queue, 0o775), mode(ready, 0o775)), ""),
}


@pytest.mark.parametrize("name", SHELL_RULES)
def test_rules_for_messages_that_are_commands(place: Place, name: str) -> None:
    import re

    change, expected = SHELL_RULES[name]
    change(place)
    said = place.judged(shell=True)
    assert re.search(expected, said) if expected else said == "", said


def test_users_of_the_command_line(place: Place) -> None:
    place.give(place.pack(), MALLORY)
    assert "belongs to user bin" in place.judged()
    assert "belongs to user bin" in place.judged(ALICE)
    assert place.judged(MALLORY) == ""
    assert place.judged(str(uid(MALLORY))) == ""


def test_users_of_the_command_line_for_the_shell(place: Place) -> None:
    place.give(place.pack(), MALLORY)
    assert place.judged(MALLORY, shell=True) == ""
    with pytest.raises(UsageError, match="no user 'nobody-at-all'"):
        trust.Trust(Broker(place.root).queue("q"), users=["nobody-at-all"])


def test_settings_of_a_user_of_the_command_line_name_others(place: Place) -> None:
    place.settings("trusted_users: [sync]")
    place.give(place.queue / "ddmq.yaml", MALLORY)
    place.give(place.pack(), ALICE)
    assert "ddmq.yaml belongs to user bin" in place.judged()
    assert place.judged(MALLORY) == ""


def test_a_queue_that_a_user_of_the_command_line_shares(place: Place) -> None:
    opened(place)
    place.give(place.queue, MALLORY)
    os.chown(place.queue, -1, SHARED)
    place.queue.chmod(0o2775)
    assert place.judged(MALLORY) == ""


def test_root_trusts_no_other_user_either(place: Place) -> None:
    assert "home belongs to user daemon" in place.judged(name="root")
    assert place.judged(ME, name="root") == ""


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
@pytest.mark.parametrize("name", [ME, ALICE])
def test_what_we_make_is_trusted_under_any_umask(place: Place, umask: int, name: str) -> None:
    """ALICE's primary group is that of others, too."""
    mine = Place(place.top / "mine")
    mine.top.mkdir()
    mine.top.chmod(0o755)
    mine.give(mine.top, name)
    deep = mine.top / "new/home"
    mine.root, mine.queue = deep / "root", deep / "root/q"
    assert as_user(name, lambda: Broker(mine.root, create=True).publish("q", "true"), umask) == ""
    assert mine.judged(name=name) == "" and mine.judged(name=name, shell=True) == ""
    assert mine.queue.stat().st_mode & 0o777 == 0o700
    for path in (mine.top / "new", deep, mine.root, mine.root / "ddmq.yaml", mine.queue / "ddmq.yaml"):
        assert path.stat().st_mode & 0o022 == 0


def test_a_lease_changes_nothing_about_whose_a_pack_is(place: Place) -> None:
    place.give(place.pack(), MALLORY)

    def renew() -> None:
        queue = Broker(place.root).queue("q")
        (message,) = queue.take()
        queue.extend([message])
        trust.Trust(queue).check_pack(message)

    assert "belongs to user bin" in as_user(ME, renew)


def test_a_hard_link_to_a_file_of_somebody(place: Place) -> None:
    path = place.pack()
    other = place.home / "other"
    other.write_bytes(path.read_bytes())
    place.give(other, MALLORY)
    path.unlink()
    os.link(other, path)
    assert "belongs to user bin" in place.judged()


def test_a_message_that_is_held_no_more(place: Place) -> None:
    def lose() -> None:
        queue = Broker(place.root).queue("q")
        (message,) = queue.take()
        judge = trust.Trust(queue)
        queue.ack([message])
        judge.check_pack(message)

    assert as_user(ME, lose).startswith("LeaseLost")


def acl(place: Path, *entries: str) -> None:
    if not shutil.which("setfacl"):
        if os.environ.get("CI"):
            pytest.fail("setfacl is not installed")
        pytest.skip("setfacl is not installed")
    done = subprocess.run(["setfacl", "-m", ",".join(entries), str(place)], capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip("no access control lists on this file system")
    assert done.returncode == 0, done.stderr


def test_access_control_lists(place: Place) -> None:
    place.root.chmod(0o775)  # by its private group alone
    assert place.judged() == ""
    acl(place.root, f"u:{MALLORY}:rx")
    assert place.judged() == ""
    acl(place.root, f"u:{MALLORY}:rwx")
    assert "root can be written by user bin; setfacl -x u:bin /" in place.judged()
    assert place.judged(MALLORY) == ""
    acl(place.root, f"u:{MALLORY}:r", "g:nogroup:rwx")
    assert "root can be written by group nogroup" in place.judged()
    acl(place.root, "m::rx")
    assert place.judged() == ""


@pytest.mark.parametrize(
    ("members", "primary", "group_of_me", "only"),
    [
        ([], {}, gid(ME), True),  # private, under my name
        (["me"], {}, gid(ME), True),
        (["me", "mallory"], {}, gid(ME), False),
        ([], {"mallory": gid(ME)}, gid(ME), False),
        (["me", "alice"], {}, 999, True),  # nobody's primary group, and all in it are trusted
        (["me", "mallory"], {}, 999, False),
        ([], {}, 999, False),  # whose it is, nobody knows
        (["me"], {"mallory": 999}, 999, False),
    ],
)
def test_groups_whose_members_are_all_trusted(
    monkeypatch: pytest.MonkeyPatch, members: list[str], primary: dict[str, int], group_of_me: int, only: bool
) -> None:
    def user(name: str, number: int, group: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", number, group, "", "/", "/bin/sh"))

    users = [user("me", 10, gid(ME)), user("alice", 11, 111)]
    users += [user(name, 12 + n, group) for n, (name, group) in enumerate(primary.items())]
    by_id = {one.pw_uid: one for one in users}
    name = "me" if group_of_me == gid(ME) else "lab"
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: by_id[number])
    monkeypatch.setattr(grp, "getgrgid", lambda number: grp.struct_group((name, "x", number, members)))
    party._has_only.cache_clear()
    try:
        assert party._has_only(group_of_me, frozenset({10, 11, 0} & set(by_id))) is only
    finally:
        party._has_only.cache_clear()


def test_a_primary_group_of_another_name_may_be_that_of_users_whom_no_directory_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me = pwd.struct_passwd(("me", "x", 10, 100, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [me])
    monkeypatch.setattr(pwd, "getpwuid", lambda number: me)
    for members in ([], ["me"]):
        monkeypatch.setattr(grp, "getgrgid", lambda number, m=members: grp.struct_group(("users", "x", number, m)))
        party._has_only.cache_clear()
        assert not party._has_only(100, frozenset({10}))
    party._has_only.cache_clear()


def test_above_a_root_may_be_users_whom_a_container_does_not_know(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.give(place.home, MALLORY)
    monkeypatch.setattr(trust, "unmapped_user", lambda: uid(MALLORY))
    assert place.judged() == ""
    place.give(place.root, MALLORY)
    assert "root belongs to user bin" in place.judged()


def test_in_a_container_that_knows_root_alone(place: Place) -> None:
    """A real one: its root is that of the host, all others are its "nobody"."""
    inside = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    for path in (place.root, *place.root.rglob("*")):
        os.chown(path, 0, 0)
    command = [*inside, sys.executable, "-m", "ddmq_hpc", "exec", str(place.root), "q", "--", "true"]
    place.give(place.root, MALLORY)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "root belongs to user" in done.stderr
    os.chown(place.root, 0, 0)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- exec


def run_exec(place: Place, *users: str) -> str:
    def run() -> None:
        with Broker(place.root) as broker:
            execute(broker, "q", ["touch", str(place.queue / "tmp/ran")], users=users)

    return as_user(ME, run)


def test_exec_runs_what_is_mine(place: Place) -> None:
    assert run_exec(place) == ""
    assert (place.queue / "tmp/ran").exists()


def test_exec_refuses_a_place_before_it_takes_anything(place: Place) -> None:
    place.root.chmod(0o777)
    assert run_exec(place).startswith("Untrusted: nothing was run: ")
    assert place.pack() and not (place.queue / "tmp/ran").exists()


def test_exec_releases_a_message_that_it_refuses(place: Place) -> None:
    place.give(place.pack(), MALLORY)
    before = place.pack()
    assert "belongs to user bin" in run_exec(place)
    assert place.pack() == before and not os.listdir(place.queue / "leased")
    assert not (place.queue / "tmp/ran").exists()
    assert run_exec(place, MALLORY) == ""
    assert (place.queue / "tmp/ran").exists()


def test_the_command_line_says_what_to_do(place: Place) -> None:
    place.root.chmod(0o777)
    command = [
        str(Path(sys.executable).with_name("ddmq-hpc")),
        "exec",
        str(place.root),
        "q",
        "--trust",
        ME,
        "--",
        "true",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"ddmq-hpc: nothing was run: {place.root} can be written by everybody; chmod o-w {place.root}\n"
    )
    place.root.chmod(0o755)
    assert subprocess.run(command).returncode == 0


def test_errors_are_for_programs_too(place: Place) -> None:
    place.root.chmod(0o777)
    with pytest.raises(Untrusted) as error:
        trust.Trust(Broker(place.root).queue("q"), users=[ME]).check_place()
    assert error.value.path == str(place.root) and error.value.exit_code == 1
    assert error.value.advice == f"chmod o-w {place.root}" and error.value.why == "can be written by everybody"
