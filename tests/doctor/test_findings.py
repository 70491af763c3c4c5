"""Each finding follows the facts: real directories are well, and of each fault of a file system one check tells."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from false_systems import (
    CopiedLinks,
    FewLinks,
    Full,
    KeptNames,
    Late,
    NoExclusiveCreation,
    NoLinks,
    ReadOnly,
    ShortNames,
    Slow,
    SlowRenames,
    mounted,
)

from ddmq_hpc import doctor
from ddmq_hpc.broker import Broker
from ddmq_hpc.doctor import Finding, Report
from ddmq_hpc.errors import NotFound, UnfitDirectory, UsageError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.mounts import Mount, mount_of
from ddmq_hpc.names import CHECKUP, probe_name

NOBODY = 65534
LUSTRE = Mount("/scratch", "lustre", "rw,flock")


def found(report: Report, check: str) -> Finding:
    (finding,) = (finding for finding in report.findings if finding.check == check)
    return finding


def verdicts(report: Report) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in report.findings if finding.verdict != doctor.OK}


def test_a_local_disk_is_well(tmp_path: Path) -> None:
    if mount_of(str(tmp_path)).type not in ("ext4", "xfs", "btrfs"):
        pytest.skip("temporary files are on no disk here")
    report = doctor.examine(str(tmp_path))
    assert {check: verdict for check, verdict in verdicts(report).items() if check not in ("latency", "fsync")} == {}
    assert "This host alone sees it" in found(report, "filesystem").meaning
    assert os.listdir(tmp_path) == []


def test_memory_is_well_but_not_kept(in_memory: Path) -> None:
    report = doctor.examine(str(in_memory))
    assert verdicts(report) == {"filesystem": "warning"}
    assert report.filesystem == "tmpfs" and "gone with the next boot" in found(report, "filesystem").meaning
    assert os.listdir(in_memory) == []


@pytest.mark.parametrize(
    ("make", "check", "verdict", "measured"),
    [
        (NoLinks, "links", "failure", "no hard links in a directory: Operation not permitted"),
        (CopiedLinks, "links", "failure", "a file of its own"),
        (FewLinks, "many-links", "warning", "one file has 40 links at most"),
        (NoExclusiveCreation, "exclusive", "failure", "O_EXCL made a name that was there"),
        (KeptNames, "rename", "failure", "the old name is still there"),
        (SlowRenames, "atomicity", "failure", "broken"),
        (ShortNames, "names", "failure", "File name too long"),
        (Full, "space", "failure", "free"),
        (Full, "inodes", "failure", "5 of"),
        (Full, "rename", "failure", "No space left"),
        (ReadOnly, "writable", "failure", "Read-only file system"),
        (Late, "clock", "failure", "120.0 s ahead of this host's clock"),
        (mounted(LUSTRE, Late), "clock", "warning", "the server's clock stamps them"),
        (mounted(LUSTRE), "clock", "ok", "each client stamps with its own"),
        (mounted(LUSTRE), "peers", "warning", "untested"),
        (mounted(Mount("/n", "nfs", "rw,vers=3")), "tick", "warning", "expected on NFS v3"),
        (mounted(Mount("/n", "nfs4", "rw,vers=4.2")), "tick", "ok", "untested"),
        (mounted(Mount("/n", "nfs4", "rw,vers=4.2")), "clock", "ok", "the server stamps them"),
        (Slow, "latency", "warning", "stat 50"),
        (Slow, "fsync", "warning", "takes 250 ms"),
    ],
)
def test_of_each_fault_one_check_tells(
    tmp_path: Path, make: type[Filesystem], check: str, verdict: str, measured: str
) -> None:
    finding = found(doctor.examine(str(tmp_path), make), check)
    assert (finding.verdict, measured in finding.measured) == (verdict, True), finding
    assert finding.meaning and (finding.advice or verdict == "ok"), finding
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "options", "verdict", "told"),
    [
        ("nfs4", "rw,hard,vers=4.2", "ok", "NFS v4.2 at /n (rw, hard)"),
        ("nfs", "rw,soft,vers=3", "warning", "Mount it with hard"),
        ("nfs4", "rw,noac,vers=4.1", "warning", "without noac"),
        ("nfs", "rw,vers=2", "failure", "vers=4.2"),
        ("lustre", "ro", "failure", "mount it with rw"),
        ("fuse.sshfs", "rw", "warning", "from one host alone"),
        ("fuse.glusterfs", "rw", "ok", "GlusterFS"),
    ],
)
def test_mount_options_in_words(tmp_path: Path, kind: str, options: str, verdict: str, told: str) -> None:
    finding = found(doctor.look(str(tmp_path), mounted(Mount("/n", kind, options))(str(tmp_path))), "filesystem")
    assert finding.verdict == verdict and told in f"{finding.measured} {finding.advice}", finding


@pytest.mark.parametrize(
    ("mode", "verdict", "advice"),
    [
        (0o700, "ok", ""),
        (0o2770, "ok", ""),
        (0o770, "warning", "chmod g+s"),
        (0o777, "warning", "chmod o-w"),
        (0o1777, "ok", "directory of your own"),
    ],
)
def test_permissions_for_one_and_for_a_group(tmp_path: Path, mode: int, verdict: str, advice: str) -> None:
    tmp_path.chmod(mode)
    finding = found(doctor.look(str(tmp_path), Filesystem(str(tmp_path))), "permissions")
    assert finding.verdict == verdict and advice in finding.advice and bool(advice) == bool(finding.advice), finding


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for another user")
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    doctor.examine(str(tmp_path))  # by now all that it takes is imported
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o555)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, json.dumps(verdicts(doctor.examine(str(tmp_path)))).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as answer:
        bad = json.load(answer)
    assert (bad["permissions"], bad["writable"]) == ("failure", "failure")


_GPFS_NAMES = (
    "mmlsquota::HEADER:version:reserved:reserved:filesystemName:quotaType:id:name:blockUsage:blockQuota:blockLimit:"
    "blockInDoubt:blockGrace:filesUsage:filesQuota:filesLimit:filesInDoubt:filesGrace:remarks:quota:defQuota:fid:filesetname:"
)
#: {kind of file system: (its tool, what that prints when {} of 100 units are used)}
QUOTA_TOOLS = {
    "ext4": (
        "quota",
        "Disk quotas for user me (uid 1000): \n"
        "     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace\n"
        "      /dev/sdb1  {}  0  100  0  3  0  0  0",
    ),
    "lustre": ("lfs", "        /scratch      {}     100     120       -       3       0       0       -"),
    "gpfs": (
        "mmlsquota",
        _GPFS_NAMES + "\nmmlsquota::0:1:::gpfs0:USR:1000:me:{}:100:120:0:none:3:0:0:0:none:::off:0:root:",
    ),
    "beegfs": ("beegfs-ctl", "name,id,size,hard,files,hard\nme,1000,{},100,3,unlimited"),
}


@pytest.mark.parametrize("kind", QUOTA_TOOLS)
@pytest.mark.parametrize(("used", "verdict"), [("50", "ok"), ("93", "warning"), ("100", "failure")])
def test_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, used: str, verdict: str) -> None:
    """As each file system's own tool prints it."""
    name, printed = QUOTA_TOOLS[kind]
    tool = tmp_path / "bin" / name
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{printed.format(used)}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    finding = found(doctor.examine(str(tmp_path), mounted(Mount(str(tmp_path), kind, "rw"))), "quota")
    assert (finding.verdict, finding.measured) == (verdict, f"space {used}%, files without limit"), finding


def test_quota_that_is_used_up_as_quota_marks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "quota"
    tool.write_text("#!/bin/sh\necho '  /dev/sdb1  100*  90  100  6days  3  0  0  0'\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = found(doctor.examine(str(tmp_path)), "quota")
    assert (finding.verdict, finding.measured) == ("failure", "space 111%, files without limit"), finding


def test_what_a_killed_one_left_goes_after_an_hour(tmp_path: Path) -> None:
    old, new, planted = (tmp_path / probe_name(letter * 8) for letter in "abc")
    elsewhere = tmp_path / "elsewhere"
    for directory in (old, new, elsewhere):
        directory.mkdir()
        (directory / "file").touch()
    planted.symlink_to(elsewhere)
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    os.utime(elsewhere, (hours_ago, hours_ago))
    finding = found(doctor.examine(str(tmp_path)), "leftovers")
    assert finding.verdict == "warning" and "left alone" in finding.measured
    assert not old.exists() and new.exists() and planted.is_symlink() and (elsewhere / "file").exists()


def test_where_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        doctor.examine(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        doctor.examine(str(tmp_path / "file"))


# -- roots


def test_a_new_root_records_what_it_is_on(tmp_path: Path) -> None:
    root = tmp_path / "root"
    broker = Broker(root, create=True)
    assert broker.checkup and broker.checkup.verdict != doctor.FAILURE
    kept = json.loads((root / CHECKUP).read_text())
    assert kept["schema_version"] == 1 and kept["filesystem"] == mount_of(str(root)).type
    assert {"filesystem", "rename", "links", "clock", "space"} <= {finding["check"] for finding in kept["findings"]}
    assert Broker(root, create=True).checkup is None
    assert "made on" in found(doctor.examine(str(root)), "record").measured
    moved = doctor.examine(str(root), mounted(LUSTRE))
    assert found(moved, "record").verdict == "warning" and "it is on lustre now" in found(moved, "record").measured
    (root / CHECKUP).write_text("[]")
    assert found(doctor.examine(str(root)), "record").verdict == "warning"


def test_no_root_where_queues_cannot_work(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with pytest.raises(UnfitDirectory, match="no hard links"):
        Broker(root, create=True, filesystem=NoLinks)
    assert not root.exists()
    broker = Broker(root, create=True, filesystem=NoLinks, admission=lambda report: None)
    assert broker.checkup and broker.checkup.verdict == doctor.FAILURE and (root / "ddmq.yaml").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")
def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=2000", "none", str(tmp_path)], check=True)
    try:
        report = doctor.examine(str(tmp_path))
        assert (found(report, "space").verdict, found(report, "inodes").verdict) == ("warning", "warning")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        bad = verdicts(doctor.examine(str(tmp_path)))
        assert (bad["filesystem"], bad["writable"]) == ("failure", "failure")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
