"""Messages signed with a key, for queues to which more people can write than may give its workers something to do.

A signed line of a pack ends in `,"signature":"<key>.<code>"}`. The code is the HMAC-SHA256 (RFC 2104) of the queue's
name and of all that is before that member; it says that whoever had the key published this text to a queue of that
name. It does not say when, or how often: who can write to a queue can still repeat, reorder, hold and remove messages,
and say that they were tried.

A key file has a key a line. The first one signs, each of them counts, so that a key can be changed while clients work.
"""

from __future__ import annotations

import hmac
import os
import stat
from shlex import quote
from typing import NamedTuple

from ddmq_hpc.errors import KeyFileError
from ddmq_hpc.settings import Settings

UNSIGNED, UNKNOWN_KEY, BAD_SIGNATURE = "unsigned", "unknown-key", "bad-signature"
#: Why a message was not taken: words in the names of what is in `damaged`, for a person.
DOUBTS = {
    UNSIGNED: "whoever published it had no key",
    UNKNOWN_KEY: "with another key than whoever took it had",
    BAD_SIGNATURE: "it was changed afterwards, or is of a queue of another name",
}
_OTHERS = (
    "several messages in a row are signed with other keys; is it the right file? What was set aside is taken back by "
    "`ddmq-hpc retry ROOT QUEUE --state damaged --all`"
)
_NO_FILE = "is no regular file: name one that has keys"
#: Letters of a key: 32 random bytes are 43 in base64.
_SHORTEST, _MOST_BYTES = 32, 4096
#: So many messages in a row may be signed with other keys: then this one's may be the wrong ones.
_MOST_UNKNOWN = 8
_BEGIN, _END = b',"signature":"', b'"}'
_NAME, _CODE = 8, 64
_LENGTH = len(_BEGIN) + _NAME + 1 + _CODE + len(_END)


class _Key(NamedTuple):
    """`name` tells it from others, and nothing about it; `code` is copied for each message."""

    name: bytes
    code: hmac.HMAC

    @classmethod
    def of(cls, secret: bytes, queue: str) -> _Key:
        name = hmac.new(secret, b"ddmq-hpc key", "sha256").hexdigest()[:_NAME]
        return cls(name.encode(), hmac.new(secret, f"ddmq-hpc message\0{queue}\0".encode(), "sha256"))

    def sign(self, text: bytes) -> bytes:
        code = self.code.copy()
        code.update(text)
        return code.hexdigest().encode()


class Signer:
    """Signs and judges the messages of a queue by the keys that are in the file named by its settings now."""

    def __init__(self, queue: str, settings: Settings) -> None:
        """Raises `KeyFileError`."""
        if settings.key_file is None:
            told = f"queue {queue!r} takes signed messages alone: set key_file, or $DDMQ_HPC_KEY_FILE"
            raise KeyFileError(None, told)
        self.settings = settings
        self._queue, self._path = queue, os.path.expanduser(settings.key_file)
        self._unknown = 0
        self._keys = self._read_keys()

    def signed(self, line: bytes) -> bytes:
        """A line of a pack with its signature. Of a JSON object with members, which the newline ends."""
        key, text = self._keys[0], line[:-2]
        return b"".join((text, _BEGIN, key.name, b".", key.sign(text), _END, b"\n"))

    def doubt(self, line: bytes) -> str | None:
        """The same as `judge`. Raises `KeyFileError` when several in a row are signed with other keys: it may be this
        client that is wrong."""
        why = self.judge(line)
        if why == UNKNOWN_KEY:
            self._unknown += 1
            if self._unknown > _MOST_UNKNOWN:
                raise KeyFileError(self._path, _OTHERS)
        elif why is None:
            self._unknown = 0
        return why

    def judge(self, line: bytes) -> str | None:
        """Why a line, without its newline, is not to be believed; None when it is. Raises `KeyFileError`."""
        text, signature = line[:-_LENGTH], line[-_LENGTH:]
        if not (signature.startswith(_BEGIN) and signature.endswith(_END)):
            return UNSIGNED
        name, _, code = signature[len(_BEGIN) : -len(_END)].partition(b".")
        keys = self._named(name)
        if not keys:
            return UNKNOWN_KEY
        good = any(hmac.compare_digest(key.sign(text), code) for key in keys)
        return None if good else BAD_SIGNATURE

    def _named(self, name: bytes) -> list[_Key]:
        """The keys of that name, also one that was written down a moment ago."""
        if name not in [key.name for key in self._keys]:
            self._keys = self._read_keys()
        return [key for key in self._keys if key.name == name]

    def _read_keys(self) -> list[_Key]:
        return [_Key.of(secret, self._queue) for secret in _read(self._path)]


def signer(known: Signer | None, queue: str, settings: Settings) -> Signer:
    """The `known` one as long as settings are; with those the keys are read again. Raises `KeyFileError`."""
    return known if known and known.settings is settings else Signer(queue, settings)


def _read(path: str) -> list[bytes]:
    """The keys of a file that nobody else can write, and not everybody read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise KeyFileError(path, _NO_FILE)  # not to be opened: a device may do something then
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MOST_BYTES + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise KeyFileError(path, f"{os.strerror(error.errno or 0)}; name one that you can read") from None
    if not stat.S_ISREG(mode):
        raise KeyFileError(path, _NO_FILE)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeyFileError(path, f"others can read or write it: chmod g-w,o= {quote(path)}, and make a new key")
    keys = [line.strip() for line in content.splitlines() if line.strip()]
    if not keys or len(content) > _MOST_BYTES or min(map(len, keys)) < _SHORTEST:
        make = f"(umask 077; head -c 32 /dev/urandom | base64 > {quote(path)})"
        raise KeyFileError(path, f"has not just keys of {_SHORTEST} letters or more, a line each; to make one: {make}")
    return keys
