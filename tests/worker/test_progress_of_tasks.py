"""What tasks of a worker tell of themselves is in its registration; silence can be a failure; `exec` goes on."""

from __future__ import annotations

import json
import subprocess
import sys

from worker_tools import COMMAND, Bench, of_journal, wait_for

from ddmq_hpc.advance import Progress
from ddmq_hpc.workers import list_workers

TELL = f"{COMMAND} progress"


def told(bench: Bench) -> list[Progress | None]:
    return [task.progress for info in list_workers(bench.broker.queue("tasks")) for task in info.tasks]


def test_it_is_in_the_registration(bench: Bench) -> None:
    bench.broker.publish("tasks", "simulate 7")
    go = bench.place / "go"
    bench.start("--", "sh", "-c", f'{TELL} 3/10 -m "epoch 3"; while ! test -e {go}; do sleep 0.1; done')
    wait_for(lambda: told(bench) == [Progress(3, 10, "epoch 3")], "progress", 60)
    (info,) = list_workers(bench.broker.queue("tasks"))
    assert info.tasks[0].task == "simulate 7" and info.tasks[0].id == info.running[0]
    now = bench.broker.queue("tasks").fs.time()
    assert now - 100 < info.tasks[0].since <= info.tasks[0].told <= now + 5
    listed = subprocess.run([COMMAND, "workers", bench.root], capture_output=True, text=True, check=True).stdout
    assert "3/10 epoch 3" in listed
    shown = subprocess.run([COMMAND, "workers", "--format", "json", bench.root], capture_output=True, check=True).stdout
    assert json.loads(shown)["workers"][0]["tasks"][0]["progress"] == {"done": 3.0, "total": 10.0, "text": "epoch 3"}
    go.touch()
    bench.workers[0].wait(30)
    assert bench.counts() == {}
    assert list((bench.place / "node").rglob("progress*")) == []


def test_from_python(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    go = bench.place / "go"
    code = (
        "import ddmq_hpc, os, time\nn = 0\n"
        f"while not os.path.exists({str(go)!r}): n += 1; ddmq_hpc.progress(n, 10**9, 'py'); time.sleep(0.001)"
    )
    bench.start("--", sys.executable, "-c", code)
    wait_for(lambda: any(one and one.text == "py" for one in told(bench)), "progress", 60)
    go.touch()
    bench.workers[0].wait(30)
    assert len(of_journal(bench.records(), "acked")) == 1


def test_silence_is_a_failure_once_something_was_told(bench: Bench) -> None:
    bench.settings("progress_timeout: 1s\nrequeue_limit: 0\n")
    bench.broker.publish_many("tasks", ["told", "silent"])
    bench.work("-j", "2", "--", "sh", "-c", f'test "$1" = silent || {TELL} 1/2; sleep 4', "-", "{}")
    (failed,) = of_journal(bench.records(), "nacked")
    (done,) = of_journal(bench.records(), "acked")
    assert (failed["task"], failed["error"], done["task"]) == ("told", "no progress for 1s", "silent")


def test_who_goes_on_telling_is_left_alone(bench: Bench) -> None:
    bench.settings("progress_timeout: 6s\n")
    bench.broker.publish("tasks", "x")
    bench.work("--", "sh", "-c", f"for n in 1 2 3 4 5 6 7 8 9; do {TELL} same; {TELL} 1/2; sleep 1; done")
    assert [record["state"] for record in bench.records() if record["state"] != "worker"] == ["acked"]


def test_inside_exec_its_own_lease_is_left_to_it(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    command = [COMMAND, "exec", bench.root, "tasks", "--lease", "2", "--"]
    done = subprocess.run(
        [*command, "sh", "-c", f"{TELL} 1/2 && sleep 3 && {TELL} 2/2"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(of_journal(bench.records(), "acked")) == 1


def test_who_lost_the_lease_hears_so(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    steal = f"rm {bench.root}/tasks/leased/*; {TELL} 1/2; echo $? > {bench.place}/code"
    subprocess.run([COMMAND, "exec", bench.root, "tasks", "--", "sh", "-c", steal], capture_output=True, timeout=60)
    assert bench.file("code") == "5\n"
