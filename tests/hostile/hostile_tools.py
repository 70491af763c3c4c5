"""A queue in which everything is, what enemies and broken programs may put there, and the command run in process."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import stat
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, NamedTuple

from hypothesis import strategies as st

from ddmq_hpc.broker import Broker
from ddmq_hpc.cli import main
from ddmq_hpc.worker_info import WorkerInfo
from ddmq_hpc.workers import Registration

#: What README.md documents.
EXIT_CODES = {0, 1, 2, 3, 4, 5, 6, 75}
#: Those and the line end are all that may reach a terminal unseen.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
#: Ready messages that no damage is done to.
GOOD = ["good 0", "good 1", "good 2"]

PACK = "1700000000000000000-0aaaaaaaa"
LAST_PACK = "9999999999999999999-6zzzzzzzz"
OWNER = "elsewhere:1:2:0badcafe:abcdefgh.1"


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*arguments: str, stdin: str = "") -> Done:
    """`ddmq-hpc` with these arguments, in this process. Raises what would have been a traceback."""
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    sys.argv = ["ddmq-hpc", *arguments]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(to, "utf-8", errors, write_through=True)
        for to, errors in ((out, "strict"), (err, "backslashreplace"))
    )
    try:
        try:
            code: object = main._run(False)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        return Done(
            code if isinstance(code, int) else 0,
            *(to.getvalue().decode("utf-8", "surrogateescape") for to in (out, err)),
        )
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before


def checked(*arguments: str, stdin: str = "") -> Done:
    """The same of a command that has to come to an end that is documented, and to print nothing that steers a
    terminal."""
    try:
        done = run(*arguments, stdin=stdin)
    except Exception:
        raise AssertionError(f"{arguments}: {traceback.format_exc()}") from None
    assert done.code in EXIT_CODES, (arguments, done)
    for text in (done.out, done.err):
        found = CONTROL.search(text)
        assert not found, (arguments, found, text[max(0, found.start() - 200) : found.end() + 50])
    if done.code not in (0, 1):
        assert len(done.err.strip().splitlines()) <= 1, (arguments, done.err)
    return done


def prepare(top: Path) -> Path:
    """The root `top/root` with a queue that has messages in each state, and something in each of its directories."""
    root = top / "root"
    with Broker(root, create=True, admission=lambda found: None) as broker:
        broker.create_queue("q", durable=False, keep_done="1h", retry_delay="1h")
        for body in ("acked", "nacked", "rejected", "leased", *GOOD):
            broker.publish("q", body, group="g" if body == "leased" else None)
        for settle in (broker.ack, broker.nack, lambda found: broker.nack(found, requeue=False), lambda found: None):
            settle(broker.consume("q", lease="1d"))
        broker.publish_many("q", ["late 0", "late 1"], delay="1d")
        broker.publish("q", "after", after="g")
        queue = broker.queue("q")
        Registration(queue, WorkerInfo.of_this_process(queue, "worker-1", ["q"])).start()
    with Broker(root) as broker:
        broker.publish("q", "keyed", key="k", delay="1d")
    for name in ("logs", "state", "reports", "reports/abcdefghijklmnop", "drop"):
        (root / "q" / name).mkdir()
    (root / "q" / "logs" / "worker-1.log").write_text("output\n")
    return root


def copy(source: Path, target: Path) -> None:
    """A tree as it is: files with several names have them in the copy, too."""
    seen: dict[int, str] = {}
    target.mkdir()
    shutil.copystat(source, target)
    for here, directories, files in os.walk(source):
        there = f"{target}{here[len(str(source)) :]}"
        for name in directories:
            os.mkdir(f"{there}/{name}")
        for name in files:
            found = os.lstat(f"{here}/{name}")
            if found.st_ino in seen:
                os.link(seen[found.st_ino], f"{there}/{name}")
            else:
                seen[found.st_ino] = f"{there}/{name}"
                shutil.copy2(f"{here}/{name}", f"{there}/{name}", follow_symlinks=False)


def picture(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: kind, size, links, times and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else os.readlink(path) if path.is_symlink() else ""
        found[str(path)] = (status.st_mode, status.st_size, status.st_nlink, status.st_mtime_ns, content)
    return found


def outside(top: Path) -> Path:
    """A tree beside the root which links may lead to, and which nothing may change: old files with all the names that
    clients remove, or write to, in their own directories."""
    place = top / "outside"
    for name in ("", "999", "999/000108796296-0", "aa", "000000000001", f"{PACK}.0"):
        (place / name).mkdir(parents=True, exist_ok=True)
    for name in ("file", PACK, "open.aaaaaaaa", f"{PACK}.0-1.0-0", "aa/old", f"aa/{PACK}.0.1", "999/old", "ddmq.yaml"):
        (place / name).write_text("precious\n")
    (place / "000000000001" / f"000000000000001.5.{PACK}.0-1.0-0").write_text("precious\n")
    for path in [*place.rglob("*"), place]:
        os.utime(path, (1e9, 1e9))
    return place


# -- what is put there


def _as_file(data: bytes) -> Callable[[bytes, Path], None]:
    def make(path: bytes, _: Path) -> None:
        with open(path, "wb") as file:
            file.write(data)

    return make


def _as_link(target: str) -> Callable[[bytes, Path], None]:
    return lambda path, top: os.symlink(target.replace("TOP", str(top)), path)


def _sparse(path: bytes, _: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(200 << 20)


def _socket(path: bytes, _: Path) -> None:
    if len(path) > 100:
        return _as_file(b"")(path, _)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def _device(minor: int) -> Callable[[bytes, Path], None]:
    def make(path: bytes, top: Path) -> None:
        if os.getuid():
            return os.mkfifo(path)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))

    return make


def _directory(path: bytes, _: Path) -> None:
    os.mkdir(path)
    _as_file(b"x")(path + b"/x", _)


def _old(make: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
    def made(path: bytes, top: Path) -> None:
        make(path, top)
        os.utime(path, (1e9, 1e9), follow_symlinks=False)

    return made


#: What can stand under a name, besides a file with some content.
KINDS: dict[str, Callable[[bytes, Path], None]] = {
    "empty": _as_file(b""),
    "zeros": _as_file(bytes(70_000)),
    "sparse": _sparse,
    "directory": _directory,
    "FIFO": lambda path, _: os.mkfifo(path),
    "socket": _socket,
    "null": _device(3),
    "zero": _device(5),
    "link to passwd": _as_link("/etc/passwd"),
    "link to itself": _as_link("itself"),
    "link to nothing": _as_link("/nonexistent/place"),
    "link out": _as_link("TOP/outside"),
    "link to a file outside": _as_link("TOP/outside/file"),
    "link to a device": _as_link("/dev/zero"),
}
NEW_KINDS = sorted(KINDS)
KINDS |= {f"old {name}": _old(make) for name, make in KINDS.items() if name not in ("zeros", "sparse")}

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\x85\u202e\u2028\r\n\t\x7f\b"
_HUGE = b"9" * 5000
#: Lines of packs, as JSON values of `message` and what stands beside it.
LINES = [
    b"",
    b"\0" * 300,
    b"\xff\xfe",
    b"{",
    b"[" * 100_000,
    b'{"message":' + b"[" * 100_000 + b"}",
    b'{"message":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"message":1,"headers":{"a":' + b"[" * 900 + b"]" * 900 + b"}}",
    b'{"message":1,"headers":{"a":' + b"[" * 40 + b"]" * 40 + b"}}",
    b'{"message":NaN}',
    b'{"message":-Infinity}',
    b'{"message":1e999}',
    b'{"message":1,"headers":{"a":1e999}}',
    b'{"message":1,"headers":{"a":NaN}}',
    b'{"message":' + _HUGE + b"}",
    b'{"message":' + _HUGE[:4000] + b"}",
    b'{"message":"\\ud800"}',
    b'{"message":{"\\udfff":"\\ud800"}}',
    b'{"message":"\\u0000\\u001b[2J\\u009b31m\\u202e\\u0085\\u007f"}',
    b'{"message":{"\\u001b[2J\\u009b31m":"\xc2\x9b31m\x7f"}}',
    b'{"message":1,"message":2}',
    b'{"message":1,"cls":2}',
    b'{"message":1,"self":2,"values":3,"":4}',
    b'{"message":1,"id":{"a":1}}',
    *(
        b'{"message":1,"%s":%s}' % (name, value)
        for name in (b"timeout", b"memory", b"priority", b"time_request", b"requeue", b"slots", b"group")
        for value in (
            b'"%s"' % _HUGE,
            b'"%s-01:01:01"' % _HUGE,
            b'"%sw"' % _HUGE[:400],
            b'"%sT"' % _HUGE[:400],
            _HUGE[:400],
            b"1e999",
            b"-1",
            b"true",
            b"[[[]]]",
            b'"\\u001b[2J"',
            b'"../../etc"',
        )
    ),
]
#: What settings files may say.
SETTINGS = [
    b"\0" * 100,
    b"\xff\xfe: \xff",
    b"[" * 50_000,
    b"{" * 50_000,
    b"- " * 30_000,
    b"timeout: " + _HUGE,
    b"timeout: " + _HUGE + b"s",
    b"timeout: " + _HUGE[:400],
    b"timeout: .nan",
    b"timeout: .inf",
    b"priority: 0x" + b"f" * 20_000,
    b"exit_codes: {0x" + b"f" * 20_000 + b": retry}",
    b"priority: " + b":".join([b"59"] * 5000),
    b"0x" + b"f" * 20_000 + b": 1",
    b"a: &a [x]\nb: [*a, *a]",
    b"a: &a [" + b"x," * 100 + b"]\nb: &b [" + b"*a," * 9 + b"]\nc: [" + b"*b," * 9 + b"]",
    b"&a timeout: 5\n<<: *a",
    b"timeout: !!python/object/apply:os.system ['touch owned']",
    b"!!python/name:os.system x: 1",
    b"timeout: !!int ''",
    b"timeout: !!int _",
    b"timeout: !!float ''",
    b"timeout: !!bool x",
    b"timeout: !!timestamp x",
    b"timeout: 2001-99-99",
    b"timeout: 0001-01-01 00:00:00 +23:59",
    b"timeout: !!binary '*'",
    b"timeout: !!set {a, b}",
    b"? [a]\n: 1",
    b"? {a: 1}\n: 1",
    b"priority: 0b_",
    b"timeout: 1m\ntimeout: 2m",
    b'"timeout": 1m\ntimeout: 2m',
    b"timeout: 1m\n" * 2000,
    b"".join(b"k%d: [1, 2, {a: b}]\n" % number for number in range(2500)),
    b"x: y\n" * 300_000,
    b"%YAML 9.9\n---\na: 1",
    b"--- a\n--- b\n",
    b"timeout: |\n " + b"x" * 1000,
    b'paused_reason: "\\e[2J\\x9b31m"\npaused: true',
    "paused_reason: \u202e\u0085\npaused: true".encode(),
    b"layout: 99",
    b"layout: [1]",
    b"layout: \x1b[2J",
    b"\x1b[2J: 1",
    b"null: 1",
    b"[1]: 1",
    b"trusted_users: " + b"[a," * 1 + b"]",
    b"trusted_users: root\ntrusted_group: " + b"x" * 300,
    b"on_complete: touch owned",
]
_RECORD = b'{"state":"%s","id":"' + PACK.encode() + b'.0","attempt":%s,"at":%s,"taken":%s,"host":%s,"pid":%s%s}\n'
#: What the journal may say.
JOURNALS = [
    b"\0" * 5000,
    b"\xff\n" * 100,
    b"[" * 100_000 + b"\n",
    b'{"state":"acked","id":1}\n{"state":"acked","id":"x"}\n{"id":null}\n[]\n1\n',
    *(
        _RECORD % values
        for values in (
            (b"acked", b"1", b"NaN", b"Infinity", b"null", b"-1", b""),
            (b"acked", b"1", b"1e999", b"1", b'"\\ud800"', b"1e9", b""),
            (b"nacked", b"1", b'"x"', b"1", b"[]", b"{}", b',"exit":1e99,"output":"\\u001b[2J\\u009b"'),
            (b"nacked", b"1", b"99999999999", b"1", b'"\\u001b[2J"', b"1", b',"exit":9999999999,"signal":77'),
            (b"nacked", b"1", b"999999999999", b"0", b'"h"', b"1", b',"exit":1,"wall":1e11,"output":"\\ud800"'),
            (b"nacked", b"9999999999", b"1700000001", b"1700000000", b'"h"', b"1", b',"task":"\\u001b]0;x\\u0007"'),
            (b"\\u001b[2J", b"1", b"1", b"1", b'"h"', b"1", b""),
            (b"worker", b"1", b"5", b"1", b'"h"', b"1", b',"slots":9999999999999'),
            (b"damaged", b"1", b"5", b"1", b'"h"', b"1", b',"reason":"\\u001b[2J","to":"\\u009b31m"'),
            (b"acked", b"1", b"5", b"1", b'"h"', b"1", b',"rss":1e999,"cpu":-1,"wall":NaN,"job":"\\u001b[2J"'),
            (b"acked", b"1", b"5", b"1", b'"h"', _HUGE, b""),
        )
    ),
    _RECORD % (b"nacked", b"1", b"5", b"1", b'"h"', b"1", b"")
    + _RECORD % (b"acked", b"2", b'"x"', b"1", b"1", b"1", b""),
    b'{"state":"nacked","id":"' + PACK.encode() + b'.0-999999999","attempt":1,"at":5,"taken":1}\n',
    b'{"state":"nacked","id":"' + PACK.encode() + b'.9-1","attempt":1,"at":5,"taken":1}\n',
    b'{"state":"late","id":"' + PACK.encode() + b'.0","attempt":1,"at":5,"taken":1}\n' * 50,
]
_WORKER = (
    b'{"host":%s,"pid":%s,"start":1,"kernel":"k","job":%s,"queues":%s,"slots":%s,"since":%s,"done":%s,"failed":0,'
    b'"running":%s,"command":%s,"memory":%s,"ends":%s,"tasks":%s}'
)
_TASK = b'[{"id":%s,"queue":"q","task":%s,"since":%s,"told":%s,"progress":%s}]'
#: What files in workers/ may say.
WORKERS = [
    b"[" * 100_000,
    b"{}",
    b"NaN",
    *(
        _WORKER % values
        for values in (
            (
                b'"\\u001b[2J"',
                b"1",
                b'"\\u009b"',
                b'["\\u001b"]',
                b"1",
                b"0",
                b"0",
                b"[]",
                b"[]",
                b"null",
                b"1e300",
                b"[]",
            ),
            (b'"h"', b"1e9", b'""', b"[]", b"1", b"0", b"0", b"[]", b"[]", b"null", b"null", b"[]"),
            (
                b'"h"',
                b"9" * 18,
                b'""',
                b"[]",
                b"9" * 18,
                b"1e308",
                b"9" * 18,
                b'["x"]',
                b'["\\ud800"]',
                b"1",
                b"0",
                b"[]",
            ),
            (b'"h"', b"1", b'""', b"[]", b"1", b"-1e308", b"0", b"[]", b"[]", b"0", b"-1e308", b"[]"),
            (b'"h"', b"1", b'""', b'["q"]', b"1", b"9" * 400, b"1", b"[]", b"[]", b"1", b"9" * 400, b"[]"),
        )
    ),
    *(
        _WORKER
        % (
            *(b'"h"', b"1", b'""', b'["q"]', b"1", b"5", b"1", b'["x"]', b"[]", b"null", b"null"),
            _TASK % task,
        )
        for task in (
            (b'"\\u001b[2J"', b'"\\u009b31m"', b"1e300", b"1e300", b"null"),
            (b'"x"', b'"x"', b"1", b"1", b'{"done":1e999,"total":1,"text":"\\u001b[2J"}'),
            (b'"x"', b'"x"', b"1", b"1", b'{"done":1e14,"total":1e-300,"text":"\\u001b[2J"}'),
            (b'"x"', b'"x"', b"9" * 400, b"1", b'{"done":[],"total":1}'),
            (b"1", b'"x"', b"1", b"1", b"1"),
        )
    ),
    b'{"job":"1","scheduler":"slurm","tasks":1,"at":1e300,"by":"\\u001b[2J","group":"g"}',
    b'{"job":"1","scheduler":"slurm","tasks":1e999,"at":1,"by":"x","group":"g"}',
    b'{"job":"1","scheduler":"slurm","tasks":-5,"at":-1e300,"by":"\\ud800","group":"\\u001b","request":{}}',
    b'{"job":"1","scheduler":"slurm","tasks":' + _HUGE + b',"at":1,"by":"x","group":"g"}',
]
CONTENTS = [*LINES, *SETTINGS, *JOURNALS, *WORKERS]
#: What is sound, to begin with: what clients, people and schedulers write.
SOUND = [
    *(path.read_bytes() for path in sorted(Path(__file__).parents[1].glob("data/*/q*"))),
    *(path.read_bytes() for path in sorted(Path(__file__).parents[1].glob("data/*/squeue*"))),
    b'{"message":{"a":"x","b":[1,2.5,null]},"priority":5,"timeout":60,"memory":1073741824,"group":"g","headers":{"h":1}}',
    b'{"message":1,"id":"%s.0"}' % PACK.encode(),
    b'{"snakemake_job":1,"reports":"%s","name":"r","directory":"/d","python":"p","arguments":["--wait-for-files-file"'
    b',"f"],"fork":true,"shell":"","environment":{"A":"b"},"outputs":["o"],"inputs":["i"],"latency":5}' % (b"a" * 16),
    b"a,b\n1,2\n",
    b'\xef\xbb\xbfa;b\r\n"1\n",2\r\n',
    *(
        b'{"cmd":"%s","queue":"q",%s}' % request
        for request in (
            (b"create", b'"timeout":"10m"'),
            (b"publish", b'"message":1,"key":"k","priority":"3"'),
            (b"publish_many", b'"messages":[1],"delay":"1h"'),
            (b"consume", b'"n":2,"wait":0,"lease":"5m"'),
            (b"nack", b'"receipts":["r"],"requeue":false'),
            (b"extend", b'"msg_files":"r,s","lease":60'),
            (b"list", b'"state":"dead","limit":5'),
            (b"retry", b'"exit_code":[1,137],"died_of":"rejected","priority":5'),
            (b"cancel", b'"id":"1700000000","match":"a+","older_than":"1d","dry_run":true'),
            (b"pause", b'"reason":"x"'),
            (b"status", b'"format":"json"'),
        )
    ),
    b'{"message":1,"requeue":5,"priority":3,"timeout":60,"requeue_limit":-1,"requeue_counter":2}',
    b'# mine\ntimeout: 10m  # why\npaused: false\nexit_codes: {75: retry, 99: stop-worker}\n"priority": 5\n',
    b"trusted_users: [a, b]\ntrusted_group: g\njournal_size: 1G\non_complete: mail\npaused_by: ann\nlayout: 1\n",
    b"- a\n- {b: !!int 1, c: 'x'}\n---\n? d\n: |\n  e\n",
    *(
        b'{"state":"%s","id":"%s.0-3","attempt":1,"at":1700000009,"taken":1700000001.5,"host":"h","pid":7,"job":"slurm-1"'
        b',"worker":"w","slot":1,"exit":1,"signal":9,"wall":3.5,"cpu":1,"rss":5000,"oom":true,"error":"e","output":"o\\n"'
        b',"to":"dead","task":"t"}\n' % (state, PACK.encode())
        for state in (b"acked", b"nacked", b"lost", b"late", b"released", b"retried", b"cancelled")
    ),
    b'{"state":"worker","id":"w","at":1700000009,"taken":1700000001,"slots":4,"host":"h","job":""}\n',
    b'{"contains": ["h.00.0.1.jsonl"]}\n{"section": "h.00.0.1.jsonl"}\n{"id": "x"}\n{"section": "i"}\n{"id": "y"}\n',
    b'{"host":"h","pid":1,"start":2,"kernel":"k","job":"","queues":["q"],"slots":4,"since":1.5,"done":3,"failed":1,'
    b'"running":["t"],"command":["c"],"memory":5,"ends":9.5,"tasks":[{"id":"i","queue":"q","task":"t","since":1.5,'
    b'"told":2,"progress":{"done":1,"total":4,"text":"x"}}]}',
    b'{"job":"12[].server","scheduler":"pbs","tasks":4,"at":1700000000.5,"by":"w","group":"pbs-12","request":{"queues":["q"],'
    b'"scheduler":"pbs","time":60,"margin":null,"most":4,"slots":1,"throttle":null,"chain":true,"extra":[],"work":[],'
    b'"command":["c"],"snakemake":false,"directory":"/d"}}',
    b'{"done":3,"total":10,"text":"x"}',
    b"3/10",
    b"30.5%",
    b'["lock.0000000001@h", 1.5, 3, [1, 2]]',
    b'{"owner":"h:1:2:k:t.1:slurm-1_2=c","user":"ann","lease":60}\n{"since":1.5,"token":1}\n',
    b'{"id":"%s.0","attempt":1,"offset":0,"length":9}' % PACK.encode(),
    b'{"output":"said"}',
    b'{"schema_version":1,"filesystem":"nfs4","host":"h","at":1700000000,"verdict":"ok"}',
    bytes.fromhex("0200000001000600ffffffff020007000500000004000600ffffffff080006000700000010000700ffffffff"),
    b"1-02:03:04",
    b"1h30m",
    b"1.5TiB",
    b"slurm-12_3-r1=cluster",
    b"pbs-7=2==server",
    f"q/5.{PACK}.0-1.0-0~1700000600000+600000@{OWNER}".encode(),
    PACK[:12].encode(),
]

_NAMES_OF_ENTRIES = [
    f"{PACK}.0-1.0-0",
    f"{PACK}.0-3.0-0",
    f"{PACK}.0-999999999.0-0",
    f"{PACK}.0-1.999999999-999999999",
    f"{PACK}.999999999999999999-999999999.0-0",
    f"{PACK}.5-2.0-0",
    f"{LAST_PACK}.0-1.0-0",
]
#: Names that mean something there, and that clients take for their own, by directory.
NAMES: dict[str, list[str]] = {
    "..": ["ddmq-checkup.json", "other", ".deleted-q-aaaaaaaa", "q.lock"],
    ".": ["groups", "done", "logs", "state", "reports", "drop", "work"],
    "ready": ["0", "5", "998", "1000000000000000000", "9999999999999999999", "00"],
    "ready/999": ["000000000000-0", "000108796296-0", "999999999999-6"],
    "ready/999/000108796296-0": _NAMES_OF_ENTRIES,
    "ready/5/000108796296-0": _NAMES_OF_ENTRIES,
    "leased": [
        *(f"5.{name}~1700000600000+600000@{OWNER}" for name in _NAMES_OF_ENTRIES),
        f"5.{PACK}.0-1.0-0~999999999999999+9999999999999@{OWNER}",
        f"5.{PACK}.0-3.0-0~1700000600000+600000@{OWNER}!split",
        f"5.{PACK}.0-3.0-0~999999999999999+600000@{OWNER}!split",
        f"5.{PACK}.0-1.0-0~0+0@h:{'9' * 30}:1:k:t.1",
        f"5.{PACK}.0-1.0-0~0+0@h:1:{'9' * 30}:k:t.1:slurm-{'9' * 18}=c",
        f"5.{PACK}.0-1.0-0~0+0@----",
        "foreign!split",
    ],
    "delayed": ["000000000001", "999999999999", "after.g", "after.nobody", "after.g+h", "after..", "after."],
    "delayed/000000000001": [f"{due}.5.{name}" for due in ("000000000000001", "9" * 15) for name in _NAMES_OF_ENTRIES],
    "delayed/after.g": [f"000000000000001.5.{name}" for name in _NAMES_OF_ENTRIES],
    "drop": [
        *(f"{due}.{priority}.{PACK}" for due in ("0" * 15, "9" * 15) for priority in ("-", "5", "9" * 19)),
        *(f"{'0' * 15}.5.{name}" for name in _NAMES_OF_ENTRIES),
        PACK,
    ],
    "dead": [f"5.{name}~{reason}" for reason in ("rejected", "x-" * 30) for name in _NAMES_OF_ENTRIES],
    "damaged": [f"5.{name}~corrupt" for name in _NAMES_OF_ENTRIES],
    "done": ["000000000001", "999999999999"],
    "done/000000000001": [f"{at}.5.{name}" for at in ("000000000000001", "9" * 15) for name in _NAMES_OF_ENTRIES],
    "keys": ["aa", "82"],
    "keys/aa": ["old", "0" * 38],
    "journal": [
        *("h.00.0.1.jsonl", "h.jsonl", "retired.aaaaaaaa.h.00.0.1.jsonl"),
        "packed-000000000000001-999999999999999-aaaaaaaa.jsonl.gz",
    ],
    "workers": ["w.json", "w.stop", "worker-1.stop", "job-slurm-1.json", "-.json"],
    "locks": [
        *("compact.0000000001", "compact.9999999999", "compact.9999999999.free", "recover-99999999", "compact-0"),
        *("complete-armed", "chain-slurm-1.1", "chain-slurm-1.1.failed", f"recover.0000000005@{OWNER}"),
    ],
    "groups": ["g", "h", "x" * 64],
    "groups/g": [PACK, LAST_PACK, "open.aaaaaaaa"],
    "reports": ["aa", "a" * 16],
    "reports/abcdefghijklmnop": [f"{PACK}.0.1", f"{PACK}.0.999"],
    "logs": [f"{PACK}.0.1.log", "worker-1.index", "w.log", "w.index"],
    "state": [f"{PACK}.0"],
    "tmp": [PACK, f"{PACK}.key", "group-aaaaaaaa", "lock-aaaaaaaa", "settings-aaaaaaaa", "explain-aaaaaaaa"],
}
_EVERY_BYTE = bytes(byte for byte in range(1, 256) if byte != ord("/"))
#: Names that mean nothing, and would do something to a terminal, a shell or a program that takes them for text.
FOREIGN = [
    _EVERY_BYTE[:127],
    _EVERY_BYTE[127:],
    *(bytes([byte]) * 255 for byte in b"x\x1b\n\xff"),
    ESCAPES.encode(),
    "\u00fc".encode() * 127,
    "\U0001f600".encode() * 63,
    "\u202e\u2066\ufeff\u200b.json".encode(),
    b"\xed\xa0\x80.json",
    b"-rf",
    b"; touch owned #.json",
    b"$(touch owned)",
    b"=cmd|' \\C calc'!A1",
    b"<script>alert(1)</script>".replace(b"/", b"\\"),
    b".nfs0000",
    b"...",
]


class Damage(NamedTuple):
    """What is put where: `content` where it is a file, else the kind of it."""

    where: str
    name: bytes
    content: bytes | None
    kind: str = ""

    def __repr__(self) -> str:
        return f"Damage({self.where!r}, {self.name!r}, {self.kind or self.content!r:.120})"

    def do(self, root: Path) -> None:
        """Do it to the queue `q` of a root, over whatever is there; nothing where that cannot be."""
        where = os.fsencode(os.path.normpath(root / "q" / self.where))
        try:
            os.makedirs(where, exist_ok=True)
            path = where + b"/" + self.name
            if os.path.lexists(path):
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            if self.content is not None:
                _as_file(self.content)(path, root.parent)
            else:
                KINDS[self.kind](path, root.parent)
        except OSError:
            pass  # of two the first one is in the way


def _at_random(draw: Callable[[Any], Any]) -> Damage:
    """Any of it: mostly under names that mean something, with what may stand in such a file."""
    if draw(st.integers(0, 19)) == 0:
        where, name, contents = draw(st.sampled_from([".", ".."])), b"ddmq.yaml", SETTINGS
    else:
        where = draw(st.sampled_from(sorted(NAMES)))
        name = draw(st.sampled_from([*map(str.encode, NAMES[where]), draw(st.sampled_from(FOREIGN))]))
        contents = {"journal": JOURNALS, "workers": WORKERS}.get(where, LINES)
    if draw(st.booleans()):
        return Damage(where, name, draw(st.sampled_from(contents)) + b"\n")
    return Damage(where, name, None, draw(st.sampled_from(sorted(KINDS))))


#: One damage at random.
DAMAGE: st.SearchStrategy[Damage] = st.composite(_at_random)()

#: Commands that look, and then those that change something, in an order in which each has something to do.
LOOKS: list[list[str]] = [
    ["status", "R"],
    ["status", "R", "q", "--format", "json"],
    ["status", "R", "--format", "yaml"],
    ["status", "R", "--format", "csv"],
    ["view", "R"],
    ["groups", "R", "q"],
    ["groups", "R", "q", "--format", "json"],
    ["list", "R", "q"],
    ["list", "R", "q", "--format", "json"],
    ["list", "R", "q", "--format", "yaml"],
    ["list", "R", "q", "--format", "plain"],
    ["list", "R", "q", "--state", "damaged"],
    ["list", "R", "q", "--state", "done", "--format", "json"],
    ["peek", "R", "q", "-n", "9"],
    ["show", "R", "q", f"{PACK}.0"],
    ["show", "R", "q", f"{PACK}.0", "--format", "json"],
    ["history", "R", "q", f"{PACK}.0"],
    ["history", "R", "q", f"{PACK}.0", "--format", "json"],
    ["history", "R", "q", f"{PACK}.0", "--format", "csv"],
    ["explain", "R", "q"],
    ["explain", "R", "q", "--format", "json"],
    ["explain", "R", "q", f"{PACK}.0"],
    ["workers", "R", "q"],
    ["workers", "R", "q", "--format", "json"],
    ["workers", "R", "q", "--format", "csv"],
    ["dead", "list", "R", "q"],
    ["dead", "show", "R", "q"],
    ["dead", "list", "R", "q", "--exit-code", "1", "--format", "json"],
    ["journal", "export", "R", "q"],
    ["journal", "export", "R", "q", "--format", "jsonl"],
    ["metrics", "R"],
    ["recover", "R", "q", "--dry-run"],
    ["wait", "R", "q", "--timeout", "0"],
]
CHANGES: list[list[str]] = [
    ["exec", "R", "q", "--", "true"],
    ["pull", "R", "q", "-n", "2", "--format", "json"],
    ["consume", "R", "q", "--format", "plain"],
    ["publish", "R", "q", "new"],
    ["publish", "R", "q", "new", "--key", "k"],
    ["publish", "R", "q", "new", "--group", "g"],
    ["publish", "R", "q", "new", "--after", "g", "--delay", "1h"],
    ["clean", "R", "q"],
    ["journal", "compact", "R", "q"],
    ["recover", "R", "q"],
    ["workers", "stop", "R", "q", "all"],
    ["pause", "R", "q", "--reason", "x"],
    ["resume", "R", "q"],
    ["retry", "R", "q", "--all"],
    ["retry", "R", "q", "--all", "--state", "done"],
    ["cancel", "R", "q", f"{PACK}.0"],
    ["cancel", "R", "q", "--match", "zzz"],
    ["del_msg", "R", "q", f"{PACK}.0"],
    ["dead", "purge", "R", "q", "--all", "--yes"],
    ["create", "R", "q"],
    ["purge", "R", "q"],
    ["delete", "R", "q"],
]


def every_command(root: Path, commands: list[list[str]]) -> None:
    """Run these for a root, each of which has to end well."""
    for command in commands:
        checked(*(str(root) if word == "R" else word for word in command))
