"""Replies: what the replier writes, the client reads."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.message import Message
from imagebus.wire.pixels import encode_request
from imagebus.wire.replies import encode_error, encode_reply
from imagebus.wire.results import ErrorReply, Model, Reply, decode_reply

from ..fakes import LABELS, envelope_of, package
from .rig import request

MODEL = Model("fashion", "1.0.0", "ab" * 32)


def test_a_reply_comes_back_as_it_was_predicted() -> None:
    request = encode_request(package(3, 7), "requests")
    envelope = envelope_of(request)
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
    envelope = envelope_of(encode_request(package(0), "requests", top=1))
    probabilities = np.array([[1, *[0] * 9]], np.float32)

    message = encode_reply(envelope, "replies", MODEL, LABELS, probabilities)

    assert json.loads(message.value) == {
        "id": envelope.id,
        "sha256": envelope.sha256,
        "model": {"name": "fashion", "version": "1.0.0", "sha256": "ab" * 32},
        "predictions": [{"label": "a", "probability": 1.0, "top": [["a", 1.0]]}],
    }


def test_an_error_reply_comes_back_with_its_code() -> None:
    envelope = envelope_of(encode_request(package(0), "requests"))

    message = encode_error(envelope, "replies", BadMessage("SHAPE", "images are N,28,28"))

    assert decode_reply(message) == ErrorReply(
        envelope.id, envelope.sha256, "SHAPE", "images are N,28,28", retryable=False
    )
    assert message.header("status") == "error"


def test_the_trace_context_is_passed_on() -> None:
    envelope = envelope_of(request(correlation_id="1", traceparent="00-aa-bb-01"))

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


def test_expired_tells_which_deadline_passed_and_by_which_clock() -> None:
    envelope = envelope_of(encode_request(package(0), "requests", deadline=1234))

    expired = encode_error(envelope, "replies", BadMessage(ErrorCode.EXPIRED, "too late"))
    other = encode_error(envelope, "replies", BadMessage(ErrorCode.SHAPE, "text"))

    assert expired.header("deadline") == "1234"
    assert abs(int(expired.header("replier_time") or 0) - time.time() * 1000) < 60_000
    assert other.header("deadline") is other.header("replier_time") is None
