"""Signed messages: what a key has signed is taken, anything else is set aside with the reason, by every way in."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ddmq_hpc.admin import items
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import KeyFileError, MessageNotFound, SettingsError
from ddmq_hpc.messages import LineEncoder, Options, decode_line
from ddmq_hpc.names import Entry
from ddmq_hpc.settings import DEFAULTS, Settings
from ddmq_hpc.signing import BAD_SIGNATURE, DOUBTS, UNKNOWN_KEY, UNSIGNED, Signer
from ddmq_hpc.snakemake.consuming import Place

COMMAND = Path(sys.executable).parent / "ddmq-hpc"
SECRET, OTHER = "k" * 43, "o" * 43


def key_file(path: Path, *keys: str, mode: int = 0o600) -> str:
    path.write_text("\n".join(keys) + "\n")
    path.chmod(mode)
    return str(path)


@pytest.fixture
def key(tmp_path: Path) -> str:
    return key_file(tmp_path / "key", SECRET)


def by(path: str) -> Settings:
    return replace(DEFAULTS, key_file=path)


def line(body: object, **options: object) -> bytes:
    return LineEncoder(Options.checked(**options), 1 << 20).line(body)


# -- the signature


def test_a_signature_is_what_the_documentation_says(key: str) -> None:
    signed = Signer("tasks", by(key)).signed(b'{"message":"one"}\n')
    name = hmac.new(SECRET.encode(), b"ddmq-hpc key", hashlib.sha256).hexdigest()[:8]
    code = hmac.new(SECRET.encode(), b'ddmq-hpc message\0tasks\0{"message":"one"', hashlib.sha256).hexdigest()
    assert signed.decode() == f'{{"message":"one","signature":"{name}.{code}"}}\n'


@pytest.mark.parametrize("body", ["text", "", {"a": [1, None]}, 0, "\ud800", 'x","signature":"', "é" * 1000])
def test_what_was_signed_is_not_doubted_and_means_the_same(key: str, body: object) -> None:
    plain = line(body, priority=3, headers={"signature": "x"})
    signer = Signer("q", by(key))
    signed = signer.signed(plain)
    assert signer.doubt(signed[:-1]) is None
    assert decode_line(signed[:-1]) == decode_line(plain[:-1])


def test_each_changed_byte_is_noticed(key: str) -> None:
    signer = Signer("q", by(key))
    signed = signer.signed(line("m", timeout=60))[:-1]
    for at in range(len(signed)):
        for changed in (signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :], signed[:at] + signed[at + 1 :]):
            assert signer.doubt(changed) in DOUBTS, changed
            assert signer.doubt(signed) is None


def test_what_is_doubted_and_why(key: str, tmp_path: Path) -> None:
    signer = Signer("q", by(key))
    signed = signer.signed(line("m"))[:-1]
    assert signer.doubt(line("m")[:-1]) == UNSIGNED
    assert signer.doubt(b"") == UNSIGNED
    assert signer.doubt(signed.replace(b'"m"', b'"n"')) == BAD_SIGNATURE
    assert Signer("other", by(key)).doubt(signed) == BAD_SIGNATURE, "of another queue"
    assert Signer("q", by(key_file(tmp_path / "other", OTHER))).doubt(signed) == UNKNOWN_KEY


def test_a_key_is_changed_while_clients_work(tmp_path: Path) -> None:
    """Both keys count as long as both are there, the first signs."""
    old = key_file(tmp_path / "old", SECRET)
    both = key_file(tmp_path / "both", OTHER, SECRET)
    new = key_file(tmp_path / "new", OTHER)
    of_old, of_both, of_new = (Signer("q", by(path)).signed(line("m"))[:-1] for path in (old, both, new))
    assert of_both == of_new != of_old
    assert [Signer("q", by(both)).doubt(signed) for signed in (of_old, of_new)] == [None, None]
    assert Signer("q", by(new)).doubt(of_old) == UNKNOWN_KEY


@pytest.mark.parametrize(
    "content, mode, why",
    [
        ("short", 0o600, "letters or more"),
        ("", 0o600, "letters or more"),
        (SECRET + "\nshort", 0o600, "letters or more"),
        (SECRET * 100, 0o600, "letters or more"),
        (SECRET, 0o644, "others"),
        (SECRET, 0o660, "others"),
    ],
)
def test_a_key_file_that_is_none(tmp_path: Path, content: str, mode: int, why: str) -> None:
    with pytest.raises(KeyFileError, match=why):
        Signer("q", by(key_file(tmp_path / "key", content, mode=mode)))


def test_a_key_file_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo"):
        with pytest.raises(KeyFileError, match="key file /"):
            Signer("q", by(str(path)))


def test_a_group_may_share_a_key(tmp_path: Path) -> None:
    Signer("q", by(key_file(tmp_path / "key", SECRET, mode=0o640)))


# -- a queue that takes signed messages alone


@pytest.fixture
def root(tmp_path: Path, key: str) -> str:
    root = str(tmp_path / "root")
    Broker(root, create=True).create_queue("tasks", sign="required", key_file=key, durable=False)
    return root


@pytest.fixture
def stranger(root: str) -> Broker:
    """One who can write to the queue, and has no key."""
    broker = Broker(root)
    queue = broker.queue("tasks")
    queue._settings = lambda: replace(DEFAULTS, durable=False)
    return broker


def damaged(root: str) -> list[tuple[object, str]]:
    queue = Broker(root).queue("tasks")
    return [(item.message.message, str(item.detail)) for item in items(queue, ("damaged",))]


def test_what_is_published_is_taken(root: str) -> None:
    with Broker(root) as broker:
        broker.publish("tasks", "one")
        broker.publish_many("tasks", ["two", {"three": 3}])
        broker.publish("tasks", "four", key="k", headers={"a": "b"})
        assert [message.message for message in broker.consume("tasks", 9)] == ["one", "two", {"three": 3}, "four"]
    assert damaged(root) == []


def test_what_was_not_signed_is_set_aside_with_the_reason(root: str, stranger: Broker) -> None:
    stranger.publish("tasks", "evil")
    stranger.publish_many("tasks", ["more", "evils"])
    with Broker(root) as broker:
        broker.publish("tasks", "good")
        assert [message.message for message in broker.consume("tasks")] == ["good"], "taken in spite of it"
        assert broker.consume("tasks") == []
    assert damaged(root) == [("evil", UNSIGNED), ("more", UNSIGNED), ("evils", UNSIGNED)]


def test_what_was_changed_is_set_aside_alone(root: str) -> None:
    with Broker(root) as broker:
        broker.publish_many("tasks", ["one", "two", "three"])
        (path,) = Path(root, "tasks/ready").glob("*/*/*")
        path.write_bytes(path.read_bytes().replace(b"two", b"owt"))
        assert [message.message for message in broker.consume("tasks", 9)] == ["one", "three"]
    assert damaged(root) == [("owt", BAD_SIGNATURE)]


def test_thousands_of_unsigned_ones_are_set_aside(root: str, stranger: Broker) -> None:
    """One after the other, by one call."""
    for number in range(1200):
        stranger.publish("tasks", number)
    with Broker(root) as broker:
        assert broker.consume("tasks") == []
    assert len(damaged(root)) == 1200


def test_who_has_no_key_takes_nothing_and_breaks_nothing(root: str, key: str) -> None:
    Broker(root).publish("tasks", "one")
    os.rename(key, f"{key}.away")
    with Broker(root) as broker:
        for act in (lambda: broker.consume("tasks"), lambda: broker.publish("tasks", "two")):
            with pytest.raises(KeyFileError, match="No such file"):
                act()
        assert broker.stats("tasks").ready == 1
    os.rename(f"{key}.away", key)
    assert [message.message for message in Broker(root).consume("tasks", 9)] == ["one"]


def test_what_a_root_demands_no_queue_takes_back(tmp_path: Path, key: str) -> None:
    """More people may write the queue's file."""
    root = tmp_path / "root"
    Broker(root, create=True).create_queue("tasks", durable=False)
    (root / "tasks/ddmq.yaml").write_text(f'sign: null\nkey_file: "{key_file(tmp_path / "evil", OTHER)}"\n')
    with Broker(root) as broker:
        broker.publish("tasks", "evil")
    (root / "ddmq.yaml").write_text(f'layout: 1\nsign: required\nkey_file: "{key}"\n')
    with Broker(root) as broker:
        broker.publish("tasks", "good")
        assert [message.message for message in broker.consume("tasks", 9)] == ["good"]
    assert damaged(str(root)) == [("evil", UNKNOWN_KEY)]


def test_a_file_of_the_same_name_hides_none_that_was_signed(root: str) -> None:
    """What a process of Snakemake reads again, it judges again."""
    with Broker(root) as broker:
        broker.publish("tasks", "good")
        (message,) = broker.consume("tasks")
        place = Place(root, "tasks", None, ())
        assert place.read(message.id) == "good"
        planted = Path(broker.queue("tasks").paths.in_ready(1, Entry(message.id.rpartition(".")[0], 0, 1, 0, 0)))
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_text('{"message":"evil"}\n')
        with pytest.raises(MessageNotFound):
            place.read(message.id)


def test_no_key_file_is_named(tmp_path: Path) -> None:
    with Broker(tmp_path / "root", create=True) as broker:
        broker.create_queue("tasks", sign="required")
        with pytest.raises(KeyFileError, match="DDMQ_HPC_KEY_FILE"):
            broker.publish("tasks", "one")


def test_bad_values_are_refused(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True)
    for bad in ({"sign": "maybe"}, {"sign": True}, {"key_file": "relative"}, {"key_file": "/a\nb"}):
        with pytest.raises(SettingsError):
            broker.create_queue("tasks", **bad)


def test_whose_key_was_wrong_takes_it_back(root: str, key: str, tmp_path: Path) -> None:
    """What a client with another key set aside is retried, whole."""
    Broker(root).publish_many("tasks", ["one", "two"])
    os.rename(key, f"{key}.right")
    key_file(Path(key), OTHER)
    assert Broker(root).consume("tasks", 9) == []
    assert damaged(root) == [("one", UNKNOWN_KEY), ("two", UNKNOWN_KEY)]
    os.rename(f"{key}.right", key)
    assert command(root, "retry", root, "tasks", "--state", "damaged", "--all").startswith("retried 2 ")
    assert [message.message for message in Broker(root).consume("tasks", 9)] == ["one", "two"]


def test_a_wrong_key_does_not_empty_a_queue(root: str, key: str) -> None:
    """It may be this client that is wrong: after a few it stops, and says so."""
    with Broker(root) as broker:
        for number in range(12):
            broker.publish("tasks", number)
    right = Path(key).read_text()
    key_file(Path(key), OTHER)
    with pytest.raises(KeyFileError, match="--state damaged"):
        Broker(root).consume("tasks")
    with Broker(root) as broker:
        assert (broker.stats("tasks").damaged, broker.stats("tasks").ready, broker.stats("tasks").leased) == (8, 4, 0)
    assert "8 damaged" in command(root, "wait", "--exit-code", "--timeout", "1s", code=3) + command(
        root, "cancel", "--state", "ready", "--all", "--yes"
    ) + command(root, "wait", "--exit-code", code=1)
    key_file(Path(key), right.strip())
    command(root, "retry", "--state", "damaged", "--all")
    assert sorted(message.message for message in Broker(root).consume("tasks", 20)) == list(range(8))


def test_a_new_key_counts_at_once(root: str, key: str) -> None:
    """A client that has read the file before meets a message signed by the one that was put on top of it since."""
    with Broker(root) as taker:
        Broker(root).publish("tasks", "old")
        assert [message.message for message in taker.consume("tasks")] == ["old"]
        key_file(Path(key), OTHER, SECRET)
        Broker(root).publish("tasks", "new")
        assert [message.message for message in taker.consume("tasks")] == ["new"]
    assert damaged(root) == []


def test_a_setting_is_added_to_those_that_a_queue_has(root: str, key: str) -> None:
    told = command(root, "create", "tasks", "--set", "timeout=5m")
    assert told.strip().endswith("changed: timeout")
    settings = Broker(root).queue("tasks").settings
    assert (settings.timeout, settings.sign, settings.key_file) == (300.0, "required", key)


def test_why_nothing_runs_without_a_key(root: str, key: str) -> None:
    Broker(root).publish("tasks", "one")
    os.unlink(key)
    reasons = json.loads(command(root, "explain", "--format", "json"))["reasons"]
    assert reasons[0]["code"] == "key" and key in reasons[0]["text"]


def test_why_nobody_publishes_without_a_key_that_is_named(root: str, key: str, tmp_path: Path) -> None:
    """It is not demanded, so what is there is taken."""
    root = str(tmp_path / "another")
    Broker(root, create=True).create_queue("tasks")
    os.chmod(key, 0o644)
    found = json.loads(command(root, "explain", "--format", "json", DDMQ_HPC_KEY_FILE=key))["reasons"]
    assert found[0]["code"] == "key" and "cannot publish: key file" in found[0]["text"]


@pytest.mark.parametrize("words", [("pull",), ("exec", "--", "true")])
def test_who_finds_nothing_since_it_was_set_aside_is_told(root: str, stranger: Broker, words: tuple[str, ...]) -> None:
    stranger.publish_many("tasks", range(3))
    told = command(root, *words, code=3)
    assert "nothing is ready in queue 'tasks'; set aside were 3 unsigned: see `ddmq-hpc list" in told
    assert "set aside" not in command(root, *words, code=3)


def test_a_worker_tells_what_it_set_aside(root: str, stranger: Broker) -> None:
    for until in ("empty", "drained"):
        stranger.publish("tasks", "evil")
        told = command(root, "work", "--until", until, "--", "true")
        assert "; set aside were 1 unsigned: see `ddmq-hpc list" in told


# -- commands


def command(root: str, *words: str, code: int = 0, **environment: str) -> str:
    given = {**os.environ, **environment, "DDMQ_HPC_ROOT": root, "DDMQ_HPC_QUEUE": "tasks"}
    done = subprocess.run([COMMAND, *words], env=given, timeout=60, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_worker_runs_no_unsigned_message(root: str, stranger: Broker, tmp_path: Path) -> None:
    stranger.publish("tasks", f"touch {tmp_path}/evil")
    Broker(root).publish("tasks", f"touch {tmp_path}/good")
    command(root, "work", "--shell")
    assert (tmp_path / "good").exists() and not (tmp_path / "evil").exists()
    aside = json.loads(command(root, "list", "--state", "damaged", "--format", "json"))
    assert "nothing in the queue but 1 message set aside" in " ".join(command(root, "explain").split())
    told = command(root, "explain", aside["id"])
    assert "not signed" in told and "--state damaged" in told and "no key" in told


def test_the_environment_demands_what_settings_do_not(tmp_path: Path, key: str) -> None:
    """Who can write to a queue can say in its settings that nothing is to be signed."""
    root = str(tmp_path / "root")
    Broker(root, create=True).create_queue("tasks", durable=False)
    own = {"DDMQ_HPC_SIGN": "required", "DDMQ_HPC_KEY_FILE": key}
    command(root, "publish", "evil")
    command(root, "publish", "good", **own)
    command(root, "work", "--", "true", **own)
    assert damaged(root) == [("evil", UNSIGNED)]
    assert "$DDMQ_HPC_KEY_FILE: sign" in command(root, "pull", code=2, DDMQ_HPC_SIGN="maybe")
    assert "key file" in command(root, "pull", code=2, DDMQ_HPC_SIGN="required")


def test_a_message_published_with_a_key_alone_is_signed_ahead_of_the_demand(tmp_path: Path, key: str) -> None:
    root = str(tmp_path / "root")
    with Broker(root, create=True) as broker:
        broker.create_queue("tasks", key_file=key)
        broker.publish("tasks", "early")
        broker.create_queue("tasks", key_file=key, sign="required")
    assert [message.message for message in Broker(root).consume("tasks")] == ["early"]
