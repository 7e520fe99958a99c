"""What no client library sends, and a broker takes all the same: the record is written byte by byte."""

from __future__ import annotations

import socket
import struct
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from imagebus import connect
from imagebus.broker import EmbeddedBroker
from imagebus.wire.message import Message

from .rig import IMAGE

PRODUCE, VERSION = 0, 7
SECONDS = 30.0
RawHeaders = Sequence[tuple[bytes, bytes | None]]


def varint(number: int) -> bytes:
    """Zigzag, seven bits a byte, the lowest first."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def counted(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def crc32c(content: bytes) -> int:
    """Castagnoli's polynomial, which the standard library does not have; bit by bit is quick enough here."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def record_batch(key: bytes | None, value: bytes | None, headers: RawHeaders) -> bytes:
    """One record in Kafka's format 2, without compression, transaction or sequence."""
    pairs = b"".join(counted(name) + counted(text) for name, text in headers)
    body = b"\0" + varint(0) + varint(0) + counted(key) + counted(value) + varint(len(headers)) + pairs
    now = round(time.time() * 1000)
    after_crc = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + counted(body)
    return struct.pack(">qiibI", 0, len(after_crc) + 9, 0, 2, crc32c(after_crc)) + after_crc


def produce_raw(bootstrap: str, topic: str, batch: bytes) -> None:
    """Append a record batch to partition 0 of `topic`, which has to be led by this broker."""
    name = struct.pack(">h", len(topic)) + topic.encode()
    partition = struct.pack(">iii", 1, 0, len(batch)) + batch
    request = struct.pack(">hhihhhii", PRODUCE, VERSION, 1, -1, -1, -1, 10_000, 1) + name + partition
    host, port = bootstrap.rsplit(":", 1)
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (length,) = struct.unpack(">i", answer.read(4))
        error = struct.unpack_from(">h", answer.read(length), 4 + 4 + len(name) + 4 + 4)
    assert error == (0,)


def received(broker: EmbeddedBroker, config: Path, batch: bytes) -> Message:
    """A raw record as the bus hands it on."""
    topic = f"raw-{uuid.uuid4().hex[:8]}"
    with connect("kafka", config, topics=[topic], partitions=1) as bus:
        inbox = bus.inbox(topic)  # from now on; by the time this returns the partition has its leader
        produce_raw(broker.bootstrap, topic, batch)
        (message,) = inbox.receive(1, SECONDS)
        return message


def test_a_record_without_a_value_is_empty(broker: EmbeddedBroker, config: Path) -> None:
    message = received(broker, config, record_batch(b"1", None, [(b"a", None), (b"a", b"\xff")]))

    assert (message.key, message.value) == (b"1", b"")
    assert list(message.headers) == [("a", None), ("a", b"\xff")]


def test_a_header_whose_name_is_no_text_does_not_stop_its_reader(
    broker: EmbeddedBroker, config: Path
) -> None:
    message = received(broker, config, record_batch(b"1", IMAGE, [(b"\xff\xfe", b"x"), (b"b", b"y")]))

    assert (message.key, message.value) == (b"1", IMAGE)


def test_a_header_whose_name_is_no_text_does_not_stop_a_reader_that_has_read_many_others(
    broker: EmbeddedBroker, config: Path
) -> None:
    topic = f"raw-{uuid.uuid4().hex[:8]}"
    with connect("kafka", config, topics=[topic], partitions=1) as bus:
        inbox = bus.inbox(topic)
        for _ in range(50):
            bus.publish(Message(topic, b"before", headers=[("a", b"x")]))
        before: list[Message] = []
        while len(before) < 50:
            before += inbox.receive(50, SECONDS)
        produce_raw(broker.bootstrap, topic, record_batch(b"1", IMAGE, [(b"\xff\xfe", b"x")]))

        (message,) = inbox.receive(1, SECONDS)

        assert (message.key, message.value, list(message.headers)) == (b"1", IMAGE, [])
