"""Where a member begins to read its partitions, and what retention deleted before it came there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from imagebus.transports.kafka.connecting import Connection
from imagebus.transports.kafka.ledger import Ledger
from imagebus.transports.kafka.records import place_of

log = logging.getLogger(__name__)

QUERY_SECONDS = 5.0  # for one to the brokers inside a callback, which holds up everything else
ASK_AGAIN_SECONDS = 1.0  # between two questions for the offsets that were not known, and for each
LOOK_SECONDS = 5.0  # between two looks whether the committed offsets are still there


class Positions:
    """Finds the committed offsets of the partitions of one topic and notes them in its ledger.

    `count_lost` is called with a partition and how many of its records retention deleted before they were read.
    """

    def __init__(
        self, connection: Connection, topic: str, ledger: Ledger, count_lost: Callable[[int, int], None]
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._ledger = ledger
        self._count_lost = count_lost
        self._ask_at = time.monotonic()
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._begun_late: dict[int, int] = {}  # where, by partition, until a record from there on comes

    def begin(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take newly assigned partitions at their committed offsets. Never raises.

        One whose offset the brokers do not tell yet, as while a killed member's transaction is open, is paused until
        they do. librdkafka, which could find it out by itself, has begun such a partition at its beginning.
        """
        for each in partitions:
            self._begun_late.pop(each.partition, None)
        unknown = self._learn(consumer, partitions, QUERY_SECONDS)
        for each in unknown:
            self._ledger.add(each.partition, None, None, end=0)
        with suppress(KafkaException):  # the assignment may be revoked already
            consumer.incremental_assign([self._start(each.partition) for each in partitions])
            consumer.resume(partitions)  # one that was given back while it was paused
            if unknown:
                consumer.pause(unknown)

    def _start(self, number: int) -> TopicPartition:
        position = self._ledger.position(number)
        return TopicPartition(self._topic, number, OFFSET_BEGINNING if position is None else position)

    def _learn(
        self, consumer: Consumer, partitions: list[TopicPartition], seconds: float
    ) -> list[TopicPartition]:
        """Note the committed offsets, and count what retention deleted; what the brokers do not tell is returned."""
        unknown: list[TopicPartition] = []
        try:
            answers = consumer.committed(partitions, timeout=seconds)
        except KafkaException as error:
            log.warning("the committed offsets are not known yet: %s", error.args[0].str())
            return partitions
        for each in answers:
            try:
                if each.error is not None:
                    raise KafkaException(each.error)
                self._note(each, consumer.get_watermark_offsets(each, timeout=seconds))
            except KafkaException as error:
                reason = error.args[0].str()
                log.warning(
                    "the committed offset of partition %d is not known yet: %s", each.partition, reason
                )
                unknown.append(TopicPartition(each.topic, each.partition))
        return unknown

    def _note(self, stored: TopicPartition, watermarks: tuple[int, int]) -> None:
        low, high = watermarks
        committed = stored.offset if stored.offset >= 0 else None
        is_new = committed is None
        if committed is not None and committed < low:
            self._count_lost(stored.partition, low - committed)
            committed = low
        if committed is None:
            committed = high if self._starts_at_the_end() else low
        self._ledger.add(stored.partition, committed, stored.metadata, end=high, is_new=is_new)

    def ask_again(self, consumer: Consumer) -> None:
        """Ask again for the offsets that were not known, and begin there."""
        numbers = self._ledger.unknown()
        if not numbers or time.monotonic() < self._ask_at:
            return
        named = [TopicPartition(self._topic, number) for number in numbers]
        started = time.monotonic()
        unknown = [each.partition for each in self._learn(consumer, named, ASK_AGAIN_SECONDS)]
        now = time.monotonic()  # the other partitions wait meanwhile, for a fifth of the time at most
        self._ask_at = now + max(ASK_AGAIN_SECONDS, 4 * (now - started))
        known = [self._start(number) for number in numbers if number not in unknown]
        if known:
            with suppress(KafkaException):  # revoked meanwhile
                consumer.incremental_unassign(known)
                consumer.incremental_assign(known)
                consumer.resume(known)
        self._begun_late.update((each.partition, each.offset) for each in known)

    def begin_anew(self, consumer: Consumer) -> None:
        """Begin partitions whose committed offsets are gone: their topic was deleted and created again.

        The brokers delete a topic's offsets with it, and no others of a group that is reading. librdkafka goes on at
        its old offset if the new topic has that many records by then, and would never read those before it. To be
        called while nothing is in hand.
        """
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        named = [TopicPartition(self._topic, number) for number in self._ledger.remembered()]
        if not named:
            return
        try:
            answers = consumer.committed(named, timeout=ASK_AGAIN_SECONDS)
        except KafkaException:
            return  # the coordinator is away
        gone = [each for each in answers if each.error is None and each.offset < 0]
        if not gone:
            return
        unknown = [each.partition for each in self._learn(consumer, gone, ASK_AGAIN_SECONDS)]
        begun = [self._start(each.partition) for each in gone if each.partition not in unknown]
        for each in begun:
            with suppress(KafkaException):  # revoked meanwhile
                consumer.seek(each)
        if begun:
            log.warning(
                "topic %s was deleted and created again; reading partitions %s from their beginning",
                self._topic,
                ", ".join(str(each.partition) for each in begun),
            )

    def without_stale(self, consumer: Consumer, records: Sequence[Record]) -> Sequence[Record]:
        """Drop records from before the offset at which `ask_again` began their partition, and seek there again.

        librdkafka sometimes returns to the beginning, where it first began the partition: in 3 of 240 runs on a busy
        machine, a second or two after `ask_again`. Its query for that offset may still be under way.
        """
        if not self._begun_late:
            return records
        return [record for record in records if not self._is_stale(consumer, record)]

    def _is_stale(self, consumer: Consumer, record: Record) -> bool:
        if record.error() is not None:
            return False
        number, offset = place_of(record)
        begin = self._begun_late.get(number)
        if begin is None:
            return False
        if offset >= begin:
            del self._begun_late[number]
            return False
        partition = TopicPartition(self._topic, number, begin)
        with suppress(KafkaException):
            low, high = consumer.get_watermark_offsets(partition, timeout=ASK_AGAIN_SECONDS)
            if not low <= begin <= high:  # the topic was made anew
                del self._begun_late[number]
                return False
            consumer.seek(partition)
        return True

    def _starts_at_the_end(self) -> bool:
        return self._connection.settings.get("auto.offset.reset", "") in ("latest", "largest", "end")

    def look_for_a_gap(self, consumer: Consumer, number: int, offset: int) -> None:
        """Count records deleted before they were read. A gap alone may be a transaction's marker."""
        position = self._ledger.position(number)
        if position is None or offset <= position:
            return
        with suppress(KafkaException):
            low, _ = consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=QUERY_SECONDS
            )
            if low > position:
                self._count_lost(number, min(low, offset) - position)
