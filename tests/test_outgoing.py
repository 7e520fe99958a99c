"""A batch's outcomes, where the brokers do not take some of them; without a broker."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from imagebus.errors import CommitFailed
from imagebus.transports.kafka import delivery, unconfirmed
from imagebus.transports.kafka.delivery import AtLeastOnce
from imagebus.transports.kafka.outgoing import OutgoingBatch
from imagebus.transports.kafka.partition_counts import PartitionCounts
from imagebus.transports.kafka.partitions import Partitions, Receipt
from imagebus.transports.kafka.sender import OnRecord, Sender, produce
from imagebus.transports.kafka.unconfirmed import Unconfirmed
from imagebus.wire.message import Message

GONE = KafkaError(KafkaError._UNKNOWN_PARTITION)


class Unheard:
    """A sender whose messages have no fate until a test gives them one."""

    def __init__(self) -> None:
        self.open: list[OnRecord] = []
        self.purged = 0

    def send(self, _: Message, delivered: OnRecord) -> None:
        self.open.append(delivered)

    def end_all(self, error: KafkaError | None = None) -> None:
        ended, self.open = self.open, []
        for delivered in ended:
            delivered(error, None)

    def poll(self, seconds: float = 0.0) -> None:
        time.sleep(seconds)

    def flush(self, seconds: float) -> int:
        self.poll(seconds)
        return len(self.open)

    def purge(self) -> None:
        self.purged += 1


@pytest.fixture
def sender() -> Unheard:
    return Unheard()


@pytest.fixture
def known() -> Partitions:
    known = Partitions()
    known.add(0, 0, "", end=1000)
    return known


def sent(sender: Unheard, *values: bytes) -> OutgoingBatch:
    batch = OutgoingBatch()
    batch.send(sender.send, [Message("replies", value) for value in values])
    return batch


def receipts(known: Partitions, count: int) -> list[Receipt]:
    return [Receipt(0, offset, known.by_number[0].assignment) for offset in range(count)]


@pytest.mark.parametrize("how", ["the partition is another member's", "all is given up"])
def test_outcomes_that_are_nobodys_any_more_are_missing_nowhere(
    sender: Unheard, known: Partitions, how: str
) -> None:
    kept = Unconfirmed(cast(Sender, sender), known)
    batch = sent(sender, b"1", b"2")
    kept.keep(batch, receipts(known, 2))
    assert len(kept) == 2

    if how == "all is given up":
        kept.give_up()
    else:
        known.by_number.clear()
        kept.settle(send_again=True)
    sender.end_all(KafkaError(KafkaError._MSG_TIMED_OUT))

    assert len(kept) == 0
    assert batch.missing() == {}


def test_after_an_outage_the_next_batch_is_waited_for_as_long_as_ever(
    sender: Unheard, known: Partitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept in the outage and went to another member no longer counts as a partition that is stuck."""
    monkeypatch.setattr(delivery, "STUCK_SECONDS", 0.05)
    sends = AtLeastOnce(cast(Sender, sender))
    kept = Unconfirmed(cast(Sender, sender), known)
    finish = sends.begin([Message("replies", b"1")], [], cast(Any, None), lambda: None, None)
    left = finish()
    assert left is not None
    kept.keep(left, receipts(known, 1))
    known.by_number.clear()
    kept.settle(send_again=True)
    sender.end_all(KafkaError(KafkaError._MSG_TIMED_OUT))

    finish = sends.begin([Message("replies", b"2")], [], cast(Any, None), lambda: None, None)
    sender.end_all()

    assert finish() is None
    sends.close()
    assert sender.purged == 0


def test_a_partition_goes_back_once_for_an_outcome_that_was_found_too_large_late(
    sender: Unheard, known: Partitions
) -> None:
    """A second time, all that was received since would be answered once more, and its outcomes be late again."""
    kept = Unconfirmed(cast(Sender, sender), known)
    kept.keep(sent(sender, b"1"), receipts(known, 1))
    sender.end_all(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))

    _, back = kept.settle(send_again=True)
    known.forget_receipts(0)  # as `Ledger.rewind` does
    _, again = kept.settle(send_again=True)

    assert (back, again) == ({0}, set())
    assert len(kept) == 0


def test_what_stays_unconfirmed_is_said_again(
    sender: Unheard, known: Partitions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unconfirmed, "WARN_SECONDS", 0.0)
    kept = Unconfirmed(cast(Sender, sender), known)
    kept.keep(sent(sender, bytes(unconfirmed.MOST_BYTES + 1)), receipts(known, 1))

    kept.settle(send_again=True)

    assert caplog.messages[-1] == "1 outcomes are still not confirmed: nothing new is read"
    assert kept.held_up() == {0}


class Refusing:
    """A producer that knows its topic has no such partition."""

    def produce(self, *_: Any, **__: Any) -> None:
        raise KafkaException(GONE)


def test_a_partition_that_is_gone_fails_the_batch_and_not_the_replier() -> None:
    batch = OutgoingBatch()

    def send(message: Message, delivered: OnRecord) -> None:
        produce(cast(Producer, Refusing()), message, delivered)

    batch.send(send, [Message("replies", b"1", partition=5)])

    assert batch.unconfirmed == 0
    with pytest.raises(CommitFailed, match="1 replies were not confirmed"):
        batch.check()


class Silent:
    """A producer whose brokers do not answer."""

    def __init__(self) -> None:
        self.asked = 0

    def list_topics(self, *_: Any) -> None:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def test_brokers_that_do_not_answer_are_asked_once_for_a_whole_batch() -> None:
    producer = Silent()
    counts = PartitionCounts(cast(Producer, producer))

    placed = [counts.placed(Message("replies", b"", partition=3)) for _ in range(128)]

    assert producer.asked == 1
    assert {message.partition for message in placed} == {None}
