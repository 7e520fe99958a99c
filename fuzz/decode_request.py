"""Any record at a replier has one outcome: its prediction, an error under its id, or a dead letter.

An input is a record as text, so that its file can be read: lines of `name: value` are headers, a line
`key: ...` the key, a name alone a header without a value. After an empty line comes the record's value.

Values that a mutation would hardly guess are filled in: `sha256: right` becomes the digest of the value, and a
header `mend-crc` corrects the checksums of a PNG's chunks.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from imagebus.answering import Answering
from imagebus.errors import BadMessage
from imagebus.wire.dead_letters import DEAD_LETTER_CODE
from imagebus.wire.envelope import sha256_hex
from imagebus.wire.message import Message
from imagebus.wire.pixels import FASHION, Images
from imagebus.wire.requests import read_request
from imagebus.wire.results import ErrorReply, Model, Probabilities, Reply, decode_reply

REQUESTS, REPLIES, DEAD_LETTERS = "requests", "replies", "requests.dlt"
BUS_TAKES = 1_000_000  # bytes of one message, with key and headers: librdkafka's default
_NOT_ANSWERED = {"NO_ID", "BAD_ID", "TOO_LARGE", "HASH_MISMATCH"}
_PNG_START = 8  # bytes of its signature
_PNG_AROUND = 12  # bytes of a chunk's length, kind and checksum


class AlwaysTheFirst:
    """A model that costs nothing."""

    model = Model("always-the-first", "1", "0" * 64)
    labels = ("a", "b")
    spec = FASHION

    def predict(self, images: Images) -> Probabilities:
        """The first label, with certainty."""
        return np.tile(np.array([1, 0], np.float32), (len(images), 1))


_answering = Answering(AlwaysTheFirst(), replies=REPLIES, dead_letter_topic=DEAD_LETTERS)


def one_input(data: bytes) -> None:
    """What libFuzzer calls."""
    check(record(data))


def check(message: Message) -> Message:
    """Handle one record and raise `AssertionError` unless its outcome is correct."""
    outcomes = _answering.answer([message])
    assert len(outcomes) == 1
    (outcome,) = outcomes
    assert size(outcome) < BUS_TAKES
    code: str | None = None
    try:
        envelope = read_request(message, FASHION, reply_topics=[REPLIES]).envelope
    except BadMessage as error:
        code, envelope = error.code, error.envelope
    if envelope is None:
        assert outcome.topic == DEAD_LETTERS
        assert outcome.header(DEAD_LETTER_CODE) == code
        assert code in _NOT_ANSWERED
        assert message.value.startswith(outcome.value)
        return outcome
    assert outcome.topic == REPLIES
    assert outcome.header("correlation_id") == envelope.id
    assert outcome.header("status") == ("error" if code else "ok")
    if not outcome.value.startswith((b'{"model_name":', b'{"error":"')):  # Open Inference Protocol V2
        reply = decode_reply(outcome)
        assert reply.id == envelope.id
        assert reply.sha256 == sha256_hex(message.value)
        assert isinstance(reply, ErrorReply if code else Reply)
        assert isinstance(reply, Reply) or reply.code == code
    return outcome


def size(message: Message) -> int:
    """Bytes of a message as librdkafka counts them, or more."""
    headers = sum(len(name.encode()) + len(value or b"") + 8 for name, value in message.headers)
    return len(message.value) + len(message.key or b"") + headers


def record(data: bytes) -> Message:
    """The record that an input describes."""
    head, _, value = data.partition(b"\n\n")
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = []
    for line in head.split(b"\n"):
        name, colon, text = line.partition(b": ")
        if name == b"key":
            key = text
        elif name == b"mend-crc":
            value = _with_right_checksums(value)
        else:
            headers.append((name.decode("latin-1"), text if colon else None))
    headers = [
        (name, sha256_hex(value).encode() if (name, text) == ("sha256", b"right") else text)
        for name, text in headers
    ]
    return Message(REQUESTS, value, key, headers)


def _with_right_checksums(png: bytes) -> bytes:
    mended, place = bytearray(png), _PNG_START
    while place + _PNG_AROUND <= len(mended):
        (length,) = struct.unpack_from(">I", mended, place)
        end = place + 8 + length
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(mended[place + 4 : end]))
        place = end + 4
    return bytes(mended)
