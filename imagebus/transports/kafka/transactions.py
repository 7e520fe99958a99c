"""Exactly once: a batch's replies and offsets in one transaction of Kafka's."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from imagebus.errors import CommitFailed
from imagebus.transports.base import Instead, earliest
from imagebus.transports.kafka.delivery import (
    FLUSH_SECONDS,
    Finish,
    FinishBy,
    nothing_left,
    smaller,
)
from imagebus.transports.kafka.errors import DENIED, is_fatal, raise_translated, translate
from imagebus.transports.kafka.outgoing import OutgoingBatch
from imagebus.transports.kafka.records import record_bytes
from imagebus.transports.kafka.sender import enqueue
from imagebus.transports.kafka.settings import Clients
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

TRANSACTION_SECONDS = 20.0  # per step; a killed coordinator or partition leader is replaced within 13 s
ADDING_SECONDS = 15.0  # for the offsets; a killed group coordinator is replaced sooner
REFUSAL_SECONDS = 1.0  # librdkafka fails a transaction first, and tells which message was refused right after

T = TypeVar("T")


class ExactlyOnce:
    """One transaction per batch, under a `transactional_id` that only one live replier may have.

    librdkafka classifies the failure of a step. Retriable: the same call again. Fatal: another replier took
    over the id, or the client has lost track of the state. Anything else, above all a time-out: what the
    brokers did or still do is unknown, so a new producer takes over, and the batch comes again.
    """

    commits_offsets = True

    def __init__(self, clients: Clients, transactional_id: str) -> None:
        self._clients = clients
        self._id = transactional_id
        self._is_useless = False
        self._one_by_one = False  # whether each message is a batch of Kafka's: see `Sender`
        try:
            self._producer = self._new_producer()
        except KafkaException as error:
            raise_translated(error, f"starting transactions as {self._id!r}")

    def _new_producer(self) -> Producer:
        """A producer that has made the brokers end what the last one of this id left open."""
        producer = self._clients.producer(self._id, one_by_one=self._one_by_one)
        self._retry(lambda: producer.init_transactions(TRANSACTION_SECONDS))
        return producer

    def begin(
        self,
        outgoing: Sequence[Message],
        ends: Sequence[TopicPartition],
        consumer: Consumer,
        finish_by: FinishBy,
        instead: Instead | None,
        /,
    ) -> Finish:
        """See `Delivery.begin`. It is all done here: no transaction is open while a slow model runs."""
        sending = list(outgoing)
        try:
            while (too_large := self._transact(sending, ends, consumer, finish_by)) is not None:
                if time.monotonic() > earliest(math.inf, finish_by()):
                    raise CommitFailed("the transaction was not committed: its time is over")
                for place, message in smaller(too_large, instead).items():
                    sending[place] = message
        except Exception as error:  # also what `instead` raises
            return partial(_fail, error)
        return nothing_left

    def _transact(
        self,
        outgoing: Sequence[Message],
        ends: Sequence[TopicPartition],
        consumer: Consumer,
        finish_by: FinishBy,
    ) -> list[int] | None:
        """1. begin; 2. send; 3. add the offsets, under the group's membership as it is now; 4. commit.

        None when it is committed; else the places of outcomes that are too large, none when a second try has
        to show which. Raises `CommitFailed` when the result is unknown.
        """
        producer = self._producer
        batch = OutgoingBatch()
        try:
            producer.begin_transaction()
            batch.send(partial(enqueue, producer), outgoing)
            if batch.too_large:
                self._abort("a reply is too large", finish_by)
                return batch.too_large
            if ends:
                member = consumer.consumer_group_metadata()
                add = partial(producer.send_offsets_to_transaction, list(ends), member, TRANSACTION_SECONDS)
                # librdkafka ignores the time limit here when the group's coordinator is away (its issue 5456).
                _within(ADDING_SECONDS, partial(self._retry, add))
            self._retry(lambda: producer.commit_transaction(TRANSACTION_SECONDS))
        except KafkaException as error:
            return self._give_up(error, finish_by, batch, outgoing)
        except TimeoutError:
            reason = "its offsets were not added in time"
            self._start_anew(reason, finish_by)
            raise CommitFailed(f"the transaction was not committed: {reason}") from None
        return None

    def _give_up(
        self, error: KafkaException, finish_by: FinishBy, batch: OutgoingBatch, outgoing: Sequence[Message]
    ) -> list[int]:
        """Abandon the transaction: see `_transact`; or raise an error that rules out going on."""
        reason: KafkaError = error.args[0]
        if is_fatal(reason) or reason.code() in DENIED:
            self._is_useless = True
            raise translate(reason, "in a transaction") from error
        too_large = self._refused(batch)
        if not too_large:
            self._start_anew(reason.str(), finish_by)
            raise CommitFailed(f"the transaction was not committed: {reason.str()}")
        if self._one_by_one:
            self._start_anew("a reply is too large", finish_by)
            return self._as_large_as(too_large, outgoing)
        # They were too large together; which ones is not known yet.
        self._one_by_one = True
        self._start_anew("its replies are too large to be sent together", finish_by)
        return []

    def _refused(self, batch: OutgoingBatch) -> list[int]:
        """The places of what a broker refused as too large; waits for the news of it."""
        deadline = time.monotonic() + REFUSAL_SECONDS
        with suppress(KafkaException):
            self._producer.poll(0)
            while batch.unconfirmed and not (batch.too_large or batch.failures):
                self._producer.poll(0.02)
                if time.monotonic() > deadline:
                    break
        return batch.too_large

    def _as_large_as(self, too_large: Sequence[int], outgoing: Sequence[Message]) -> list[int]:
        """These places, and those that would be refused next, at the price of a new producer each.

        A broker judges what it receives: only it knows the size of compressed records.
        """
        if self._clients.compress:
            return list(too_large)
        limits: dict[str, int] = {}
        for message in map(outgoing.__getitem__, too_large):
            size = record_bytes(message)
            limits[message.topic] = min(limits.get(message.topic, size), size)
        return [
            place
            for place, message in enumerate(outgoing)
            if message.topic in limits and record_bytes(message) >= limits[message.topic]
        ]

    def _abort(self, reason: str, finish_by: FinishBy) -> None:
        """Abort a transaction of which the brokers refused nothing: faster than a new producer.

        librdkafka first waits for what is in flight, so nothing is late (`_start_anew`). After a broker's
        refusal it would leave a gap in the sequence numbers, and the next transaction would fail.
        """
        try:
            self._retry(lambda: self._producer.abort_transaction(TRANSACTION_SECONDS))
        except KafkaException as error:
            self._start_anew(f"{reason}, and {error.args[0].str()}", finish_by)

    def _start_anew(self, reason: str, finish_by: FinishBy) -> None:
        """Replace the producer.

        The new one makes the brokers end the transaction; until then the committed offsets may not be
        fetched, since what would be read again could still be committed. It also gets a new epoch, so that a
        late message is refused: after an abort alone it would join the next transaction (KIP-890).
        """
        log.warning("a transaction failed (%s): starting anew", reason)
        while True:
            try:
                self._producer = self._new_producer()
                return
            except KafkaException as error:
                why: KafkaError = error.args[0]
                if why.fatal() or why.code() in DENIED or finish_by() is not None:
                    self._is_useless = True
                    raise translate(why, f"starting transactions as {self._id!r}") from error
                log.warning("no transactions as %r yet: %s; trying again", self._id, why.str())

    def _retry(self, call: Callable[[], T]) -> T:
        """Retry while librdkafka calls the error retriable, up to a deadline."""
        deadline = time.monotonic() + TRANSACTION_SECONDS
        while True:
            try:
                return call()
            except KafkaException as error:
                reason: Any = error.args[0]
                if not reason.retriable() or time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        """See `Delivery.close`. The brokers abort an open transaction when its time is over."""
        if not self._is_useless:  # else nothing is left to send, and a flush would raise
            self._producer.flush(FLUSH_SECONDS)


def _fail(error: Exception) -> None:
    raise error


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Call; raises `TimeoutError`, and abandons the call, when it does not return in time."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            call()
            outcome.set_result(None)
        except BaseException as error:  # for the waiting thread
            outcome.set_exception(error)

    threading.Thread(target=run, name="imagebus-transaction", daemon=True).start()
    outcome.result(seconds)
