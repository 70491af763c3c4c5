"""Messages and the packs that hold them: JSON values with their own properties, one a line. Pure: no file is
touched."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ddmq_hpc.errors import BadMessage, UsageError
from ddmq_hpc.names import check_group_name
from ddmq_hpc.settings import (
    DEFAULTS,
    Settings,
    duration,
    lease_duration,
    limit_number,
    optional,
    priority_number,
    slots_number,
)
from ddmq_hpc.settings import boolean as _boolean
from ddmq_hpc.settings import memory as _memory

if TYPE_CHECKING:
    from ddmq_hpc.settling import Held

#: Deeper JSON is refused: no task needs it, and readers in other languages would overflow.
MAX_DEPTH = 64

_quote = json.encoder.encode_basestring  # what the encoder makes of text, and most bodies are text
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    found = float(text)
    if found in (math.inf, -math.inf):
        raise ValueError(f"{text:.20} is too large a number")
    return found


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_decode, _scan = _decoder.decode, _decoder.raw_decode
#: What steers a terminal, or turns the direction of writing, and is in JSON or YAML as it is unless it is escaped.
UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def _headers(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError("headers must be a mapping with text as keys")
    return value


def _option(check: Any, text: str) -> Any:
    return field(default=None, metadata={"check": optional(check), "help": text})


@dataclass(frozen=True)
class Options:
    """The properties of a message that override its queue's settings; None where it has none of its own."""

    priority: int | None = _option(priority_number, "lower is taken first")
    timeout: float | None = _option(lease_duration, "how long it may be held before it is requeued")
    requeue: bool | None = _option(_boolean, "requeue when it fails or times out")
    requeue_limit: int | None = _option(limit_number, "requeues before it becomes a dead letter")
    requeue_prio: int | None = _option(priority_number, "priority once requeued")
    loss_limit: int | None = _option(limit_number, "requeues after its worker died, counted apart")
    time_request: float | None = _option(duration, "time it needs: workers that end sooner leave it to others")
    slots: int | None = _option(slots_number, "slots of a worker that it takes: its threads or processes")
    memory: int | None = _option(_memory, "memory it needs, in bytes or as 4G: workers with less left do not begin it")
    group: str | None = _option(check_group_name, "group that it is one of: others can be published to come after it")
    headers: dict[str, Any] | None = _option(_headers, "JSON object that travels with the message")

    @classmethod
    def checked(cls, /, **values: Any) -> Options:
        """Options of checked values; raises `BadMessage`, which names the wrong one. A legacy `requeue=5` is a
        priority."""
        if list(values.values()).count(None) == len(values):
            return NO_OPTIONS
        found = {}
        for option in fields(cls):
            value = values.pop(option.name, None)
            try:
                found[option.name] = option.metadata["check"](value)
            except UsageError as error:
                raise BadMessage(f"bad {option.name}: {error}") from None
        if values:
            raise BadMessage(f"unknown property {sorted(values)[0][:60]!r}; there are {', '.join(OPTION_NAMES)}")
        return cls(**found)

    def explicit(self) -> dict[str, Any]:
        return {name: value for name in OPTION_NAMES if (value := getattr(self, name)) is not None}


OPTION_NAMES = tuple(option.name for option in fields(Options))
NO_OPTIONS = Options()


@dataclass(frozen=True, init=False)
class Message:
    """One message, as published or as leased. Leave its `with` block to ack it, or by an exception to nack it.

    A message that was only published, or is looked at, has no receipt. The `id` is empty of one that was dropped: it
    gets its id when it is brought in.
    """

    id: str
    message: Any
    queue: str
    options: Options = field(default=NO_OPTIONS, repr=False)
    settings: Settings = field(default=DEFAULTS, repr=False, compare=False)
    failed: int = field(default=0, repr=False)
    lost: int = field(default=0, repr=False)
    in_priority: int | None = field(default=None, repr=False)
    held: Held | None = field(default=None, repr=False, compare=False)

    def __init__(
        self,
        id: str,
        message: Any,
        queue: str,
        options: Options = NO_OPTIONS,
        settings: Settings = DEFAULTS,
        failed: int = 0,
        lost: int = 0,
        in_priority: int | None = None,
        held: Held | None = None,
    ) -> None:
        # Setting nine attributes of a frozen dataclass the usual way costs more than a write(2).
        own = self.__dict__
        own["id"] = id
        own["message"] = message
        own["queue"] = queue
        own["options"] = options
        own["settings"] = settings
        own["failed"] = failed
        own["lost"] = lost
        own["in_priority"] = in_priority
        own["held"] = held

    @property
    def priority(self) -> int:
        """The one it stands at now: `requeue_prio` may have changed it."""
        if self.in_priority is not None:
            return self.in_priority
        return self._of("priority")  # type: ignore[no-any-return]

    @property
    def timeout(self) -> float:
        """Seconds that it may be held."""
        return self._of("timeout")  # type: ignore[no-any-return]

    @property
    def requeue(self) -> bool:
        return self._of("requeue")  # type: ignore[no-any-return]

    @property
    def requeue_limit(self) -> int:
        return self._of("requeue_limit")  # type: ignore[no-any-return]

    @property
    def requeue_prio(self) -> int | None:
        return self._of("requeue_prio")  # type: ignore[no-any-return]

    @property
    def loss_limit(self) -> int | None:
        return self._of("loss_limit")  # type: ignore[no-any-return]

    @property
    def time_request(self) -> float | None:
        """Seconds that it needs, None when nobody said."""
        return self._of("time_request")  # type: ignore[no-any-return]

    @property
    def slots(self) -> int:
        """How many slots of a worker it takes."""
        return self._of("slots")  # type: ignore[no-any-return]

    @property
    def memory(self) -> int | None:
        """Bytes of memory that it needs, None when nobody said."""
        return self._of("memory")  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[str, Any]:
        return self.options.headers or {}

    @property
    def requeue_counter(self) -> int:
        """How often it came back before."""
        return self.failed + self.lost

    @property
    def attempt(self) -> int:
        """1 the first time it is taken."""
        return self.failed + self.lost + 1

    @property
    def index(self) -> int:
        return int(self.id.rpartition(".")[2])

    @property
    def published(self) -> float:
        """Seconds since 1970, in the file system's clock; 0 of one that was dropped, which has no id yet."""
        return int(self.id[:19] or 0) / 1e9

    @property
    def receipt(self) -> str | None:
        """What acks it from another process; None when it is not leased."""
        return self.held.receipt(self.index) if self.held else None

    @property
    def deadline(self) -> float | None:
        """Seconds since 1970, in the file system's clock, until which it is held; None when it is not leased."""
        return self.held.deadline(self.index) if self.held else None

    def _of(self, name: str) -> Any:
        own = getattr(self.options, name)
        return getattr(self.settings, name) if own is None else own

    def to_dict(self) -> dict[str, Any]:
        """Everything of it as JSON values; `filename` is the receipt under the name that ddmq gave it."""
        receipt = self.receipt
        return {
            "id": self.id,
            "message": self.message,
            "queue": self.queue,
            "priority": self.priority,
            "timeout": self.timeout,
            "requeue": self.requeue,
            "requeue_limit": self.requeue_limit,
            "requeue_prio": self.requeue_prio,
            "loss_limit": self.loss_limit,
            "time_request": self.time_request,
            "slots": self.slots,
            "memory": self.memory,
            "group": self.options.group,
            "requeue_counter": self.requeue_counter,
            "attempt": self.attempt,
            "published": self.published,
            "headers": self.headers,
            "receipt": receipt,
            "filename": receipt,
            "queue_number": self.id[:19],
        }

    def __enter__(self) -> Message:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.held is None:
            return
        if kind is None:
            self.held.ack_one(self)
        else:
            self.held.nack_one(self)


def encode_body(body: Any, limit: int) -> str:
    """`body` as one line of JSON; raises `BadMessage` when it is not a JSON value of at most `limit` bytes."""
    if type(body) is not str:
        _check_depth(body)
    try:
        line = _quote(body) if type(body) is str else _encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadMessage(f"not a JSON value: {error}") from None
    size = len(line) if line.isascii() else _size(line)
    if size < 0:
        line = _encode_ascii(body)  # lone surrogates: escaped, they survive UTF-8
        size = len(line)
    if size > limit:
        raise BadMessage(
            f"message of {size} bytes: the limit is {limit}; put the data in a file, the path in the message"
        )
    return line


def _size(line: str) -> int:
    try:
        return len(line.encode())
    except UnicodeEncodeError:
        return -1


def _check_depth(body: Any) -> None:
    level = [body]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list, tuple))
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, (dict, list, tuple))
        ]
        if not level:
            return
    raise BadMessage(f"nested deeper than {MAX_DEPTH} levels")


class LineEncoder:
    """Turns bodies into the lines of a pack; the options they share are encoded once."""

    def __init__(self, options: Options, limit: int) -> None:
        self._limit = limit
        self._tail = "}\n"
        if options is NO_OPTIONS or not (explicit := options.explicit()):
            return
        try:
            _check_depth(explicit)
            self._tail = f",{_encode_ascii(explicit)[1:-1]}}}\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise BadMessage(f"headers are not JSON values: {error}") from None
        if len(self._tail) > limit:
            raise BadMessage(f"headers of {len(self._tail)} bytes: the limit is {limit}")

    def line(self, body: Any) -> bytes:
        """The line of a pack for one body."""
        return ('{"message":' + encode_body(body, self._limit) + self._tail).encode()


def decode_line(line: bytes) -> tuple[Any, Options]:
    """Body and options of a line of a pack; raises `BadMessage` for torn, corrupt or foreign ones."""
    try:
        text = line.decode()
        found, end = _scan(text)
        if end != len(text):
            raise ValueError("something follows")
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not JSON: {error}") from None
    if type(found) is not dict or "message" not in found:
        raise BadMessage("no message in it")
    if len(found) == 1:
        body = found["message"]
        if type(body) is not str:
            _check_depth(body)
        return body, NO_OPTIONS
    body = found.pop("message")
    _check_depth(body)
    found.pop("id", None)  # of a keyed message
    found.pop("signature", None)  # for `signing`, which looks at the line itself
    _check_depth(found)
    return body, Options.checked(**found)


def parse_record(line: str) -> tuple[Any, dict[str, Any]]:
    """A line of a JSONL file to publish: (body, options). An object with `message` may carry the options of one
    message."""
    try:
        found = _decode(line)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not JSON: {error}") from None
    if isinstance(found, dict) and "message" in found and found.keys() <= _RECORD_KEYS:
        body = found.pop("message")
        return body, found
    return found, {}


_RECORD_KEYS = {"message", *OPTION_NAMES}


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line that others may have written, strictly; None for anything else."""
    try:
        found = _decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def parse_json(text: str) -> Any:
    """A JSON value, strictly: no NaN, bounded depth. Raises `BadMessage`."""
    try:
        found = _decode(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not JSON: {error}") from None
    _check_depth(found)
    return found


def pack_lines(lines: Iterable[bytes], max_count: int, max_bytes: int) -> Iterator[list[bytes]]:
    """Groups of lines, each small enough for one pack."""
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and (len(group) >= max_count or size + len(line) > max_bytes):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def to_json(value: Mapping[str, Any]) -> str:
    """One line of JSON for machine output, with nothing in it that would steer a terminal."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    if text.isascii() and "\x7f" not in text:
        return text
    text = text if _size(text) >= 0 else json.dumps(value, allow_nan=False, default=str)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def body_text(body: Any) -> str:
    """A body for programs that read text: text as it is, any other value as JSON. No environment variable can hold a
    NUL, or half a surrogate pair that stands for no byte of a file's name, so text with one is given as JSON, too."""
    return body if isinstance(body, str) and _is_plain(body) else _encode_ascii(body)


def _is_plain(text: str) -> bool:
    if text.isascii():
        return "\0" not in text
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
