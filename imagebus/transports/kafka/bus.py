"""Apache Kafka as a bus, on confluent-kafka (librdkafka)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Record

from imagebus.errors import PublishFailed, TransportError
from imagebus.transports.base import Bus, OnAssigned, OnDelivery
from imagebus.transports.kafka.config import Settings
from imagebus.transports.kafka.connecting import Connection
from imagebus.transports.kafka.delivery import FLUSH_SECONDS, AtLeastOnce, Delivery
from imagebus.transports.kafka.errors import raise_translated, translate
from imagebus.transports.kafka.inbox import KafkaInbox
from imagebus.transports.kafka.member import KafkaMember
from imagebus.transports.kafka.records import position_of
from imagebus.transports.kafka.sender import Sender
from imagebus.transports.kafka.topics import create_topics
from imagebus.transports.kafka.transactions import ExactlyOnce
from imagebus.wire.message import Message

log = logging.getLogger(__name__)


class KafkaBus(Bus):
    """One replier's or requestor's connection to a Kafka cluster.

    `topics` are created when missing, with `partitions` and the broker's default replication. With a
    `transactional_id`, which no other live replier may have, each commit is one transaction. With
    `own_partition`, an inbox reads one partition of its topic, where that has several, and its
    `return_headers` ask for replies there.

    Raises `ConfigError` for settings that librdkafka does not take, `ConnectionFailed` when no broker
    answers or the login is refused, `AccessDenied` when a topic is missing and may not be created.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        topics: Sequence[str] = (),
        partitions: int = 6,
        transactional_id: str | None = None,
        own_partition: bool = False,
    ) -> None:
        self._connection = connection = Connection(settings)
        self._sender = Sender(connection.clients)  # the settings are checked before anything connects
        admin = connection.admin()
        existing = connection.connect(admin)
        try:
            create_topics(admin, [topic for topic in topics if topic not in existing], partitions)
        except KafkaException as error:
            raise_translated(error, f"creating topics {', '.join(topics)}")
        self._delivery: Delivery = AtLeastOnce(self._sender)
        if transactional_id is not None:
            self._delivery = ExactlyOnce(connection.clients, transactional_id)
        self._own_partition = own_partition
        self._readers: list[KafkaInbox | KafkaMember] = []
        self._closed = False

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        if self._closed:
            raise PublishFailed("the bus is closed")
        self._connection.raise_failure()

        def delivered(error: KafkaError | None, record: Record | None) -> None:
            if error is not None:
                failure = translate(error, f"sending {len(message.value)} bytes to topic {message.topic!r}")
                if on_delivery is None:
                    self._connection.keep_undelivered(failure)
                else:
                    on_delivery(failure)
            elif on_delivery is not None and record is not None:
                on_delivery(position_of(record))

        self._sender.send(message, delivered)
        self._sender.poll()

    def inbox(self, topic: str) -> KafkaInbox:
        inbox = KafkaInbox(self._connection, self._sender, topic, own_partition=self._own_partition)
        self._readers.append(inbox)
        return inbox

    def join(
        self, topic: str, group: str, on_assigned: OnAssigned | None = None, *, bounded: bool = False
    ) -> KafkaMember:
        delivery = self._delivery
        if bounded and not delivery.commits_offsets:  # it ends at once: what is not confirmed has failed
            delivery = AtLeastOnce(self._sender, patient=True)
        member = KafkaMember(
            self._connection, self._sender, delivery, topic, group, on_assigned, bounded=bounded
        )
        self._readers.append(member)
        return member

    def _left_behind(self, _: TransportError) -> None:
        self._closed = True

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for reader in self._readers:
            reader.close()
        self._delivery.close()
        # At least once, the delivery has flushed it already.
        unconfirmed = self._sender.flush(FLUSH_SECONDS if self._delivery.commits_offsets else 0)
        if unconfirmed and self._delivery.commits_offsets:
            log.warning("%d messages were not confirmed before closing", unconfirmed)
        self._sender.close()
