"""What `submit` hands to a scheduler, keeps on record, and says when it is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from sites import COMMAND, Site

NASTY = ["./it's", "{}", "$HOME `id` $(id)", 'a "b" \\ c', "*", "x\n#$ -q evil\n#SBATCH -p evil", "ü\t!", "--", ""]


def test_a_dry_run_shows_the_script_and_submits_nothing(site: Site) -> None:
    site.publish(3)
    done = site.submit("--workers", "4", "--time", "2h", "--dry-run", "--", "./simulate", "{}")
    place = Path(COMMAND).parent
    assert done.stdout == (
        f"""\
#!/bin/bash
# Made by `ddmq-hpc submit` from the job script that comes with it.
#
#SBATCH --job-name=ddmq-hpc
#SBATCH --array=1-4
#SBATCH --cpus-per-task=1
#SBATCH --time=02:00:00
# Two minutes before the time limit Slurm sends USR1 to the worker, which gives its tasks back in time. Less is too
# late: Slurm looks at limits only every half minute.
#SBATCH --signal=B:USR1@120
# A worker whose node fails, or that is preempted, starts again and goes on writing to the same file.
#SBATCH --requeue
#SBATCH --open-mode=append

export PATH={place}:$PATH
cd -- {site.place} || exit 1
# exec: the worker becomes the batch process and gets all signals itself. This shell would hold them back, and no trap
# of its own is needed: as long as the worker has not started, no message is taken.
exec ddmq-hpc work {site.root} tasks --walltime 7200 -- ./simulate '{{}}'

# submitted with: sbatch --parsable < this script
"""
    )
    assert not site.jobs()
    assert not site.records()


@pytest.mark.parametrize(
    "scheduler, lines",
    [
        ("slurm", ["#SBATCH --array=1-6%2", "#SBATCH --time=24:00:00", "#SBATCH --cpus-per-task=3"]),
        ("pbs", ["#PBS -J 1-6%2", "#PBS -l walltime=24:00:00", "#PBS -l select=1:ncpus=3"]),
        ("sge", ["#$ -t 1-6", "#$ -tc 2", "#$ -l h_rt=24:00:00,s_rt=23:58:00", "#$ -pe smp 3", "#$ -notify", "#$ -V"]),
    ],
)
def test_no_scheduler_is_needed_to_look_at_a_script(site: Site, scheduler: str, lines: list[str]) -> None:
    options = ["--workers", "6", "--throttle", "2", "--slots", "3", "--time", "1d", "-O", "--any thing"]
    for name in ("sbatch", "qsub", "squeue", "scontrol"):
        (site.bin / name).unlink()
    path = f"{Path(COMMAND).parent}:/bin"
    shown = site.submit(*options, "--scheduler", scheduler, "--dry-run", "--shell", PATH=path).stdout.splitlines()
    options = [line for line in shown if line.startswith(lines[0].split()[0] + " ")]
    assert not set(lines) - set(options), options
    assert f"{lines[0].split()[0]} --any thing" in options
    assert sum("1-20" in line or "01:00:00" in line for line in shown) == 0, "the template's own are replaced"
    assert f"exec ddmq-hpc work {site.root} tasks -j 3 --walltime 86400 --shell" in shown


def test_a_short_job_is_not_warned_as_it_starts(site: Site) -> None:
    lines = site.submit("--time", "2m", "--dry-run", "--shell").stdout.splitlines()
    assert [line for line in lines if "--signal" in line] == ["#SBATCH --signal=B:USR1@60"]


def test_what_is_submitted_is_on_record_and_its_id_printed(site: Site) -> None:
    site.publish(50)
    done = site.submit("--workers", "5", "--chain", "-O", "--partition=short", "-W", "--grace 30s", "--", "./run", "{}")
    [script] = site.jobs()
    assert "#SBATCH --partition=short" in script
    assert f"exec ddmq-hpc work {site.root} tasks --walltime 3600 --grace 30s --chain -- ./run '{{}}'" in script
    [record] = site.records()
    assert done.stdout == f"{record['job']}\t5 workers\n"
    assert record["scheduler"] == "slurm"
    assert record["tasks"] == 5
    assert record["group"] == f"slurm-{record['job']}"
    assert record["request"]["command"] == ["./run", "{}"]
    assert record["request"]["work"] == ["--grace", "30s"]
    assert record["request"]["most"] == 5
    assert record["request"]["directory"] == str(site.place)
    assert site.asked() == 0


@pytest.mark.parametrize("scheduler", ["slurm", "sge"])
def test_a_command_comes_through_as_it_was_given(site: Site, scheduler: str, tmp_path: Path) -> None:
    """Run by bash, the script passes exactly these words; and no line of it is an option but those that are meant."""
    shown = site.submit("--workers", "1", "--scheduler", scheduler, "--dry-run", "--", *NASTY).stdout
    prefix = {"slurm": "#SBATCH", "sge": "#$"}[scheduler]
    assert not [line for line in shown.splitlines() if "evil" in line and line.startswith(prefix)]
    echo = tmp_path / "echo" / "ddmq-hpc"
    echo.parent.mkdir()
    echo.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    echo.chmod(0o755)
    script = shown.replace(f"export PATH={Path(COMMAND).parent}:", f"export PATH={echo.parent}:")
    said = subprocess.run(["bash"], input=script.encode(), stdout=subprocess.PIPE, check=True).stdout
    assert said.decode().split("\0")[:-1] == ["work", site.root, "tasks", "--walltime", "3600", "--", *NASTY]


def test_a_submission_above_the_limit_becomes_several_arrays(site: Site) -> None:
    (site.fake / "scontrol").write_text("MaxArraySize            = 9\n")
    done = site.submit("--workers", "20", "--throttle", "6", "--shell")
    spans = [line for script in site.jobs() for line in script.splitlines() if "--array" in line]
    assert sorted(spans) == ["#SBATCH --array=1-6%2", "#SBATCH --array=1-7%2", "#SBATCH --array=1-7%2"]
    assert len(done.stdout.splitlines()) == len(site.records()) == 3
    assert len({record["group"] for record in site.records()}) == 1


def test_the_backlog_says_how_many(site: Site) -> None:
    site.publish(200)
    site.ran(300.0, 300.0, 1.0, 900.0, 300.0)
    # 200 tasks of 300 s in jobs of an hour, less a tenth for the end but no more than 5 minutes: 60000 s / 3300 s
    done = site.submit("--time", "1h", "--shell")
    assert "200 tasks waiting, 5m00s each (the median of 5): 19 workers" in done.stderr
    assert site.records()[0]["tasks"] == 19


def test_it_is_said_when_nothing_is_known_of_the_tasks(site: Site) -> None:
    site.publish(200)
    done = site.submit("--max-workers", "3", "--shell")
    assert "no task has run yet: sized for 1m00s each: 3 workers" in done.stderr


@pytest.mark.parametrize(
    "said, code, expected",
    [
        (
            "sbatch: error: invalid partition specified: fast",
            1,
            "sbatch refused the job: sbatch: error: invalid partition",
        ),
        ("sbatch: error: Unable to contact slurm controller (connect failure)", 75, "no connection to the scheduler"),
    ],
)
def test_what_a_scheduler_says_is_passed_on(site: Site, said: str, code: int, expected: str) -> None:
    (site.fake / "refuse").write_text(said)
    assert expected in site.submit("--workers", "2", "--shell", code=code).stderr
    assert not site.records()


def test_what_was_submitted_before_a_refusal_is_named(site: Site) -> None:
    (site.fake / "scontrol").write_text("MaxArraySize            = 3\n")
    (site.bin / "sbatch").write_text(
        '#!/bin/sh\n[ -e "$FAKE/one" ] && { echo no more >&2; exit 1; }\ntouch "$FAKE/one"; echo 7\n'
    )
    assert "no more (submitted before: 7)" in site.submit("--workers", "4", "--shell", code=1).stderr
    assert [record["job"] for record in site.records()] == ["7"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((), "no command"),
        (("--shell", "--", "x"), "with --shell the messages are the commands"),
        (("--workers", "0", "--shell"), "neither a number of workers nor `auto`"),
        (("--scheduler", "lsf", "--shell"), "lsf"),
        (("--time", "5m", "--margin", "10m", "--shell"), "leaves no time"),
    ],
)
def test_what_makes_no_sense_is_refused(site: Site, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in site.submit(*arguments, code=2).stderr
    assert not site.jobs()


def test_where_there_is_no_scheduler_it_is_said(site: Site) -> None:
    path = f"{Path(COMMAND).parent}:{site.place}"
    assert "no scheduler here" in site.submit("--workers", "1", "--shell", code=1, PATH=path).stderr


def test_a_submission_from_inside_of_a_job_is_a_job_of_its_own(site: Site) -> None:
    """Slurm reads options in SLURM_* variables, and a worker would take those of its parent for its own."""
    inside = {
        "SLURM_JOB_ID": "5",
        "SLURM_ARRAY_JOB_ID": "4",
        "SLURM_CPUS_PER_TASK": "9",
        "SLURM_CONF": "/x",
        "MINE": "1",
    }
    site.submit("--workers", "1", "--shell", **inside)
    [kept] = site.fake.glob("job-*.env")
    names = {line.partition("=")[0] for line in kept.read_text().splitlines()}
    assert {"SLURM_CONF", "MINE", "PATH"} <= names
    assert not {"SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_CPUS_PER_TASK"} & names


def test_what_is_demanded_of_messages_holds_in_every_job(site: Site, tmp_path: Path) -> None:
    """Also where the scheduler gives a job nothing of the environment, and in what a job submits."""
    key = str(tmp_path / "a key")
    demands = {"DDMQ_HPC_SIGN": "required", "DDMQ_HPC_KEY_FILE": key, "DDMQ_HPC_MESSAGE": "m", "SLURM_JOB_ID": "5"}
    Path(key).write_text("k" * 43)
    Path(key).chmod(0o600)
    site.submit("--workers", "1", "--shell", **demands)
    [kept] = site.fake.glob("job-*.env")
    found = dict(line.partition("=")[::2] for line in kept.read_text().splitlines())
    assert (found["DDMQ_HPC_SIGN"], found["DDMQ_HPC_KEY_FILE"]) == ("required", key)
    assert "DDMQ_HPC_MESSAGE" not in found
    script = site.submit("--workers", "1", "--shell", "--dry-run", **demands).stdout
    assert f"\nexport DDMQ_HPC_SIGN=required\nexport DDMQ_HPC_KEY_FILE='{key}'\n" in script


def test_a_record_of_somebody_else_is_counted_and_not_repeated(site: Site) -> None:
    site.submit("--workers", "2", "--shell")
    [path] = Path(site.root, "tasks", "workers").glob("job-*.json")
    path.chmod(0o666)
    site.publish(5)
    job = site.records()[0]["job"]
    site.live(**{f"j{job}": 2})
    assert "no command" in site.scale("--max", "9", code=2).stderr
    done = site.scale("--max", "9", "--", "./mine")
    assert "2 there" in done.stderr
    os.unlink(path)
