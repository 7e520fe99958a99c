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
    OutgoingBatch,
    nothing_left,
    smaller,
)
from imagebus.transports.kafka.errors import DENIED, raise_translated, translate
from imagebus.transports.kafka.records import record_bytes
from imagebus.transports.kafka.sender import produce
from imagebus.transports.kafka.settings import Clients
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

TRANSACTION_SECONDS = 20.0  # for each step; a killed coordinator or partition leader is replaced within 13 s
ADDING_SECONDS = 15.0  # for the offsets: a group's coordinator that is killed is replaced sooner

T = TypeVar("T")


class ExactlyOnce:
    """One transaction a batch, under a `transactional_id` that only one live replier may have.

    What a failure of a step means, librdkafka says. Retriable: the same call again. Fatal: another replier
    took the id over, or the state is unknown to the client. Anything else, a time-out above all: nobody can
    tell what the brokers did or still do, so the producer is thrown away, a new one takes over, and the batch
    comes again.
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
        """One that has made the brokers finish, one way or the other, what the last one of this id left open."""
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
        """See `Delivery.begin`. All of it is done here: no transaction is open while a slow model is at work."""
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

        None when it is committed; else the places of outcomes that are too large, or none of them when it
        has to be tried again to find out. Raises `CommitFailed` where nobody can tell what became of it.
        """
        producer = self._producer
        too_large: list[int] = []
        try:
            producer.begin_transaction()
            batch = OutgoingBatch(partial(produce, producer), outgoing)
            too_large = batch.too_large  # what a broker refuses joins them at the commit
            if too_large:
                self._abort("a reply is too large", finish_by)
                return too_large
            if ends:
                member = consumer.consumer_group_metadata()
                add = partial(producer.send_offsets_to_transaction, list(ends), member, TRANSACTION_SECONDS)
                # librdkafka heeds no time limit here when the group's coordinator is away (its issue 5456).
                _within(ADDING_SECONDS, partial(self._retry, add))
            self._retry(lambda: producer.commit_transaction(TRANSACTION_SECONDS))
        except KafkaException as error:
            return self._give_up(error, finish_by, too_large, outgoing)
        except TimeoutError:
            reason = "its offsets were not added in time"
            self._start_anew(reason, finish_by)
            raise CommitFailed(f"the transaction was not committed: {reason}") from None
        return None

    def _give_up(
        self, error: KafkaException, finish_by: FinishBy, too_large: list[int], outgoing: Sequence[Message]
    ) -> list[int]:
        """Leave the transaction behind: see `_transact`; or raise what makes going on pointless."""
        reason: KafkaError = error.args[0]
        if reason.fatal() or reason.code() in DENIED:
            self._is_useless = True
            raise translate(reason, "in a transaction") from error
        with suppress(KafkaException):
            self._producer.poll(0)  # what a broker refused may be waiting to be told
        if not too_large:
            self._start_anew(reason.str(), finish_by)
            raise CommitFailed(f"the transaction was not committed: {reason.str()}")
        if self._one_by_one:
            self._start_anew("a reply is too large", finish_by)
            return self._as_large_as(too_large, outgoing)
        # Together they were too large: nobody knows yet which of them are.
        self._one_by_one = True
        self._start_anew("its replies are too large to be sent together", finish_by)
        return []

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
        """Abort a transaction of which the brokers refused nothing: sooner done than a new producer.

        librdkafka waits for what is on its way before it aborts, so nothing is late (`_start_anew`). After a
        broker's refusal it would go on with a gap in the sequence numbers, and the next transaction would fail.
        """
        try:
            self._retry(lambda: self._producer.abort_transaction(TRANSACTION_SECONDS))
        except KafkaException as error:
            self._start_anew(f"{reason}, and {error.args[0].str()}", finish_by)

    def _start_anew(self, reason: str, finish_by: FinishBy) -> None:
        """Replace the producer.

        The new one makes the brokers decide what becomes of the transaction; before that the committed
        offsets may not be asked for, since what is read again could still be committed. And it gets a new
        epoch, so that a message that is late is refused: after an abort alone it would become part of the
        next transaction (KIP-890).
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
        """Call again while librdkafka says that the same call may succeed, up to a deadline."""
        deadline = time.monotonic() + TRANSACTION_SECONDS
        while True:
            try:
                return call()
            except KafkaException as error:
                reason: Any = error.args[0]
                if not reason.retriable() or time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        """See `Delivery.close`. An open transaction is aborted by the brokers when its time is over."""
        if not self._is_useless:  # else there is nothing to send any more, and a flush would raise
            self._producer.flush(FLUSH_SECONDS)


def _fail(error: Exception) -> None:
    raise error


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Call; raises `TimeoutError` when it does not return in time, and leaves it to itself then."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            call()
            outcome.set_result(None)
        except BaseException as error:  # for whoever waits
            outcome.set_exception(error)

    threading.Thread(target=run, name="imagebus-transaction", daemon=True).start()
    outcome.result(seconds)
