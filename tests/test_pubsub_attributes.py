"""Messages as Pub/Sub carries them: text attributes in place of headers, and the service's limits."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebus.errors import BadMessage, ErrorCode, TooLarge
from imagebus.transports.pubsub.attributes import PubsubMessage, from_pubsub, size, to_pubsub
from imagebus.wire.dead_letters import dead_letter
from imagebus.wire.message import Message, Position

NAMES = st.text(max_size=20).filter(
    lambda name: not name.startswith(("goog", "imagebus_key")) and not name.endswith((";none", ";base64"))
)
HEADERS = st.lists(
    st.tuples(NAMES, st.none() | st.binary(max_size=100)), max_size=20, unique_by=lambda header: header[0]
)


@given(value=st.binary(max_size=1000), key=st.none() | st.binary(max_size=100), headers=HEADERS)
def test_what_is_sent_comes_back(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    back = from_pubsub(to_pubsub(Message("topic", value, key=key, headers=headers)), "topic", 1)

    assert back.value == value
    assert dict(back.headers) == dict(headers)
    assert back.key == (key if key is not None else dict(headers).get("correlation_id"))


def test_a_correlation_id_of_sixteen_raw_bytes_comes_back() -> None:
    id = bytes(range(240, 256))

    sent = to_pubsub(Message("topic", b"", key=id, headers=[("kafka_correlationId", id)]))
    back = from_pubsub(sent, "topic", 1)

    assert (back.key, list(back.headers)) == (id, [("kafka_correlationId", id)])


@given(attributes=st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=10))
def test_attributes_that_others_wrote_are_read_whatever_they_are(attributes: dict[str, str]) -> None:
    message = to_pubsub(Message("topic", b"value"))
    message.attributes.update(attributes)

    back = from_pubsub(message, "topic", 1)

    assert len(back.headers) <= len(attributes)


def test_of_two_headers_of_one_name_the_first_is_sent() -> None:
    sent = to_pubsub(Message("topic", b"", headers=[("name", b"first"), ("name", b"second")]))

    assert dict(sent.attributes) == {"name": "first"}


def test_googles_own_attributes_are_not_sent_on_but_their_trace_is_read() -> None:
    message = to_pubsub(Message("topic", b"", headers=[("googclient_traceparent", b"00-ab")]))
    assert not message.attributes

    message.attributes["googclient_traceparent"] = "00-ab"

    assert from_pubsub(message, "topic", 1).header("traceparent") == "00-ab"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Message("t", b"", headers=[(f"n{number}", b"") for number in range(101)]), "101 attributes"),
        (Message("t", b"", headers=[("n" * 257, b"")]), "name is 257 bytes"),
        (Message("t", b"", headers=[("name", b"x" * 1025)]), "attribute of 1025 bytes"),
        (Message("t", b"", headers=[("name", b"\xff" * 1000)]), "attribute of 1336 bytes"),
        (Message("t", bytes(10_000_000)), "10000000 bytes"),
    ],
)
def test_what_the_service_would_refuse_is_refused_before(message: Message, said: str) -> None:
    with pytest.raises(TooLarge, match=said):
        to_pubsub(message)


def test_the_largest_messages_are_taken() -> None:
    headers: list[tuple[str, bytes | None]] = [(f"n{number:255}", b"x" * 1024) for number in range(100)]

    message = to_pubsub(Message("t", bytes(9_800_000), headers=headers))

    assert size(message) <= 10_000_000


def test_every_dead_letter_fits() -> None:
    headers: list[tuple[str, bytes | None]] = [(f"name-{number}", b"x" * 1024) for number in range(100)]
    letter = Message("t", bytes(2_000_000), key=b"k", headers=headers, position=Position(0, 2**62, 1))

    sent = to_pubsub(dead_letter(letter, "t.dlt", BadMessage(ErrorCode.BAD_ID, "why"), group="repliers"))
    again = dict(from_pubsub(sent, "t.dlt", 1).headers)

    assert again["kafka_dlt-original-offset"] == struct.pack(">q", 2**62)
    assert again["dead_letter_code"] == b"BAD_ID"


def test_of_two_correlation_ids_the_first_is_key_and_header() -> None:
    attributes = {"correlation_id;base64": "Zm9yZ2Vk", "correlation_id": "mine"}

    back = from_pubsub(PubsubMessage(data=b"", attributes=attributes), "requests", 1)

    assert back.key == b"mine"
    assert back.header("correlation_id") == "mine"
