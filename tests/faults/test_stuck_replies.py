"""Outcomes that the brokers do not confirm for long: they hold up their own requests, and no others."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from imagebus import Message
from imagebus.broker import EmbeddedBroker
from imagebus.transports.kafka import KafkaBus
from imagebus.transports.kafka.config import read_settings
from imagebus.transports.kafka.member import KafkaMember
from imagebus.transports.kafka.partitions import attempts_in
from imagebus.wire.pixels import encode_request

from ..buses import Bus, records
from ..test_delivery import ids, package, produce

SECONDS = 60.0
ANSWER_SECONDS = 3.0  # of a living broker
# All topics have one replica but those that a test lays out; a dead node and a dead member are missed soon.
CONFIG = {
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
}


@pytest.fixture(scope="module")
def cluster(kafka_jars_here: None) -> Iterator[EmbeddedBroker]:
    """Three brokers, of which the first is dead: a partition that it has is never in sync with it."""
    with EmbeddedBroker(nodes=3, config=CONFIG) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        wait_for_brokers(admin, 3)  # or the dead one may be listed, and be given partitions, later
        cluster.kill(0)
        wait_for_brokers(admin, 2)
        yield cluster


def wait_for_brokers(admin: AdminClient, count: int) -> None:
    deadline = time.monotonic() + SECONDS
    listed = -1
    while listed != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        # librdkafka gives up a question to a broker that is killed only when its whole time is over.
        with suppress(KafkaException):
            listed = len(admin.list_topics(timeout=ANSWER_SECONDS).brokers)


@pytest.fixture
def bus(cluster: EmbeddedBroker, tmp_path: Path) -> Iterator[Bus]:
    """Topics of one partition; the replies have two replicas, one of them dead."""
    config = tmp_path / "kafka.config"
    config.write_text(f"bootstrap.servers = {cluster.bootstrap}\n")
    bus = Bus(config)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    replies = NewTopic(bus.replies, num_partitions=1, replica_assignment=[[2, 1]])
    admin.create_topics([replies])[bus.replies].result()
    with KafkaBus(read_settings(config), topics=[bus.requests, f"{bus.requests}.dlt"], partitions=1):
        pass
    yield bus
    bus.close()


def set_in_sync(cluster: EmbeddedBroker, topic: str, replicas: int) -> None:
    """With two, the replies cannot be written, as long as one of their replicas is dead."""
    change = ConfigResource(
        ConfigResource.Type.TOPIC,
        topic,
        incremental_configs=[
            ConfigEntry("min.insync.replicas", str(replicas), incremental_operation=AlterConfigOpType.SET)
        ],
    )
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.incremental_alter_configs([change])[change].result()


@contextmanager
def member_of(bus: Bus) -> Iterator[KafkaMember]:
    with KafkaBus(read_settings(bus.config)) as connection:
        yield connection.join(bus.requests, bus.group)


def receive(member: KafkaMember, count: int) -> list[Message]:
    """So many messages, or fewer where no more come for a second."""
    received: list[Message] = []
    while len(received) < count and (batch := member.receive(count - len(received), 5.0)):
        received += batch
    return received


def committed(cluster: EmbeddedBroker, bus: Bus) -> int:
    reader = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": bus.group})
    try:
        [found] = reader.committed([TopicPartition(bus.requests, 0)], timeout=SECONDS)
        return found.offset
    finally:
        reader.close()


def numbered(bus: Bus, *numbers: int) -> list[Message]:
    return [Message(bus.requests, str(number).encode()) for number in numbers]


def values(messages: list[Message]) -> list[int]:
    return [int(message.value) for message in messages]


def outcome(bus: Bus, message: Message, topic: str = "") -> Message:
    return Message(topic or bus.replies, message.value, message.value)


def test_a_dead_letter_is_written_while_the_replies_cannot_be(bus: Bus, cluster: EmbeddedBroker) -> None:
    set_in_sync(cluster, bus.replies, 2)
    replier = bus.replier("--verbose")
    good = [encode_request(package(number), bus.requests, id=f"{number}") for number in range(5)]
    produce(cluster, bus.requests, *good)
    replier.wait_for("are not confirmed: does one of its partitions take no writes?")

    produce(cluster, bus.requests, Message(bus.requests, b"who sent this?"))
    replier.wait_for("dead letter: NO_ID")
    set_in_sync(cluster, bus.replies, 1)
    replier.wait_for("all outcomes are confirmed")
    assert replier.stop() == 0

    assert len(records(cluster, f"{bus.requests}.dlt")) == 1
    assert ids(records(cluster, bus.replies)) == [f"{number}" for number in range(5)]
    assert committed(cluster, bus) == 6


def test_offsets_are_not_committed_past_an_outcome_that_is_missing(bus: Bus, cluster: EmbeddedBroker) -> None:
    letters = f"{bus.requests}.dlt"
    with member_of(bus) as member:
        produce(cluster, bus.requests, *numbered(bus, 0, 1, 2))
        set_in_sync(cluster, bus.replies, 2)
        first, second, third = receive(member, 3)

        outgoing = [outcome(bus, first, letters), outcome(bus, second), outcome(bus, third, letters)]
        member.commit([first, second, third], outgoing).result()
        member.receive(1, 1.0)
        meanwhile = committed(cluster, bus)
        set_in_sync(cluster, bus.replies, 1)
        while committed(cluster, bus) < 3:
            member.receive(1, 0.2)

    assert meanwhile == 1
    assert sorted(values_of(records(cluster, letters))) == [0, 2]
    assert values_of(records(cluster, bus.replies)) == [1]


def wait_for_records(cluster: EmbeddedBroker, topic: str, count: int) -> None:
    """A new producer whose first broker is the dead one is busy for longer than a commit waits."""
    deadline = time.monotonic() + SECONDS
    while len(records(cluster, topic)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def values_of(found: list[tuple[bytes | None, bytes | None]]) -> list[int]:
    return [int(value or b"") for _, value in found]


def test_a_partition_with_too_many_missing_outcomes_waits_and_then_goes_on_where_it_was(
    bus: Bus, cluster: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagebus.transports.kafka.unconfirmed.MOST_BYTES", 0)
    with member_of(bus) as member:
        produce(cluster, bus.requests, *numbered(bus, *range(50)))
        set_in_sync(cluster, bus.replies, 2)
        first = receive(member, 5)
        member.commit(first, [outcome(bus, message) for message in first]).result()

        held_up = [member.receive(10, 0.5) for _ in range(3)]
        set_in_sync(cluster, bus.replies, 1)
        rest: list[Message] = []
        while len(rest) < 45:
            if batch := member.receive(10, 1.0):
                member.commit(batch, [outcome(bus, message) for message in batch]).result()
                rest += batch

    assert held_up == [[], [], []]
    assert values(first + rest) == list(range(50))
    assert sorted(values_of(records(cluster, bus.replies))) == list(range(50))
    assert committed(cluster, bus) == 50


def test_a_suspect_is_not_tried_while_an_outcome_before_it_is_missing(
    bus: Bus, cluster: EmbeddedBroker
) -> None:
    produce(cluster, bus.requests, *numbered(bus, 0, 1, 2))
    twice = TopicPartition(bus.requests, 0, 0, "attempt=2")
    Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": bus.group}).commit(
        offsets=[twice], asynchronous=False
    )
    with member_of(bus) as member:
        set_in_sync(cluster, bus.replies, 2)
        [first] = receive(member, 1)
        member.commit([first], [outcome(bus, first)]).result()

        meanwhile = [member.receive(10, 0.5) for _ in range(3)]
        set_in_sync(cluster, bus.replies, 1)
        second = member.receive(10, 5.0) or member.receive(10, 5.0)

    assert meanwhile == [[], [], []]
    assert [(message.value, message.attempt) for message in (first, *second)] == [(b"0", 3), (b"1", 3)]


def test_what_is_missing_at_a_stop_comes_again_and_its_neighbours_do_not(
    bus: Bus, cluster: EmbeddedBroker
) -> None:
    letters = f"{bus.requests}.dlt"
    with member_of(bus) as member:
        produce(cluster, bus.requests, *numbered(bus, 0, 1, 2))
        set_in_sync(cluster, bus.replies, 2)
        received = receive(member, 3)
        outgoing = [
            outcome(bus, message, "" if place == 2 else letters) for place, message in enumerate(received)
        ]
        member.commit(received, outgoing).result()
        wait_for_records(cluster, letters, 2)
        member.receive(1, 1.0)  # hears of them
    set_in_sync(cluster, bus.replies, 1)

    with member_of(bus) as member:
        again = receive(member, 1)

    assert values(again) == [2]
    assert records(cluster, bus.replies) == []


def test_a_request_whose_reply_cannot_be_written_is_innocent_of_the_kills_of_its_replier(
    bus: Bus, cluster: EmbeddedBroker
) -> None:
    set_in_sync(cluster, bus.replies, 2)
    with bus.config.open("a") as config:  # the group misses each killed one soon
        config.write("session.timeout.ms = 1500\n")
    produce(cluster, bus.requests, *(encode_request(package(), bus.requests, id=f"{n}") for n in range(5)))
    for _ in range(5):
        victim = bus.start("replier.py", "--verbose")
        victim.wait_for("answered 0: 5 images")
        victim.wait_for("answered ")
        wait_until_the_offsets_name_no_attempt_above(cluster, bus, 1)
        victim.stop(signal.SIGKILL)

    set_in_sync(cluster, bus.replies, 1)
    replier = bus.replier("--verbose")
    with bus.client() as client:
        client.predict(package())
    assert replier.stop() == 0

    assert set(ids(records(cluster, bus.replies))) >= {f"{n}" for n in range(5)}
    assert ids(records(cluster, f"{bus.requests}.dlt")) == []


def wait_until_the_offsets_name_no_attempt_above(cluster: EmbeddedBroker, bus: Bus, attempts: int) -> None:
    """A replier has noted that its model is done."""
    reader = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": bus.group})
    deadline = time.monotonic() + SECONDS
    try:
        while True:
            [found] = reader.committed([TopicPartition(bus.requests, 0)], timeout=SECONDS)
            if attempts_in(found.metadata) <= attempts:
                return
            assert time.monotonic() < deadline, found.metadata
            time.sleep(0.02)
    finally:
        reader.close()
