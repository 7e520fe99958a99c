"""In which partition a reply is written: the one that its caller reads, where there is such a one."""

from __future__ import annotations

import time

from confluent_kafka import KafkaException, Producer

from imagebus.wire.message import Message

COUNT_SECONDS = 5.0  # for the number of a topic's partitions
RECOUNT_SECONDS = 10.0  # until it is asked for again, when one is wanted that was not there


class PartitionCounts:
    """How many partitions topics have, as far as anybody wanted to know."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._counts: dict[str, tuple[int, float]] = {}  # by topic, with time.monotonic() of the next look

    def placed(self, message: Message) -> Message:
        """The message; to go where its key says if its topic has no such partition as is wanted.

        Another program's wish must not keep a whole batch from being sent.
        """
        if message.partition is None or message.partition < self._count(message.topic, message.partition):
            return message
        return message._replace(partition=None)

    def _count(self, topic: str, wanted: int) -> int:
        count, look_at = self._counts.get(topic, (0, 0.0))
        if wanted >= count and time.monotonic() >= look_at:
            try:
                found = self._producer.list_topics(topic, COUNT_SECONDS).topics[topic]
            except KafkaException:  # no broker answers; the batch will say so
                return count
            count = len(found.partitions)
            self._counts[topic] = count, time.monotonic() + RECOUNT_SECONDS
        return count
