"""The partition of a reply: the one that its caller reads, if it exists."""

from __future__ import annotations

import time

from confluent_kafka import KafkaException, Producer

from imagebus.wire.message import Message

COUNT_SECONDS = 5.0  # to fetch the number of a topic's partitions
# Before it is fetched again for a partition that did not exist. Partitions may have been added, but a request that
# asks for one that never will is to cost little.
RECOUNT_SECONDS = 1.0


class PartitionCounts:
    """The number of partitions of each topic for which a reply named one."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._counts: dict[str, tuple[int, float]] = {}  # by topic, with time.monotonic() of the next fetch

    def placed(self, message: Message) -> Message:
        """The message; its key decides if its topic does not have the requested partition.

        Another program's bad request must not keep a whole batch from being sent.
        """
        if message.partition is None or message.partition < self._count(message.topic, message.partition):
            return message
        return message._replace(partition=None)

    def forget(self) -> None:
        """After a failure to send: a topic may have been made anew with fewer partitions."""
        self._counts.clear()

    def _count(self, topic: str, wanted: int) -> int:
        count, look_at = self._counts.get(topic, (0, 0.0))
        if wanted >= count and time.monotonic() >= look_at:
            try:
                found = self._producer.list_topics(topic, COUNT_SECONDS).topics[topic]
                count = len(found.partitions)
            except KafkaException:  # no broker answers: sending will fail too
                pass
            self._counts[topic] = count, time.monotonic() + RECOUNT_SECONDS
        return count
