"""What is on the wire: envelopes, requests and replies."""

from __future__ import annotations

import hashlib
import json
import time
import uuid

import numpy as np
import pytest

from imagebus.errors import BadMessage
from imagebus.wire.dead_letters import dead_letter
from imagebus.wire.message import MAX_HEADERS, Message
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.replies import encode_error, encode_reply
from imagebus.wire.requests import check_envelope, read_envelope
from imagebus.wire.results import ErrorReply, Model, Reply, decode_reply

from .fakes import LABELS, package

MODEL = Model("fashion", "1.0.0", "ab" * 32)


def request(value: bytes = b"pixels", **headers: str | bytes | None) -> Message:
    encoded = [
        (name.replace("_type", "-type"), text.encode() if isinstance(text, str) else text)
        for name, text in headers.items()
    ]
    return Message("requests", value, headers=encoded)


def code_of(message: Message) -> str:
    with pytest.raises(BadMessage) as refused:
        check_envelope(read_envelope(message), message, reply_topics=("replies",))
    return refused.value.code


def test_a_request_says_what_it_is() -> None:
    images = package(1, 2, 3, 4, 5)

    message = encode_request(images, "requests", deadline=1, top=5)

    headers = dict(message.headers)
    assert message.key is not None
    assert uuid.UUID(message.key.decode()).version == 4
    assert headers == {
        "correlation_id": message.key,
        "sha256": hashlib.sha256(images.tobytes()).hexdigest().encode(),
        "content-type": b"application/octet-stream",
        "shape": b"5,28,28",
        "dtype": b"uint8",
        "deadline": b"1",
        "top": b"5",
    }
    assert message.value == images.tobytes()


def test_the_same_images_travel_under_different_ids_and_the_same_hash() -> None:
    first, second = (read_envelope(encode_request(package(1), "requests")) for _ in range(2))

    assert first.id != second.id
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    "images",
    [np.zeros((5, 28, 27), np.uint8), np.zeros((28, 28), np.uint8), np.zeros((1, 28, 28), np.float32)],
)
def test_a_request_of_other_images_is_refused_where_it_is_made(images: Images) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 28, 28\)"):
        encode_request(images, "requests")


def test_the_id_is_the_header_else_the_key_else_the_v2_body() -> None:
    body = b'{"id": "body", "inputs": []}'
    headers = [("content-type", b"application/json")]

    assert read_envelope(Message("t", body, b"key", [("correlation_id", b"header"), *headers])).id == "header"
    assert read_envelope(Message("t", body, b"key", headers)).id == "key"
    assert read_envelope(Message("t", body, None, headers)).id == "body"


@pytest.mark.parametrize(
    "message",
    [
        request(),
        request(b"{}", content_type="application/json"),
        request(b"[1", content_type="application/json"),
        request(b'{"id": 7}', content_type="application/json"),
        request(correlation_id=None),
    ],
)
def test_a_request_without_a_readable_id_cannot_be_answered(message: Message) -> None:
    assert code_of(message) == "NO_ID"


@pytest.mark.parametrize(
    "id", ["", "a b", "a\n", "a\0b", "\x1b[2J", "../x", "é", "x" * 65, "x" * 10_000, b"\xff"]
)
def test_an_id_with_other_characters_cannot_be_answered(id: str | bytes) -> None:
    assert code_of(request(correlation_id=id)) == "BAD_ID"


def test_a_huge_key_is_not_an_id() -> None:
    assert code_of(Message("requests", b"pixels", key=b"k" * 1_000_000)) == "BAD_ID"


def test_a_wrong_hash_is_refused_and_its_case_does_not_matter() -> None:
    right = hashlib.sha256(b"pixels").hexdigest()

    assert code_of(request(correlation_id="1", sha256="0" * 64)) == "HASH_MISMATCH"
    assert code_of(request(correlation_id="1", sha256="é")) == "HASH_MISMATCH"
    message = request(correlation_id="1", sha256=right.upper())
    check_envelope(read_envelope(message), message, reply_topics=("replies",))


def test_what_is_no_request_is_refused() -> None:
    past = str(round(time.time() * 1000) - 1)

    assert code_of(request(b"", correlation_id="1")) == "EMPTY"
    assert code_of(request(correlation_id="1", status="ok")) == "WRONG_TYPE"
    assert code_of(request(correlation_id="1", reply_to="__consumer_offsets")) == "REPLY_TO"
    assert code_of(request(correlation_id="1", deadline=past)) == "EXPIRED"


def test_only_so_many_headers_are_looked_at() -> None:
    crowd = [("x", b"")] * MAX_HEADERS

    assert code_of(Message("requests", b"pixels", headers=[*crowd, ("correlation_id", b"1")])) == "NO_ID"


def test_a_reply_comes_back_as_it_was_predicted() -> None:
    request = encode_request(package(3, 7), "requests")
    envelope = read_envelope(request)
    probabilities = np.full((2, 10), 0.01, np.float32)
    probabilities[0, 3] = probabilities[1, 7] = 0.91

    message = encode_reply(envelope, "replies", MODEL, LABELS, probabilities)
    reply = decode_reply(message)

    assert isinstance(reply, Reply)
    assert (reply.id, reply.sha256, reply.model) == (envelope.id, envelope.sha256, MODEL)
    assert [prediction.label for prediction in reply.predictions] == ["d", "h"]
    assert reply.predictions[0].top == (("d", 0.91), ("a", 0.01), ("b", 0.01))
    assert message.key == request.key
    assert message.header("status") == "ok"
    assert message.header("correlation_id") == envelope.id


def test_a_reply_can_be_read_without_this_project() -> None:
    envelope = read_envelope(encode_request(package(0), "requests", top=1))
    probabilities = np.array([[1, *[0] * 9]], np.float32)

    message = encode_reply(envelope, "replies", MODEL, LABELS, probabilities)

    assert json.loads(message.value) == {
        "id": envelope.id,
        "sha256": envelope.sha256,
        "model": {"name": "fashion", "version": "1.0.0", "sha256": "ab" * 32},
        "predictions": [{"label": "a", "probability": 1.0, "top": [["a", 1.0]]}],
    }


def test_an_error_reply_comes_back_with_its_code() -> None:
    envelope = read_envelope(encode_request(package(0), "requests"))

    message = encode_error(envelope, "replies", BadMessage("SHAPE", "images are N,28,28"))

    assert decode_reply(message) == ErrorReply(
        envelope.id, envelope.sha256, "SHAPE", "images are N,28,28", retryable=False
    )
    assert message.header("status") == "error"


def test_a_v2_request_is_answered_in_v2() -> None:
    message = request(b"{}", correlation_id="1", content_type="application/json; charset=utf-8")
    envelope = read_envelope(message)

    body = json.loads(
        encode_reply(envelope, "replies", MODEL, LABELS, np.eye(10, dtype=np.float32)[:2]).value
    )
    error = json.loads(encode_error(envelope, "replies", BadMessage("SHAPE", "images are N,28,28")).value)

    assert body["model_name"], body["id"] == ("fashion", "1")
    assert [output["name"] for output in body["outputs"]] == ["probabilities", "labels"]
    assert body["outputs"][0]["shape"] == [2, 10]
    assert body["outputs"][1]["data"] == ["a", "b"]
    assert error == {"error": "SHAPE: images are N,28,28", "id": "1"}


def test_the_trace_context_is_passed_on() -> None:
    envelope = read_envelope(request(correlation_id="1", traceparent="00-aa-bb-01"))

    reply = encode_error(envelope, "replies", BadMessage("SHAPE", "text"))

    assert reply.header("traceparent") == "00-aa-bb-01"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"id": "1"}',
        b'{"id": 1, "sha256": "", "error": {"code": "A", "message": "", "retryable": false}}',
        b'{"id": "1", "sha256": "", "model": {}, "predictions": []}',
        b'{"id": "1", "sha256": "", "model": {"name": "", "version": "", "sha256": ""}, "predictions": 5}',
        b'{"id": "1", "sha256": "", "model": {"name": "", "version": "", "sha256": ""},'
        b' "predictions": [{"label": "a", "probability": 2, "top": []}]}',
        b'{"id": "1", "sha256": "", "model": {"name": "", "version": "", "sha256": ""},'
        b' "predictions": [{"label": 1, "probability": 1, "top": []}]}',
    ],
)
def test_what_is_no_reply_is_refused(value: bytes) -> None:
    with pytest.raises(BadMessage, match="not a reply"):
        decode_reply(Message("replies", value))


def test_a_dead_letter_keeps_the_bytes_and_says_why() -> None:
    message = request(b"\x00\xff", strange=b"\xfe")

    letter = dead_letter(message, "requests.dlt", BadMessage("NO_ID", "no id"))

    assert (letter.topic, letter.value) == ("requests.dlt", b"\x00\xff")
    assert ("strange", b"\xfe") in letter.headers
    assert letter.header("dead_letter_code") == "NO_ID"
    assert letter.header("kafka_dlt-original-topic") == "requests"
    assert letter.header("kafka_dlt-exception-message") == "NO_ID: no id"
