"""Queues with a past: journals as workers would have written them, of a day or of a hundred thousand tasks."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddmq_hpc import Broker
from ddmq_hpc.names import Dead, Entry, pack_name
from ddmq_hpc.queue import Queue
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration


class Past:
    """Writes what happened: times are seconds since `start`."""

    def __init__(self, root: Path, start: float, seed: int = 1) -> None:
        broker = Broker(root, create=True)
        broker.create_queue("simulations")
        self.queue: Queue = broker.queue("simulations")
        self.start = start
        self.random = random.Random(seed)
        self._lines: dict[str, list[str]] = {}

    def pack(self, at: float) -> str:
        token = "".join(self.random.choices("abcdefghijklmnopqrstuvwxyz234567", k=8))
        return pack_name(round((self.start + at) * 1e9), 0, token)

    def attempt(self, state: str, ident: str, began: float, ended: float, host: str, **more: Any) -> None:
        record = {"state": state, "id": ident, "attempt": 1, "at": self.start + ended, "taken": self.start + began}
        self._lines.setdefault(host, []).append(json.dumps({**record, "host": host, "pid": 100, **more}))

    def session(self, worker: str, host: str, began: float, ended: float, slots: int) -> None:
        self.attempt("worker", worker, began, ended, host, attempt=0, slots=slots)

    def ready(self, pack: str, count: int) -> None:
        self._place(Path(self.queue.paths.in_ready(999, Entry(pack, 0, count, 0, 0))), count)

    def dead(self, pack: str, index: int) -> None:
        entry = Entry(pack, index, index + 1, 3, 0)
        self._place(Path(self.queue.paths.in_dead(Dead(999, entry, "requeue-limit"))), index + 1)

    def _place(self, path: Path, lines: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"./simulate"\n' * lines)

    def live(self, worker: str, host: str, since: float, slots: int) -> Registration:
        info = WorkerInfo.of_this_process(self.queue, worker, ["simulations"], slots)
        registration = Registration(self.queue, replace(info, host=host, since=self.start + since))
        registration.start()
        return registration

    def finish(self) -> Queue:
        for number, lines in enumerate(self._lines.values()):
            with open(f"{self.queue.paths.journal}/host{number}.jsonl", "a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        self._lines.clear()
        return self.queue


def a_day(root: Path, now: float, tasks: int = 640) -> Queue:
    """Some hours of a parameter sweep on five nodes; one of these is bad, and one worker dies."""
    span = 6 * 3600.0
    past = Past(root, now - span - 600)
    rng = past.random
    free: list[tuple[float, str, str, int]] = []
    for number in range(6):
        host = f"node{(1, 2, 3, 4, 4, 7)[number]:02d}"
        began = 420.0 + 300 * number + rng.uniform(0, 120)
        worker = f"{host}-{4100 + 37 * number}-k{number}x3"
        slots = 2 if number == 5 else 4
        free += [(began, worker, host, slot) for slot in range(1, slots + 1)]
    all_slots = list(free)
    seen = {worker: (began, host) for began, worker, host, _ in free}
    packs = [past.pack(rng.uniform(0, 60) if index < 4 else 5400 + rng.uniform(0, 60)) for index in range(6)]
    waiting = [(pack, index, 1) for pack in packs for index in range(tasks // 5 if pack < packs[4] else tasks // 8)]
    lost_at = 3.1 * 3600
    ends: dict[str, float] = {}
    while waiting and free:
        free.sort()
        at, worker, host, slot = free.pop(0)
        began = max(at, int(waiting[0][0][:19]) / 1e9 - past.start + rng.uniform(1, 5))
        pack, index, number = waiting.pop(0)
        seed, alpha = index + 128 * packs.index(pack), rng.choice((0.1, 0.3, 0.5, 0.9))
        wall = rng.lognormvariate(6.25, 0.45) * (2.4 if alpha == 0.9 else 1)
        rss = rng.lognormvariate(21.2, 0.35) * (1.8 if alpha == 0.9 else 1)
        ident, ended = f"{pack}.{index}", began + wall
        if host == "node03" and ended > lost_at and slot:
            if began < lost_at:
                to = {"to": "ready", "owner": f"{host}:411:77:beef:tok.1"}
                past.attempt("lost", ident, 0, lost_at + 600, "node01", attempt=number, **to)
                waiting.insert(0, (pack, index, number + 1))
            ends[worker] = lost_at
            continue
        if ended > span:
            ends[worker] = span
            continue
        more: dict[str, Any] = {"worker": worker, "slot": slot, "attempt": number, "job": "slurm-48213_2=hpc"}
        more["task"] = f"./simulate --seed {seed} --alpha {alpha} --grid 512"
        state = "acked"
        if host == "node07" and rng.random() < 0.55:
            state, ended = "nacked", began + rng.uniform(3, 20)
            more.update(exit=2, error="licence server lic2:27000 does not answer")
        elif rss > 4.4e9:
            state = "nacked"
            more.update(exit=137, signal=9, oom=True)
        elif rng.random() < 0.02:
            state = "nacked"
            more.update(exit=1, error=f"did not converge after 400 iterations (alpha={alpha})")
        if state == "nacked":
            dead = number >= 3
            more["to"] = "dead" if dead else "ready"
            if dead:
                past.dead(pack, index)
            else:
                waiting.insert(rng.randrange(12), (pack, index, number + 1))
        more.update(wall=round(ended - began, 3), cpu=round((ended - began) * rng.uniform(0.86, 0.99), 3), rss=int(rss))
        past.attempt(state, ident, began - 1, ended, host, **more)
        ends[worker] = max(ends.get(worker, 0), ended)
        free.append((ended + rng.uniform(0.2, 2), worker, host, slot))
    for worker, (began, host) in seen.items():
        if ends.get(worker) == lost_at:
            continue  # it died
        slots = sum(other == worker for _, other, _, _ in all_slots)
        past.session(worker, host, began, max(ends[worker], span) + 20, slots)
    for pack in dict.fromkeys(pack for pack, _, _ in waiting):
        past.ready(pack, sum(1 for other, _, _ in waiting if other == pack))
    return past.finish()


def many(root: Path, now: float, tasks: int = 100_000, workers: int = 48, slots: int = 8) -> Queue:
    """So many tasks that nobody wants to see each: published at once, done by workers of half as many hosts."""
    past = Past(root, now - 14 * 3600)
    rng = past.random
    packs = [past.pack(number * 1e-3) for number in range(tasks // 100)]
    ready = [60.0 + 900 * (number % 8) for number in range(workers) for _ in range(slots)]
    for number in range(tasks):
        lane = number % len(ready)
        worker = lane // slots
        host, began = f"node{worker // 2:02d}", ready[lane]
        wall = rng.lognormvariate(4.6, 0.9)
        bad = host == "node05" and rng.random() < 0.2
        ready[lane] = ended = began + (2 if bad else wall)
        more: dict[str, Any] = {"exit": 3, "error": f"cannot stat input {number}", "to": "dead"} if bad else {"exit": 0}
        past.attempt(
            "nacked" if bad else "acked",
            f"{packs[number // 100]}.{number % 100}",
            began,
            ended,
            host,
            wall=round(ended - began, 3),
            cpu=round((ended - began) * 0.9, 3),
            rss=int(rng.lognormvariate(19.5, 0.4)),
            worker=f"{host}-{worker}",
            slot=lane % slots + 1,
            task=f"./step --input part-{number:06d}.h5",
            **more,
        )
    for worker in range(workers):
        host = f"node{worker // 2:02d}"
        lanes = ready[worker * slots : (worker + 1) * slots]
        past.session(f"{host}-{worker}", host, 900 * (worker * slots % 8) + 50.0, max(lanes) + 15, slots)
    return past.finish()
