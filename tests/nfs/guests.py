"""Several hosts on this one: User Mode Linux guests, each with a kernel, caches, a clock and a host name of its own.

One is a server (NFS by its kernel on ext4, GlusterFS when asked for), the others its clients. They are booted from the
layer of Debian packages that `layer` unpacks, over this host's own files, so that Python and the project are there
under the same paths. All state is in one directory, nothing on this host is changed, and a guest ends with its process.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
LAYER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddmq-hpc" / "guests"
SERVER = "server"
#: A second server, for GlusterFS, which is booted when it is wanted.
BRICKS = "bricks"
_SERVERS = {SERVER: 1, BRICKS: 10}
#: Memory of each, taken only as it is used. GlusterFS wants most of it.
MEMORY = "768M"
_BOOT_SECONDS, _ANSWER_SECONDS = 60.0, 30.0
_POLL = 0.02
#: Of the server's disks: what all share, and one that is soon full and has quotas.
_DISK, _SMALL_DISK = 4 << 30, 48 << 20

_MOUNT = """
mkdir -p /nfs3 /nfs4
mount -t nfs -o vers=3 server:/export /nfs3
mount -t nfs -o vers=4.2 server:/ /nfs4
"""


def why_not() -> str | None:
    """Why no guests can be started here, or None."""
    if os.geteuid() != 0:
        return "guests need root"
    missing = [command for command in ("apt-get", "dpkg-deb", "gcc", "mkfs.ext4") if not shutil.which(command)]
    return f"not installed: {', '.join(missing)}: guests are made of Debian's packages" if missing else None


class Hangs(subprocess.TimeoutExpired):
    """A command took too long; the end of its text tells what its guest's kernel says."""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.stderr}"


class GuestHangs(Exception):
    """A guest does not even run `true`: nothing that ran in it is to blame."""


class Run:
    """A command that runs in a guest."""

    _ids = count()

    def __init__(self, guest: Guest, argv: tuple[str, ...], variables: dict[str, str]) -> None:
        self._guest = guest
        self._argv = argv
        self._stem = guest.home / f"{next(self._ids)}"
        exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        script = ["echo $$ >" + shlex.quote(f"{self._stem}.pid"), *exports, "exec " + shlex.join(argv)]
        self._file("part").write_text("\n".join(script) + "\n")
        self._file("part").rename(self._file("job"))

    def _file(self, kind: str) -> Path:
        return self._stem.with_suffix("." + kind)

    def output(self) -> str:
        """What it has printed so far."""
        out = self._file("out")
        return out.read_text(errors="replace") if out.exists() else ""

    def has_ended(self) -> bool:
        return self._file("code").exists()

    def wait(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Its result. Raises `Hangs`, `GuestHangs`, and RuntimeError when its guest has died."""
        until = time.monotonic() + timeout
        while not self.has_ended():
            if not self._guest.is_up():
                raise RuntimeError(f"{self._guest.name} died under {shlex.join(self._argv)}")
            if time.monotonic() > until:
                begun = self._file("pid").exists()
                why = f"{'still running' if begun else 'never begun'} in {self._guest.name}: {self._guest.blocked()}"
                if not self._guest.answers():
                    raise GuestHangs(why)
                raise Hangs(self._argv, timeout, self.output(), f"{self._errors()}\n{why}")
            time.sleep(_POLL)
        code = int(self._file("code").read_text())
        return subprocess.CompletedProcess(self._argv, code, self.output(), self._errors())

    def _errors(self) -> str:
        err = self._file("err")
        return err.read_text(errors="replace") if err.exists() else ""

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        pid = self._file("pid").read_text().strip()
        self._guest.run("bash", "-c", f"kill -KILL -- -{pid}")


class Guest:
    """One guest, with these files of the site as its disks; `number` is the last byte of its addresses."""

    def __init__(self, name: str, site: Path, *disks: str) -> None:
        self.name = name
        self.number = _SERVERS.get(name) or int(name[1:]) + 1
        self._disks = disks
        self.home = site / name
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self, skew: float = 0) -> None:
        """Start; `skew` is in seconds. Ready when `wait_until_ready` returns."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        words = {
            "mem": MEMORY,
            "umid": self.name,
            "uml_dir": f"{self.home}/",
            "root": "/dev/root",
            "rootfstype": "hostfs",
            "rootflags": "/",
            "panic": "1",
            "con": "null",
            "con0": "null,fd:1",
            "ssl": "null",
            "vec0:transport": f"bess,dst={self._site}/switch.sock,mac=02:00:00:00:00:{self.number:02x}",
            "NAME": self.name,
            "NUMBER": str(self.number),
            "SKEW": str(int(skew)),
            "HOME_OF": str(self.home),
            "LAYER": str(LAYER),
            "CODE": str(PROJECT),
            "init": "/bin/sh",
        }
        words.update({f"ubd{number}": f"{self._site}/{disk}" for number, disk in enumerate(self._disks)})
        command = [LAYER / "usr/bin/linux.uml", "ro", "quiet", *(f"{word}={value}" for word, value in words.items())]
        with open(self.home / "console", "wb") as console:
            self._process = subprocess.Popen(
                [*command, "--", HERE / "guest-init"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                # The memory of guests is an unlinked file there.
                env={**os.environ, "TMPDIR": "/dev/shm", "LD_PRELOAD": str(LAYER / "xstate.so")},
            )

    def wait_until_ready(self) -> None:
        until = time.monotonic() + _BOOT_SECONDS
        while not (self.home / "ready").exists():
            if not self.is_up() or time.monotonic() > until:
                console = (self.home / "console").read_text(errors="replace")
                raise RuntimeError(f"{self.name} did not come up:\n{console[-3000:]}")
            time.sleep(_POLL)

    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it runs commands still."""
        probe, until = self.start("true"), time.monotonic() + _ANSWER_SECONDS
        while not probe.has_ended() and self.is_up() and time.monotonic() < until:
            time.sleep(_POLL)
        return probe.has_ended()

    def blocked(self) -> str:
        """What its kernel says of the processes that hang in it, through its management console."""
        said = b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(5)
            line.bind("")
            try:
                line.connect(f"{self.home}/{self.name}/mconsole")
                for order in (b"sysrq 8", b"sysrq w"):  # all that is said is to be heard
                    line.send(struct.pack("<III512s", 0xCAFEBABE, 2, len(order), order))
                    more = True
                    while more:
                        answer = line.recv(1 << 16)
                        _, more, length = struct.unpack_from("<III", answer)
                        said += answer[12 : 12 + length].rstrip(b"\0")
            except OSError as error:
                said += f" (its kernel does not answer: {error})".encode()
        return said.decode(errors="replace")

    def cut_power(self) -> None:
        """Gone, without a word to anybody and nothing written that was not written yet."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()

    def start(self, *argv: str, **variables: str) -> Run:
        """Start a command with these variables in its environment."""
        return Run(self, argv, {"PYTHONPATH": f"{PROJECT}", "PYTHONDONTWRITEBYTECODE": "1", **variables})

    def run(self, *argv: str, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.start(*argv, **variables).wait(timeout)

    def check(self, *argv: str, timeout: float = 120, **variables: str) -> str:
        """What a command prints that must succeed."""
        done = self.run(*argv, timeout=timeout, **variables)
        assert done.returncode == 0, f"{self.name}: {shlex.join(argv)}: exit code {done.returncode}\n{done.stderr}"
        return done.stdout


class Network:
    """The switch between the guests; see `switch.py`."""

    def __init__(self, site: Path) -> None:
        self._control = site / "control.sock"
        self._process = subprocess.Popen([sys.executable, HERE / "switch.py", site])
        while not self._control.exists():
            assert self._process.poll() is None, "the switch did not start"
            time.sleep(_POLL)

    def _order(self, **order: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(str(self._control))
            line.sendall(json.dumps(order).encode())
            answer: dict[str, Any] = json.loads(line.recv(1 << 20))
        return answer

    def cut(self, source: Guest, target: Guest) -> None:
        """Drop what `source` sends to `target` from now on."""
        self._order(cut=[source.number, target.number])

    def lose_reply(self, client: Guest, server: Guest, *request: bytes) -> None:
        """Let the first request of `client` that holds all of these bytes through, but none of the server's words
        after it."""
        holding = [part.hex() for part in request]
        cut = [server.number, client.number]
        self._order(trap=[client.number, server.number], holding=holding, then_cut=cut)

    def delay(self, source: Guest, seconds: float) -> None:
        """Deliver what `source` sends so much later, until the next `heal`."""
        self._order(delay=[source.number, seconds])

    def trapped(self) -> int:
        """How many requests were met by `lose_reply` since the last `heal`."""
        return len(self._order()["trapped"])

    def heal(self) -> None:
        self._order(heal=True)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Site:
    """A server, its clients and the network between them. In each client /nfs3 and /nfs4 are the server's /export."""

    def __init__(self, home: Path, clients: int = 3) -> None:
        self.home = home
        self.network = Network(home)
        self.server = Guest(SERVER, home, "disk", "small-disk")
        self.clients = [Guest(f"c{number}", home) for number in range(1, clients + 1)]
        self.bricks = Guest(BRICKS, home, "brick")
        #: What each client mounts when it boots, as a script.
        self.mounts = _MOUNT
        self._format("disk", _DISK, "-N", "1000000", "-E", "lazy_itable_init=1")
        self._format("small-disk", _SMALL_DISK, "-O", "quota")
        self._format("brick", _DISK, "-N", "1000000", "-E", "lazy_itable_init=1")
        self.boot(self.server, *self.clients)

    def _format(self, name: str, size: int, *options: str) -> None:
        with open(self.home / name, "wb") as disk:
            disk.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", *options, self.home / name], check=True)

    def boot(self, *guests: Guest, skew: float = 0) -> None:
        """Start these, at the same time, and mount what they share in those that are clients."""
        for guest in guests:
            guest.boot(skew)
        for guest in guests:
            guest.wait_until_ready()
        mounting = [self.mount_all(guest) for guest in guests if guest in self.clients]
        for mount in mounting:
            done = mount.wait()
            assert done.returncode == 0, done.stderr

    def mount_all(self, client: Guest) -> Run:
        """Start to mount everything in a client."""
        return client.start("bash", "-ec", self.mounts)

    def renew(self) -> None:
        """The server, its clients and the network as after a first boot, but for what is on disks: nothing is left
        running, hanging or cut. The bricks, whose volume would be gone, go on."""
        for guest in (self.server, *self.clients):
            guest.cut_power()
        self.network.heal()
        self.boot(self.server, *self.clients)

    def python(self, client: Guest, program: str, *arguments: object, **variables: str) -> Run:
        """Start a program of `programs/` in a client."""
        words = (sys.executable, str(HERE / "programs" / f"{program}.py"), *map(str, arguments))
        return client.start(*words, **variables)

    def command(self, client: Guest, *arguments: object, **variables: str) -> Run:
        """Start `ddmq-hpc` in a client."""
        return client.start(sys.executable, "-m", "ddmq_hpc", *map(str, arguments), **variables)

    def stop(self) -> None:
        for guest in (*self.clients, self.server, self.bricks):
            guest.cut_power()
        self.network.stop()


@contextmanager
def running(home: Path, clients: int = 3) -> Iterator[Site]:
    """A site, booted, and gone at the end of the `with` block."""
    LAYER.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["sh", HERE / "layer", LAYER], check=True)
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", LAYER / "xstate.so", HERE / "xstate.c"], check=True)
    site = Site(home, clients)
    try:
        yield site
    finally:
        site.stop()
