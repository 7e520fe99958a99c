"""A requestor's private reader of a topic: every partition, or one, from now on.

Partitions that are added later are read from their beginning. librdkafka finds them only for members of groups.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from imagebus.errors import TransportError
from imagebus.transports.base import Inbox
from imagebus.transports.kafka.connecting import CONNECT_SECONDS, Connection, close_consumer
from imagebus.transports.kafka.errors import DENIED, raise_translated
from imagebus.transports.kafka.records import keep_bad_news, to_message
from imagebus.transports.kafka.sender import Sender
from imagebus.transports.kafka.topics import (
    LEADER_POLL_SECONDS,
    MOVING,
    NO_ANSWER,
    TOPIC_SECONDS,
    partitions_of,
)
from imagebus.wire.envelope import reply_partition_header
from imagebus.wire.message import Message

LOOK_SECONDS = 5.0  # between two looks for added partitions: each takes a millisecond or two
LOOK_TIMEOUT = 0.5  # for each; replies wait meanwhile


class KafkaInbox(Inbox):
    """Reads a topic from its high watermarks on, fetched now, so the first reply is not missed.

    With `own_partition` it reads one partition of the topic, where that has several, and `return_headers`
    ask for replies there. If that one is gone one day, since the topic was made anew, it reads all of them.
    """

    def __init__(self, connection: Connection, sender: Sender, topic: str, *, own_partition: bool) -> None:
        self._connection = connection
        self._sender = sender
        self._topic = topic
        self._closed = False
        self._look_at = time.monotonic() + LOOK_SECONDS
        # Nothing is committed, but librdkafka requires a group name.
        self._consumer: Consumer = connection.clients.consumer(f"requestor-{uuid.uuid4()}")
        try:
            partitions = [TopicPartition(topic, number) for number in partitions_of(self._consumer, topic)]
            self._own = own_partition and len(partitions) > 1
            if self._own:
                partitions = [random.choice(partitions)]
                self.return_headers = [reply_partition_header(partitions[0].partition)]
            self._reading = {each.partition for each in partitions}
            for each in partitions:
                each.offset = _high_watermark(self._consumer, each)
            self._consumer.assign(partitions)
        except KafkaException as error:
            self.close()
            raise_translated(error, f"reading topic {topic!r}")

    def _look_for_partitions(self) -> None:
        """Read what was added from its beginning: replies may be there already. Let go of what is gone."""
        if time.monotonic() < self._look_at:
            return
        try:
            listed = set(partitions_of(self._consumer, self._topic, LOOK_TIMEOUT))
            if self._own and self._reading <= listed:
                return
            self._own, self.return_headers = False, ()
            added, gone = listed - self._reading, self._reading - listed
            if gone:
                self._consumer.incremental_unassign(self._named(gone))
            if added:
                self._consumer.incremental_assign(self._named(added))
            self._reading = listed
        except KafkaException as error:
            # Else no broker answers, or the topic is being made anew. Metadata without the topic ends librdkafka's
            # fetching, so that a right that was taken away is told here alone.
            if error.args[0].code() in DENIED:
                keep_bad_news(self._connection, self._topic, error.args[0])
                self._connection.raise_failure()
        finally:
            self._look_at = time.monotonic() + LOOK_SECONDS

    def _named(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in sorted(numbers)]

    def receive(self, limit: int, timeout: float) -> list[Message]:
        if self._closed:
            raise TransportError("the bus is closed")
        self._sender.poll()
        self._connection.raise_failure()
        self._look_for_partitions()
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
    """The offset of the next record; waits while the partition is being created or moved, or its broker goes."""
    deadline = time.monotonic() + TOPIC_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=CONNECT_SECONDS)[1]
        except KafkaException as error:
            if error.args[0].code() not in MOVING | NO_ANSWER or time.monotonic() > deadline:
                raise
            consumer.poll(LEADER_POLL_SECONDS)
