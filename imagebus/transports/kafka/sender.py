"""A producer that lets the brokers judge each message by its own size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from imagebus.errors import PublishFailed
from imagebus.transports.kafka.errors import NOT_THERE, is_too_large, raise_translated
from imagebus.transports.kafka.settings import Clients
from imagebus.wire.message import Message

log = logging.getLogger(__name__)

ANY_PARTITION = -1  # the key decides

OnRecord = Callable[[KafkaError | None, Record | None], None]


def produce(producer: Producer, message: Message, delivered: OnRecord) -> None:
    """Queue one message; blocks while the queue is full. Raises `TooLarge` for one that exceeds this client's limit.

    A topic or partition that is not there fails this message, as it would have if that had shown a moment later: it may
    be being made anew.
    """
    try:
        enqueue(producer, message, delivered)
    except KafkaException as error:
        if error.args[0].code() in NOT_THERE:
            delivered(error.args[0], None)
            return
        raise_translated(error, f"sending {len(message.value)} bytes to topic {message.topic!r}")


def enqueue(producer: Producer, message: Message, delivered: OnRecord) -> None:
    """As `produce`, but of the driver's errors only `TooLarge` is translated."""
    while True:
        try:
            producer.produce(
                message.topic,
                message.value,
                message.key,
                ANY_PARTITION if message.partition is None else message.partition,
                headers=list(message.headers),
                on_delivery=delivered,
            )
            return
        except BufferError:  # the queue is full: send some, then try again
            producer.poll(0.1)
        except KafkaException as error:
            if is_too_large(error.args[0]):
                raise_translated(error, f"sending {len(message.value)} bytes to topic {message.topic!r}")
            raise


class Sender:
    """Sends messages to the brokers, several in one of Kafka's batches.

    A broker refuses a batch larger than the topic's `max.message.bytes` as a whole, whatever the size of its
    messages, and librdkafka gives them all up. Here they are re-sent, each in a batch of its own, and the second
    answer counts.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._producer: Producer | None = clients.producer()  # None once it is closed
        self._one_by_one: Producer | None = None  # from the first refusal on
        self._refusing = threading.Lock()  # two threads may learn of a refusal at once

    @property
    def producer(self) -> Producer:
        """The one that all messages are sent with at first; raises `PublishFailed` when closed."""
        producer = self._producer
        if producer is None:
            raise PublishFailed("the bus is closed")
        return producer

    def send(self, message: Message, delivered: OnRecord) -> None:
        """Queue one message, as `produce` does."""
        produce(self.producer, message, partial(self._judge, message, delivered))

    def _judge(
        self, message: Message, delivered: OnRecord, error: KafkaError | None, record: Record | None
    ) -> None:
        if error is None or not is_too_large(error):
            delivered(error, record)
            return
        with self._refusing:
            if self._one_by_one is None:
                log.warning(
                    "a batch of messages is larger than max.message.bytes of topic %r: sent one by one; "
                    "a batch.size in the settings that is below it saves the second time",
                    message.topic,
                )
                self._one_by_one = self._clients.producer(one_by_one=True)
        produce(self._one_by_one, message, delivered)

    def poll(self, seconds: float = 0.0) -> None:
        """Call back for known outcomes; wait up to `seconds` for the first, for each producer."""
        for producer in self._producers():
            producer.poll(seconds)

    def flush(self, seconds: float) -> int:
        """Wait up to `seconds` for the outcomes, for each producer; returns how many messages have none yet."""
        return sum(producer.flush(seconds) for producer in self._producers())

    def purge(self) -> None:
        """Give up what has no outcome yet."""
        for producer in self._producers():
            producer.purge()

    def close(self) -> None:
        """Let go of the producers: their threads and sockets end with them, though the bus is kept."""
        self._producer = self._one_by_one = None

    def _producers(self) -> Iterator[Producer]:
        if (producer := self._producer) is not None:
            yield producer
        if (producer := self._one_by_one) is not None:  # it may be created while the first is polled
            yield producer
