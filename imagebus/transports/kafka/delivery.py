"""How a batch's outcomes reach the brokers: the two guarantees.

At least once: the messages are sent and confirmed here; the offsets are committed afterwards, by the
consumer. Exactly once: messages and offsets are one transaction.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Record

from imagebus.errors import CommitFailed, TooLarge
from imagebus.transports.kafka.clients import DENIED, Clients, is_too_large, raise_translated, translate
from imagebus.transports.kafka.sender import OnRecord, Sender, produce
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

CONFIRM_SECONDS = 35.0  # message.timeout.ms and a little: by then each message is confirmed or given up
TRANSACTION_SECONDS = 20.0  # for each step; a killed coordinator or partition leader is replaced within 13 s
ADDING_SECONDS = 15.0  # for the offsets: a group's coordinator that is killed is replaced sooner
CLOSE_SECONDS = 10.0
# For a batch at a stop: its replies are confirmed in milliseconds where brokers answer at all.
HURRY_SECONDS = 5.0
LOOK_SECONDS = 0.5  # between two looks at whether there is a hurry

Hurry = Callable[[], "float | None"]
Finish = Callable[[], None]
T = TypeVar("T")


class Delivery(Protocol):
    """One of the guarantees."""

    commits_offsets: bool  # whether this has committed them

    def begin(
        self, outgoing: Sequence[Message], ends: Sequence[TopicPartition], consumer: Consumer, hurry: Hurry, /
    ) -> Finish:
        """Make `outgoing` exist; `ends` are the offsets that they answer up to.

        What is returned waits for that, and raises `CommitFailed` where it did not succeed. `hurry` gives
        the moment from which on there are only `HURRY_SECONDS`, None while there is none.
        """
        ...

    def close(self) -> None:
        """Let go of the connection; what is not confirmed by now is not waited for long."""
        ...


def in_a_hurry(deadline: float, hurried_at: float | None) -> float:
    """The moment until which to wait, `hurried_at` being when the stop was asked for."""
    return deadline if hurried_at is None else min(deadline, hurried_at + HURRY_SECONDS)


class Batch:
    """The messages of one batch on their way, and what became of them."""

    def __init__(self, send: Callable[[Message, OnRecord], None], outgoing: Sequence[Message]) -> None:
        self.failures: list[KafkaError] = []
        self.refused: list[int] = []  # places of those that are too large
        for place, message in enumerate(outgoing):
            try:
                send(message, partial(self._delivered, place))
            except TooLarge:
                self.refused.append(place)

    def _delivered(self, place: int, error: KafkaError | None, _: Record) -> None:
        if error is not None and is_too_large(error):
            self.refused.append(place)
        elif error is not None:
            self.failures.append(error)

    def check(self, unconfirmed: int = 0) -> None:
        """Raise `CommitFailed` unless each message was confirmed."""
        if self.refused:
            raise CommitFailed(
                f"{len(self.refused)} replies are larger than max.message.bytes of the topic or "
                f"message.max.bytes of this client",
                refused=self.refused,
            )
        if self.failures or unconfirmed:
            count = unconfirmed + len(self.failures)
            reason = self.failures[0].str() if self.failures else "nothing was heard of them"
            raise CommitFailed(f"{count} replies were not confirmed: {reason}")


class AtLeastOnce:
    """Sends, and waits until the brokers confirmed each message."""

    commits_offsets = False

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def begin(
        self,
        outgoing: Sequence[Message],
        _ends: Sequence[TopicPartition],
        _consumer: Consumer,
        hurry: Hurry,
        /,
    ) -> Finish:
        """See `Delivery.begin`. librdkafka's own threads send, while the caller does other things."""
        batch = Batch(self._sender.send, outgoing)
        return partial(self._finish, batch, hurry) if outgoing else _nothing_left

    def _finish(self, batch: Batch, hurry: Hurry) -> None:
        deadline = time.monotonic() + CONFIRM_SECONDS
        while unconfirmed := self._sender.flush(LOOK_SECONDS):
            if time.monotonic() > in_a_hurry(deadline, hurry()):
                break
        if unconfirmed:
            self._sender.purge()
        batch.check(unconfirmed)

    def close(self) -> None:
        """See `Delivery.close`."""
        left = self._sender.flush(CLOSE_SECONDS)
        if left:
            log.warning("%d messages were not confirmed before closing", left)


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
        hurry: Hurry,
        /,
    ) -> Finish:
        """See `Delivery.begin`. All of it is done here: no transaction is open while a slow model is at work."""
        try:
            self._deliver(outgoing, ends, consumer, hurry)
        except CommitFailed as error:
            return partial(_fail, error)
        return _nothing_left

    def _deliver(
        self, outgoing: Sequence[Message], ends: Sequence[TopicPartition], consumer: Consumer, hurry: Hurry
    ) -> None:
        """1. begin; 2. send; 3. add the offsets, under the group's membership as it is now; 4. commit."""
        producer = self._producer
        refused: list[int] = []
        try:
            producer.begin_transaction()
            refused = Batch(
                partial(produce, producer), outgoing
            ).refused  # what a broker refuses joins them at the commit
            if refused:
                self._start_anew("a reply is too large", hurry, refused)
            if ends:
                member = consumer.consumer_group_metadata()
                add = partial(producer.send_offsets_to_transaction, list(ends), member, TRANSACTION_SECONDS)
                # librdkafka heeds no time limit here when the group's coordinator is away (its issue 5456).
                _within(ADDING_SECONDS, partial(self._retry, add))
            self._retry(lambda: producer.commit_transaction(TRANSACTION_SECONDS))
        except KafkaException as error:
            self._give_up(error, hurry, refused)
        except TimeoutError:
            self._start_anew("its offsets were not added in time", hurry)

    def _give_up(self, error: KafkaException, hurry: Hurry, refused: Sequence[int]) -> None:
        """Leave the transaction behind and raise: `CommitFailed`, or what makes going on pointless."""
        reason: KafkaError = error.args[0]
        if reason.fatal() or reason.code() in DENIED:
            self._is_useless = True
            raise translate(reason, "in a transaction") from error
        with suppress(KafkaException):
            self._producer.poll(0)  # what a broker refused may be waiting to be told
        if (
            refused and not self._one_by_one
        ):  # together they were too large: nobody knows yet which of them are
            self._one_by_one = True
            self._start_anew("its replies are too large to be sent together", hurry)
        self._start_anew(reason.str(), hurry, refused)

    def _start_anew(self, reason: str, hurry: Hurry, refused: Sequence[int] = ()) -> NoReturn:
        """Replace the producer, and raise `CommitFailed`.

        The new one makes the brokers decide what becomes of the transaction; before that the committed
        offsets may not be asked for, since what is read again could still be committed. And it gets a new
        epoch, so that a message that is late is refused: after an abort alone it would become part of the
        next transaction (KIP-890).
        """
        log.warning("a transaction failed (%s): starting anew", reason)
        while True:
            try:
                self._producer = self._new_producer()
                break
            except KafkaException as error:
                why: KafkaError = error.args[0]
                if why.fatal() or why.code() in DENIED or hurry() is not None:
                    self._is_useless = True
                    raise translate(why, f"starting transactions as {self._id!r}") from error
                log.warning("no transactions as %r yet: %s; trying again", self._id, why.str())
        raise CommitFailed(f"the transaction was not committed: {reason}", refused=refused)

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
            self._producer.flush(CLOSE_SECONDS)


def _nothing_left() -> None:
    pass


def _fail(error: CommitFailed) -> None:
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
