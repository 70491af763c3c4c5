"""Findings from what several hosts measured together, and what to say where only one was there."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from ddmq_hpc.doctor.crossing import STALE_SECONDS, Clock, Measured
from ddmq_hpc.doctor.findings import FAILURE, OK, WARNING, Finding, grade, milliseconds
from ddmq_hpc.doctor.semantics import APART
from ddmq_hpc.mounts import SERVER_CLOCK, Mount

_SLOW_NAME, _HOPELESS_NAME = 1.0, 30.0
_OTHER_FILESYSTEM = "Use another file system, or a queue for one host alone."
_VERSION_4 = "Mount it with vers=4.2."


def judge(measured: Measured, mount: Mount) -> list[Finding]:
    """One finding of each measurement."""
    judges: tuple[Callable[[Measured, Mount], Finding], ...] = (peers, clocks, visibility, races, tick, stale_names)
    return [one(measured, mount) for one in judges]


def peers(measured: Measured, mount: Mount) -> Finding:
    hosts = ", ".join(dict.fromkeys(measured.hosts))
    met = f"{len(measured.hosts)} doctors met, on {measured.kernels} host{'s' * (measured.kernels != 1)}: {hosts}"
    if measured.kernels > 1 or mount.local:
        return Finding("peers", OK, met, "The lines below are of all of them together.")
    return Finding(
        "peers", WARNING, met, "They share one cache: this says nothing about other hosts.", "Run it on two hosts."
    )


def clocks(measured: Measured, mount: Mount) -> Finding:
    """Whose clock stamps files is told when those of two hosts differ by more than the measurement may be wrong."""
    told = ", ".join(f"{clock.host} {clock.ahead:+.2f} s" for clock in measured.clocks[1:])
    told = f"clocks against {measured.clocks[0].host}: {told}"
    apart = [clock for clock in measured.clocks if abs(clock.ahead) > APART + clock.ahead_error]
    if not apart:
        return Finding("clocks", OK, f"{told}; they agree", "So it cannot be told whose clock stamps files.")
    advice = "Have the clocks of all hosts set by NTP: make, tar and logs go by them."
    if _one_clock(measured.clocks):
        known = mount.local or mount.type in SERVER_CLOCK
        more = "" if known else " `expiry: filesystem-clock` would free leases sooner here."
        return Finding(
            "clocks",
            WARNING,
            f"{told}; one clock stamps all files (measured)",
            "Leases are right all the same: " + ("they end by that clock." if known else "they are observed."),
            advice + more,
        )
    if mount.trusted_clock:
        return Finding(
            "clocks",
            FAILURE,
            f"{told}; each host stamps with its own clock (measured)",
            f"Leases on {mount.type} are taken to end by one clock: those of the hosts that differ would end early.",
            f"Set `expiry: observed` in ddmq.yaml. {advice}",
        )
    return Finding(
        "clocks",
        WARNING,
        f"{told}; each host stamps with its own clock (measured)",
        "Leases are right all the same: with `expiry: auto` they end when observed unchanged for their duration.",
        f"Leave `expiry` at auto or observed. {advice}",
    )


def _one_clock(clocks: list[Clock]) -> bool:
    """Whether times of new files, taken to the leader's clock, are the same wherever they were made."""
    stamps = [(clock.ahead + clock.files_ahead, clock.ahead_error + clock.files_error) for clock in clocks]
    first, error = stamps[0]
    return all(abs(other - first) <= APART + error + wrong for other, wrong in stamps[1:])


def visibility(measured: Measured, mount: Mount) -> Finding:
    usual, slowest = median(measured.round_trips) / 2, max(measured.round_trips) / 2
    verdict = grade(slowest, _SLOW_NAME, _HOPELESS_NAME)
    return Finding(
        "visibility",
        verdict,
        f"other hosts see a new name in a fresh listing, and read its file, after {milliseconds(usual)}, at worst "
        f"{milliseconds(slowest)}",
        "A message can be taken as soon as that after it was published.",
        "" if verdict == OK else "Keep caches of directories short (actimeo, acdirmax of NFS mounts).",
    )


def stale_names(measured: Measured, mount: Mount) -> Finding:
    """By the slowest of the hosts."""
    held, missing = ([getattr(one, name) for one in measured.stale] for name in ("held", "missing"))
    told = f"a directory held open shows a new name after {_longest(held)}, a name found missing before after " + (
        _longest(missing)
    )
    if max((seconds if seconds is not None else STALE_SECONDS) for seconds in (*held, *missing)) < _SLOW_NAME:
        return Finding("stale-names", OK, told, "Hosts soon forget what they knew of a directory.")
    return Finding(
        "stale-names",
        WARNING,
        told,
        "ddmq-hpc lists anew before it tries names, so this does not touch it; other programs it does.",
        "List a directory (ls) before you wait for a file in it; give Snakemake --latency-wait 60.",
    )


def _longest(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return milliseconds(max(known)) if len(known) == len(values) else f"more than {STALE_SECONDS:g} s"


def races(measured: Measured, mount: Mount) -> Finding:
    """One winner for every name."""
    told, broken = [], False
    for kind, (wins, by_member) in measured.races.items():
        wrong = sum(count != 1 for count in wins)
        shares = " to ".join(map(str, by_member))
        told.append(f"{kind} {len(wins)} names, {shares}" + f", {wrong} not won by exactly one" * bool(wrong))
        broken = broken or wrong > 0
    if broken:
        meaning = "Messages would be handed out twice, or lost."
        return Finding("races", FAILURE, "; ".join(told), meaning, _OTHER_FILESYSTEM)
    return Finding("races", OK, "; ".join(told), "Of hosts that want the same name exactly one gets it.")


def tick(measured: Measured, mount: Mount) -> Finding:
    tried = sum(one.tried for one in measured.trials)
    incomplete = sum(one.incomplete for one in measured.trials)
    cured = sum(one.cured for one in measured.trials)
    if not incomplete:
        return Finding("tick", OK, f"0 of {tried} listings stayed incomplete", "What is listed is all there is.")
    told = f"{incomplete} of {tried} listings stayed incomplete, {cured} of these were cured by touching the directory"
    if cured < incomplete:
        meaning = "A queue would look empty although messages wait."
        return Finding("tick", FAILURE, told, meaning, f"{_VERSION_4} {_OTHER_FILESYSTEM}")
    return Finding(
        "tick",
        WARNING,
        told,
        "Two changes within one tick of the server's clock are missed. ddmq-hpc touches a directory before it believes "
        "a listing; other programs miss files for good.",
        _VERSION_4,
    )


def untested(mount: Mount, command: str) -> list[Finding]:
    """What one host alone cannot know; `command` makes two know it."""
    if mount.local:
        return [Finding("peers", OK, "not tested: one host alone has this file system", "There is nothing to test.")]
    meaning = "Visibility of names, races and clocks between hosts are not known."
    advice = f"Run `{command}`"
    found = [Finding("peers", WARNING, "untested: no second host", meaning, advice)]
    if mount.type == "nfs":
        found.append(
            Finding(
                "tick",
                WARNING,
                "untested; expected on NFS v3: listings that stay incomplete",
                "ddmq-hpc touches a directory before it believes a listing; other programs miss files for good.",
                f"{_VERSION_4} To see it: `{command}`",
            )
        )
    else:
        found.append(Finding("tick", OK, "untested; seen on NFS v3 alone", "What is listed is all there is."))
    return found


def nobody_came(trouble: str, command: str) -> Finding:
    """The finding when the doctors did not meet, or lost each other."""
    meaning = "Visibility of names, races and clocks between hosts are not known."
    advice = f"Start all of them at the same time, in the same directory: `{command}`"
    return Finding("peers", FAILURE, trouble, meaning, advice)
