"""Pausing and draining are lines of a settings file that clients heed; the rest of the file stays as it is."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ddmq_hpc import Broker, settings
from ddmq_hpc.editing import edited
from ddmq_hpc.errors import QueueDraining, QueuePaused, SettingsError, UsageError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.settings import Settings


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    made = Broker(str(tmp_path / "root"), create=True)
    made.create_queue("q", durable=False)
    return made


def file_of(broker: Broker) -> Path:
    return Path(broker.root, "q", "ddmq.yaml")


def test_a_paused_queue_hands_out_nothing_and_takes_what_is_published(broker: Broker) -> None:
    broker.publish("q", 1)
    [held] = broker.consume("q")
    broker.pause("q", "the disk is full")
    broker.publish("q", 2)
    with pytest.raises(QueuePaused, match=r"by .* UTC: the disk is full") as caught:
        broker.consume("q")
    assert caught.value.exit_code == 6
    broker.ack(held)
    found = Broker(broker.root).stats("q")
    assert (found.paused, found.draining, found.paused_reason) == (True, False, "the disk is full")
    assert found.paused_by and found.paused_by.endswith("UTC")
    broker.resume("q")
    assert [message.message for message in broker.consume("q")] == [2]
    assert broker.stats("q").paused_reason is None


def test_a_draining_queue_takes_nothing_new_and_works_off_the_rest(broker: Broker) -> None:
    broker.publish_many("q", range(3))
    broker.drain("q", "maintenance")
    for publish in (
        lambda: broker.publish("q", 4),
        lambda: broker.publish("q", 4, key="k"),
        lambda: broker.publish_many("q", [4]),
    ):
        with pytest.raises(QueueDraining, match="maintenance") as caught:
            publish()
        assert caught.value.exit_code == 6
    broker.nack(broker.consume("q"))
    assert [message.message for message in broker.consume("q", 9)] == [0, 1, 2]
    broker.resume("q")
    broker.publish("q", 4)


def test_a_stream_that_is_drained_in_the_middle_says_how_far_it_came(broker: Broker) -> None:
    def bodies() -> object:
        yield from range(128)
        broker.drain("q")
        yield from range(1000)

    with pytest.raises(QueueDraining) as caught:
        broker.publish_many("q", bodies())  # type: ignore[arg-type]
    assert caught.value.published == broker.stats("q").ready < 1128


def test_what_the_root_says_is_overridden(broker: Broker) -> None:
    Path(broker.root, "ddmq.yaml").write_text("layout: 1\npaused: true\ndraining: true\n")
    broker.resume("q")
    broker.publish("q", 1)
    assert broker.consume("q")


def test_the_rest_of_the_file_stays_as_it_is(broker: Broker) -> None:
    path = file_of(broker)
    path.write_text(
        "# ours\ntimeout: 10m   # long\n\npaused: false  # see the wiki\nexit_codes: {75: retry}\r\n# paused: true"
    )
    path.chmod(0o640)
    before = path.read_text().splitlines()
    broker.pause("q", 'disk "scratch" is full: é')
    during = path.read_text()
    assert "paused: true  # see the wiki\n" in during
    assert [line for line in during.splitlines() if line in before] == [line for line in before if "wiki" not in line]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert Broker(broker.root).stats("q").paused_reason == 'disk "scratch" is full: é'
    broker.resume("q")
    assert path.read_text().splitlines() == [*before, "draining: false"]
    assert os.listdir(broker.queue("q").paths.tmp) == []


@pytest.mark.parametrize(
    "text",
    ["{paused: false}\n", "- a\n", "paused: [\n", "timeout: 5\n...\n", 'paused:\n  "false"\n', "\xff"],
)
def test_a_file_that_is_not_plain_is_refused_and_left_alone(broker: Broker, text: str) -> None:
    queue = broker.queue("q")
    file_of(broker).write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError):
        broker.pause("q")
    assert file_of(broker).read_bytes() == text.encode("latin-1")
    assert os.listdir(queue.paths.tmp) == []


@pytest.mark.parametrize("reason", ["two\nlines", "x" * 501, "\x1b[31m"])
def test_a_reason_is_one_printable_line(broker: Broker, reason: str) -> None:
    with pytest.raises(UsageError):
        broker.pause("q", reason)


def test_a_reason_stays_until_another_one_is_given(broker: Broker) -> None:
    def told() -> tuple[bool, bool, str | None]:
        found = Broker(broker.root).stats("q")
        return found.paused, found.draining, found.paused_reason

    broker.pause("q", "the disk is full")
    broker.pause("q")
    assert told() == (True, False, "the disk is full")
    broker.drain("q")
    assert told() == (True, True, "the disk is full")
    broker.pause("q", "maintenance")
    assert told() == (True, True, "maintenance")
    broker.resume("q")
    broker.pause("q")
    assert told() == (True, False, None), "what is over has no say"


def test_resume_tells_whether_there_was_anything_to_end(broker: Broker) -> None:
    before = file_of(broker).read_text()
    assert broker.resume("q") is False
    assert file_of(broker).read_text() == before
    Broker(broker.root).drain("q")  # not told to this client
    assert broker.resume("q") is True
    assert Broker(broker.root).stats("q").draining is False


LINES = st.lists(
    st.sampled_from(
        [
            *(
                "paused: true",
                "paused : false",
                "paused:  true # why",
                "# paused: true",
                "'paused': true",
                "paused:true",
            ),
            *("timeout: 5", "  x", "", "--- ", "draining: 1", "exit_codes: {1: dead}", "exit_codes:", "  1: dead"),
            *("paused_reason: |", "paused_reason: a # b", 'paused_reason: "a # b" # c', "paused_reason: 'it''s'"),
        ]
    ),
    max_size=5,
)


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.text(max_size=20).filter(str.isprintable))
def test_an_edit_changes_what_it_should_and_nothing_else_or_is_refused(lines: list[str], end: str, reason: str) -> None:
    text = end.join(lines)
    changes = {"paused": True, "draining": None, "paused_reason": reason}
    try:
        after = edited(text, "f", changes)
    except SettingsError:
        return
    old, new = yaml.safe_load(text) or {}, yaml.safe_load(after)
    old.pop("draining", None)
    assert new == {**old, "paused": True, "paused_reason": reason}
    kept = [line for line in text.splitlines() if not line.startswith(tuple(changes))]
    assert [line for line in after.splitlines() if not line.startswith(tuple(changes))] == kept


@given(st.text(max_size=40).filter(str.isprintable))
def test_any_printable_reason_reads_back(reason: str) -> None:
    values = {"paused": True, "paused_reason": reason}
    found = settings.apply(Settings(), settings.parse(settings.dump(values), "f"), "f")
    assert found == Settings(paused=True, paused_reason=reason)


def _steer(root: str, act: str) -> None:
    getattr(Broker(root), act)("q")


def test_two_who_change_them_at_once_both_do(broker: Broker) -> None:
    for _ in range(5):
        broker.resume("q")
        both = [multiprocessing.Process(target=_steer, args=(broker.root, act)) for act in ("pause", "drain")]
        for process in both:
            process.start()
        for process in both:
            process.join()
            assert process.exitcode == 0
        found = Broker(broker.root).stats("q")
        assert (found.paused, found.draining) == (True, True)


class Squashed(Filesystem):
    """A server that takes everybody for one other user, as with all_squash (exports(5))."""

    def lstat(self, path: str) -> os.stat_result:
        return _of_another(super().lstat(path))

    def read_some(self, path: str, most: int, offset: int = 0) -> tuple[os.stat_result, bytes]:
        found, data = super().read_some(path, most, offset)
        return _of_another(found), data

    def own_uid(self, probe: str) -> int:
        super().own_uid(probe)
        return 65534

    def create_as(self, path: str, data: bytes, mode: int, uid: int) -> None:
        assert uid == 65534
        self.create(path, data, True, mode)


def _of_another(found: os.stat_result) -> os.stat_result:
    return os.stat_result((*found[:4], 65534, *found[5:]))


def test_whom_a_server_takes_for_another_changes_what_is_his_there(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "root", create=True, filesystem=Squashed)
    broker.create_queue("q", exit_codes={1: "dead"})
    (tmp_path / "root" / "q" / "ready").rmdir()
    broker.create_queue("q")  # completed
    broker.pause("q")
    assert Broker(tmp_path / "root").queue("q").settings.paused
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["ddmq-checkup.json", "ddmq.yaml", "q"]
