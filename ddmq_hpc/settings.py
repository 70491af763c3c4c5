"""The settings of a root and its queues, declared once: YAML, command line, help and docs all read this.

`ROOT/ddmq.yaml` holds for all queues, `ROOT/QUEUE/ddmq.yaml` overrides it, a message's own properties override both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Callable

from ddmq_hpc.errors import SettingsError, UsageError
from ddmq_hpc.names import LAYOUT_KEY, MAX_PACK, MAX_PRIORITY
from ddmq_hpc.units import memory_bytes, seconds, shown

#: The layout on disk that this version makes, and the only one that it reads.
LAYOUT = 1
EXPIRY = ("auto", "filesystem-clock", "observed")
#: What an exit code of a task can mean, besides 0 (done) and any other (failed, to be retried).
EXIT_ACTIONS = ("retry", "release", "dead", "stop-worker")
ON_LOST = ("kill", "finish")
#: Bytes of a settings file: reading much YAML takes long.
MOST_BYTES = 1 << 16
_MOST_BRACKETS = 1000  # what is nested deeper takes PyYAML seconds to refuse
_COUNT_LIMIT = 10**8  # counters have at most nine digits in names
_MOST_NOTE = 500


def number(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UsageError(f"{shown(value)} is not a whole number from {low} to {high}")
        return int(value)

    return check


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{shown(value)} is not true or false")
    return value


def duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise UsageError(f"{shown(value)} is not a duration")
    return seconds(value)


def memory(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise UsageError(f"{shown(value)} is not an amount of memory, such as 4G")
    return memory_bytes(value)


def lease_duration(value: Any) -> float:
    found = duration(value)
    if found < 0.001:
        raise UsageError("a lease must be longer than 0 seconds")
    return found


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise UsageError(f"{shown(value)} is not one of {', '.join(choices)}")
        return str(value)

    return check


def exit_actions(value: Any) -> dict[int, str]:
    """A mapping of exit codes, 1 to 255, to one of `EXIT_ACTIONS`."""
    if not isinstance(value, dict):
        raise UsageError(f"{shown(value)} is not a mapping of exit codes, such as {{75: retry, 99: release}}")
    return {number(1, 255)(code): one_of(EXIT_ACTIONS)(action) for code, action in value.items()}


_ACCOUNT = re.compile(r"[^\W\d][\w.@+\\-]{0,63}\$?")


def account(value: Any) -> str:
    """The name of a user or a group."""
    if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
        raise UsageError(f"{shown(value)} is not the name of a user or group")
    return value


def accounts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        value = [value]
    return tuple(map(account, value))


def command_line(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise UsageError(f"{shown(value)} is no command line")
    return value


def file_path(value: Any) -> str:
    """A path that does not depend on where a client is started."""
    if not isinstance(value, str) or not value.isprintable() or not value.startswith(("/", "~/")):
        raise UsageError(f"{shown(value)} is no path that begins with / or ~/")
    return value


size = memory  # in the class below `memory` is a setting


def note(value: Any) -> str:
    """A line of text that a person left."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MOST_NOTE:
        raise UsageError(f"{shown(value)} is not one line of at most {_MOST_NOTE} letters")
    return value


priority_number = number(0, MAX_PRIORITY)
limit_number = number(0, _COUNT_LIMIT)
slots_number = number(1, 100_000)


def _setting(default: Any, check: Callable[[Any], Any], text: str) -> Any:
    metadata = {"check": check, "help": text}
    if isinstance(default, dict):
        return field(default_factory=default.copy, hash=False, metadata=metadata)
    return field(default=default, metadata=metadata)


def steered(by: str | None, reason: str | None) -> str:
    """Who did something and why, as the end of a sentence."""
    return (f" by {by}" if by else "") + (f": {reason}" if reason else "")


@dataclass(frozen=True)
class Settings:
    """All settings of a queue. Durations are seconds here, and anything `units.seconds` reads in YAML."""

    priority: int = _setting(999, priority_number, "priority of messages that name none; lower is taken first")
    timeout: float = _setting(600.0, lease_duration, "how long a message may be held before it is requeued")
    requeue: bool = _setting(True, boolean, "requeue messages that fail or time out; false: to the dead letters")
    requeue_limit: int = _setting(10, limit_number, "requeues after which a message becomes a dead letter")
    requeue_prio: int | None = _setting(
        None, optional(priority_number), "priority of a requeued message; null: it keeps its own, and its place"
    )
    loss_limit: int | None = _setting(
        10,
        optional(limit_number),
        "requeues after its worker died or its lease ran out, counted apart from failures; null: they count like those",
    )
    retry_delay: float = _setting(0.0, duration, "wait before a failed message is ready again, doubled each time")
    retry_delay_max: float = _setting(3600.0, duration, "the longest such wait")
    durable: bool = _setting(True, boolean, "fsync messages before publish returns, and outcomes within a second")
    max_message_bytes: int = _setting(1 << 20, number(1, 1 << 30), "largest message accepted, in bytes of JSON")
    pack_size: int | None = _setting(
        None,
        optional(number(1, MAX_PACK)),
        "messages published in bulk that share a file; null: 128, or 12 where a file can have few links (GlusterFS)",
    )
    grace: float = _setting(2.0, duration, "how long after its deadline a lease is left alone")
    keep_done: float = _setting(
        0.0, duration, "how long finished messages are kept, for `retry --state done` and `list`; 0: not at all"
    )
    expiry: str = _setting(
        "auto",
        one_of(EXPIRY),
        "what tells that a deadline passed: the file system's clock, or names observed unchanged; auto: by its type",
    )
    time_request: float | None = _setting(
        None, optional(duration), "time a task needs: workers that end sooner leave it; null: as the others took so far"
    )
    progress_timeout: float | None = _setting(
        None,
        optional(duration),
        "a task that told its progress once fails when it is silent for so long; null: never",
    )
    slots: int = _setting(1, slots_number, "slots of a worker that a task takes: its threads or processes")
    memory: int | None = _setting(
        None, optional(memory), "memory a task needs, such as 4G: workers with less left do not begin it; null: any"
    )
    exit_codes: dict[int, str] = _setting(
        {},
        exit_actions,
        "what exit codes of tasks mean: {CODE: retry, release, dead or stop-worker}; others are retried",
    )
    on_lost: str = _setting(
        "kill", one_of(ON_LOST), "what a worker does with a task whose lease was lost: kill, finish"
    )
    trusted_users: tuple[str, ...] = _setting(
        (),
        accounts,
        "whose messages are run besides yours and root's: [NAME, ...]; counts in a file that only you can write",
    )
    trusted_group: str | None = _setting(
        None, optional(account), "the group whose members are trusted alike, but not by `work --shell`"
    )
    sign: str | None = _setting(
        None, optional(one_of(("required",))), "required: messages without a good signature are taken by nobody"
    )
    key_file: str | None = _setting(
        None, optional(file_path), "file with the keys that messages are signed with, the same for all who have it"
    )
    journal_keep: float | None = _setting(
        None, optional(duration), "how long outcomes are kept, which are compressed after two days; null: for ever"
    )
    journal_size: int | None = _setting(
        None, optional(size), "how large compressed outcomes may be in all, the oldest go first; null: any size"
    )
    on_complete: str | None = _setting(
        None, optional(command_line), "command line that a worker runs once when everything in the queue is done"
    )
    paused: bool = _setting(False, boolean, "hand out nothing; see `ddmq-hpc pause`")
    draining: bool = _setting(False, boolean, "accept no new messages; see `ddmq-hpc drain`")
    paused_reason: str | None = _setting(None, optional(note), "why it is paused or draining")
    paused_by: str | None = _setting(None, optional(note), "who said so, and when")

    @property
    def signs(self) -> bool:
        """Whether messages are signed."""
        return self.key_file is not None or self.sign is not None

    @property
    def steered(self) -> str:
        """Who paused it and why, as the end of a sentence; empty where nobody said."""
        return steered(self.paused_by, self.paused_reason)


DEFAULTS = Settings()
FIELDS = {f.name: f for f in fields(Settings)}
#: What else may stand in a settings file: the layout's version, and what ddmq wrote there.
#: Those that count by whose file they stand in: they say whom to trust, or what to run.
VOUCHED = ("trusted_users", "trusted_group", "key_file", "exit_codes", "on_complete")
#: Settings that the environment of a client overrides.
ENVIRONMENT = {"DDMQ_HPC_SIGN": "sign", "DDMQ_HPC_KEY_FILE": "key_file"}
_ALIASES = {"message_timeout": "timeout"}
_IGNORED = {"cleaned"}


def apply(settings: Settings, values: Mapping[Any, Any], path: str) -> Settings:
    """`settings` with `values` of the file `path` over them; raises `SettingsError` for unknown keys and wrong
    types."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        key = _ALIASES.get(key, key)
        if key == LAYOUT_KEY:
            check_layout(values, path)
        elif key in FIELDS:
            try:
                found[key] = FIELDS[key].metadata["check"](value)
            except UsageError as error:
                raise SettingsError(path, f"{key}: {error}") from None
        elif key not in _IGNORED:
            name = key if isinstance(key, str) else shown(key)
            raise SettingsError(path, f"unknown setting {name[:60]!r}{_nearest(name[:60])}")
    return replace(settings, **found) if found else settings


def below(settings: Settings, values: Mapping[Any, Any], path: str) -> Settings:
    """`apply`, of the file of a queue over those of its root, but where these demand signatures it stays at that, and
    at their keys: more people may write that file. Raises `SettingsError`."""
    found = apply(settings, values, path)
    if settings.sign:
        return replace(found, sign=settings.sign, key_file=settings.key_file or found.key_file)
    return found


def of_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a client demands itself, whatever who can write the files says in them."""
    return {name: value for variable, name in ENVIRONMENT.items() if (value := environ.get(variable))}


#: What an error about one of those names.
OF_ENVIRONMENT = "the environment, " + " or ".join(f"${variable}" for variable in ENVIRONMENT)


def check_layout(values: Mapping[Any, Any], path: str) -> None:
    """Raises `SettingsError` unless `values`, of the settings file `path` of a root, say that its layout is the one of
    this version."""
    found = values.get(LAYOUT_KEY)
    if type(found) is int and found == LAYOUT:
        return
    if type(found) is int and found > LAYOUT:
        raise SettingsError(
            path, f"layout {shown(found, 20)} is newer than what this version reads ({LAYOUT}); update ddmq-hpc"
        )
    line = f"`{LAYOUT_KEY}: {LAYOUT}`"
    if LAYOUT_KEY in values:
        raise SettingsError(path, f"layout {shown(found, 20)} is none that this version reads; the line was {line}")
    raise SettingsError(
        path,
        f"has no line {line}: is it of ddmq? take it over with `ddmq-hpc import OLD_ROOT NEW_ROOT`; else write it "
        "there again",
    )


def _nearest(key: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, [*FIELDS, *_ALIASES], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "; the settings are: " + ", ".join(FIELDS)


def parse(text: str, path: str) -> Mapping[Any, Any]:
    """The mapping of a settings file. Plain `key: value` lines are read here, anything else by PyYAML.

    Importing PyYAML costs as much as the rest of `ddmq-hpc pull`; that plain lines mean the same to both is tested.
    """
    plain = _parse_plain(text)
    if plain is not None:
        return plain
    if len(text) > MOST_BYTES or text.count("[") + text.count("{") > _MOST_BRACKETS:
        raise SettingsError(path, "too much for a settings file")
    import yaml

    try:
        found = yaml.load(text, _bounded_loader())
    except (yaml.YAMLError, RecursionError, *_BROKEN_PROMISES) as error:
        raise SettingsError(path, f"not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingsError(path, "not a mapping of settings; write lines such as `timeout: 10m`")
    return found


#: What PyYAML runs into when a tag promises what the text is not.
_BROKEN_PROMISES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _bounded_loader() -> Any:
    """A safe loader without anchors: a few lines with them can stand for gigabytes; and with every key once: it is
    a guess which of two is meant."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            events: Any = self
            if events.check_event(yaml.AliasEvent):
                raise UsageError("aliases are not allowed here")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            if len(found) < len(node.value):
                raise UsageError("a name stands there twice")
            return found

    return Loader


#: Words that are text to YAML, too.
_PLAIN_WORDS = {*EXPIRY, "required"}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "": None}


def _parse_plain(text: str) -> dict[str, Any] | None:
    """Lines of `name: true|false|null|digits|word|"text"`, comments and blank lines; None for anything else."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        key, colon, value = line.partition(": ")
        if not colon or key in found or not (key.isascii() and key.isidentifier()):
            return None
        value = value.strip(" ")
        if value in _WORDS and value:
            found[key] = _WORDS[value]
        elif _is_quoted(value):
            found[key] = value[1:-1]
        elif value.isascii() and value.isdigit() and (value[0] != "0" or value == "0") and len(value) < 20:
            found[key] = int(value)
        elif value in _PLAIN_WORDS or (value.isascii() and value[:-1].isdigit() and value[-1] in "smhdw"):
            found[key] = value
        else:
            return None
    return found


#: What YAML takes for text, and for the same text, without quotes.
_BARE = r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[a-z][a-z-]*|[0-9]+[smhdw]"


def _is_quoted(value: str) -> bool:
    """Whether it is text in quotes with nothing in it that could be an escape."""
    text = value[1:-1]
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return quoted and text.isascii() and text.isprintable() and not ('"' in text or "\\" in text)


def example() -> str:
    """A settings file with every setting, its meaning and its default, all commented out."""
    lines = [
        "# Settings of ddmq-hpc. A queue's ddmq.yaml overrides the root's; a message's own properties override both."
    ]
    for setting in FIELDS.values():
        lines += ["", f"# {setting.metadata['help']}", f"# {setting.name}: {plain(getattr(DEFAULTS, setting.name))}"]
    return "\n".join(lines) + "\n"


def plain(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(plain, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return value if re.fullmatch(_BARE, value) else json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)


def dump(values: Mapping[str, Any]) -> str:
    """`values` as lines that `parse` reads back."""
    return "".join(f"{key}: {plain(value)}\n" for key, value in values.items())
