"""`scale` submits what is missing, once, and nothing when it cannot know."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from sites import COMMAND, Site

from ddmq_hpc.workers import forget, list_workers


def test_workers_that_are_missing_are_submitted_as_the_last_ones_were(site: Site) -> None:
    site.publish(1000)
    site.submit(
        "--workers", "2", "--time", "30m", "--slots", "2", "-O", "--partition=x", "--lease", "1h", "--", "./run", "{}"
    )
    job = site.records()[0]["job"]
    site.live(**{f"j{job}": 2})
    site.ran(*[100.0] * 5)

    done = site.scale("--max", "50")

    # 1000 tasks of 100 s, two at a time, in jobs of half an hour less a tenth
    assert "31 workers wanted, 2 there" in done.stderr
    assert done.stdout.split("\t")[1] == "29 workers\n"
    script = next(script for script in site.jobs() if "1-29" in script)
    for expected in (
        "--time=00:30:00",
        "--cpus-per-task=2",
        "--partition=x",
        "tasks -j 2 --walltime 1800 --lease 3600 -- ./run '{}'",
    ):
        assert expected in script
    assert site.asked() == 1


def test_nothing_is_submitted_when_all_are_there_or_nothing_waits(site: Site) -> None:
    site.publish(3)
    site.scale("--max", "4", "--shell")
    [record] = site.records()
    assert record["tasks"] == 1, "three short tasks are work for one"
    site.live(**{f"j{record['job']}": 1})
    site.scale("--max", "4")
    site.broker.purge_queue("tasks")
    site.live()
    done = site.scale("--max", "4")
    assert "0 workers wanted, 0 there" in done.stderr
    assert len(site.jobs()) == 1
    done = site.scale("--min", "2", "--max", "4")
    assert "2 workers wanted" in done.stderr
    assert len(site.jobs()) == 2


def test_a_silent_scheduler_means_that_nothing_is_submitted(site: Site) -> None:
    site.publish(1000)
    site.submit("--workers", "1", "--shell")
    (site.fake / "squeue").unlink()
    assert "does not say which workers there are" in site.scale("--max", "9", code=75).stderr
    assert len(site.jobs()) == 1


def test_of_two_at_once_one_submits(site: Site) -> None:
    site.publish(1000)
    (site.fake / "slow").write_text("1")
    command = [COMMAND, "scale", site.root, "tasks", "--max", "3", "--time", "10m", "--shell"]
    two = [subprocess.Popen(command, env=site.env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=30)[1] for process in two]
    assert sorted(process.returncode for process in two) == [0, 75]
    assert sum("at work on this queue" in text for text in said) == 1
    assert len(site.jobs()) == 1


def test_a_scale_that_was_killed_does_not_stop_the_next_one(site: Site) -> None:
    site.publish(1000)
    site.submit("--workers", "1", "--shell")
    (site.fake / "hang").write_text("5")
    first = subprocess.Popen([COMMAND, "scale", site.root, "tasks", "--max", "3"], env=site.env)
    while not site.asked():
        time.sleep(0.02)
    first.kill()
    first.wait()
    (site.fake / "hang").unlink()
    site.scale("--max", "3")
    assert len(site.jobs()) == 2


def test_records_of_jobs_that_are_over_go(site: Site) -> None:
    for _ in range(3):
        site.submit("--workers", "1", "--shell")
    workers = Path(site.root, "tasks", "workers")
    for path in workers.glob("job-*.json"):
        record = json.loads(path.read_text())
        record["at"] -= 3600
        path.write_text(json.dumps(record))
    Path(site.root, "tasks", "locks", "chain-slurm-1.1").touch()
    oldest, second, newest = (record["job"] for record in sorted(site.records(), key=lambda record: record["at"]))
    Path(site.root, "tasks", "locks", f"chain-slurm-{second}.1").touch()
    site.live(**{f"j{oldest}": 1})
    site.scale("--max", "1")
    assert {record["job"] for record in site.records()} == {oldest, newest}
    assert [path.name for path in Path(site.root, "tasks", "locks").glob("chain-*")] == ["chain-slurm-1.1"]


def test_workers_do_not_tidy_records_away(site: Site) -> None:
    site.submit("--workers", "1", "--shell")
    [path] = Path(site.root, "tasks", "workers").glob("job-*.json")
    os.utime(path, (1e9, 1e9))
    queue = site.broker.queue("tasks")
    assert list_workers(queue) == []
    assert forget(queue) == 0
    assert path.exists()


def test_a_dry_run_submits_nothing(site: Site) -> None:
    site.publish(10)
    assert "#SBATCH --array=1-1\n" in site.scale("--max", "3", "--dry-run", "--", "./run").stdout
    assert not site.jobs()


def test_several_queues_are_served_by_the_same_workers(site: Site) -> None:
    site.broker.create_queue("more")
    site.publish(5)
    site.broker.publish_many("more", range(7))
    done = site.run("scale", site.root, "more,tasks", "--max", "5", "--shell")
    assert "12 tasks waiting" in done.stderr
    assert f"work {site.root} more,tasks --walltime 3600 --shell" in site.jobs()[0]
    assert os.listdir(Path(site.root, "more", "workers"))


def test_workers_of_another_version_are_counted(site: Site) -> None:
    site.submit("--workers", "2", "--shell")
    [path] = Path(site.root, "tasks", "workers").glob("job-*.json")
    record = json.loads(path.read_text())
    record["request"]["something"] = "new"
    path.write_text(json.dumps(record))
    site.live(**{f"j{record['job']}": 2})
    site.publish(2000)
    assert "2 there" in site.scale("--max", "2", "--shell").stderr
    assert len(site.jobs()) == 1
