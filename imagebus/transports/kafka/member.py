"""A member of a consumer group: receives its partitions' records, and commits them once answered.

The order of steps is the delivery guarantee: the brokers confirm the outcomes before the offsets of their
requests are committed, and offsets are committed explicitly, only for partitions that are still ours.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from imagebus.errors import TransportError
from imagebus.transports.base import Commit, Instead, Member, OnAssigned, earliest
from imagebus.transports.kafka.connecting import Connection, close_consumer
from imagebus.transports.kafka.delivery import Delivery, Finish
from imagebus.transports.kafka.errors import raise_translated
from imagebus.transports.kafka.holding import Holding
from imagebus.transports.kafka.ledger import Ledger
from imagebus.transports.kafka.partition_counts import PartitionCounts
from imagebus.transports.kafka.partitions import Progress, Receipt
from imagebus.transports.kafka.positions import Positions
from imagebus.transports.kafka.records import keep_bad_news, place_of, to_message
from imagebus.transports.kafka.sender import Sender
from imagebus.transports.kafka.topics import TOPIC_SECONDS, partitions_of
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

COMMIT_SECONDS = 15.0  # for offsets: a group's coordinator that is killed is replaced within 13 s
ENOUGH = 1000  # records kept while the result of a commit is awaited; a coordinator may be frozen for long
RESULT_POLL_SECONDS = 0.02  # between two checks for a commit's result
REBALANCE_SECONDS = 3.0  # that others have begun when this member leaves: one takes half a second
MAX_POLL_MS = 300_000  # librdkafka's default of max.poll.interval.ms
UNASSIGNED_SECONDS = 20.0  # before a warning, and between two: a killed coordinator is replaced within 13


class KafkaMember(Member):
    """See `Member`; it joins its group with the first `receive`."""

    def __init__(
        self,
        connection: Connection,
        sender: Sender,
        delivery: Delivery,
        topic: str,
        group: str,
        on_assigned: OnAssigned | None,
        *,
        bounded: bool,
    ) -> None:
        self._connection = connection
        self._sender = sender
        self._delivery = delivery
        self._topic = topic
        self._group = group
        self._on_assigned = on_assigned
        self._partition_counts = PartitionCounts(sender.producer)
        self._ledger = Ledger(connection, sender, topic, commits_offsets=delivery.commits_offsets)
        self._holding = Holding(topic, self._ledger.position)
        self._positions = Positions(connection, topic, self._ledger, self._count_lost)
        self._listening = threading.Lock()  # one poll at a time: the caller's, or the keeper's
        self._last_poll = time.monotonic()
        self._warn_at = time.monotonic() + UNASSIGNED_SECONDS  # that no partitions are assigned
        self._waiting: list[Record] = []  # received, and not given out yet
        self._in_hand: set[Receipt] = set()  # given out and not committed
        self._suspects_in_hand = False
        self._batch_size = 0  # the largest limit of a `receive`
        self._ended: set[int] = set()  # partitions that a bounded member has read to their ends
        self._closed = threading.Event()
        self._consumer: Consumer = connection.clients.consumer(
            group, self._ledger.on_commit_result, ends=bounded
        )
        self._ledger.attach(self._consumer)
        try:
            partitions_of(self._consumer, topic)  # a missing topic is found here
            self._consumer.subscribe(
                [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        except KafkaException as error:
            close_consumer(self._consumer)
            raise_translated(error, f"reading topic {topic!r}")
        threading.Thread(target=self._keep_membership, name="imagebus-keeper", daemon=True).start()

    # --- partitions come and go ----------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._positions.begin(consumer, partitions)
        self._tell()

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [each.partition for each in partitions]
        self._ledger.given_back(numbers)  # librdkafka releases them after the brokers' answer
        self._forget_waiting(numbers)
        self._holding.forget(numbers)
        self._tell()

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [each.partition for each in partitions]
        self._ledger.lost(numbers)
        self._forget_waiting(numbers)
        self._holding.forget(numbers)
        self._tell()
        self.partitions = None  # until the group has this member again
        self._warn_at = time.monotonic() + UNASSIGNED_SECONDS

    def _tell(self) -> None:
        partitions = self.partitions = tuple(self._ledger.numbers())
        self._ended.intersection_update(partitions)
        if self._on_assigned is not None and not self._closed.is_set():
            self._on_assigned(partitions)

    def _warn_if_unassigned(self) -> None:
        """librdkafka waits for the coordinator of its group without a word."""
        if self.partitions is None and time.monotonic() > self._warn_at:
            self._warn_at = time.monotonic() + UNASSIGNED_SECONDS
            log.warning(
                "still waiting for partitions of topic %s: no broker coordinates the group %s (see the topic "
                "__consumer_offsets and offsets.topic.replication.factor), or another member holds up its rebalance",
                self._topic,
                self._group,
            )

    def _forget_waiting(self, numbers: Collection[int]) -> None:
        """Drop what waits of these partitions; if they come back, so does it, in order."""
        self._waiting[:] = [record for record in self._waiting if record.partition() not in numbers]

    # --- receiving -----------------------------------------------------------------------------

    def receive(self, limit: int, timeout: float) -> list[Message]:
        self._check_open()
        self._sender.poll()
        self._connection.raise_failure()
        self._batch_size = max(self._batch_size, limit)
        with self._listening:
            self._follow_confirmations()
            self._positions.ask_again(self._consumer)
            if not self._suspects_in_hand and not self._waiting:
                # `consume(n, timeout)` would wait out its timeout unless n messages come.
                first = self._consumer.poll(timeout)
                self._last_poll = time.monotonic()
                if first is None:
                    self._ledger.ask_again()
                    if not self._in_hand:
                        self._positions.begin_anew(self._consumer)
                    self._warn_if_unassigned()
                    return []
                self._arrive([first])
                if not self._waiting:
                    return []
            if self._must_commit_first():
                return []
            if (room := limit - len(self._waiting)) > 0:
                self._arrive(self._consumer.consume(room, timeout=0))
                self._last_poll = time.monotonic()
            # Noted before the next poll: a partition that is lost then takes these with it.
            messages = [
                message for record in self._take(limit) if (message := self._received(record)) is not None
            ]
        self._in_hand.update(message.receipt for message in messages)
        self._wait_until_committed(self._ledger.claim())
        suspects = [message for message in messages if message.attempt > 1]
        if suspects:
            self._suspects_in_hand = True
            self._wait_until_committed(self._ledger.begin_suspects(suspects))
        return messages

    @property
    def unconfirmed(self) -> int:  # type: ignore[override]  # a plain number on the other buses
        return self._ledger.unconfirmed

    @property
    def at_end(self) -> bool:
        return self.partitions is not None and self._ended.issuperset(self.partitions)

    def _follow_confirmations(self) -> None:
        """Note what was confirmed behind its batch. Where too much is not, hold the partition up."""
        if back := self._ledger.settle():
            self._forget_waiting(back)
            self._ledger.rewind(self._seek, back)
        held_up = self._ledger.held_up()
        if held_up != self._holding.numbers:
            self._forget_waiting(self._holding.change(self._consumer, held_up))

    def _must_commit_first(self) -> bool:
        """Whether nothing may be given out: a suspect is in hand, or is next while other messages are.

        Suspects are next when they came first, so they get their turn although other messages never end.
        """
        if not self._in_hand:
            return False
        if self._suspects_in_hand:
            return True
        first = self._waiting[0]
        return self._ledger.have_suspects(self._batch_size) and self._ledger.is_suspect(
            first.partition(), first.offset()
        )

    def _take(self, limit: int) -> list[Record]:
        """The waiting records that go together; the others are noted, so that a `rewind` brings them again."""
        if not self._ledger.have_suspects(self._batch_size):
            taken, self._waiting = self._waiting[:limit], self._waiting[limit:]
        else:
            places = [(record.partition(), record.offset()) for record in self._waiting]
            chosen = set(self._ledger.go_together(places, limit))
            taken = [record for place, record in enumerate(self._waiting) if place in chosen]
            self._waiting = [record for place, record in enumerate(self._waiting) if place not in chosen]
        for record in self._waiting:
            self._see(record)
        return taken

    def _received(self, record: Record) -> Message | None:
        error = record.error()
        if record.partition() in self._ended:
            return None
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            self._ended.add(place_of(record)[0])
            return None
        if error is not None:
            keep_bad_news(self._connection, self._topic, error)
            return None
        number, offset = place_of(record)
        self._positions.look_for_a_gap(self._consumer, number, offset)
        receipt, attempt = self._ledger.receive(number, offset)
        return to_message(record, self._topic, receipt, attempt)

    def _count_lost(self, number: int, count: int) -> None:
        self.lost += count
        log.error(
            "%d requests of %s, partition %d, were deleted before they were answered: retention is too short",
            count,
            self._topic,
            number,
        )

    def _wait_until_committed(self, wanted: Mapping[int, Progress]) -> None:
        """Poll for the result, for a while; a record that comes instead waits for the next `receive`.

        With transactions, as long as it takes: a commit that arrived late would undo their offsets.
        """
        if not wanted:
            return
        deadline = math.inf if self._delivery.commits_offsets else time.monotonic() + COMMIT_SECONDS
        with self._listening:
            paused: list[TopicPartition] = []
            while not self._ledger.is_settled(wanted) and time.monotonic() <= earliest(
                deadline, self.finish_by
            ):
                record = self._consumer.poll(RESULT_POLL_SECONDS)
                self._last_poll = time.monotonic()
                if record is not None:
                    self._keep(record)
                if len(self._waiting) >= ENOUGH and not paused:
                    paused = self._consumer.assignment()
                    self._consumer.pause(paused)
            # Some stay paused: those whose offsets are not known, until they are, and those that are held up.
            still = {*self._ledger.unknown(), *self._holding.numbers}
            with suppress(KafkaException):  # some may be gone
                self._consumer.resume([each for each in paused if each.partition not in still])

    def _keep(self, record: Record) -> None:
        """Keep a record for the next `receive`."""
        if self._arrive([record]):
            self._see(record)

    def _arrive(self, records: Sequence[Record]) -> bool:
        """Let records wait to be given out; returns whether any does.

        Not those of a partition whose offset is not known yet: it is paused, but what was fetched before that still
        comes, from its beginning. What it has comes again once the offset is known.
        """
        unknown = self._ledger.unknown()
        known = [record for record in records if record.partition() not in unknown] if unknown else records
        known = self._positions.without_stale(self._consumer, known)
        self._waiting += known
        return bool(known)

    def _see(self, record: Record) -> None:
        if record.error() is None:
            self._ledger.see(*place_of(record))

    def _keep_membership(self) -> None:
        """Poll now and then while the caller is busy, so that a slow model does not cost the partitions.

        Each poll brings at most one record, which the next `receive` returns.
        """
        settings = self._connection.settings
        interval = int(settings.get("max.poll.interval.ms", MAX_POLL_MS)) / 1000 / 4
        while not self._closed.wait(interval):
            if time.monotonic() - self._last_poll < interval or not self._listening.acquire(blocking=False):
                continue
            try:
                record = self._consumer.poll(0)
                self._last_poll = time.monotonic()
                if record is not None:
                    self._keep(record)
            except (KafkaException, RuntimeError) as error:
                if not self._closed.is_set():
                    log.warning("keeping the membership failed, trying again: %s", error)
            finally:
                self._listening.release()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise TransportError("the bus is closed")

    # --- committing ----------------------------------------------------------------------------

    def commit(
        self, received: Sequence[Message], outgoing: Sequence[Message] = (), instead: Instead | None = None
    ) -> Commit:
        self._check_open()
        receipts: list[Receipt] = [message.receipt for message in received]
        if suspects := [message for message in received if message.attempt > 1]:
            acquitted = self._ledger.end_suspects(suspects)
            if self._delivery.commits_offsets:  # in a transaction, which this must not follow
                self._wait_until_committed(acquitted)

        def deliver(ours: Sequence[int], ends: Sequence[TopicPartition]) -> Finish:
            sending = [self._partition_counts.placed(outgoing[place]) for place in ours] if outgoing else []
            smaller = None if instead is None else lambda place: instead(ours[place])
            return self._delivery.begin(sending, ends, self._consumer, lambda: self.finish_by, smaller)

        return self._ledger.commit(receipts, deliver, partial(self._committed, receipts))

    def _committed(self, receipts: Sequence[Receipt]) -> None:
        self._in_hand.difference_update(receipts)
        self._suspects_in_hand = self._suspects_in_hand and bool(self._in_hand)

    def rewind(self) -> None:
        with self._listening:
            self._partition_counts.forget()
            self._waiting.clear()
            self._in_hand.clear()
            self._suspects_in_hand = False
            if self._delivery.commits_offsets:
                self._correct()
            self._ledger.rewind(self._seek)
            self._holding.change(self._consumer, set())

    def _correct(self) -> None:
        """After a transaction in doubt, only the brokers know how far it got."""
        named = [TopicPartition(self._topic, number) for number in self._ledger.numbers()]
        try:
            committed = self._consumer.committed(named, timeout=TOPIC_SECONDS)
            for each in committed:
                if each.error is not None:
                    raise KafkaException(each.error)
            self._ledger.correct(committed)
        except KafkaException as error:
            raise_translated(error, "asking for the committed offsets")

    def _seek(self, number: int, offset: int) -> None:
        # A partition that is being revoked cannot be sought, and need not be.
        with suppress(KafkaException):
            self._consumer.seek(TopicPartition(self._topic, number, offset))

    def close(self) -> None:
        """Commit what is answered, and leave the group. Safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._listening:
            self._give_all_back()
            close_consumer(self._consumer)
            self._ledger.attach(None)

    def _give_all_back(self) -> None:
        """Commit what is answered. A rebalance that others have begun comes first: until its end, it is refused."""
        deadline = time.monotonic() + REBALANCE_SECONDS

        def in_time() -> bool:
            return time.monotonic() <= earliest(deadline, self.finish_by)

        while (left := self._ledger.close()) and in_time():
            self._consumer.poll(RESULT_POLL_SECONDS)  # what comes is not noted, so it comes again elsewhere
            while not self._ledger.is_settled(left) and in_time():
                self._consumer.poll(RESULT_POLL_SECONDS)
