"""Measure ddmq-hpc beside other queues, in one run: `python benchmarks/bench.py [--quick] [--dir DIRECTORY] [--save]`.

The machine's speed changes from minute to minute, so only ratios within one run are told, of medians of interleaved
rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import peers
import servers

import ddmq_hpc

BODY = peers.BODY
HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).with_name("ddmq-hpc"))
Work = Callable[[str, int], None]


@contextmanager
def fresh(base: str) -> Iterator[str]:
    """A new directory. ext4 makes files ten times slower where many were just deleted, so each has its own group."""
    top = tempfile.mkdtemp(dir=base)
    try:
        yield top
    finally:
        shutil.rmtree(top)


def ours(bulk: bool, batch: int, durable: bool = False) -> Work:
    def work(top: str, count: int) -> None:
        broker = ddmq_hpc.broker(f"{top}/root", create=True)
        broker.create_queue("q", durable=durable)
        if bulk:
            broker.publish_many("q", (BODY for _ in range(count)))
        else:
            for _ in range(count):
                broker.publish("q", BODY)
        got = 0
        while messages := broker.consume("q", batch):
            broker.ack(messages[0] if batch == 1 else messages)
            got += len(messages)
        assert got == count

    return work


def timed(work: Work, base: str, count: int) -> float:
    with fresh(base) as top:
        started = time.perf_counter()
        work(top, count)
        return time.perf_counter() - started


def against_others(base: str, count: int, rounds: int) -> Iterator[str]:
    """5,000 published, then consumed and acked, in all."""
    works: dict[str, tuple[Work, float | None]] = {
        "python-dirq": (peers.dirq, None),
        "one by one": (ours(False, 1), 1.0),
        "bulk publish, then one by one": (ours(True, 1), 0.6),
        "bulk publish, then 32 at a time": (ours(True, 32), 0.16),
        "SQLite, WAL, no fsync": (peers.sqlite("off"), None),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, _) in works.items():
            times[name].append(timed(work, base, count))
    first = statistics.median(times["python-dirq"])
    for name, (_, bar) in works.items():
        took = statistics.median(times[name])
        yield row(f"{name}, {count} messages", f"{took / count * 1e6:.0f} us", took / first, bar, "dirq")


def against_servers(base: str, count: int, rounds: int) -> Iterator[str]:
    """The same work beside servers on loopback, and beside ddmq."""
    with fresh(base) as place, servers.running(place) as ports:
        works: dict[str, Work] = {
            "one by one, durable": ours(False, 1, durable=True),
            "bulk publish, then 32 at a time, durable": ours(True, 32, durable=True),
            "SQLite, WAL, fsync": peers.sqlite("full"),
            "one by one": ours(False, 1),
            "bulk publish, then 32 at a time": ours(True, 32),
        }
        if port := ports.rabbitmq:
            works["RabbitMQ, durable, persistent, confirms, basic_get"] = peers.rabbitmq(port, True, 0)
            works["RabbitMQ, durable, persistent, prefetch 100"] = peers.rabbitmq(port, False, 100)
        if port := ports.redis:
            works["Redis, appendfsync everysec"] = peers.redis(port)
        if port := ports.redis_fsync:
            works["Redis, appendfsync always"] = peers.redis(port)
        if port := ports.beanstalkd:
            works["beanstalkd, no fsync"] = peers.beanstalkd(port)
        if port := ports.beanstalkd_fsync:
            works["beanstalkd, fsync"] = peers.beanstalkd(port)
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                times[name].append(timed(work, base, count))
        took = {name: statistics.median(found) / count for name, found in times.items()}
        old, old_count = peers.Ddmq(f"{place}/ddmq"), min(count, 1000)
        with fresh(base) as top:
            took[f"ddmq 0.9.14, its cleaning left out, {old_count} messages"] = old.seconds(top, old_count) / old_count
    bars = {
        "one by one, durable": ("RabbitMQ, durable, persistent, confirms, basic_get", 0.5),
        "one by one": ("RabbitMQ, durable, persistent, prefetch 100", 0.5),
        "bulk publish, then 32 at a time": ("RabbitMQ, durable, persistent, prefetch 100", 0.1),
    }
    for name, each in took.items():
        other, bar = bars.get(name, ("", None))
        ratio = each / took[other] if other in took else None
        what = name if name.endswith("messages") else f"{name}, {count} messages"
        yield row(what, f"{each * 1e6:.0f} us", ratio, bar, other)


def row(what: str, figure: str, ratio: float | None, bar: float | None, to: str = "", least: bool = False) -> str:
    met = "" if bar is None or ratio is None else "met" if (ratio >= bar) == least or ratio == bar else "NOT MET"
    shown = "" if ratio is None else f"{ratio:.2f}"
    limit = "" if bar is None else f"{'at least' if least else 'at most'} {bar:g} of {to}"
    return f"| {what} | {figure} | {shown} | {limit} | {met} |"


def _first_pulls(root: str) -> tuple[float, float]:
    fresh_ones, warm = [], []
    for _ in range(7):
        broker = ddmq_hpc.broker(root)
        started = time.perf_counter()
        broker.consume("q")
        fresh_ones.append(time.perf_counter() - started)
    for _ in range(500):
        started = time.perf_counter()
        (message,) = broker.consume("q")
        warm.append(time.perf_counter() - started)
        broker.ack(message)
    return statistics.median(fresh_ones), statistics.median(warm)


def backlog(base: str, big: int, singles: int) -> Iterator[str]:
    """What a pull costs with little and with much behind it."""
    for kind, few, many in (("bulk", 1000, big), ("one by one", 1000, singles)):
        costs = []
        for count in (few, many):
            with fresh(base) as top:
                broker = ddmq_hpc.broker(f"{top}/root", create=True)
                broker.create_queue("q", durable=False)
                started = time.perf_counter()
                if kind == "bulk":
                    broker.publish_many("q", (BODY for _ in range(count)))
                else:
                    for _ in range(count):
                        broker.publish("q", BODY)
                took = time.perf_counter() - started
                if kind == "bulk" and count == many:
                    inodes = sum(len(files) + len(folders) for _, folders, files in os.walk(top))
                    started = time.perf_counter()
                    subprocess.run([COMMAND, "status", f"{top}/root"], check=True, stdout=subprocess.DEVNULL)
                    status = time.perf_counter() - started
                    yield row(f"{count} published in bulk, seconds", f"{took:.1f} s", took, 20, "1 s")
                    yield row("their inodes, thousands", str(inodes), inodes / 1000, 12, "1,000")
                    yield row("`status` of them, seconds", f"{status:.2f} s", status, 1, "1 s")
                costs.append(_first_pulls(f"{top}/root"))
        for what, small, large in zip(("first pull", "median pull"), *costs):
            name = f"{what}, {many} behind it against {few}, published {kind}"
            yield row(name, f"{large * 1e6:.0f} us", large / small, 1.5, f"{few}")


def _drain(root: str) -> int:
    broker, got = ddmq_hpc.broker(root), 0
    while messages := broker.consume("q"):
        broker.ack(messages)
        got += len(messages)
    return got


def _drain_dirq(path: str) -> int:
    from dirq.QueueSimple import QueueSimple

    queue, got = QueueSimple(path), 0
    for name in queue:
        if queue.lock(name):
            queue.get(name)
            queue.remove(name)
            got += 1
    return got


def together(base: str, count: int, rounds: int) -> Iterator[str]:
    """Many processes at one queue: each stops at its first empty answer, and nothing may be left then."""
    rates: dict[str, list[float]] = {"2": [], "32": [], "dirq": []}
    for _ in range(rounds):
        for name in rates:
            with fresh(base) as top, ProcessPoolExecutor(2 if name == "2" else 32) as pool:
                list(pool.map(time.sleep, [0.05] * 32))
                if name == "dirq":
                    from dirq.QueueSimple import QueueSimple

                    queue = QueueSimple(f"{top}/queue")
                    for _ in range(count):
                        queue.add(BODY)
                    work, place = _drain_dirq, f"{top}/queue"
                else:
                    broker = ddmq_hpc.broker(f"{top}/root", create=True)
                    broker.create_queue("q", durable=False)
                    for _ in range(count):
                        broker.publish("q", BODY)
                    work, place = _drain, f"{top}/root"
                started = time.perf_counter()
                got = sum(pool.map(work, [place] * (2 if name == "2" else 32)))
                rates[name].append(count / (time.perf_counter() - started))
                assert got == count or name == "dirq", f"{got} of {count}: lost, doubled or left behind"
    two, many, other = (statistics.median(rates[name]) for name in ("2", "32", "dirq"))
    yield row("32 processes draining together", f"{many:.0f}/s", many / other, 1.2, "dirq's rate", least=True)
    yield row("32 processes against 2", f"{many:.0f}/s", many / two, 0.5, "the rate of 2", least=True)


def start_up(base: str, rounds: int) -> Iterator[str]:
    """A whole `ddmq-hpc pull` against importing click alone."""
    pulls, imports = [], []
    with fresh(base) as top:
        ddmq_hpc.broker(f"{top}/root", create=True).publish_many("q", range(rounds + 1))
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        for number in range(rounds + 1):
            for times, command in (
                (pulls, [COMMAND, "pull", f"{top}/root", "q"]),
                (imports, [sys.executable, "-c", "import click"]),
            ):
                started = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
                if number:  # the first one compiles
                    times.append(time.perf_counter() - started)
    pull, click = statistics.median(pulls), statistics.median(imports)
    yield row("`ddmq-hpc pull`, whole process", f"{pull * 1e3:.0f} ms", pull / click, 1.5, "importing click")


def workers(base: str, count: int, rounds: int) -> Iterator[str]:
    """Tasks that do nothing, two at a time, beside GNU parallel."""
    parallel = shutil.which("parallel")
    ours, theirs = [], []
    for _ in range(rounds):
        with fresh(base) as top:
            broker = ddmq_hpc.broker(f"{top}/root", create=True)
            broker.create_queue("q", durable=False)
            broker.publish_many("q", range(count))
            started = time.perf_counter()
            subprocess.run([COMMAND, "work", f"{top}/root", "q", "-j", "2", "--", "true", "{}"], check=True, stderr=-3)
            ours.append(count / (time.perf_counter() - started))
            numbers = "".join(f"{number}\n" for number in range(count))
            if parallel:
                started = time.perf_counter()
                subprocess.run([parallel, "-j2", "true", "{}"], input=numbers.encode(), check=True, stderr=-3)
                theirs.append(count / (time.perf_counter() - started))
    mine, other = statistics.median(ours), statistics.median(theirs) if theirs else None
    ratio = mine / other if other else None
    yield row(f"`work -j 2`, {count} tasks that do nothing", f"{mine:.0f}/s", ratio, 1, "GNU parallel -j2", least=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds")
    parser.add_argument("--dir", default=str(HERE), help="where to put the data, on a local disk")
    parser.add_argument("--save", action="store_true", help="write benchmarks/RESULTS.md")
    given = parser.parse_args()
    rounds, big, singles = (3, 100_000, 10_000) if given.quick else (7, 1_000_000, 100_000)
    base = tempfile.mkdtemp(prefix="data-", dir=given.dir)
    subprocess.run(["chattr", "+T", base], check=False, stderr=subprocess.DEVNULL)
    memory = tempfile.mkdtemp(dir="/dev/shm") if os.path.isdir("/dev/shm") else ""
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, Linux {platform.release()}.",
        "",
        "| what | figure | ratio | bar | |",
        "|---|--:|--:|---|---|",
    ]
    try:
        for rows in (
            against_others(base, 5000, rounds),
            against_servers(base, 2000, rounds),
            together(base, 5000, rounds),
            backlog(base, big, singles),
            start_up(base, 5 * rounds),
            workers(base, 2000, 3),
            (line.replace("| ", "| tmpfs: ", 1) for line in (against_others(memory, 5000, rounds) if memory else ())),
        ):
            for line in rows:
                print(line, flush=True)
                lines.append(line)
    finally:
        shutil.rmtree(base)
        shutil.rmtree(memory, ignore_errors=True)
    if given.save:
        (HERE / "RESULTS.md").write_text("# Results\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
