"""What schedulers print, as real ones did (tests/data), and what is made of it. Anything not clear is unknown."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scheduler_commands import DATA, Commands, squeue_row

from ddmq_hpc import schedulers
from ddmq_hpc.errors import SchedulerError, UsageError
from ddmq_hpc.identity import batch_job
from ddmq_hpc.schedulers import ENDED, RUNNING, UNKNOWN, Job, Wanted, parse_label
from ddmq_hpc.schedulers.commands import NOT_RUN, TIMED_OUT, run
from ddmq_hpc.walltime import job_end

SLURM, PBS, SGE = (schedulers.get(name) for name in schedulers.NAMES)
INVALID = "slurm_load_jobs error: Invalid job id specified\n"
DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


def environment(name: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (DATA / name).read_text().splitlines())


def states(scheduler: schedulers.Scheduler, *labels: str) -> list[str]:
    jobs = [parse_label(label) for label in labels]
    assert None not in jobs
    said = scheduler.states([job for job in jobs if job], 5.0)
    return [said[job] for job in jobs if job]


# -- labels


@pytest.mark.parametrize(
    "environ, label, job",
    [
        ({"SLURM_JOB_ID": "123"}, "slurm-123", Job("slurm", "123")),
        (
            {"SLURM_JOB_ID": "130", "SLURM_ARRAY_JOB_ID": "123", "SLURM_ARRAY_TASK_ID": "7"},
            "slurm-123_7",
            Job("slurm", "123_7"),
        ),
        (
            {"SLURM_JOB_ID": "123", "SLURM_RESTART_COUNT": "2", "SLURM_CLUSTER_NAME": "a.long_cluster_name"},
            "slurm-123-r2=a",
            Job("slurm", "123", 2, "a"),
        ),
        ({"SLURM_JOB_ID": "123", "SLURM_RESTART_COUNT": "0"}, "slurm-123", Job("slurm", "123")),
        ({"PBS_JOBID": "7[2].host.site"}, "pbs-7=2==host", Job("pbs", "7[2]", 0, "host")),
        ({"PBS_JOBID": "7.host"}, "pbs-7=host", Job("pbs", "7", 0, "host")),
        ({"PBS_JOBID": "7-2.host"}, "pbs-7-2=host", Job("pbs", "7-2", 0, "host")),
        ({"SGE_ROOT": "/none", "JOB_ID": "5", "SGE_TASK_ID": "3", "RESTARTED": "0"}, "sge-5.3", Job("sge", "5.3")),
        (
            {"SGE_ROOT": "/none", "JOB_ID": "5", "SGE_TASK_ID": "undefined", "RESTARTED": "1"},
            "sge-5-r1",
            Job("sge", "5", 1),
        ),
        ({"JOB_ID": "5"}, "", None),
        ({}, "", None),
    ],
)
def test_labels_tell_the_run_of_a_job(environ: dict[str, str], label: str, job: Job | None) -> None:
    assert batch_job(environ) == label
    assert parse_label(label) == job


def test_labels_of_real_jobs() -> None:
    assert batch_job(environment("slurm/env-array-restarted.txt")) == "slurm-17_2-r1=testbed"
    assert batch_job(environment("pbs/env-subjob.txt")) == "pbs-3=1==localhost"
    assert batch_job(environment("pbs/env-single.txt")) == "pbs-4=localhost"


def test_the_queue_master_is_part_of_a_label(tmp_path: Path) -> None:
    (tmp_path / "default" / "common").mkdir(parents=True)
    (tmp_path / "default" / "common" / "act_qmaster").write_text("master.site\n")
    assert batch_job({"SGE_ROOT": str(tmp_path), "JOB_ID": "5", "SGE_TASK_ID": "3"}) == "sge-5.3=master"


def test_a_label_that_would_be_cut_off_is_none() -> None:
    assert batch_job({"SLURM_JOB_ID": "1" * 40}) == ""


@pytest.mark.parametrize("text", ["", "slurm-", "slurm-x", "slurm-1_", "lsf-1", "slurm-1.2", "sge-1_2", "slurm-1 -r1"])
def test_other_texts_are_no_labels(text: str) -> None:
    assert parse_label(text) is None


# -- detection and environment


def test_slurm_is_found_before_the_scripts_of_pbs(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    assert schedulers.detect({"SLURM_JOB_ID": "1", "PBS_JOBID": "1.host"}) == "slurm"
    assert schedulers.detect({"PBS_JOBID": "1.host"}) == "pbs"
    assert schedulers.detect({"SGE_ROOT": "/sge", "JOB_ID": "1"}) == "sge"
    monkeypatch.setenv("PATH", str(commands.place))
    assert schedulers.detect({"JOB_ID": "1"}) is None
    commands.say("qsub")
    assert schedulers.detect({}) == "pbs"
    assert schedulers.detect({"SGE_ROOT": "/sge"}) == "sge"
    commands.say("sbatch")
    assert schedulers.detect({"SGE_ROOT": "/sge"}) == "slurm"
    with pytest.raises(UsageError, match="slurm, pbs, sge"):
        schedulers.get("lsf")


def test_environments_of_jobs() -> None:
    assert schedulers.array_size(environment("slurm/env-array-restarted.txt")) == 9
    assert schedulers.slots(environment("slurm/env-array-restarted.txt")) == 1
    assert schedulers.slots(environment("pbs/env-subjob.txt")) == 2
    sge = {"SGE_ROOT": "/", "JOB_ID": "1", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "7", "SGE_TASK_STEPSIZE": "2"}
    assert schedulers.array_size(sge) == 4
    assert schedulers.array_size({**sge, "SGE_TASK_LAST": "undefined"}) == 1
    assert schedulers.array_size({}) == 1 and schedulers.slots({}) is None


# -- commands


def test_commands_come_back_whatever_happens(commands: Commands) -> None:
    commands.say("squeue", sleep=60)
    began = time.monotonic()
    assert run(["squeue"], 0.3).code == TIMED_OUT
    assert time.monotonic() - began < 5
    assert run(["/no/such/command"], 1).code == NOT_RUN
    assert run(["cat"], 5, input="text").out == "text"
    assert run(["cat", "bad\0name"], 5).code == NOT_RUN


def test_what_users_set_for_squeue_does_not_count(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("SLURM_CLUSTERS", "elsewhere")
    (commands.place / "squeue").write_text('#!/bin/sh\ntest -z "$SQUEUE_PARTITION$SLURM_CLUSTERS" || exit 9\n')
    (commands.place / "squeue").chmod(0o755)
    assert states(SLURM, "slurm-1=testbed") == [ENDED]


# -- states


def test_slurm_states(commands: Commands) -> None:
    commands.say("squeue", (DATA / "slurm/squeue-states.txt").read_text())
    said = states(
        SLURM,
        *"slurm-17_1=testbed slurm-17_2=testbed slurm-17_3=testbed slurm-17_9=testbed slurm-18=testbed".split(),
        *"slurm-18-r1=testbed slurm-19=testbed slurm-77777=testbed slurm-18=other slurm-17=testbed".split(),
    )
    # Running; waits to be run again; being ended; waits; running; more runs than it had; done; gone; elsewhere; all of
    # an array.
    assert said == [RUNNING, ENDED, RUNNING, ENDED, RUNNING, UNKNOWN, ENDED, ENDED, UNKNOWN, UNKNOWN]
    assert len(commands.calls("squeue")) == 1


def test_slurm_tells_the_runs_of_a_job_apart(commands: Commands) -> None:
    commands.say("squeue", (DATA / "slurm/squeue-restarted.txt").read_text())
    assert states(SLURM, "slurm-17_2=testbed", "slurm-17_2-r1=testbed") == [ENDED, RUNNING]
    commands.say("squeue", squeue_row("12", "COMPLETING", 1))  # the run before, as long as its processes may be there
    assert states(SLURM, "slurm-12=testbed") == [RUNNING]


def test_slurm_knows_a_single_job_no_more(commands: Commands) -> None:
    commands.say("squeue", err=INVALID, code=1)
    assert states(SLURM, "slurm-5=testbed") == [ENDED]
    assert states(SLURM, "slurm-5=testbed", "slurm-5-r1=testbed") == [ENDED, ENDED]
    assert states(SLURM, "slurm-5=testbed", "slurm-6=testbed") == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    "out, err, code",
    [
        ("", DOWN, 1),
        ("", DOWN, 0),
        ("", "", 1),
        ("nonsense\n", "", 0),
        (squeue_row("9", "SOMETHING_NEW") + "squeue: something\n", "", 0),
        (squeue_row("5", "SOMETHING_NEW"), "", 0),
    ],
)
def test_slurm_says_nothing_clear(commands: Commands, out: str, err: str, code: int) -> None:
    commands.say("squeue", out, err, code)
    assert states(SLURM, "slurm-5=testbed") == [UNKNOWN]


def test_slurm_does_not_answer(commands: Commands) -> None:
    commands.say("squeue", squeue_row("6"), sleep=60)
    job = Job("slurm", "5")
    assert SLURM.states([job], 0.3) == {job: UNKNOWN}


def test_slurm_may_hide_jobs(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    commands.say("scontrol", code=1)
    assert SLURM.hides_jobs()
    commands.say("scontrol", "PrivateData             = none\nMaxArraySize            = 1001\n")
    assert not SLURM.hides_jobs()
    assert SLURM.array_limit() == 1000
    monkeypatch.setattr("ddmq_hpc.schedulers.slurm._known", {"PrivateData": "accounts,jobs"})
    assert SLURM.hides_jobs()


def test_pbs_states(commands: Commands) -> None:
    errors = (DATA / "pbs/qstat-errors.txt").read_text()
    unknown = "".join(f"{line}\n" for line in errors.splitlines() if line.startswith("qstat: "))
    commands.say("qstat", (DATA / "pbs/qstat-t.txt").read_text(), "qstat: Unknown Job Id 99999.localhost\n", 153)
    said = states(PBS, "pbs-3=1==localhost", "pbs-4=localhost", "pbs-99999=localhost", "pbs-5=localhost")
    assert said == [RUNNING, RUNNING, ENDED, UNKNOWN]
    assert states(PBS, "pbs-4=other", "pbs-99999=other") == [UNKNOWN, UNKNOWN]
    assert commands.calls("qstat")[:2] == ["--version", "-x -t 3[] 4 5 99999"]
    commands.say("qstat", "", unknown, 35)
    assert states(PBS, "pbs-4=localhost", "pbs-99999=localhost", "pbs-3=1==localhost") == [ENDED, ENDED, UNKNOWN]


@pytest.mark.parametrize("letter, state", [*zip("FXCQHW", [ENDED] * 6), *zip("RESU", [RUNNING] * 4), ("T", UNKNOWN)])
def test_pbs_letters(commands: Commands, letter: str, state: str) -> None:
    commands.say("qstat", f"3[2].localhost    capture          user            00:00:00 {letter} workq           \n")
    assert states(PBS, "pbs-3=2==localhost") == [state]


@pytest.mark.parametrize("err, code", [("qstat: cannot connect to server localhost (errno=111)\n", 255), ("", 0)])
def test_pbs_says_nothing_clear(commands: Commands, err: str, code: int) -> None:
    commands.say("qstat", "", err, code)
    assert states(PBS, "pbs-3=2==localhost", "pbs-4=localhost") == [UNKNOWN, UNKNOWN]


def test_the_name_of_a_pbs_server_may_be_cut_off(commands: Commands) -> None:
    commands.say("qstat", "1234567[12].pbs-s* capture          user            00:00:00 F workq           \n")
    assert states(PBS, "pbs-1234567=12==pbs-server01") == [ENDED]
    assert states(PBS, "pbs-1234567=12==other") == [UNKNOWN]


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of an SGE whose queue master is localhost."""
    common = tmp_path / "sge" / "default" / "common"
    common.mkdir(parents=True)
    (common / "act_qmaster").write_text("localhost\n")
    monkeypatch.setenv("SGE_ROOT", str(tmp_path / "sge"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return common


def test_sge_states(commands: Commands, cell: Path) -> None:
    commands.say("qstat", (DATA / "sge/qstat-restarted.xml").read_text())
    labels = "sge-5.1 sge-5.1-r1 sge-5.2 sge-3 sge-99 sge-99.4".split()
    # run again; that run; running; waits; gone, gone
    expected = [ENDED, RUNNING, RUNNING, ENDED, ENDED, ENDED]
    assert states(SGE, *(f"{label}=localhost" for label in labels)) == expected
    assert states(SGE, "sge-99=other") == [UNKNOWN]
    assert len(commands.calls("qstat")) == 1
    commands.say("qstat", (DATA / "sge/qstat-rerun.xml").read_text())
    assert states(SGE, "sge-1.1=localhost", "sge-1.2=localhost", "sge-1.4=localhost") == [ENDED, RUNNING, ENDED]
    (cell / "sge_qstat").write_text("-q short\n")  # options that could leave out jobs
    assert states(SGE, "sge-99=localhost", "sge-1.2=localhost") == [UNKNOWN, RUNNING]


@pytest.mark.parametrize(
    "out, err, code",
    [
        ("", "error: commlib error: got select error (Connection refused)\n", 1),
        ("", "", 0),
        ("<job_info><queue_info>", "", 0),
        ("<html></html>", "", 0),
        ("<job_info/>", "error: something\n", 0),
        ("<job_info><job_list><state>r</state></job_list></job_info>", "", 0),
    ],
)
def test_sge_says_nothing_clear(commands: Commands, cell: Path, out: str, err: str, code: int) -> None:
    commands.say("qstat", out, err, code)
    assert states(SGE, "sge-99=localhost") == [UNKNOWN]


# -- the end of a job


def test_the_environment_may_tell_the_end(commands: Commands) -> None:
    assert job_end({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "1795598408"}) == 1795598408
    assert job_end({}) is None


TORQUE = {"PBS_JOBID": "1.host", "PBS_WALLTIME": "3600"}


def test_torque_tells_the_length_of_a_job_that_leads_a_session() -> None:
    ask = f"from ddmq_hpc.walltime import job_end; print(job_end({TORQUE}))"
    before = time.time()
    said = subprocess.run([sys.executable, "-c", ask], start_new_session=True, capture_output=True, check=True)
    assert before - 10 < float(said.stdout) - 3600 < time.time()


def test_a_session_led_from_outside_a_container_tells_no_end(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getsid", lambda pid: 0)  # what Linux says of a leader in another PID namespace
    commands.say("qstat", "", "qstat: cannot connect to server\n", 1)
    assert job_end(TORQUE) is None
    assert commands.calls("qstat")


def test_slurm_tells_the_end(commands: Commands) -> None:
    environ = environment("slurm/env-array-restarted.txt")
    commands.say("squeue", "1795598408\n")
    assert job_end(environ) == 1795598408
    assert commands.calls("squeue") == ["-a -h -j 17_2 -o %e"]
    commands.say("squeue", "2026-11-25T09:16:34\n")
    assert job_end(environ) == time.mktime((2026, 11, 25, 9, 16, 34, 0, 0, -1))
    for text in ("NONE\n", "N/A\n", "", "Unknown\n"):
        commands.say("squeue", text)
        assert job_end(environ) is None
    commands.say("squeue", "1795598408\n", DOWN, 1)
    assert job_end(environ) is None


def test_pbs_tells_the_end(commands: Commands) -> None:
    environ = environment("pbs/env-single.txt")
    began = time.mktime((2026, 11, 23, 23, 59, 38, 0, 0, -1))
    commands.say("qstat", (DATA / "pbs/qstat-x-f-json-running.json").read_text())
    assert job_end(environ) == began + 600
    commands.say("qstat", "{")
    assert job_end(environ) is None


def test_torque_tells_the_end(commands: Commands) -> None:
    commands.say("qstat", "Version: 6.1.2\n")
    assert states(PBS, "pbs-4=localhost") == [UNKNOWN]
    assert commands.calls("qstat")[1] == "-t 4"  # -x would be for XML
    commands.say(
        "qstat",
        "Job Id: 4.localhost\n    Job_Name = capture\n    Resource_List.walltime = 00:10:00\n"
        "    start_time = Mon Nov 23 23:59:38 2026\n",
    )
    assert job_end({"PBS_JOBID": "4.localhost"}) == time.mktime((2026, 11, 23, 23, 59, 38, 0, 0, -1)) + 600


def test_sge_tells_the_end(commands: Commands, cell: Path) -> None:
    text = (DATA / "sge/qstat-restarted.xml").read_text()
    limit = '<tasks>2</tasks><hard_request name="h_rt" resource_contribution="0.000000">600</hard_request>'
    commands.say("qstat", text.replace("<tasks>2</tasks>", limit))
    environ = {"SGE_ROOT": str(cell.parent.parent), "JOB_ID": "5", "SGE_TASK_ID": "2"}
    assert job_end(environ) == time.mktime((2026, 11, 25, 9, 14, 44, 0, 0, -1)) + 600
    assert job_end({**environ, "SGE_TASK_ID": "1"}) is None


# -- submission


def test_directives() -> None:
    wanted = Wanted("ddmq-q", 10, throttle=4, seconds=5400.5, slots=2, extra=("--partition=short",))
    assert SLURM.directives(wanted) == [
        "#SBATCH --job-name=ddmq-q",
        "#SBATCH --array=1-10%4",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --time=01:30:01",
        "#SBATCH --partition=short",
    ]
    assert SGE.directives(Wanted("q", 3, throttle=2, seconds=60, slots=2)) == [
        "#$ -N q",
        "#$ -t 1-3",
        "#$ -tc 2",
        "#$ -l h_rt=00:01:00,s_rt=00:00:30",
        "#$ -pe smp 2",
    ]


def test_directives_of_pbs(commands: Commands) -> None:
    commands.say("qstat", "pbs_version = 23.06.06\n")
    assert PBS.directives(Wanted("q", 3, throttle=2, seconds=60)) == [
        "#PBS -N q",
        "#PBS -J 1-3%2",
        "#PBS -l select=1:ncpus=1",
        "#PBS -l walltime=00:01:00",
    ]
    assert PBS.directives(Wanted("q", 1)) == ["#PBS -N q", "#PBS -l select=1:ncpus=1"]  # an array of one is refused
    commands.say("qstat", "Version: 6.1.2\n")
    schedulers.pbs._is_torque.cache_clear()  # type: ignore[attr-defined]
    assert PBS.directives(Wanted("q", 3)) == ["#PBS -N q", "#PBS -t 1-3", "#PBS -l nodes=1:ppn=1"]


def test_job_ids() -> None:
    assert SLURM.job_id("123\n") == "123"
    assert SLURM.job_id("123;snowy\n") == "123;snowy"
    assert PBS.job_id("7[].localhost\n") == "7[]"
    assert PBS.job_id("4.localhost\n") == "4"
    assert SGE.job_id("1.1-6:1\n") == "1"
    assert SGE.job_id('Your job 4 ("sleep") has been submitted\n') == "4"
    for scheduler in (SLURM, PBS, SGE):
        with pytest.raises(SchedulerError, match="no job id"):
            scheduler.job_id("error: denied\n")


def test_live_tasks_of_slurm(commands: Commands) -> None:
    commands.say("squeue", (DATA / "slurm/squeue-live.txt").read_text())
    assert SLURM.live_tasks(["17", "18", "99"]) == {"17": 8, "18": 1, "99": 0}
    assert len(commands.calls("squeue")) == 1
    assert SLURM.live_tasks([]) == {}
    commands.say("squeue", err=INVALID, code=1)
    assert SLURM.live_tasks(["99"]) == {"99": 0}
    assert SLURM.live_tasks(["98", "99"]) is None
    commands.say("squeue", err=DOWN, code=1)
    assert SLURM.live_tasks(["99"]) is None
    commands.say("squeue", "CLUSTER: snowy\n5|RUNNING\n")
    assert SLURM.live_tasks(["5;snowy"]) == {"5;snowy": 1}
    assert "--clusters=snowy" in commands.calls("squeue")[-1]
    assert SLURM.live_tasks(["5;snowy", "6"]) is None


def test_live_tasks_of_pbs_and_sge(commands: Commands, cell: Path) -> None:
    commands.say("qstat", (DATA / "pbs/qstat-t.txt").read_text(), "qstat: Unknown Job Id 9[].localhost\n", 153)
    assert PBS.live_tasks(["3[]", "4", "9[]"]) == {"3[]": 4, "4": 1, "9[]": 0}
    assert PBS.live_tasks(["3[]", "8"]) is None
    commands.say("qstat", (DATA / "sge/qstat-rerun.xml").read_text())
    assert SGE.live_tasks(["1", "2", "99"]) == {"1": 6, "2": 1, "99": 0}
    commands.say("qstat", err="error: commlib error\n", code=1)
    assert SGE.live_tasks(["1"]) is None
