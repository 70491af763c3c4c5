"""Ids that are cut short: of messages in each state, and of those that only the journal knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmq_hpc.admin import items
from ddmq_hpc.broker import Broker
from ddmq_hpc.errors import MessageNotFound, UsageError
from ddmq_hpc.fs import Filesystem
from ddmq_hpc.ids import _may_be_in, whole
from ddmq_hpc.names import bucket_at, bucket_of, pack_name


class Listing(Filesystem):
    """Notes what is listed."""

    listed: tuple[str, ...] = ()

    def names(self, path: str) -> list[str]:
        self.listed += (path,)
        return super().names(path)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    broker = Broker(tmp_path / "root", create=True, filesystem=Listing)
    broker.create_queue("q")
    return broker


def test_a_message_is_known_by_its_beginning_in_whatever_state(broker: Broker) -> None:
    queue = broker.queue("q")
    ready = broker.publish("q", "m").id
    assert (whole(queue, ready), whole(queue, ready[:25]), whole(queue, ready[:-2])) == (ready,) * 3
    (held,) = broker.consume("q")
    assert whole(queue, ready[:25]) == ready
    broker.ack(held)
    assert whole(queue, ready[:25]) == ready, "from the journal"
    delayed = broker.publish("q", "m", delay="1h").id
    assert whole(queue, delayed[:25]) == delayed
    broker.publish("q", "dead")
    broker.nack(broker.consume("q"), requeue=False)
    (dead,) = (item.message.id for item in items(queue, ("dead",)))
    assert whole(queue, dead[:25]) == dead


def test_of_several_some_are_named(broker: Broker) -> None:
    queue = broker.queue("q")
    broker.publish_many("q", range(12))
    pack = next(items(queue)).message.id.partition(".")[0]
    assert whole(queue, f"{pack}.2") == f"{pack}.2", "that one, not 10"
    with pytest.raises(UsageError, match=r"several messages begin with .*\.0, .*\.1, .*and more; give more of the id"):
        whole(queue, pack)
    with pytest.raises(UsageError) as raised:
        whole(queue, pack[:10])
    assert str(raised.value).count(pack) == 5
    broker.ack(broker.consume("q", n=12))
    with pytest.raises(UsageError):
        whole(queue, pack)
    for text in ("", "x", pack[:-1] + "!", "9"):
        with pytest.raises(MessageNotFound):
            whole(queue, text)


def test_what_is_ready_is_listed_where_it_can_be_alone(broker: Broker) -> None:
    queue = broker.queue("q")
    ready = Path(queue.paths.ready) / "999"
    (ready / bucket_at(10**18, 0)).mkdir(parents=True)
    ident = broker.publish("q", "m").id
    queue.fs.listed = ()  # type: ignore[attr-defined]
    assert whole(queue, ident[:12]) == ident
    listed = [path for path in queue.fs.listed if path.startswith(f"{ready}/")]  # type: ignore[attr-defined]
    assert listed == [f"{ready}/{bucket_of(ident.partition('.')[0])}"]


@pytest.mark.parametrize("level", [0, 3, 6])
def test_a_pack_may_be_in_its_bucket_by_each_beginning(level: int) -> None:
    pack = pack_name(1795721983896420864, level, "g3qndtxg")
    assert all(_may_be_in(bucket_of(pack), pack[:length]) for length in range(1, len(pack) + 1))
    assert not _may_be_in(bucket_of(pack), "1795700000") and not _may_be_in(bucket_of(pack), "x")
