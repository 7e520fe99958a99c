"""What a member of a group does while partitions come and go, on real Kafka."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does export them

from imagebus import Message
from imagebus.broker import EmbeddedBroker
from imagebus.transports.kafka import KafkaBus
from imagebus.transports.kafka.config import read_settings
from imagebus.transports.kafka.member import KafkaMember
from imagebus.wire.pixels import encode_request

from .buses import Bus, records
from .test_delivery import package, produce

SECONDS = 60.0


def numbered(bus: Bus, count: int) -> list[Message]:
    return [Message(bus.requests, b"%d" % number, b"%d" % number) for number in range(count)]


def commit_offsets(broker: EmbeddedBroker, bus: Bus, *offsets: TopicPartition) -> None:
    group = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": bus.group})
    group.commit(offsets=list(offsets), asynchronous=False)


def make_topic(broker: EmbeddedBroker, topic: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    settings = {name.replace("_", "."): value for name, value in config.items()}
    admin.create_topics([NewTopic(topic, num_partitions=1, config=settings)])[topic].result()


def test_a_partition_whose_offset_is_not_known_stays_paused_when_the_others_go_on(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit's result is awaited with all partitions paused, once enough is kept."""
    is_known = threading.Event()
    monkeypatch.setattr("imagebus.transports.kafka.settings.Consumer", unstable(bus.requests, is_known))
    monkeypatch.setattr("imagebus.transports.kafka.member.ENOUGH", 1)
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=2) as connection:
        for partition in (0, 1):
            produce(broker, bus.requests, *numbered(bus, 50), partition=partition)
        commit_offsets(broker, bus, TopicPartition(bus.requests, 0, 40))
        member = connection.join(bus.requests, bus.group)
        received: list[tuple[int, int]] = []
        deadline = time.monotonic() + SECONDS
        while len(received) < 60 and time.monotonic() < deadline:
            if batch := member.receive(5, 0.2):
                member._wait_until_committed(member._ledger.begin_suspects(batch))  # pauses and resumes
                member.commit(batch).result()
                received += [(place.partition, place.offset) for each in batch if (place := each.position)]
            if len(received) >= 10:
                is_known.set()

    assert sorted(received) == [
        *((0, offset) for offset in range(40, 50)),
        *((1, offset) for offset in range(50)),
    ]


def unstable(topic: str, is_known: threading.Event) -> type[Consumer]:
    """Consumers to whom the brokers do not tell the committed offset of partition 0 until it is known."""
    error = KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)
    untold: Any = SimpleNamespace(topic=topic, partition=0, error=error)

    class Unstable(Consumer):
        def committed(self, partitions: list[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
            found = super().committed(partitions, timeout=timeout)
            return found if is_known.is_set() else [untold if each.partition == 0 else each for each in found]

    return Unstable


def test_a_partition_that_begins_late_is_not_answered_again_from_its_beginning(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka goes back to the beginning now and then: a query for it was under way when the offset was told."""
    is_known = threading.Event()

    class GoesBack(unstable(bus.requests, is_known)):  # type: ignore[misc]  # its base is made for this test
        def resume(self, partitions: list[TopicPartition]) -> None:
            super().resume(partitions)
            if is_known.is_set():
                self.seek(TopicPartition(bus.requests, 0, 0))

    monkeypatch.setattr("imagebus.transports.kafka.settings.Consumer", GoesBack)
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=1) as connection:
        produce(broker, bus.requests, *numbered(bus, 50))
        commit_offsets(broker, bus, TopicPartition(bus.requests, 0, 40))
        member = connection.join(bus.requests, bus.group)
        received: list[bytes] = []
        deadline = time.monotonic() + SECONDS
        while len(received) < 10 and time.monotonic() < deadline:
            batch = member.receive(5, 0.2)
            received += [message.value for message in batch]
            if batch:
                member.commit(batch).result()
            if member.partitions:
                is_known.set()

    assert received == [b"%d" % number for number in range(40, 50)]


def test_a_topic_made_anew_is_read_from_its_beginning_by_a_member_that_began_late(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_known = threading.Event()
    monkeypatch.setattr("imagebus.transports.kafka.settings.Consumer", unstable(bus.requests, is_known))
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=1) as connection:
        produce(broker, bus.requests, *numbered(bus, 50))
        commit_offsets(broker, bus, TopicPartition(bus.requests, 0, 50))
        member = connection.join(bus.requests, bus.group)
        deadline = time.monotonic() + SECONDS
        while not member.partitions and time.monotonic() < deadline:
            member.receive(5, 0.2)
        is_known.set()
        while member._ledger.unknown() and time.monotonic() < deadline:
            member.receive(5, 0.2)

        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.delete_topics([bus.requests])[bus.requests].result()
        make_topic_again(broker, bus.requests)
        produce(broker, bus.requests, *numbered(bus, 5))
        received: list[bytes] = []
        while len(received) < 5 and time.monotonic() < deadline:
            received += [message.value for message in member.receive(5, 0.2)]

    assert received == [b"%d" % number for number in range(5)]


def make_topic_again(broker: EmbeddedBroker, topic: str) -> None:
    """A deleted topic may be there for a moment still."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return make_topic(broker, topic)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_suspects_that_move_to_another_live_member_are_neither_acquitted_nor_worse_off(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    with KafkaBus(read_settings(bus.config), topics=[bus.requests], partitions=2):
        pass
    for partition in (0, 1):
        produce(broker, bus.requests, *numbered(bus, 3), partition=partition)
    commit_offsets(broker, bus, *(TopicPartition(bus.requests, number, 0, "attempt=2") for number in (0, 1)))
    settings = read_settings(bus.config)
    with KafkaBus(settings) as one, KafkaBus(settings) as two:
        older = one.join(bus.requests, bus.group)
        in_hand: list[Message] = []
        while not in_hand:
            in_hand = older.receive(10, 0.2)
        newer = two.join(bus.requests, bus.group)
        seen: list[Message] = [*in_hand]
        committed = False
        deadline = time.monotonic() + SECONDS
        while len({message.position for message in seen}) < 6 and time.monotonic() < deadline:
            if batch := newer.receive(10, 0.2):
                newer.commit(batch).result()
                seen += batch
            with older._listening:
                if (record := older._consumer.poll(0.05)) is not None:  # as the keeper does
                    older._keep(record)
            if not committed and newer.partitions:
                older.commit(in_hand).result()
                committed = True
            if committed and (batch := older.receive(10, 0.2)):
                older.commit(batch).result()
                seen += batch

    attempts = {
        (message.position.partition, message.position.offset): message.attempt
        for message in seen
        if message.position
    }
    assert len(attempts) == 6
    assert set(attempts.values()) <= {1, 2, 3}
    assert attempts[0, 0] == attempts[1, 0] == 3


@pytest.mark.parametrize("transactional_id", [None, "acquitting"])
def test_suspects_that_the_model_survived_are_committed_and_the_next_ones_tried(
    bus: Bus, broker: EmbeddedBroker, transactional_id: str | None
) -> None:
    make_topic(broker, bus.requests)
    produce(broker, bus.requests, *numbered(bus, 3))
    commit_offsets(broker, bus, TopicPartition(bus.requests, 0, 0, "attempt=2"))
    name = transactional_id and f"{transactional_id}-{bus.group}"
    with KafkaBus(read_settings(bus.config), topics=[bus.replies], transactional_id=name) as connection:
        member = connection.join(bus.requests, bus.group)
        seen: list[Message] = []
        deadline = time.monotonic() + SECONDS
        while len(seen) < 3 and time.monotonic() < deadline:
            if batch := member.receive(10, 0.2):
                member.commit(batch, [Message(bus.replies, b"x") for _ in batch]).result()
                seen += batch

    assert [(message.value, message.attempt) for message in seen] == [(b"0", 3), (b"1", 3), (b"2", 3)]
    assert len(records(broker, bus.replies)) == 3
    with KafkaBus(read_settings(bus.config)) as connection:
        assert connection.join(bus.requests, bus.group).receive(10, 2.0) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_smaller_outcome_is_asked_for_on_the_thread_of_a_rebalance_too(
    bus: Bus, broker: EmbeddedBroker, fails: bool
) -> None:
    asked_on: list[str] = []

    def instead(place: int) -> Message:
        asked_on.append(threading.current_thread().name)
        if fails:
            raise RuntimeError("nothing smaller")
        return Message(bus.replies, b"small %d" % place)

    with KafkaBus(read_settings(bus.config), topics=[bus.requests, bus.replies], partitions=1) as connection:
        produce(broker, bus.requests, *numbered(bus, 2))
        member = connection.join(bus.requests, bus.group)
        received = receive(member, 2)
        commit = member.commit(received, [Message(bus.replies, bytes(2_000_000)) for _ in received], instead)
        rebalance = threading.Thread(target=member._ledger.given_back, args=([0],), name="rebalance")
        rebalance.start()
        rebalance.join()

        if fails:
            with pytest.raises(RuntimeError, match="nothing smaller"):
                commit.result()
        else:
            commit.result()

    assert set(asked_on) == {"rebalance"}
    found = [value for _, value in records(broker, bus.replies)]
    assert sorted(value or b"" for value in found) == ([] if fails else [b"small 0", b"small 1"])


def receive(member: KafkaMember, count: int) -> list[Message]:
    received: list[Message] = []
    deadline = time.monotonic() + SECONDS
    while len(received) < count and time.monotonic() < deadline:
        received += member.receive(count - len(received), 0.2)
    return received


@pytest.mark.parametrize("transactional_id", [None, "mixed"])
def test_outcomes_of_mixed_sizes_for_two_topics_are_each_judged_by_their_own(
    bus: Bus, broker: EmbeddedBroker, transactional_id: str | None
) -> None:
    letters = f"{bus.requests}.dlt"
    make_topic(broker, bus.requests)
    make_topic(broker, bus.replies, max_message_bytes="1000")
    make_topic(broker, letters, max_message_bytes="500")
    name = transactional_id and f"{transactional_id}-{bus.group}"
    with KafkaBus(read_settings(bus.config), transactional_id=name) as connection:
        produce(broker, bus.requests, *numbered(bus, 24))
        received = receive(connection.join(bus.requests, bus.group), 24)
        member = connection._readers[0]
        assert isinstance(member, KafkaMember)
        sizes = [(bus.replies, 700), (letters, 700), (letters, 300), (bus.replies, 990)]
        outgoing = [Message(topic, bytes(size)) for topic, size in sizes * 6]

        member.commit(received, outgoing, lambda place: Message(outgoing[place].topic, b"small")).result()

    def sizes_in(topic: str) -> Counter[int]:
        return Counter(len(value or b"") for _, value in records(broker, topic))

    assert sizes_in(bus.replies) == {700: 6, 5: 6}
    assert sizes_in(letters) == {300: 6, 5: 6}


@pytest.mark.full
def test_of_a_compacted_topic_the_newest_request_of_each_id_is_answered_and_none_counted_as_lost(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    make_topic(
        broker,
        bus.requests,
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="100",
    )
    for round_ in range(3):
        ids = [f"{number}" for number in range(5)]
        produce(broker, bus.requests, *(encode_request(package(round_), bus.requests, id=id) for id in ids))
        time.sleep(0.2)  # a segment is closed by the first record after it is old enough
    produce(broker, bus.requests, encode_request(package(), bus.requests, id="last"))
    deadline = time.monotonic() + 60
    while len(records(broker, bus.requests)) > 11:
        assert time.monotonic() < deadline
        time.sleep(0.5)

    replier = bus.replier()
    with bus.client() as client:
        client.predict(package())
    assert replier.stop() == 0

    answered = {(key or b"").decode() for key, _ in records(broker, bus.replies)}
    assert answered >= {"0", "1", "2", "3", "4", "last"}
    assert "were deleted before" not in str(replier)
