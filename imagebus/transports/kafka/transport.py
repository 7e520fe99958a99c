"""Apache Kafka behind the six verbs, on confluent-kafka (librdkafka).

The order of things is the delivery guarantee: outcomes are confirmed by the brokers before the offsets of
their requests are committed, and offsets are committed by name, only for partitions that are still ours.
"""

from __future__ import annotations

import logging
import math
import operator
import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from confluent_kafka import OFFSET_STORED, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from imagebus.config import Settings
from imagebus.errors import CommitFailed, TransportError
from imagebus.transports.base import Commit, OnAssigned, OnDelivery, Transport
from imagebus.transports.kafka.clients import (
    CONNECT_SECONDS,
    DENIED,
    LOOK_SECONDS,
    TOPIC_SECONDS,
    Clients,
    raise_translated,
    translate,
)
from imagebus.transports.kafka.commits import Commits, UnderWay
from imagebus.transports.kafka.delivery import (
    CLOSE_SECONDS,
    AtLeastOnce,
    Delivery,
    ExactlyOnce,
    Finish,
    in_a_hurry,
)
from imagebus.transports.kafka.partitions import Partitions, Progress, Receipt, begun
from imagebus.transports.kafka.places import Places
from imagebus.transports.kafka.sender import Sender
from imagebus.wire.envelope import reply_partition_header
from imagebus.wire.message import Message, Position

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0  # for a question to the brokers inside a callback, where everything else waits for it
COMMIT_SECONDS = 15.0  # for offsets: a group's coordinator that is killed is replaced within 13 s
MAX_POLL_MS = 300_000  # librdkafka's default of max.poll.interval.ms

# A partition has no leader yet, or the broker that was asked is not it any more.
_MOVING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_GONE = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)


class KafkaTransport(Transport):
    """One replier's or requestor's connection to a Kafka cluster.

    `topics` are created when missing, with `partitions` and the broker's default replication. With a
    `transactional_id`, which no other live replier may have, `commit` is one transaction. With
    `own_partition`, an inbox reads one partition of its topic, where that has several, and what is published
    asks for its reply there.

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
        self._clients = clients = Clients(settings)
        self._sender = Sender(clients)  # the settings are checked before anything connects
        admin = clients.admin()
        existing = clients.connect(admin)
        clients.create_topics(admin, [topic for topic in topics if topic not in existing], partitions)
        self._delivery: Delivery = AtLeastOnce(self._sender)
        if transactional_id is not None:
            self._delivery = ExactlyOnce(clients, transactional_id)
        self._consumer: Consumer | None = None
        self._topic = ""
        self._own_partition = own_partition
        self._reply_partition: int | None = None  # the one that this inbox reads
        self._partitions = Partitions()
        self._places = Places(self._sender.producer)
        self._commits = Commits(clients, self._partitions)
        self._under_way: UnderWay | None = None  # the last commit that was begun
        self._listening = threading.Lock()  # one poll at a time: the caller's, or the keeper's
        self._last_poll = time.monotonic()
        self._waiting: list[Record] = []  # received, and not given out yet
        self._closed = threading.Event()

    # --- receiving -----------------------------------------------------------------------------

    def subscribe(self, topic: str, group: str | None = None, on_assigned: OnAssigned | None = None) -> None:
        self._topic = topic
        # Without a group nothing is committed; librdkafka wants a name all the same.
        self._consumer = consumer = self._clients.consumer(
            group or f"requestor-{uuid.uuid4()}", self._commits.heard
        )
        self._commits.attach(consumer, topic)
        if group is None:
            self._assign_from_now_on(consumer)
            return

        def tell() -> None:
            if on_assigned is not None and not self._closed.is_set():
                on_assigned(sorted(self._partitions.by_number))

        def on_assign(_: Consumer, partitions: list[TopicPartition]) -> None:
            self._add(consumer, partitions)
            tell()

        def on_revoke(_: Consumer, partitions: list[TopicPartition]) -> None:
            # Still ours until this returns: what is answered is committed, so that it is not repeated.
            numbers = [each.partition for each in partitions]
            # librdkafka lets go of them after the brokers' answer.
            with self._commits.lock:
                if self._under_way is not None:
                    self._under_way.end()
                self._commits.commit_answered(numbers, given_back=True)
                self._forget(numbers)
            tell()

        def on_lost(_: Consumer, partitions: list[TopicPartition]) -> None:
            self._forget([each.partition for each in partitions])
            tell()

        consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
        threading.Thread(target=self._keep_membership, name="imagebus-keeper", daemon=True).start()

    def _add(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take newly assigned partitions at their committed offsets; count what retention ate. Never raises."""
        try:
            for each in consumer.committed(partitions, timeout=ASK_SECONDS):
                committed = each.offset if each.offset >= 0 else None
                low, high = consumer.get_watermark_offsets(each, timeout=ASK_SECONDS)
                if committed is not None and committed < low:
                    self._count_lost(each.partition, low - committed)
                    committed = low
                if committed is None:  # a new group
                    committed = high if self._starts_at_the_end() else low
                self._partitions.add(each.partition, committed, each.metadata, end=high)
        except KafkaException as error:
            # The brokers are busy with themselves: the offsets are asked for again by librdkafka.
            log.warning("the committed offsets are not known yet: %s", error.args[0].str())
            for each in partitions:
                if each.partition not in self._partitions.by_number:
                    self._partitions.add(each.partition, None, None, end=0)
        starts = []
        for each in partitions:
            start = self._partitions.by_number[each.partition].position
            starts.append(
                TopicPartition(each.topic, each.partition, OFFSET_STORED if start is None else start)
            )
        with suppress(KafkaException):  # the assignment may be over before it began
            consumer.incremental_assign(starts)

    def _forget(self, numbers: Sequence[int]) -> None:
        """They are no longer ours; if they come back, so does what was waiting, in order."""
        self._partitions.remove(numbers)
        self._waiting[:] = [record for record in self._waiting if record.partition() not in numbers]

    def _starts_at_the_end(self) -> bool:
        return self._clients.settings.get("auto.offset.reset", "") in ("latest", "largest", "end")

    def _assign_from_now_on(self, consumer: Consumer) -> None:
        """Assign every partition, or its own, at its high watermark, read now: the first reply is not missed."""
        try:
            metadata = consumer.list_topics(self._topic, timeout=CONNECT_SECONDS).topics[self._topic]
            partitions = [TopicPartition(self._topic, partition) for partition in metadata.partitions]
            if self._own_partition and len(partitions) > 1:
                partitions = [random.choice(partitions)]
                self._reply_partition = partitions[0].partition
            for each in partitions:
                each.offset = _high_watermark(consumer, each)
            consumer.assign(partitions)
        except KafkaException as error:
            raise_translated(error, f"reading topic {self._topic!r}")

    def receive(self, limit: int, timeout: float) -> list[Message]:
        consumer = self._subscribed()
        self._sender.poll()
        self._clients.raise_failure()
        with self._listening:
            if not self._waiting:
                # `consume(n, timeout)` would wait out its timeout unless n messages come.
                first = consumer.poll(timeout)
                self._last_poll = time.monotonic()
                if first is None:
                    self._commits.ask_again()
                    return []
                self._waiting.append(first)
            if (room := limit - len(self._waiting)) > 0:
                arrived = consumer.consume(room, timeout=0)
                self._waiting += arrived
            records = self._take(limit)
        # Received before anything is polled for again: a partition that is lost meanwhile takes these with it.
        messages = [message for record in records if (message := self._received(record)) is not None]
        self._say_whose_they_are()
        if messages and messages[0].attempt > 1:
            self._say_that_they_begin(messages)
        return messages

    def _take(self, limit: int) -> list[Record]:
        """Of what is waiting, what goes together; what stays is seen, so that after a `rewind` it comes again."""
        if not self._partitions.have_suspects(limit):
            taken, self._waiting = self._waiting[:limit], self._waiting[limit:]
        else:
            places = [(record.partition(), record.offset()) for record in self._waiting]
            chosen = set(self._partitions.go_together(places, limit))
            taken = [record for place, record in enumerate(self._waiting) if place in chosen]
            self._waiting = [record for place, record in enumerate(self._waiting) if place not in chosen]
        for record in self._waiting:
            self._see(record)
        return taken

    def _received(self, record: Record) -> Message | None:
        error = record.error()
        if error is not None:
            self._heard(error)
            return None
        number, offset = record.partition(), record.offset()
        assert number is not None
        assert offset is not None
        self._look_for_a_gap(number, offset)
        receipt = self._partitions.receive(number, offset)
        attempt = self._partitions.attempt(number, offset)
        _, timestamp = record.timestamp()
        position = Position(number, offset, timestamp)
        return Message(
            self._topic, record.value() or b"", record.key(), _headers(record), receipt, attempt, position
        )

    def _heard(self, error: KafkaError) -> None:
        """Bad news in place of a record. Kept for the next call: raising here would lose what came with it."""
        code = error.code()
        if code in DENIED or code in _GONE or error.fatal():
            self._clients.note(translate(error, f"reading topic {self._topic!r}"))
        else:
            log.warning("reading topic %s: %s; trying again", self._topic, error.str())

    def _look_for_a_gap(self, number: int, offset: int) -> None:
        """Count what was deleted before it was read. A gap alone may be a transaction's marker."""
        partition = self._partitions.by_number.get(number)
        if partition is None or partition.position is None or offset <= partition.position:
            return
        with suppress(KafkaException):
            low, _ = self._subscribed().get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=ASK_SECONDS
            )
            if low > partition.position:
                self._count_lost(number, min(low, offset) - partition.position)

    def _count_lost(self, number: int, count: int) -> None:
        self.lost += count
        log.error(
            "%d requests of %s, partition %d, were deleted before they were answered: retention is too short",
            count,
            self._topic,
            number,
        )

    def _say_whose_they_are(self) -> None:
        """Write down, before the first record of a new partition is tried, that somebody has it."""
        with self._commits.lock:
            unclaimed = self._partitions.unclaimed()
            self._commits.commit(unclaimed)
        self._wait_until_committed(unclaimed)

    def _say_that_they_begin(self, messages: Sequence[Message]) -> None:
        """Write down, before suspects are tried, that they are; the next member reads it if we die of one."""
        begins: dict[int, Progress] = {}
        with self._commits.lock:
            for message in messages:
                receipt: Receipt = message.receipt
                partition = self._partitions.by_number.get(receipt.partition)
                if message.attempt > 1 and partition is not None and partition.answered == receipt.offset:
                    begins[receipt.partition] = Progress(receipt.offset, begun(message.attempt))
            self._commits.commit(begins)
        self._wait_until_committed(begins)

    def _wait_until_committed(self, wanted: Mapping[int, Progress]) -> None:
        """Poll for the result, for a while; a record that comes instead waits for the next `receive`.

        Beside transactions for as long as it takes: one that reached the group late would undo their offsets.
        """
        deadline = math.inf if self._delivery.commits_offsets else time.monotonic() + COMMIT_SECONDS
        with self._listening:
            while not self._partitions.is_settled(wanted):
                if time.monotonic() > in_a_hurry(deadline, self.hurried_at):
                    return
                record = self._subscribed().poll(LOOK_SECONDS)
                self._last_poll = time.monotonic()
                if record is not None:
                    self._keep(record)

    def _keep(self, record: Record) -> None:
        """For the next `receive`."""
        self._waiting.append(record)
        self._see(record)

    def _see(self, record: Record) -> None:
        number, offset = record.partition(), record.offset()
        if record.error() is None and number is not None and offset is not None:
            self._partitions.see(number, offset)

    def _keep_membership(self) -> None:
        """Poll now and then while the caller is busy: a slow model must not cost the partitions.

        Each poll brings at most one record, which the next `receive` returns.
        """
        settings = self._clients.settings
        interval = int(settings.get("max.poll.interval.ms", MAX_POLL_MS)) / 1000 / 4
        while not self._closed.wait(interval):
            if time.monotonic() - self._last_poll < interval or not self._listening.acquire(blocking=False):
                continue
            try:
                record = self._subscribed().poll(0)
                self._last_poll = time.monotonic()
                if record is not None:
                    self._keep(record)
            except (KafkaException, RuntimeError, TransportError):  # it was closed meanwhile
                return
            finally:
                self._listening.release()

    def _subscribed(self) -> Consumer:
        if self._consumer is None:
            raise TransportError("receive before subscribe")
        return self._consumer

    # --- sending -------------------------------------------------------------------------------

    def publish(self, message: Message, on_delivery: OnDelivery | None = None) -> None:
        self._clients.raise_failure()

        def delivered(error: KafkaError | None, _: Record) -> None:
            doing = f"sending {len(message.value)} bytes to topic {message.topic!r}"
            failure = None if error is None else translate(error, doing)
            if on_delivery is not None:
                on_delivery(failure)
            elif failure is not None:
                self._clients.note(failure)

        if self._reply_partition is not None:
            asked = reply_partition_header(self._reply_partition)
            message = message._replace(headers=[*message.headers, asked])
        self._sender.send(message, delivered)
        self._sender.poll()

    def begin_commit(self, received: Sequence[Message], outgoing: Sequence[Message] = ()) -> Commit:
        """See `Transport.begin_commit`. Here it is done as follows.

        1. Leave out what is no longer ours: whoever has its partition now answers it.
        2. Deliver the outcomes; for exactly-once, the offsets with them.
        3. Note the next offset of each partition, and ask for the commit of those offsets. Where the group
           moved on or the coordinator is away they are asked for again: the outcomes exist, so at worst
           they are repeated, never lost.
        """
        consumer = self._subscribed()
        with self._commits.lock:
            ours = [place for place, each in enumerate(received) if self._partitions.is_ours(each.receipt)]
            receipts = [received[place].receipt for place in ours]
            ends = self._partitions.ends(receipts)
            offsets = [TopicPartition(self._topic, number, end, begun(1)) for number, end in ends.items()]
            sending = [self._places.placed(outgoing[place]) for place in ours] if outgoing else []
            finish = self._delivery.begin(sending, offsets, consumer, lambda: self.hurried_at)
            self._under_way = UnderWay(self._commits.lock, partial(self._end_commit, ours, receipts, finish))
            return self._under_way

    def _end_commit(self, ours: Sequence[int], receipts: Sequence[Receipt], finish: Finish) -> None:
        try:
            finish()
        except CommitFailed as error:
            error.refused = tuple(ours[place] for place in error.refused)
            raise
        self._partitions.mark_answered(receipts, committed=self._delivery.commits_offsets)
        self._commits.commit_answered()

    def rewind(self) -> None:
        """See `Transport.rewind`."""
        consumer = self._subscribed()
        with self._listening, self._commits.lock:
            self._waiting.clear()
            if self._delivery.commits_offsets:
                self._ask_for_answered(consumer)
            for number, partition in list(self._partitions.by_number.items()):
                if partition.answered is None:
                    continue
                partition.position = partition.answered
                # A partition that is just being taken away cannot be sought, and need not be.
                with suppress(KafkaException):
                    consumer.seek(TopicPartition(self._topic, number, partition.answered))

    def _ask_for_answered(self, consumer: Consumer) -> None:
        """After a transaction in doubt only the brokers know how far it got."""
        named = [TopicPartition(self._topic, number) for number in self._partitions.by_number]
        try:
            for each in consumer.committed(named, timeout=TOPIC_SECONDS):
                partition = self._partitions.by_number.get(each.partition)
                if each.offset >= 0 and partition is not None:
                    partition.answered = each.offset
                    partition.remembered = partition.asked = Progress(each.offset, begun(1))
        except KafkaException as error:
            raise_translated(error, "asking for the committed offsets")

    # --- closing -------------------------------------------------------------------------------

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        consumer = self._consumer
        if consumer is not None:
            with self._listening:
                with self._commits.lock:
                    self._commits.commit_answered(given_back=True)
                _leave(consumer)
                self._consumer = None
                self._commits.attach(None, self._topic)
        self._delivery.close()
        self._sender.flush(0)


def _leave(consumer: Consumer) -> None:
    """Close it, with the brokers' answer to the last commit; but it waits for ever where none comes (issue 3740)."""
    closing = threading.Thread(target=consumer.close, name="imagebus-closing", daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)
    if closing.is_alive():
        log.warning("the group was not left in %.0f s: no coordinator answers", CLOSE_SECONDS)


# Not `record.headers()`: Python 3.11 and later, once that line has run some ten times, calls C code without a look at
# whether it failed. The driver's broken list for a name that is not UTF-8 would get through, and end the process.
_ask_for_headers = operator.methodcaller("headers")


def _headers(record: Record) -> list[tuple[str, bytes | None]]:
    """A received record's headers, with values of bytes or None."""
    try:
        return cast(list[tuple[str, bytes | None]], _ask_for_headers(record) or [])
    except SystemError:  # the driver's answer to a name that is not UTF-8; to be asked once only
        return []


def _high_watermark(consumer: Consumer, partition: TopicPartition) -> int:
    """The offset that the next record gets; waits for a partition that is just being made or moved."""
    deadline = time.monotonic() + TOPIC_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=CONNECT_SECONDS)[1]
        except KafkaException as error:
            if error.args[0].code() not in _MOVING or time.monotonic() > deadline:
                raise
            consumer.poll(LOOK_SECONDS)
