"""Coverage-guided fuzzing of `contracts.py` by Atheris, run by hand:

    .venv/bin/python -m pip install atheris       (Linux; it brings its own libFuzzer, but no wheel for every Python)
    .venv/bin/python tests/hostile/fuzz.py 23     (seconds for each contract; names of some after that for those alone)

What a contract is given begins with what `corpus.jsonl` has for it and with the texts of `hostile_tools.py`. An input
that breaks a contract is printed and kept as build/fuzz/CONTRACT/found-...; put into `test_corpus.py`, it is a test.
Where nothing broke, the shortest inputs that go the same ways replace those of that contract in the corpus.

Run with Atheris 3.0.0 for ten minutes, 23 seconds for each of 27 contracts, 25 million inputs: no parser broke its
contract. What was found while the contracts were written, and is in `test_corpus.py` and `test_parsers.py`: a pattern
for `--match` that repeats or nests too much, a layout of thousands of digits, and answers of squeue and qstat whose
numbers no Python can count with, each a traceback; and a file called `x!split`, for which half of the commands waited.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import corpus

PLACE = Path(__file__).parents[2] / "build" / "fuzz"
#: Inputs are no longer, in bytes: what is long is damaged in more ways than there is time for.
LONGEST = 2400
#: Of each contract so much is kept: the shortest inputs.
_MOST, _MOST_BYTES = 40, 10_000


def _seeds(name: str) -> list[bytes]:
    from hostile_tools import CONTENTS, FOREIGN, NAMES, SOUND

    known = [text.encode() for found in NAMES.values() for text in found]
    mine = [data for of, data in corpus.read() if of == name]
    return [data for data in [*mine, *SOUND, *known, *CONTENTS, *FOREIGN] if len(data) <= LONGEST]


def _lay(directory: Path, inputs: list[bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (directory / sha256(data).hexdigest()[:16]).write_bytes(data)
    return directory


def _fuzz(name: str, seconds: str) -> bool:
    """Whether nothing broke the contract."""
    place = PLACE / name
    found = _lay(place / "inputs", _seeds(name))
    limits = [f"-max_len={LONGEST}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={place}/found-"]
    this = _this(name)
    print(f"== {name}", flush=True)
    if subprocess.run([*this, f"-max_total_time={seconds}", *limits, found]).returncode:
        return False
    for old in place.glob("small/*"):
        old.unlink()
    small = _lay(place / "small", [])
    subprocess.run([*this, "-merge=1", *limits, small, found], check=True, stderr=subprocess.DEVNULL)
    shortest = sorted((path.read_bytes() for path in small.iterdir()), key=lambda data: (len(data), data))
    kept, size = [], 0
    for data in shortest[:_MOST]:
        size += len(data)
        if size <= _MOST_BYTES:
            kept.append((name, data))
    corpus.write([*(each for each in corpus.read() if each[0] != name), *kept])
    return True


def _this(name: str) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "contract", name]


def _contract(name: str, arguments: list[str]) -> None:
    """The process that libFuzzer is: it does not come back. Nothing may be imported before that is to be watched."""
    import atheris

    for hook in ("RegEx", "str"):
        atheris.enabled_hooks.add(hook)
    with atheris.instrument_imports(include=["contracts", "ddmq_hpc", "yaml"]):
        from contracts import CONTRACTS
    check = CONTRACTS[name]
    # While it merges, libFuzzer has a shell run what it takes for its program.
    atheris.Setup([shlex.join(_this(name)), *arguments], check)
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["contract"]:
        _contract(arguments[1], arguments[2:])
    from contracts import CONTRACTS

    seconds, *names = arguments or ["20"]
    broken = [name for name in names or CONTRACTS if not _fuzz(name, seconds)]
    print(f"broken: {', '.join(broken)}" if broken else "nothing broke")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
