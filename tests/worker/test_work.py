"""`ddmq-hpc work` as its users see it: real commands, real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from worker_tools import COMMAND, Bench, as_json, of_journal, processes, wait_for

from ddmq_hpc.guardian import Guardian
from ddmq_hpc.names import parse_lease


def test_tasks_are_done_once_each_in_all_slots(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(200))
    said = bench.work("-j", "4", "--", "sh", "-c", f"echo $DDMQ_HPC_SLOT {{}} >> {bench.place}/log")
    lines = [line.split() for line in bench.file("log").splitlines()]
    assert sorted(int(number) for _, number in lines) == list(range(200))
    assert {slot for slot, _ in lines} == {"1", "2", "3", "4"}
    assert bench.counts() == {}
    assert "200 done" in said
    assert "nothing is ready" in said


def test_the_message_and_its_fields_stand_in_the_command(bench: Bench) -> None:
    bench.broker.publish("tasks", {"seed": 7, "name": "a b; rm *"})
    bench.work(
        "--", "sh", "-c", 'printf "%s\\n" "$@" > ' + str(bench.place / "out"), "-", "{seed}", "{name}", "{}", "${A}"
    )
    assert bench.file("out").splitlines() == ["7", "a b; rm *", '{"seed":7,"name":"a b; rm *"}', "${A}"]


def test_text_has_no_fields(bench: Bench) -> None:
    bench.broker.publish("tasks", "a b")
    bench.work("--", "sh", "-c", "echo \"$@\" | awk '{print}' > " + str(bench.place / "out"), "-", "{}", "{no}")
    assert bench.file("out") == "a b {no}\n"


def test_a_field_that_a_message_does_not_have_runs_nothing(bench: Bench) -> None:
    """Misspelt, it must not use up the queue."""
    bench.broker.publish_many("tasks", [{"seed": 7}, {"seed": 8}])
    worker = bench.start("--", "touch", f"{bench.place}/{{sed}}")
    _, said = worker.communicate(timeout=20)
    assert worker.returncode == 2 and len(said.splitlines()) == 1
    assert "the command says {sed}, but the message has seed" in said
    assert bench.counts() == {"ready": 2} and not os.path.exists(f"{bench.place}/{{sed}}")


def test_one_message_without_the_field_fails_alone(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    bench.broker.publish_many("tasks", [{"seed": 7}, {"size": 1}, {"seed": 8}])
    assert "2 done, 1 attempt failed" in bench.work("--", "test", "-n", "{seed}")
    assert bench.counts() == {"dead": 1}


def test_what_a_command_finds_in_its_environment(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "text with 'quotes'\nand lines").id
    script = f"""
        env | grep '^DDMQ_HPC_' > {bench.place}/env
        cat "$DDMQ_HPC_PAYLOAD_FILE" > {bench.place}/payload
        cat > {bench.place}/stdin
        touch "$DDMQ_HPC_TASK_DIR/scratch"; mkdir "$DDMQ_HPC_TASK_DIR/deep"; touch "$DDMQ_HPC_TASK_DIR/deep/er"
    """
    bench.work("--stdin", "--timeout", "1h", "--", "sh", "-c", script)
    found = dict(line.split("=", 1) for line in bench.file("env").splitlines() if line.startswith("DDMQ"))
    assert found["DDMQ_HPC_ID"] == ident
    assert found["DDMQ_HPC_ROOT"] == bench.root
    assert found["DDMQ_HPC_QUEUE"] == "tasks"
    assert found["DDMQ_HPC_ATTEMPT"] == "1"
    assert 3500 < int(found["DDMQ_HPC_DEADLINE"]) - time.time() <= 3601
    assert found["DDMQ_HPC_RECEIPT"].startswith("tasks/")
    assert found["DDMQ_HPC_STATE_DIR"].startswith(bench.root)
    assert not os.path.exists(found["DDMQ_HPC_TASK_DIR"])
    assert bench.file("payload") == bench.file("stdin") == "text with 'quotes'\nand lines"
    assert not list((bench.place / "node").glob("ddmq-hpc-*-*-*")), "the worker's own directory is left"


def test_a_state_directory_survives_attempts_and_goes_when_the_message_is_done(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    script = (
        'mkdir -p "$DDMQ_HPC_STATE_DIR"; echo >> "$DDMQ_HPC_STATE_DIR/n"; test $(wc -l < "$DDMQ_HPC_STATE_DIR/n") -ge 3'
    )
    bench.work("--", "sh", "-c", script)
    assert [record["attempt"] for record in of_journal(bench.records(), "nacked")] == [1, 2]
    assert os.listdir(f"{bench.root}/tasks/state") == []


def test_a_failure_is_kept_with_its_end_of_output_and_its_own_words(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    bench.broker.publish("tasks", "x")
    script = 'seq 1 5000; echo the last line >&2; echo no such sample > "$DDMQ_HPC_ERROR_FILE"; kill -9 $$'
    bench.work("--", "sh", "-c", script)
    [record] = of_journal(bench.records(), "nacked")
    assert record["exit"] == 137
    assert record["signal"] == 9
    assert record["error"] == "no such sample"
    assert record["output"].endswith("5000\nthe last line\n")
    assert len(record["output"]) <= 4096
    assert record["to"] == "dead"


def test_a_record_tells_time_and_memory_of_the_whole_tree(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    hog = "python3 -c 'import time; x = bytearray(150_000_000); time.sleep(1.2)'"
    bench.work("--", "sh", "-c", f"{hog} & {hog} & i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; wait")
    [record] = of_journal(bench.records(), "acked")
    assert 1.0 < record["wall"] < 20
    assert 0.02 < record["cpu"] < 20
    assert record["rss"] > 280_000_000
    assert record["exit"] == 0


def test_exit_codes_mean_what_the_queue_says(bench: Bench) -> None:
    bench.settings("exit_codes: {75: retry, 99: release, 65: dead, 100: stop-worker}\nrequeue_limit: 1\n")
    for code in (65, 75, 99, 100):
        bench.broker.publish("tasks", code)
    bench.broker.publish("tasks", 0)
    said = bench.work("--", "sh", "-c", "exit {}")
    assert "exit code 100" in said
    # 65 and 75 (tried twice) are dead letters, 99 waits a moment, 100 and 0 were not reached or given back
    assert bench.counts() == {"ready": 2, "delayed": 1, "dead": 2}
    assert [record["attempt"] for record in of_journal(bench.records(), "nacked") if record["exit"] == 75] == [1, 2]
    assert {record["exit"] for record in of_journal(bench.records(), "released")} == {99, 100}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_passed_on_and_what_is_unfinished_comes_back_uncounted(bench: Bench, number: int) -> None:
    bench.broker.publish_many("tasks", ["stubborn", "obedient", "never begun"])
    script = f"""
        if [ "$DDMQ_HPC_MESSAGE" = stubborn ]; then trap 'echo stubborn {number} >> {bench.place}/log' {number}
        else trap 'echo obedient {number} >> {bench.place}/log; exit 0' {number}; fi
        echo up >> {bench.place}/up
        sleep 321 & while kill -0 $! 2>/dev/null; do wait $!; done
        sleep 322 & while kill -0 $! 2>/dev/null; do wait $!; done
    """
    worker = bench.start("-j", "2", "--grace", "4", "--prefetch", "1", "--", "sh", "-c", script)
    wait_for(lambda: bench.file("up").count("up") == 2, "both tasks")
    worker.send_signal(number)
    _, said = worker.communicate(timeout=20)
    assert worker.returncode == 0, said
    assert signal.Signals(number).name in said
    assert said.splitlines()[0].startswith("stopping: 2 tasks may take up to 4s")
    assert {f"stubborn {number}", f"obedient {number}"} <= set(bench.file("log").splitlines())
    # who says within the grace that it is done is done; the others come back in their first attempt
    assert bench.counts() == {"ready": 2}
    assert sorted(m.attempt for m in bench.broker.consume("tasks", 2)) == [1, 1]
    assert not processes("sleep 321")
    assert not processes("sleep 322")


@pytest.mark.parametrize(("told", "left", "state"), [(True, "ready", "released"), (False, "dead", "nacked")])
def test_a_task_may_hear_of_the_end_of_the_job_first(bench: Bench, told: bool, left: str, state: str) -> None:
    """Schedulers signal one process after the other. Nobody but the task hears it: then it is a failure of the task."""
    bench.settings("requeue_limit: 0\n")
    bench.broker.publish("tasks", "x")
    worker = bench.start("--", "sh", "-c", f"echo > {bench.place}/up; kill -TERM $$")
    wait_for(lambda: bench.file("up"), "the task")
    if told:
        time.sleep(0.5)
        worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=20)
    assert bench.counts() == {left: 1}
    [record] = [record for record in bench.records() if record["state"] in ("released", "nacked")]
    assert (record["state"], record["signal"]) == (state, signal.SIGTERM)


def test_no_orphan_outlives_a_killed_worker(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    worker = bench.start("--", "sh", "-c", f"echo > {bench.place}/up; trap '' TERM HUP; sleep 543 & sleep 544; true")
    wait_for(lambda: bench.file("up"), "the task")
    wait_for(lambda: processes("sleep 544"), "the task's child")
    worker.kill()
    worker.wait()
    wait_for(lambda: not processes("sleep 543") and not processes("sleep 544"), "the guardian's work", 5)
    wait_for(lambda: not list((bench.place / "node").glob("ddmq-hpc-*-*-*")), "the removal of its directory", 5)
    # its lease is free at once on this host, and counted as a loss
    [message] = bench.broker.consume("tasks", wait=15)
    assert (message.failed, message.lost) == (0, 1)


def test_what_a_task_leaves_in_the_background_ends_with_it(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    bench.work("--", "sh", "-c", "sleep 654 &")
    assert not processes("sleep 654")
    assert bench.counts() == {}


def test_a_lease_is_renewed_for_as_long_as_its_task_runs(bench: Bench) -> None:
    bench.settings("grace: 0\n")
    bench.broker.publish("tasks", "x")
    worker = bench.start("--lease", "1s", "--", "sleep", "4")
    wait_for(lambda: bench.counts() == {"leased": 1}, "the task")
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert bench.broker.consume("tasks") == []
        bench.broker.clean("tasks")
        time.sleep(0.1)
    _, said = worker.communicate(timeout=20)
    assert "1 done" in said
    assert not of_journal(bench.records(), "lost")


@pytest.mark.parametrize("choice", ["kill", "finish"])
def test_a_task_whose_lease_was_lost_is_told_to_stop_or_goes_on(bench: Bench, choice: str) -> None:
    bench.settings(f"on_lost: {choice}\n")
    bench.broker.publish("tasks", "x")
    worker = bench.start(
        "--lease", "1s", "--", "sh", "-c", f"echo > {bench.place}/up; sleep 4; echo > {bench.place}/end"
    )
    wait_for(lambda: bench.file("up"), "the task")
    [entry] = Path(f"{bench.root}/tasks/leased").iterdir()
    lease = parse_lease(entry.name)
    assert lease
    taken = lease._replace(owner="elsewhere:1:1:k:other.1", deadline=lease.deadline + 3_600_000)
    entry.rename(entry.with_name(taken.name))  # somebody else took it over
    _, said = worker.communicate(timeout=20)
    assert "1 lost" in said
    assert bool(bench.file("end")) == (choice == "finish")
    assert not of_journal(bench.records(), "acked")


def test_a_task_that_takes_too_long_has_failed(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    bench.broker.publish("tasks", "x")
    said = bench.work("--timeout", "1s", "--", "sleep", "60")
    [record] = of_journal(bench.records(), "nacked")
    assert record["error"] == "took longer than 1 s"
    assert 1 <= record["wall"] < 10
    assert "1 attempt failed" in said and "signal 15: took longer than 1 s" in said


def test_a_task_that_is_done_when_it_is_told_that_its_time_is_over_is_done(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    bench.work("--timeout", "1s", "--", "sh", "-c", "trap 'exit 0' TERM; sleep 60 & wait")
    [record] = of_journal(bench.records(), "acked")
    assert "error" not in record


def test_no_task_is_begun_that_cannot_be_finished(bench: Bench) -> None:
    bench.broker.publish("tasks", "long", time_request="30m")
    bench.broker.publish("tasks", "longer than any", time_request="9h")
    bench.broker.publish("tasks", "short", time_request=1)
    said = bench.work("--walltime", "10m", "--", "sh", "-c", f"echo {{}} >> {bench.place}/log")
    assert bench.file("log") == "short\n"
    assert "1 done" in said
    assert bench.counts() == {"delayed": 2}
    assert not of_journal(bench.records(), "nacked")


def test_tasks_as_long_as_those_before_are_left_to_others_near_the_end(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(50))
    said = bench.work("--walltime", "12s", "--margin", "9s", "--grace", "0", "--", "sleep", "0.7")
    done = len(of_journal(bench.records(), "acked"))
    assert 2 <= done <= 4
    assert "no time is left" in said
    assert bench.counts() == {"ready": 50 - done}


def test_a_worker_stops_its_tasks_before_its_job_ends(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    started = time.monotonic()
    said = bench.work("--walltime", "8s", "--margin", "0", "--grace", "1", "--", "sleep", "60")
    assert time.monotonic() - started < 8
    assert "about to end" in said
    assert bench.counts() == {"ready": 1}
    assert not of_journal(bench.records(), "nacked")


def test_max_tasks_leaves_the_rest(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(10))
    assert "3 done" in bench.work("-j", "2", "--max-tasks", "3", "--", "true")
    assert bench.counts() == {"ready": 7}


def test_drained_waits_for_what_was_put_off_and_what_others_hold(bench: Bench) -> None:
    bench.broker.publish("tasks", "later", delay=2)
    [held] = bench.broker.consume("tasks") or [None]
    assert held is None
    started = time.monotonic()
    assert "1 done" in bench.work("--until", "drained", "--", "true")
    assert time.monotonic() - started > 1.5
    assert bench.counts() == {}


def test_idle_exit_waits_for_messages_and_ends_when_none_come(bench: Bench) -> None:
    worker = bench.start("--idle-exit", "2s", "--", "true")
    time.sleep(1.2)
    bench.broker.publish("tasks", "x")
    _, said = worker.communicate(timeout=20)
    assert "1 done" in said
    assert "nothing came" in said


def test_several_queues_the_first_one_first(bench: Bench) -> None:
    bench.broker.create_queue("more", durable=False)
    bench.broker.publish("more", "b")
    bench.broker.publish("tasks", "a")
    subprocess.run(
        [
            COMMAND,
            "work",
            bench.root,
            "tasks,more",
            "--",
            "sh",
            "-c",
            f"echo $DDMQ_HPC_QUEUE {{}} >> {bench.place}/log",
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    assert bench.file("log") == "tasks a\nmore b\n"


def test_shell_runs_the_message_itself(bench: Bench) -> None:
    bench.broker.publish("tasks", f"for i in 1 2 3; do echo $i; done > {bench.place}/out")
    bench.work("--shell")
    assert bench.file("out") == "1\n2\n3\n"


def test_a_command_that_cannot_be_run_is_nobodys_failure(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    worker = bench.start("--", "/no/such/command", "{}")
    _, said = worker.communicate(timeout=20)
    assert worker.returncode == 1
    assert "cannot run '/no/such/command'" in said
    assert len(said.splitlines()) == 1
    assert bench.counts() == {"ready": 1}


def test_a_message_of_which_no_command_can_be_made_fails_alone(bench: Bench) -> None:
    bench.broker.publish_many("tasks", ["x" * 200_000, "small"])
    assert "1 done, 1 attempt failed" in bench.work("--", "test", "-n", "{}")
    [record] = of_journal(bench.records(), "nacked")
    assert record["exit"] == 126
    assert "pass it by --stdin or $DDMQ_HPC_PAYLOAD_FILE" in record["error"]
    assert bench.counts() == {"dead": 1}, "another attempt would end the same"


def test_a_slot_that_finds_nothing_waits_for_what_the_others_work_on(bench: Bench) -> None:
    """What fails in the last slot at work is tried again."""
    bench.settings("requeue_limit: 2\n")
    bench.broker.publish("tasks", "sleep 0.5; exit 1")
    said = bench.work("--shell", "-j", "3")
    assert "3 attempts failed" in said and "nothing is ready" in said
    assert bench.counts() == {"dead": 1}


def test_who_ends_tells_of_what_is_delayed(bench: Bench) -> None:
    bench.settings("retry_delay: 1h\n")
    bench.broker.publish("tasks", "exit 1")
    said = bench.work("--shell")
    assert "nothing is ready, 1 message is delayed (`--until drained` waits)" in said


def test_who_ends_tells_why_what_is_delayed_will_not_come(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    bench.broker.publish("tasks", "exit 1", group="align")
    bench.broker.publish("tasks", "true", after="align")
    bench.broker.publish("tasks", "true", after="algin")
    said = bench.work("--shell")
    assert "2 messages are delayed: " in said and "--until drained" not in said
    assert "only dead letters are left of group 'align' (1), and 1 message comes after it" in said
    assert "nothing was ever published with group 'algin', and 1 message comes after it" in said


def test_who_waits_for_what_cannot_come_says_so_once(bench: Bench) -> None:
    bench.broker.publish("tasks", "true", after="algin")
    worker = bench.start("--until", "drained", "--idle-exit", "15s", "--shell")
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0 and "nothing came for a while" in said
    told = [line for line in said.splitlines() if "waiting for what does not come by itself" in line]
    assert len(told) == 1 and "nothing was ever published with group 'algin'" in told[0] and "--idle-exit" in told[0]


def test_a_large_message_is_in_its_file_when_no_variable_can_hold_it(bench: Bench) -> None:
    bench.broker.publish("tasks", "x" * 200_000)
    bench.work("--", "sh", "-c", f'test -z "$DDMQ_HPC_MESSAGE" && wc -c < "$DDMQ_HPC_PAYLOAD_FILE" > {bench.place}/out')
    assert bench.file("out").strip() == "200000"


def test_output_goes_into_one_log_with_an_index(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(20))
    bench.work("-j", "3", "--output", "segment", "--", "sh", "-c", "echo out {}; echo err {} >&2")
    logs = sorted(Path(f"{bench.root}/tasks/logs").iterdir())
    assert [log.suffix for log in logs] == [".index", ".log"]
    data = logs[1].read_bytes()
    found = {}
    for line in logs[0].read_text().splitlines():
        entry = json.loads(line)
        found[entry["id"]] = data[entry["offset"] : entry["offset"] + entry["length"]].decode()
    assert sorted(found.values()) == sorted(f"out {n}\nerr {n}\n" for n in range(20))


def test_output_goes_into_a_file_a_task(bench: Bench) -> None:
    ident = bench.broker.publish("tasks", "x").id
    bench.work("--output", "files", "--", "sh", "-c", "echo one; test $DDMQ_HPC_ATTEMPT = 2")
    logs = Path(f"{bench.root}/tasks/logs")
    assert {log.name: log.read_text() for log in logs.iterdir()} == {
        f"{ident}.1.log": "one\n",
        f"{ident}.2.log": "one\n",
    }


def test_ctrl_c_at_a_terminal_reaches_the_tasks_once_and_twice_kills(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    worker = bench.start(
        "--grace",
        "60",
        "--",
        "sh",
        "-c",
        f"trap 'echo int >> {bench.place}/log' INT; echo > {bench.place}/up; while :; do sleep 0.1; done",
    )
    wait_for(lambda: bench.file("up"), "the task")
    worker.send_signal(signal.SIGINT)
    wait_for(lambda: bench.file("log"), "the signal")
    time.sleep(0.5)
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=10)
    assert worker.returncode == 0
    assert bench.file("log") == "int\n"
    assert bench.counts() == {"ready": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--shell", "--", "true"),
        ("-j", "0", "--", "true"),
        ("--walltime", "soon", "--", "true"),
        ("--timeout", "0", "--", "true"),
        ("./forgot", "the", "dashes"),
        ("--",),
    ],
    ids=" ".join,
)
def test_wrong_usage_changes_nothing_and_says_so_in_a_line(bench: Bench, arguments: tuple[str, ...]) -> None:
    bench.broker.publish("tasks", "x")
    worker = bench.start(*arguments)
    _, said = worker.communicate(timeout=20)
    assert worker.returncode == 2
    assert len(said.splitlines()) == 1
    assert bench.counts() == {"ready": 1}


def test_workers_are_listed_and_can_be_asked_to_stop(bench: Bench) -> None:
    bench.broker.publish_many("tasks", range(100))
    worker = bench.start("-j", "2", "--prefetch", "0", "--", "sleep", "1.5")
    wait_for(lambda: bench.counts().get("leased") == 2, "two tasks")
    listing = [COMMAND, "workers", bench.root, "tasks", "--format", "json"]
    [row] = as_json(subprocess.run(listing, check=True, capture_output=True, text=True).stdout)["workers"]
    assert (row["pid"], row["slots"], row["alive"], row["command"]) == (worker.pid, 2, "yes", ["sleep", "1.5"])
    subprocess.run([COMMAND, "workers", "stop", bench.root, "tasks", row["id"]], check=True, capture_output=True)
    _, said = worker.communicate(timeout=30)
    assert "was asked to stop" in said
    assert not of_journal(bench.records(), "released")  # what it had begun it finished
    assert len(of_journal(bench.records(), "acked")) >= 2
    [row] = as_json(subprocess.run(listing, check=True, capture_output=True, text=True).stdout)["workers"] or [None]
    assert row is None


def test_workers_asked_to_stop_now_give_back_what_they_have(bench: Bench) -> None:
    bench.broker.publish("tasks", "x")
    worker = bench.start("--grace", "1", "--", "sleep", "600")
    wait_for(lambda: bench.counts().get("leased") == 1, "the task")
    subprocess.run([COMMAND, "workers", "stop", bench.root, "tasks", "all", "--now"], check=True, capture_output=True)
    worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert bench.counts() == {"ready": 1}


def test_a_task_that_its_dead_worker_could_not_tell_of_is_found_by_its_environment(bench: Bench) -> None:
    """Also one that left the session of its task."""
    guardian = Guardian(str(bench.place / "node" / "gone"), "some-worker")
    tasks = [
        subprocess.Popen(["setsid", "sleep", "876"], env={**os.environ, "DDMQ_HPC_WORKER": worker})
        for worker in ("some-worker", "some-worker-else")
    ]
    wait_for(lambda: len(processes("sleep 876")) == 2, "both")
    os.close(guardian._pipe)  # as when its process is killed
    assert tasks[0].wait(10) == -signal.SIGKILL
    assert tasks[1].poll() is None
    tasks[1].kill()
    tasks[1].wait()


def test_a_worker_on_a_bad_host_ends_once_others_finish_what_fails_there(bench: Bench) -> None:
    bench.settings("requeue_limit: 50\nretry_delay: 1s\n")
    bench.broker.publish_many("tasks", range(400))
    task = ("--", "sh", "-c", '[ "$GOOD" ] && sleep 0.1')
    good = [bench.start("--until", "drained", *task, GOOD="yes") for _ in range(2)]
    bad = bench.start("--until", "drained", *task, GOOD="")
    _, said = bad.communicate(timeout=90)
    assert bad.returncode == 0
    assert "something is wrong with this host" in said
    failures = [record for record in of_journal(bench.records(), "nacked") if record["pid"] == bad.pid]
    assert 5 <= len(failures) < 30  # it slowed down before it was sure
    for worker in good:
        worker.communicate(timeout=90)
    assert bench.counts() == {}


def test_the_last_worker_goes_on_whatever_fails_but_slowly(bench: Bench) -> None:
    bench.settings("requeue_limit: 0\n")
    bench.broker.publish_many("tasks", range(9))
    started = time.monotonic()
    said = bench.work("--", "sh", "-c", "echo no licence; exit 9").splitlines()
    assert said[0] == "5 tasks in a row failed at once, the last with exit code 9: no licence; going on more slowly"
    assert said[1].startswith("9 attempts failed in ")
    assert "the last failure was" in said[1]
    assert 3 < time.monotonic() - started < 30


@pytest.mark.parametrize("what", ["root", "queue", "pack", "settings"])
def test_what_others_could_have_written_is_not_run(bench: Bench, what: str) -> None:
    bench.broker.publish("tasks", "x")
    queue = Path(bench.root) / "tasks"
    queue.chmod(0o755)
    [pack] = queue.glob("ready/*/*/*")
    bench.settings("requeue_limit: 3\n")
    target = {"root": queue.parent, "queue": queue, "pack": pack, "settings": queue / "ddmq.yaml"}[what]
    target.chmod(target.stat().st_mode | 0o022)
    worker = bench.start("--", "sh", "-c", f"echo > {bench.place}/ran")
    _, said = worker.communicate(timeout=20)
    assert worker.returncode == 1
    assert "chmod" in said
    assert len(said.splitlines()) == 1
    assert not bench.file("ran")
    assert bench.counts() == {"ready": 1}
