"""Kafka's records as this project's messages, and the errors that come in a record's place."""

from __future__ import annotations

import logging
import operator
from typing import Any, cast

from confluent_kafka import KafkaError
from confluent_kafka import Message as Record

from imagebus.transports.kafka.connecting import Connection
from imagebus.transports.kafka.errors import DENIED, OTHER_GROUP, is_fatal, translate
from imagebus.wire.message import Message, Position

log = logging.getLogger(__name__)

_GONE = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)


def to_message(record: Record, topic: str, receipt: Any = None, attempt: int = 1) -> Message:
    """A received record as a message."""
    position = position_of(record)
    return Message(topic, record.value() or b"", record.key(), _headers(record), receipt, attempt, position)


def position_of(record: Record) -> Position:
    """Where a received or delivered record is stored."""
    number, offset = place_of(record)
    return Position(number, offset, record.timestamp()[1])


def place_of(record: Record) -> tuple[int, int]:
    """Partition and offset of a received or delivered record, which has both."""
    number, offset = record.partition(), record.offset()
    assert number is not None
    assert offset is not None
    return number, offset


def record_bytes(message: Message) -> int:
    """The size of a message as the only record of a batch, less the constant part.

    As in Kafka's "Record" of its message format, version 2: lengths and the count of headers are zigzag varints.
    """
    parts = [message.key or b"", message.value]
    for name, value in message.headers:
        parts += [name.encode(), value or b""]
    return sum(len(part) + _varint_bytes(len(part)) for part in parts) + _varint_bytes(len(message.headers))


def _varint_bytes(number: int) -> int:
    return max(1, -(-(2 * number).bit_length() // 7))


# Not `record.headers()`: Python 3.11 and later, once that line has run some ten times, calls C code without checking
# for failure. The driver's broken list for a name that is not UTF-8 would get through, and end the process.
_ask_for_headers = operator.methodcaller("headers")


def _headers(record: Record) -> list[tuple[str, bytes | None]]:
    """A received record's headers, with values of bytes or None."""
    try:
        return cast(list[tuple[str, bytes | None]], _ask_for_headers(record) or [])
    except SystemError:  # the driver's answer to a name that is not UTF-8; only to be called once
        return []


def keep_bad_news(connection: Connection, topic: str, error: KafkaError) -> None:
    """An error in place of a record. Kept for the next call: raising here would lose the records beside it."""
    if error.code() in DENIED or error.code() in _GONE | OTHER_GROUP or is_fatal(error):
        connection.keep_failure(translate(error, f"reading topic {topic!r}"))
    else:
        log.warning("reading topic %s: %s; trying again", topic, error.str())
