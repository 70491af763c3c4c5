"""Reasons that lie with those who work: there is none, or none of them takes what is ready."""

from __future__ import annotations

import shlex

from ddmq_hpc import schedulers
from ddmq_hpc.breaker import ended_workers
from ddmq_hpc.explaining.reasons import Reason, are, count, some
from ddmq_hpc.explaining.sight import Sight
from ddmq_hpc.messages import Message
from ddmq_hpc.submitted import Record
from ddmq_hpc.units import LONGEST, human, human_memory
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import asked_to_stop

#: Workers that are looked at one by one.
_MOST = 50
_MOST_NAME = 60
_DAY = 86400.0
_SNAKEMAKE = ["--snakemake"]


def _has_work(sight: Sight) -> bool:
    found = sight.stats
    return bool(found.ready or found.delayed or found.dropped)


def submitted(sight: Sight) -> Reason | None:
    """Workers that are on their way, as batch jobs: those who submitted them said so."""
    if sight.live or not _has_work(sight) or not sight.submitted:
        return None
    newest = sight.submitted[0]
    jobs = [record for record in sight.submitted if record.scheduler == newest.scheduler]
    text = f"No worker is there. Submitted {sight.ago(newest.at)} by {newest.by[:_MOST_NAME]}: job {newest.job} of "
    text += f"{newest.scheduler}, {count(newest.tasks, 'worker')}"
    text += f", and {count(len(jobs) - 1, 'job')} before" if len(jobs) > 1 else ""
    fields = {"jobs": [record.label for record in jobs], "scheduler": newest.scheduler, "at": newest.at}
    if not sight.ask_scheduler:
        text += ". Whether they wait in the scheduler, it can be asked."
        return Reason("submitted", text, sight.command("explain", "--ask-scheduler"), fields)
    live = schedulers.get(newest.scheduler).live_tasks([record.job for record in jobs])
    if live is None:
        text += f". {newest.scheduler} does not say whether they wait."
        return Reason("submitted", text, sight.command("explain", "--ask-scheduler"), fields)
    number = sum(live.values())
    if number:
        text += f". Of all these {number} {are(number)} waiting in the scheduler, or starting."
        return Reason("submitted", text, _look(newest), {**fields, "live": number})
    return Reason("submitted", f"{text}. All of them have ended.", _again(sight, newest), {**fields, "live": 0})


def _look(record: Record) -> str:
    number = record.label.partition("-")[2]
    return {"slurm": f"squeue -j {number}", "pbs": f"qstat {number}", "sge": f"qstat -j {number}"}[record.scheduler]


def _again(sight: Sight, record: Record) -> str:
    """One's own last submission has all that it takes to have such workers again."""
    return sight.command("scale", "--max", str(record.tasks)) if record.request else sight.work(verb="submit")


def no_worker(sight: Sight) -> Reason | None:
    """Nobody works, or those who did are gone. Workers that were submitted are another reason."""
    if sight.live or not _has_work(sight):
        return None
    gone = [f"{info.id} ({_end(sight, info)})" for info in sight.workers]
    if gone:
        text = f"No worker is alive. {count(len(gone), 'registration')} {are(len(gone))} left: {some(gone)}."
    elif sight.submitted:
        return None
    else:
        text = "No worker is registered at this queue."
    fields = {"workers": [info.to_dict() for info in sight.workers[:20]], "ready": sight.stats.ready}
    return Reason("no-worker", text, sight.work(), fields)


def _end(sight: Sight, info: WorkerInfo) -> str:
    job = f", job {info.job}" if info.job else ""
    how = "its process is gone" if info.alive == "no" else "silent"
    return f"on {info.host}{job}: {how}, last seen {sight.ago(info.seen)}"


def stopping(sight: Sight) -> Reason | None:
    """All who work were asked to stop."""
    if not sight.live or not _has_work(sight):
        return None
    asked = [info.id for info in sight.live[:_MOST] if asked_to_stop(sight.queue, info.id)]
    if len(asked) < len(sight.live):
        return None
    text = f"All workers that are alive were asked to stop: {some(asked)}."
    return Reason("stopping", text, sight.work(), {"workers": asked})


def wrong_kind(sight: Sight) -> Reason | None:
    """Jobs of Snakemake, for which workers have to be told that they are."""
    if not sight.live or not sight.is_for_snakemake or any(list(info.command) == _SNAKEMAKE for info in sight.live):
        return None
    text = f"The messages are jobs of Snakemake, and none of the {count(len(sight.live), 'worker')} that "
    text += f"{are(len(sight.live))} alive was started with --snakemake."
    return Reason("snakemake", text, sight.work(), {"workers": [info.id for info in sight.live[:20]]})


def too_large(sight: Sight) -> Reason | None:
    """What comes first needs more than anybody has: workers put it off for those who have more."""
    if not sight.live:
        return None
    for waiting in sight.head:
        message = waiting.message
        if any(_could_run(sight, info, message) for info in sight.live):
            if sight.stats.ready:
                return None  # somebody takes what comes first
            continue
        text = f"{message.id} needs {_needs(message)}. No worker has that: {_most(sight)}."
        fields = {"id": message.id, "slots": message.slots, "memory": message.memory}
        fields["time_request"] = message.time_request
        return Reason("too-large", text, _larger(sight, message), fields)
    return None


def _could_run(sight: Sight, info: WorkerInfo, message: Message) -> bool:
    memory_fits = info.memory is None or (message.memory or 0) <= info.memory
    time_fits = info.ends is None or sight.now + (message.time_request or 0.0) <= info.ends
    return message.slots <= info.slots and memory_fits and time_fits


def _needs(message: Message) -> str:
    parts = [count(message.slots, "slot")]
    parts += [human_memory(message.memory)] if message.memory else []
    parts += [f"{human(message.time_request)} of time"] if message.time_request else []
    return ", ".join(parts)


def _most(sight: Sight) -> str:
    """What the workers have, each thing where there is most of it."""
    parts = [f"the largest has {count(max(info.slots for info in sight.live), 'slot')}"]
    memories = [info.memory for info in sight.live]
    if None not in memories:
        parts.append(f"the most memory is {human_memory(max(filter(None, memories), default=0))}")
    ends = [info.ends for info in sight.live]
    if None not in ends:
        left = max(end for end in ends if end is not None) - sight.now
        parts.append(f"the most time left is {human(min(max(0.0, left), LONGEST))}")
    return ", ".join(parts)


def _larger(sight: Sight, message: Message) -> str:
    """A worker that has as much; where the time is short, a batch job that lasts so long."""
    slots = ("-j", str(message.slots)) if message.slots > 1 else ()
    needed = message.time_request or 0.0
    if any(info.ends is not None and sight.now + needed > info.ends for info in sight.live):
        return sight.work(*slots, "--time", human(max(needed * 1.25, 600.0)), verb="submit")
    memory = ("--memory", human_memory(message.memory)) if message.memory else ()
    return sight.work(*slots, *memory)


def busy(sight: Sight) -> Reason | None:
    """All slots have something to do: what is ready waits for its turn."""
    slots, running = sum(info.slots for info in sight.live), sum(len(info.running) for info in sight.live)
    if not sight.live or not sight.stats.ready or running < slots:
        return None
    text = f"{count(sight.stats.ready, 'message')} {'waits' if sight.stats.ready == 1 else 'wait'} for a slot: "
    text += (
        f"{count(len(sight.live), 'worker')} with {count(slots, 'slot')} in all {are(len(sight.live))} fully at work."
    )
    fields = {"slots": slots, "workers": len(sight.live), "ready": sight.stats.ready}
    return Reason("busy", text, sight.command("workers"), fields)


def bad_host(sight: Sight) -> Reason | None:
    """Workers that ended since they failed at what others could do."""
    ended = [one for one in ended_workers(sight.queue) if one.at > sight.now - _DAY]
    if not ended:
        return None
    newest = ended[-1]
    hosts = sorted({one.host for one in ended})
    text = f"{count(len(ended), 'worker')} ended in the last day, since tasks failed there that others finished: on "
    text += f"{some(hosts)}, the last one {sight.ago(newest.at)}. Something is wrong there: look on that host."
    fields = {"hosts": hosts, "last": newest.at}
    return Reason("bad-host", text, f"ddmq-hpc doctor {shlex.quote(sight.queue.paths.root)}", fields)
