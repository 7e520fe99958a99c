"""Requests, from their headers to raw pixels."""

from __future__ import annotations

import hashlib
import time
import uuid

import numpy as np
import pytest

from imagebus.wire.message import MAX_BYTES, MAX_HEADERS, Message
from imagebus.wire.pixels import Images, encode_request

from ..fakes import envelope_of, package
from .rig import code_of, images_of, read, refused, request, unanswerable


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
    first, second = (envelope_of(encode_request(package(1), "requests")) for _ in range(2))

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

    assert envelope_of(Message("t", body, b"key", [("correlation_id", b"header"), *headers])).id == "header"
    assert envelope_of(Message("t", body, b"key", headers)).id == "key"
    assert envelope_of(Message("t", body, None, headers)).id == "body"


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
    assert unanswerable(message) == "NO_ID"


@pytest.mark.parametrize(
    "id", ["", "a b", "a\n", "a\0b", "\x1b[2J", "../x", "é", "x" * 65, "x" * 10_000, b"\xff"]
)
def test_an_id_with_other_characters_cannot_be_answered(id: str | bytes) -> None:
    assert unanswerable(request(correlation_id=id)) == "BAD_ID"


def test_a_huge_key_is_not_an_id() -> None:
    assert unanswerable(Message("requests", b"pixels", key=b"k" * 1_000_000)) == "BAD_ID"


def test_a_wrong_hash_is_refused_and_its_case_does_not_matter() -> None:
    right = hashlib.sha256(bytes(784)).hexdigest()

    assert refused(request(correlation_id="1", sha256="0" * 64)) == "HASH_MISMATCH"
    assert refused(request(correlation_id="1", sha256="é")) == "HASH_MISMATCH"
    assert read(request(correlation_id="1", sha256=right.upper())).envelope.id == "1"


def test_what_is_no_request_is_refused() -> None:
    past = str(round(time.time() * 1000) - 1)

    assert refused(request(b"", correlation_id="1")) == "EMPTY"
    assert refused(request(correlation_id="1", status="ok")) == "WRONG_TYPE"
    assert refused(request(correlation_id="1", reply_to="__consumer_offsets")) == "REPLY_TO"
    assert refused(request(correlation_id="1", deadline=past)) == "EXPIRED"


def test_only_so_many_headers_are_looked_at() -> None:
    crowd = [("x", b"")] * MAX_HEADERS

    assert unanswerable(Message("requests", b"pixels", headers=[*crowd, ("correlation_id", b"1")])) == "NO_ID"


def test_raw_images_come_back_as_they_were_sent() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    message = encode_request(images, "requests")

    read_back = read(message).images

    np.testing.assert_array_equal(read_back, images)


def test_raw_images_need_no_shape() -> None:
    assert images_of(bytes(3 * 784)).shape == (3, 28, 28)


@pytest.mark.parametrize("shape", ["5,28,28,1", "5, 28, 28", "5,784"])
def test_a_shape_may_be_written_in_several_ways(shape: str) -> None:
    assert images_of(package(0, 1, 2, 3, 4).tobytes(), shape=shape).shape == (5, 28, 28)


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ("5,28,27", "SHAPE"),
        ("4,28,28", "SHAPE"),
        ("-5,28,28", "SHAPE"),
        ("", "SHAPE"),
        ("five", "SHAPE"),
        ("²,28,28", "SHAPE"),
        (",".join(["1"] * 33), "SHAPE"),
        ("5,28,28,1,1", "SHAPE"),
        ("0,28,28", "COUNT"),
        ("1001,28,28", "COUNT"),
        (f"{2**63},28,28", "SHAPE"),
    ],
)
def test_a_wrong_shape_has_a_code(shape: str, code: str) -> None:
    assert code_of(bytes(5 * 784), shape=shape) == code


def test_raw_images_of_another_type_have_a_code() -> None:
    assert code_of(bytes(784), dtype="float32") == "DTYPE"


def test_an_unknown_content_type_has_a_code() -> None:
    assert code_of(bytes(784), "image/gif") == "FORMAT"


def test_a_value_over_the_limit_has_a_code() -> None:
    assert code_of(bytes(MAX_BYTES + 1)) == "TOO_LARGE"
