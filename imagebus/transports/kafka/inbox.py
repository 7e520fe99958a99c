"""A requestor's private reader of a topic: every partition, or one, from now on."""

from __future__ import annotations

import random
import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from imagebus.errors import TransportError
from imagebus.transports.base import Inbox
from imagebus.transports.kafka.connecting import (
    CONNECT_SECONDS,
    LEADER_POLL_SECONDS,
    TOPIC_SECONDS,
    Connection,
    close_consumer,
)
from imagebus.transports.kafka.errors import raise_translated
from imagebus.transports.kafka.records import keep_bad_news, to_message
from imagebus.transports.kafka.sender import Sender
from imagebus.wire.envelope import reply_partition_header
from imagebus.wire.message import Message

# A partition has no leader yet, or has a new one.
_MOVING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


class KafkaInbox(Inbox):
    """Reads a topic from its high watermarks on, fetched now, so the first reply is not missed.

    With `own_partition` it reads one partition of the topic, where that has several, and `return_headers`
    ask for replies there.
    """

    def __init__(self, connection: Connection, sender: Sender, topic: str, *, own_partition: bool) -> None:
        self._connection = connection
        self._sender = sender
        self._topic = topic
        self._closed = False
        # Nothing is committed, but librdkafka requires a group name.
        self._consumer: Consumer = connection.clients.consumer(f"requestor-{uuid.uuid4()}")
        try:
            partitions = self._partitions(own_partition)
            for each in partitions:
                each.offset = _high_watermark(self._consumer, each)
            self._consumer.assign(partitions)
        except KafkaException as error:
            self.close()
            raise_translated(error, f"reading topic {topic!r}")

    def _partitions(self, own_partition: bool) -> list[TopicPartition]:
        metadata = self._consumer.list_topics(self._topic, timeout=CONNECT_SECONDS).topics[self._topic]
        if metadata.error is not None:  # it is missing, or hidden from these credentials
            raise KafkaException(metadata.error)
        partitions = [TopicPartition(self._topic, number) for number in metadata.partitions]
        if own_partition and len(partitions) > 1:
            partitions = [random.choice(partitions)]
            self.return_headers = [reply_partition_header(partitions[0].partition)]
        return partitions

    def receive(self, limit: int, timeout: float) -> list[Message]:
        if self._closed:
            raise TransportError("the bus is closed")
        self._sender.poll()
        self._connection.raise_failure()
        # `consume(n, timeout)` would wait out its timeout unless n messages come.
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        records = [first]
        if limit > 1:
            records += self._consumer.consume(limit - 1, timeout=0)
        messages = []
        for record in records:
            if (error := record.error()) is not None:
                keep_bad_news(self._connection, self._topic, error)
            else:
                messages.append(to_message(record, self._topic))
        return messages

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        close_consumer(self._consumer)


def _high_watermark(consumer: Consumer, partition: TopicPartition) -> int:
    """The offset of the next record; waits while the partition is being created or moved."""
    deadline = time.monotonic() + TOPIC_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=CONNECT_SECONDS)[1]
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() > deadline:
                raise
            consumer.poll(LEADER_POLL_SECONDS)
