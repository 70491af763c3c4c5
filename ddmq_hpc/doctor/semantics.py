"""What the calls do that queues are built upon: rename, link, exclusive creation, names, and times of files."""

from __future__ import annotations

import errno
import threading
from typing import Callable

from ddmq_hpc.doctor.findings import FAILURE, OK, WARNING, Finding
from ddmq_hpc.doctor.probing import Probe
from ddmq_hpc.fs import GONE, Filesystem
from ddmq_hpc.mounts import SERVER_CLOCK
from ddmq_hpc.publishing import PACK_MESSAGES

#: Seconds by which clocks differ that are not the same: a time stamp may be as coarse as 10 ms, a round trip as long.
APART = 0.5
#: An offset that people notice: make, tar and logs go by it.
_NOTICED = 5.0
_REPLACEMENTS = 200
#: Seconds after which no further name is made for a check, where calls take long.
_LONGEST = 3.0
_CONTESTED = 100
#: About the length of a lease of a batch job on a host of a long name.
_LEASE_NAME = 180
#: Every character that names of messages have, at the length that the longest have.
_HARDEST_NAME = ("0.1-2~3+4@host:5=6_a!" + "x" * 255)[:255]


def rename(probe: Probe) -> Finding:
    """That rename replaces a file, and that a name which is gone cannot be renamed."""
    fs, one, other = probe.fs, probe.at("rename-1"), probe.at("rename-2")
    fs.create(one, b"new", False)
    fs.create(other, b"old", False)
    fs.rename(one, other)
    faults = []
    if fs.read(other) != b"new":
        faults.append("the target kept its content")
    if fs.is_there(one):
        faults.append("the old name is still there")
    try:
        fs.rename(one, other)
        faults.append("a name that was gone could be renamed")
    except OSError as error:
        if error.errno not in GONE:
            raise
    if faults:
        return Finding(
            "rename",
            FAILURE,
            "; ".join(faults),
            "A message would be handed out twice, or lost: taking one is a rename.",
            "Use another file system.",
        )
    return Finding("rename", OK, "replaces, and works once", "A message is taken by one rename.")


def links(probe: Probe) -> Finding:
    """Hard links in one directory and across two."""
    fs, source, inner = probe.fs, probe.at("link-1"), probe.at("link-directory")
    fs.create(source, b"", False)
    fs.mkdir(inner)
    for target, where in ((probe.at("link-2"), "in a directory"), (f"{inner}/link-3", "across directories")):
        try:
            fs.link(source, target)
        except OSError as error:
            return _no_links(f"no hard links {where}: {error.strerror}")
        if not fs.same_file(source, target):
            return _no_links(f"a hard link {where} is a file of its own")
    try:
        fs.link(source, probe.at("link-2"))
        return _no_links("a hard link replaced a name that was there")
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    return Finding("links", OK, "in one directory and across directories", "Packs of messages are divided by links.")


def many_links(probe: Probe) -> Finding:
    """As many links to one file as a pack has messages: each part of a divided pack is one. With names as long as those
    of leases, since GlusterFS keeps them with the file."""
    fs, source = probe.fs, probe.at("many-links")
    fs.create(source, b"", False)
    until, made = fs.monotonic() + _LONGEST, 1
    try:
        while made < PACK_MESSAGES and fs.monotonic() < until:
            fs.link(source, probe.at(f"many-links-{made}".ljust(_LEASE_NAME, "_")))
            made += 1
    except OSError as error:
        return Finding(
            "many-links",
            WARNING,
            f"one file has {made} links at most: {error.strerror}",
            f"A pack of {PACK_MESSAGES} messages cannot be divided further than that; what fails is refused, not lost.",
            f"Set `pack_size: {_pack_size(made)}` in ddmq.yaml. GlusterFS on ext4 is like this, on XFS it is not.",
        )
    return Finding("many-links", OK, f"{made} to one file", "A pack can be divided as far as need be.")


def _pack_size(most_links: int) -> int:
    """Of a pack whose every message may be held alone while what is left of it is divided, and names change."""
    return max(1, most_links - 3)


def _no_links(measured: str) -> Finding:
    return Finding(
        "links",
        FAILURE,
        measured,
        "Queues cannot work here: packs of messages are divided, and locks taken, by hard links.",
        "Use another file system: NFS, Lustre, GPFS, CephFS, BeeGFS, or a local disk.",
    )


def exclusive(probe: Probe) -> Finding:
    """That O_CREAT with O_EXCL refuses a name which is there."""
    fs, path = probe.fs, probe.at("exclusive")
    fs.create(path, b"first", False)
    try:
        fs.create(path, b"second", False)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        return Finding("exclusive", OK, "O_EXCL refuses a name that is there", "Nothing is overwritten.")
    return Finding(
        "exclusive",
        FAILURE,
        "O_EXCL made a name that was there already",
        "Two programs that make the same file would both believe to be the first.",
        "Use another file system; NFS version 2 and some FUSE file systems are like this.",
    )


def names(probe: Probe) -> Finding:
    """Names of 255 bytes with all the characters that names of messages have."""
    fs = probe.fs
    try:
        fs.create(probe.at(_HARDEST_NAME), b"", False)
        kept = _HARDEST_NAME in fs.names(probe.place)
        measured = "a name of 255 bytes comes back changed"
    except OSError as error:
        kept, measured = False, f"no names of 255 bytes with the characters ~+@:=!: {error.strerror}"
    if kept:
        return Finding("names", OK, "255 bytes, with ~+@:=!", "The state of a message is in the name of its file.")
    return Finding(
        "names",
        FAILURE,
        measured,
        "Queues cannot work here: the state of a message is in the name of its file.",
        "Use another file system; encrypting ones and those of Windows shorten or change names.",
    )


def offset(fs: Filesystem, directory: str) -> tuple[float, float]:
    """(seconds by which times of new files are ahead of this host's clock, how much that may be wrong): the best of
    three. Raises OSError."""
    best = (0.0, float("inf"))
    for _ in range(3):
        before = fs.time()
        stamp = fs.stamp(directory)
        after = fs.time()
        best = min(best, (stamp - (before + after) / 2, abs(after - before) / 2), key=lambda pair: pair[1])
    return best


def clock(probe: Probe) -> Finding:
    """Whose clock stamps files, as far as one host can tell, and how far it is from this host's."""
    fs, kind = probe.fs, probe.fs.mount.type
    ahead, _ = offset(fs, probe.place)
    apart = abs(ahead) > APART
    where = f"times of new files are {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's clock"
    if fs.mount.local:
        if apart:
            meaning = "A local disk is stamped by this host; leases would end early or late."
            return Finding("clock", FAILURE, where, meaning, "Set `expiry: observed` in ddmq.yaml.")
        return Finding("clock", OK, "times of new files are this host's", "Leases end by this host's clock.")
    if apart:
        trusted = kind in SERVER_CLOCK
        return Finding(
            "clock",
            WARNING if abs(ahead) > _NOTICED else OK,
            f"{where}: the server's clock stamps them (measured)",
            "Leases are right all the same: they end by the file system's clock."
            if trusted
            else "ddmq-hpc does not know this of the file system's type, and waits for leases by observing them.",
            "Have the clocks of hosts and server set by NTP: make, tar and logs go by them."
            + ("" if trusted else " Where one server stamps all files `expiry: filesystem-clock` frees leases sooner."),
        )
    same = "times of new files agree with this host's clock"
    if kind in SERVER_CLOCK:
        return Finding(
            "clock",
            OK,
            f"{same}; expected: the server stamps them (not to be told while the clocks agree)",
            "Leases end by the server's clock, whatever the clocks of hosts.",
        )
    return Finding(
        "clock",
        OK,
        f"{same}; expected: each client stamps with its own (not to be told by one host)",
        "With `expiry: auto` a lease ends when it was observed unchanged for its whole duration.",
        "Leave `expiry` at auto or observed; filesystem-clock would trust clocks of other hosts.",
    )


def atomicity(probe: Probe) -> Finding:
    """That a reader finds a name which is being replaced always there and whole, and that of two who rename the same
    name one wins. Two threads of this process."""
    broken = _replace_under_a_reader(probe)
    wins = _contend(probe)
    wrong = sum(count != 1 for count in wins)
    measured = f"replacements seen {broken or 'never'} broken; {len(wins)} names contested, " + (
        f"{wrong} not won by exactly one" if wrong else "each won by one"
    )
    if broken or wrong:
        return Finding(
            "atomicity",
            FAILURE,
            measured,
            "Messages would be read half written, lost, or handed out twice.",
            "Use another file system; renames are copied here.",
        )
    return Finding("atomicity", OK, measured, "Tried by two threads of this host; --peers tries it between hosts.")


def _replace_under_a_reader(probe: Probe) -> int:
    """How often the name was missing or held something else than one whole content."""
    fs, path = probe.fs, probe.at("replaced")
    contents = [bytes([65 + number]) * 2000 for number in range(2)]
    fs.create(path, contents[0], False)
    done = threading.Event()
    broken = 0

    def write() -> None:
        until = fs.monotonic() + _LONGEST
        for number in range(_REPLACEMENTS):
            if fs.monotonic() > until:
                break
            aside = probe.at(f"replacement-{number}")
            fs.create(aside, contents[number % 2], False)
            fs.rename(aside, path)

    def read() -> None:
        nonlocal broken
        while not done.is_set():
            try:
                broken += fs.read(path) not in contents
            except OSError as error:
                if error.errno != errno.ESTALE:  # replaced between look-up and read: everybody looks again
                    broken += 1

    _together(write, read, done)
    return broken


def _contend(probe: Probe) -> list[int]:
    """How many of two won each name."""
    fs = probe.fs
    wins: list[int] = []
    until = fs.monotonic() + _LONGEST
    while len(wins) < _CONTESTED and fs.monotonic() < until:
        fs.create(probe.at(f"contested-{len(wins)}"), b"", False)
        wins.append(0)
    done = threading.Event()

    def contender(who: str) -> Callable[[], None]:
        def contend() -> None:
            for number in range(len(wins)):
                if fs.claim(probe.at(f"contested-{number}"), probe.at(f"won-{number}-{who}")):
                    wins[number] += 1

        return contend

    _together(contender("one"), contender("other"), done)
    return wins


def _together(act: Callable[[], None], other: Callable[[], None], done: threading.Event) -> None:
    """Both at once, the other in a thread; `done` is set when `act` has ended. Raises what either raised."""
    troubles: list[OSError] = []

    def guarded() -> None:
        try:
            other()
        except OSError as error:
            troubles.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    try:
        act()
    finally:
        done.set()
        thread.join(60)
    if troubles:
        raise troubles[0]
