"""Topics and groups that change while both programs run, on real Kafka."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AdminClient,
    NewPartitions,
    NewTopic,
)

from imagebus import Client, connect, load_images
from imagebus.broker import EmbeddedBroker

from .buses import Bus, records
from .programs import SECONDS, wait_until

SOON = 10.0  # within which a change is noticed


def package(number: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return load_images().package(number, 5)[0]


def admin_of(broker: EmbeddedBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap})


def make_topic(broker: EmbeddedBroker, topic: str, partitions: int) -> None:
    admin = admin_of(broker)  # kept until its future is done
    admin.create_topics([NewTopic(topic, num_partitions=partitions)])[topic].result()
    wait_for_partitions(broker, topic, partitions)


def add_partitions(broker: EmbeddedBroker, topic: str, total: int) -> None:
    admin = admin_of(broker)
    admin.create_partitions([NewPartitions(topic, total)])[topic].result()
    wait_for_partitions(broker, topic, total)


def delete_topic(broker: EmbeddedBroker, topic: str) -> None:
    admin = admin_of(broker)
    admin.delete_topics([topic])[topic].result()
    wait_until(lambda: topic not in admin.list_topics(timeout=SECONDS).topics)


def wait_for_partitions(broker: EmbeddedBroker, topic: str, count: int) -> None:
    admin = admin_of(broker)

    def there() -> bool:
        found = admin.list_topics(topic, timeout=SECONDS).topics[topic].partitions
        return len(found) == count and all(each.leader >= 0 for each in found.values())

    wait_until(there)


# --- partitions are added ----------------------------------------------------------------------


def test_partitions_added_to_the_requests_are_served_by_a_running_replier(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    make_topic(broker, bus.requests, 3)
    replier = bus.replier()
    add_partitions(broker, bus.requests, 6)

    with bus.client() as client:  # it knows all six
        futures = [client.submit(package(number), timeout=SOON + 5) for number in range(30)]
        replies = [future.result() for future in futures]

    assert len(replies) == 30
    assert client.resent == 0
    assert replier.stop() == 0


def test_partitions_added_to_the_replies_are_read_by_a_running_requestor(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    make_topic(broker, bus.replies, 3)
    first = bus.replier()
    with bus.client() as client:
        client.predict(package())
        assert first.stop() == 0
        add_partitions(broker, bus.replies, 6)
        bus.replier()  # it knows all six
        futures = [client.submit(package(number), timeout=SOON + 5) for number in range(30)]
        replies = [future.result() for future in futures]

    assert len(replies) == 30
    assert client.resent == 0


# --- topics are made anew ----------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [pytest.param(6, 2, marks=pytest.mark.full), (2, 6)])
def test_topics_that_are_made_anew_with_other_partitions_serve_the_same_programs(
    bus: Bus, broker: EmbeddedBroker, before: int, after: int
) -> None:
    for topic in (bus.requests, bus.replies):
        make_topic(broker, topic, before)
    replier = bus.replier()
    with bus.client() as client:
        futures = [client.submit(package(number)) for number in range(20)]
        assert all(future.result() for future in futures)
        for topic in (bus.requests, bus.replies):
            delete_topic(broker, topic)
            make_topic(broker, topic, after)
        futures = [client.submit(package(number), timeout=60) for number in range(20)]
        replies = [future.result() for future in futures]

    assert len(replies) == 20
    assert replier.stop() == 0


@pytest.mark.full
def test_requests_that_are_sent_while_their_topic_is_missing_are_answered_once_it_is_there(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    """As long as its client knows the topic to be missing, librdkafka refuses each message at once."""
    for topic in (bus.requests, bus.replies):
        make_topic(broker, topic, 2)
    with bus.client() as client:
        futures = [client.submit(package())]
        wait_until(lambda: len(records(broker, bus.requests)) == 1)
        delete_topic(broker, bus.requests)
        futures.append(client.submit(package()))
        wait_until(lambda: client.resent > 1)
        futures.append(client.submit(package(1)))
        make_topic(broker, bus.requests, 2)
        bus.replier()

        assert [len(future.result().predictions) for future in futures] == [5, 5, 5]


def test_a_topic_that_was_made_anew_with_as_many_requests_is_read_from_its_beginning(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    """Thirty requests before and after: librdkafka finds its offset of 30 in the new topic and goes on there."""
    for topic in (bus.requests, bus.replies):
        make_topic(broker, topic, 1)
    replier = bus.replier()
    with bus.client() as client:
        for future in [client.submit(package(number)) for number in range(30)]:
            future.result()
        delete_topic(broker, bus.requests)
        make_topic(broker, bus.requests, 1)

        futures = [client.submit(package(number), timeout=60) for number in range(30)]
        replies = [future.result() for future in futures]

    assert len(replies) == 30
    assert client.resent == 0
    assert replier.stop() == 0


def test_a_requestor_with_a_partition_of_its_own_goes_on_when_that_is_gone(
    bus: Bus, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagebus.transports.kafka.inbox.random.choice", lambda partitions: partitions[-1])
    make_topic(broker, bus.requests, 2)
    make_topic(broker, bus.replies, 6)
    replier = bus.replier()
    mine_only = connect("kafka", bus.config, topics=[bus.requests, bus.replies], own_partition=True)
    with Client(mine_only, requests=bus.requests, replies=bus.replies, timeout=60) as client:
        client.predict(package())
        delete_topic(broker, bus.replies)
        make_topic(broker, bus.replies, 2)
        replies = [client.predict(package(number)) for number in range(5)]

    assert len(replies) == 5
    assert replier.stop() == 0


def test_offsets_that_an_operator_sets_back_are_read_from_there_after_a_restart(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    make_topic(broker, bus.requests, 1)
    first = bus.replier()
    with bus.client() as client:
        for number in range(5):
            client.predict(package(number))
        assert first.stop() == 0
        Consumer({"bootstrap.servers": broker.bootstrap, "group.id": bus.group}).commit(
            offsets=[TopicPartition(bus.requests, 0, 2)], asynchronous=False
        )
        second = bus.replier()
        client.predict(package())
        assert second.stop() == 0

    assert "4 requests, 20 images, 0 errors" in second.wait_for("stopped: ")


def test_a_group_that_is_deleted_between_two_runs_begins_at_the_oldest_request(
    bus: Bus, broker: EmbeddedBroker
) -> None:
    make_topic(broker, bus.requests, 1)
    first = bus.replier()
    with bus.client() as client:
        client.predict(package())
        assert first.stop() == 0
        admin = admin_of(broker)
        admin.delete_consumer_groups([bus.group])[bus.group].result()
        second = bus.replier()
        client.predict(package())
        assert second.stop() == 0

    assert "2 requests, 10 images, 0 errors" in second.wait_for("stopped: ")


# --- two with one name -------------------------------------------------------------------------


def test_of_two_repliers_with_one_group_instance_id_the_older_ends_and_names_the_setting(
    bus: Bus, tmp_path: Path
) -> None:
    bus.config.write_text(bus.config.read_text() + "group.instance.id = one\n")
    older = bus.replier()
    bus.replier()
    with bus.client() as client:
        client.predict(package())

    assert older.wait() == 1
    assert "group.instance.id" in older.wait_for("replier.py: ")
    assert "Traceback" not in str(older)
