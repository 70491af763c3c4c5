"""Several doctors in one directory, as processes of one host: they meet, tell the same truth, and leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from false_systems import Late, NoExclusiveCreation, mounted
from test_findings import LUSTRE, found

from ddmq_hpc import doctor
from ddmq_hpc.doctor import Report
from ddmq_hpc.doctor.crossing import follow
from ddmq_hpc.doctor.meeting import Lost, Meeting, Member, _is_ours
from ddmq_hpc.doctor.probing import probe_directory
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.mounts import Mount
from ddmq_hpc.names import is_probe

COMMAND = str(Path(sys.executable).with_name("ddmq-hpc"))
CROSSING = ["clocks", "visibility", "races", "tick", "stale-names"]


def start(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen([COMMAND, "doctor", *options, directory], stdout=-1, stderr=-1, text=True)


def wait_until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def probes(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if is_probe(name)]


@pytest.mark.parametrize("count", [2, 3])
def test_they_meet_and_one_prints(tmp_path: Path, count: int) -> None:
    running = [start(tmp_path, "--json", "--peers", str(count)) for _ in range(count)]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in running]
    printed = [out for out, _, _ in ended if out]
    assert len(printed) == 1, ended
    report = json.loads(printed[0])
    assert [code for _, _, code in ended] == [int(report["verdict"] == "failure" and out != "") for out, _, _ in ended]
    verdicts = {finding["check"]: finding["verdict"] for finding in report["findings"]}
    assert {check: verdicts.get(check) for check in CROSSING} == dict.fromkeys(CROSSING, "ok"), report
    assert sum("printed by the doctor on another host" in err for _, err, _ in ended) == count - 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "asked",
    [
        {"do": "race", "kind": "rename", "directory": "ELSEWHERE", "rounds": 3, "start": 0.0},
        {"do": "race", "kind": "create", "directory": "LEADER/../elsewhere", "rounds": 3, "start": 0.0},
        {"do": "hold", "held": "ELSEWHERE", "missing": "LEADER/x"},
    ],
)
def test_nobody_does_what_is_asked_outside_of_the_leaders_directory(tmp_path: Path, asked: dict[str, Any]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in range(3):
        (elsewhere / str(number)).touch()
    fs, leader = Filesystem(str(tmp_path)), tmp_path / ".ddmq-hpc-doctor-aaaaaaaa"
    leader.mkdir(0o700)
    with probe_directory(fs, str(tmp_path)) as probe:
        members = [Member(0, leader.name, "h", "k"), Member(1, probe.place.rpartition("/")[2], "h", "k")]
        replaced = {"ELSEWHERE": str(elsewhere), "LEADER": str(leader)}
        for name, value in asked.items():
            for word, path in replaced.items():
                asked[name] = asked[name].replace(word, path) if isinstance(asked[name], str) else value
        (leader / "ask-0-1").write_text(json.dumps(asked))
        with pytest.raises(Lost, match="outside"):
            follow(Meeting(probe, tuple(members), members[1]))
    assert sorted(os.listdir(elsewhere)) == ["0", "1", "2"]


def test_a_directory_that_others_can_enter_is_no_doctors(tmp_path: Path) -> None:
    """Say a shared queue that somebody gave such a name."""
    with probe_directory(Filesystem(str(tmp_path)), str(tmp_path)) as probe:
        for mode, ours in ((0o700, True), (0o2770, False), (0o701, False)):
            (tmp_path / "x").mkdir()
            (tmp_path / "x").chmod(mode)
            assert _is_ours(probe, "x", os.stat(probe.place)) == ours
            (tmp_path / "x").rmdir()


def together(directory: Path, *makes: Callable[[str], Filesystem]) -> Report:
    """The report of doctors that see the directory in these ways."""
    reports: list[Report | None] = []
    threads = [
        threading.Thread(
            target=lambda make=make: reports.append(doctor.examine_together(str(directory), len(makes), 20, make))  # type: ignore[misc]
        )
        for make in makes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (report,) = (report for report in reports if report)
    return report


@pytest.mark.parametrize(
    ("mount", "verdict", "told"),
    [
        (LUSTRE, "warning", "one clock stamps all files"),
        (Mount("/n", "nfs4", "rw,vers=4.2"), "warning", "one clock stamps all files"),
    ],
)
def test_a_host_whose_clock_is_late(tmp_path: Path, mount: Mount, verdict: str, told: str) -> None:
    finding = found(together(tmp_path, mounted(mount), mounted(mount, Late)), "clocks")
    assert finding.verdict == verdict and told in finding.measured and "120.0" in finding.measured, finding


def test_a_race_that_two_win(tmp_path: Path) -> None:
    finding = found(
        together(tmp_path, mounted(LUSTRE, NoExclusiveCreation), mounted(LUSTRE, NoExclusiveCreation)), "races"
    )
    assert finding.verdict == "failure" and "not won by exactly one" in finding.measured, finding


def test_who_stays_alone_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, "--json", "--peers", "2", "--wait", "1s")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    (peers,) = (finding for finding in json.loads(out)["findings"] if finding["check"] == "peers")
    assert peers["verdict"] == "failure" and peers["measured"] == "1 of 2 came within 1 s"
    assert os.listdir(tmp_path) == []


def test_what_a_killed_one_left_is_no_peer(tmp_path: Path) -> None:
    killed = start(tmp_path, "--peers", "2")
    wait_until(lambda: any("hello" in os.listdir(tmp_path / name) for name in probes(tmp_path)))
    killed.kill()
    killed.communicate()
    alone = start(tmp_path, "--peers", "2", "--wait", "2s")
    assert "1 of 2 came within 2 s" in alone.communicate(timeout=30)[0]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start(tmp_path, "--peers", "2")
    # Before, it imports: Python drops what a signal raises in the callback of a weak reference, and imports have some.
    wait_until(lambda: any("hello" in os.listdir(tmp_path / name) for name in probes(tmp_path)))
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.strip()) == (code, "")  # click ends the line of ^C
    assert os.listdir(tmp_path) == []


def test_the_table_is_for_people(tmp_path: Path) -> None:
    done = subprocess.run([COMMAND, "doctor", tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(tmp_path)) and lines[-1].endswith("0 failures")
    assert any(line.startswith("ok") and "rename" in line for line in lines)
    assert max(map(len, lines[1:])) <= 100
