"""Real work through a queue: checksum and compress Python files with several worker processes.

`make demo` runs it. The files are those of the directory given, or of Python's own standard library.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import Event
from multiprocessing.synchronize import Event as EventType
from pathlib import Path
from typing import NamedTuple

import ddmq_hpc

QUEUE = "compress"


class Done(NamedTuple):
    """What became of one file."""

    digest: str
    name: str
    size: int
    packed: int


def compress(source: Path, name: str, results: Path) -> Done:
    """The task itself: knows nothing of queues."""
    data = (source / name).read_bytes()
    target = results / f"{name}.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(packed := gzip.compress(data))
    return Done(hashlib.sha256(data).hexdigest(), name, len(data), len(packed))


stop: EventType  # set when the workers shall end; each gets it as it starts


def work(root: str, results: Path) -> list[Done]:
    """One worker: takes messages until there are none, on this or any other machine that sees the same directory."""
    broker = ddmq_hpc.broker(root)
    done = []
    while not stop.is_set() and (messages := broker.consume(queue=QUEUE, n=1)):
        for message in messages:
            task = message.message
            try:
                with message:  # settled at the end of the block, given back for another attempt when it raises
                    done.append(compress(Path(task["source"]), task["name"], results))
            except OSError as error:
                print(f"{task['name']}: {error.strerror} (attempt {message.attempt})", file=sys.stderr)
    return done


def start_worker(event: EventType) -> None:
    """Let the main process alone answer Ctrl-C; the workers finish the file they have."""
    global stop
    stop = event
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def watch(broker: ddmq_hpc.Broker, total: int, workers: list[Future[list[Done]]]) -> None:
    """Show how many messages are settled until all workers are at their end: a bar on a terminal, else some lines."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        terminal = Console().is_terminal
    except ImportError:
        terminal = False

    def settled() -> int:
        stats = broker.stats(QUEUE)
        return total - stats.ready - stats.leased - stats.delayed

    if terminal:
        columns = (TextColumn("draining"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            bar = progress.add_task("", total=total)
            while not all(worker.done() for worker in workers):
                progress.update(bar, completed=settled())
                time.sleep(0.1)
            progress.update(bar, completed=settled())
    else:
        while not all(worker.done() for worker in workers):
            print(f"{settled()} of {total} done", flush=True)
            time.sleep(0.5)


def run(source: Path, home: Path, count: int, tasks: int) -> int:
    """Publish, drain, report. The exit status is 0 when all is done."""
    root, results = str(home / "queue"), home / "results"
    broker = ddmq_hpc.broker(root, create=True)
    broker.create_queue(QUEUE)

    names = (path.relative_to(source) for path in sorted(source.rglob("*.py")))
    own = (str(name) for name in names if "site-packages" not in name.parts)
    total = broker.publish_many(QUEUE, ({"source": str(source), "name": name} for name in islice(own, tasks)))
    print(f"{total} tasks published to the queue {QUEUE!r} in {root}; {count} workers take them")

    begin = time.monotonic()
    event = Event()
    with ProcessPoolExecutor(count, initializer=start_worker, initargs=(event,)) as pool:
        workers = [pool.submit(work, root, results) for _ in range(count)]
        try:
            watch(broker, total, workers)
        except KeyboardInterrupt:
            event.set()
            print("\nstopped: what is not done stays in the queue")
    seconds = time.monotonic() - begin

    command = Path(sys.executable).with_name("ddmq-hpc")
    subprocess.run([command, "status", root], check=True)
    parts = [worker.result() for worker in workers]
    done = sorted(item for part in parts for item in part)
    (results / "SHA256SUMS").write_text("".join(f"{item.digest}  {item.name}\n" for item in done))
    size, packed = sum(item.size for item in done), sum(item.packed for item in done)
    print(f"{len(done)} of {total} files, {size / 1e6:.1f} MB -> {packed / 1e6:.1f} MB in {seconds:.1f} s")
    print("files per worker: " + ", ".join(str(len(part)) for part in parts))
    return 0 if len(done) == total else 1


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    library = Path(sysconfig.get_paths()["stdlib"])
    parser.add_argument("directory", nargs="?", type=Path, default=library, help="whose .py files (Python's own)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="worker processes (4)")
    parser.add_argument("--tasks", type=int, default=500, metavar="N", help="files to take at most (500)")
    parser.add_argument("--keep", action="store_true", help="keep the queue and the results")
    given = parser.parse_args()
    if not given.directory.is_dir():
        parser.error(f"no directory {given.directory}")

    home = Path(tempfile.mkdtemp(prefix="ddmq-hpc-demo-"))
    try:
        return run(given.directory.resolve(), home, given.workers, given.tasks)
    finally:
        if given.keep:
            print(f"the compressed files and SHA256SUMS are in {home / 'results'}, the queue in {home / 'queue'}")
        else:
            shutil.rmtree(home)
            print("all of it removed again; --keep leaves the results and the queue")


if __name__ == "__main__":
    sys.exit(main())
