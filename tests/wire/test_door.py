"""The door: what comes in by it, in which dialect and for which classifier, and what goes out."""

from __future__ import annotations

import io
import tokenize
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imagebus
from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.dialects import BY_CONTENT_TYPE, DIALECTS
from imagebus.wire.envelope import Envelope, sha256_hex
from imagebus.wire.message import Message
from imagebus.wire.pixels import FASHION, ImageSpec, encode_request
from imagebus.wire.replies import encode_error, encode_reply
from imagebus.wire.requests import read_request

from ..fakes import LABELS, FirstPixel, package
from .rig import refused, request, unanswerable, v2

OTHER = ImageSpec(height=4, width=6, channels=1, dtype="uint8")


def test_a_request_comes_in_with_who_asks_and_of_which_images() -> None:
    message = encode_request(package(1, 2), "requests", id="a")

    envelope, images = read_request(message, FASHION, reply_topics=())

    assert (envelope.id, envelope.sha256, envelope.intact) == ("a", sha256_hex(message.value), True)
    np.testing.assert_array_equal(images, package(1, 2))


def test_the_first_thing_that_is_wrong_is_the_one_that_is_said() -> None:
    wrong: dict[str, str | bytes | None] = {
        "reply_to": "elsewhere",
        "status": "ok",
        "sha256": "0" * 64,
        "deadline": "1",
        "content_type": "image/gif",
    }
    expected = {
        "reply_to": ErrorCode.REPLY_TO,
        "status": ErrorCode.WRONG_TYPE,
        "sha256": ErrorCode.HASH_MISMATCH,
        "deadline": ErrorCode.EXPIRED,
        "content_type": ErrorCode.FORMAT,
    }

    assert unanswerable(request(bytes(784), **wrong)) == ErrorCode.NO_ID
    assert unanswerable(request(bytes(784), **wrong, correlation_id="../x")) == ErrorCode.BAD_ID
    for header, code in expected.items():
        assert refused(request(bytes(784), **wrong, correlation_id="1")) == code
        del wrong[header]


def test_a_request_may_have_as_many_images_as_the_replier_says() -> None:
    message = encode_request(package(1, 2, 3), "requests")

    assert len(read_request(message, FASHION, reply_topics=(), max_images=3).images) == 3
    with pytest.raises(BadMessage, match="a request has 1 to 2 images"):
        read_request(message, FASHION, reply_topics=(), max_images=2)


@pytest.mark.parametrize("content_type", sorted(BY_CONTENT_TYPE))
def test_each_content_type_is_answered_in_the_dialect_in_which_it_asks(content_type: str) -> None:
    values = {
        "application/octet-stream": package(3).tobytes(),
        "application/json": v2(package(3).ravel().tolist()),
        "image/png": encoded(package(3)[0], "PNG"),
        "image/jpeg": encoded(package(0)[0], "JPEG"),
    }
    model = FirstPixel()
    message = request(values[content_type], correlation_id="1", content_type=content_type)

    envelope, images = read_request(message, model.spec, reply_topics=())
    answer = encode_reply(envelope, "replies", model.model, LABELS, model.predict(images))
    error = encode_error(envelope, "replies", BadMessage("SHAPE", "text"))

    assert DIALECTS[envelope.dialect] is BY_CONTENT_TYPE[content_type]
    for reply, status in ((answer, "ok"), (error, "error")):
        assert reply.header("correlation_id") == "1"
        assert reply.header("status") == status
        assert (b'"model_name"' in reply.value or b'"error":"' in reply.value) == (
            content_type == "application/json"
        )


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_each_dialect_writes_an_error_under_the_id_of_its_request(name: str) -> None:
    envelope = Envelope("some-id", "0" * 64, dialect=name)

    error = encode_error(envelope, "replies", BadMessage("SHAPE", "what is wrong"))

    assert b"some-id" in error.value
    assert b"SHAPE" in error.value
    assert b"what is wrong" in error.value


def test_images_of_another_size_are_read_for_a_classifier_that_takes_them() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6), np.uint8)

    raw = encode_request(images, "requests", spec=OTHER)
    flat = request(images.tobytes(), correlation_id="1", shape="2,24")
    unstated = request(images.tobytes(), correlation_id="1")
    json = request(v2(images.tolist(), images.shape), correlation_id="1", content_type="application/json")

    for message in (raw, flat, unstated, json):
        np.testing.assert_array_equal(read_request(message, OTHER, reply_topics=()).images, images)


def test_a_picture_is_fitted_into_another_size() -> None:
    white = np.full((10, 10), 255, np.uint8)
    message = request(encoded(white, "PNG"), correlation_id="1", content_type="image/png")

    (image,) = read_request(message, OTHER, reply_topics=()).images

    expected = np.zeros((4, 6), np.uint8)
    expected[:, 1:5] = 255
    np.testing.assert_array_equal(image, expected)


def test_a_refusal_names_the_size_that_is_taken() -> None:
    def said(message: Message) -> str:
        with pytest.raises(BadMessage) as refusal:
            read_request(message, OTHER, reply_topics=())
        return f"{refusal.value.code}: {refusal.value}"

    assert said(encode_request(package(0), "requests")) == "SHAPE: images are N,4,6"
    assert said(request(bytes(24), correlation_id="1", shape="x")) == "SHAPE: the shape header is not N,4,6"
    with pytest.raises(ValueError, match=r"images are uint8 \(1, 28, 28\), expected uint8 \(N, 4, 6\)"):
        encode_request(package(0), "requests", spec=OTHER)


@pytest.mark.parametrize(("channels", "dtype"), [(3, "uint8"), (1, "float32")])
def test_a_size_whose_pixels_nothing_here_reads_is_refused_where_it_is_stated(
    channels: int, dtype: str
) -> None:
    with pytest.raises(ValueError, match="not read yet"):
        ImageSpec(28, 28, channels, dtype)


def test_the_size_of_an_image_stands_in_one_place() -> None:
    root = Path(imagebus.__file__).parent

    places = [
        f"{path.relative_to(root)}: {token.line.strip()}"
        for path in root.rglob("*.py")
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.NUMBER and token.string in ("28", "784")
    ]

    assert places == 2 * [places[0]]
    assert places[0].startswith("wire/pixels.py: FASHION = ImageSpec(28, 28, 1")


def test_a_request_without_any_header_but_its_key_is_raw() -> None:
    envelope, images = read_request(Message("requests", bytes(784), b"1"), FASHION, reply_topics=())

    assert (envelope.id, envelope.intact) == ("1", None)
    assert images.shape == (1, 28, 28)


def encoded(grey: np.ndarray, format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format)
    return buffer.getvalue()
