"""The pixels of a request, in three content types."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebus.errors import BadMessage
from imagebus.wire.message import MAX_BYTES, Message
from imagebus.wire.pictures import read_picture
from imagebus.wire.pixels import Images, encode_request
from imagebus.wire.requests import read_envelope, read_images

from .fakes import package


def read(value: bytes, content_type: str = "application/octet-stream", **headers: str) -> Images:
    pairs = [("correlation_id", b"1"), ("content-type", content_type.encode())]
    message = Message(
        "requests", value, headers=pairs + [(name, text.encode()) for name, text in headers.items()]
    )
    return read_images(read_envelope(message), message)


def code_of(value: bytes, content_type: str = "application/octet-stream", **headers: str) -> str:
    with pytest.raises(BadMessage) as refused:
        read(value, content_type, **headers)
    return refused.value.code


def v2(data: Any, shape: Any = (1, 28, 28), datatype: Any = "UINT8") -> bytes:
    tensor = {"name": "images", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def picture(image: Image.Image, format: str = "PNG") -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format)
    return encoded.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_raw_images_come_back_as_they_were_sent() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    message = encode_request(images, "requests")

    read_back = read_images(read_envelope(message), message)

    np.testing.assert_array_equal(read_back, images)


def test_raw_images_need_no_shape() -> None:
    assert read(bytes(3 * 784)).shape == (3, 28, 28)


@pytest.mark.parametrize("shape", ["5,28,28,1", "5, 28, 28", "5,784"])
def test_a_shape_may_be_written_in_several_ways(shape: str) -> None:
    assert read(package(0, 1, 2, 3, 4).tobytes(), shape=shape).shape == (5, 28, 28)


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


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_picture_of_the_right_size_is_taken_as_it_is(format: str) -> None:
    grey = np.full((28, 28), 128, np.uint8)

    images = read(picture(Image.fromarray(grey), format), f"image/{format.lower()}")

    assert images.shape == (1, 28, 28)
    np.testing.assert_allclose(images[0].astype(int), grey, atol=2)  # JPEG loses a little


def test_a_larger_picture_keeps_its_proportions_on_black() -> None:
    wide = Image.new("RGB", (280, 140), "white")

    image = read_picture(picture(wide))

    assert image[14, 14] == 255
    assert (image[:7] == 0).all()
    assert (image[21:] == 0).all()


def test_transparency_is_black_and_colour_is_luma() -> None:
    transparent = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    red = Image.new("RGB", (28, 28), (255, 0, 0))

    assert (read_picture(picture(transparent)) == 0).all()
    assert (read_picture(picture(red)) == 76).all()  # ITU-R 601: 0.299 of red


def test_sixteen_bit_grey_is_scaled() -> None:
    deep = Image.fromarray(np.full((28, 28), 0x8000, np.uint16))

    assert (read_picture(picture(deep)) == 0x80).all()


def test_a_picture_cut_off_anywhere_has_a_code() -> None:
    whole = picture(Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)))

    codes = {code_of(whole[:length], "image/png") for length in range(1, len(whole))}

    assert codes == {"BAD_IMAGE"}


def test_other_picture_formats_are_not_opened() -> None:
    assert code_of(picture(Image.new("L", (28, 28)), "GIF"), "image/png") == "BAD_IMAGE"


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (9_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    assert code_of(png_header(width, height), "image/png") == "PIXELS_MAX"


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 28, 28, 1), (2, 784)])
def test_v2_integers_are_grey_levels(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)

    flat = read(v2(images.ravel().tolist(), shape), "application/json")
    nested = read(v2(images.tolist(), shape), "application/json")

    np.testing.assert_array_equal(flat, images)
    np.testing.assert_array_equal(nested, images)


def test_v2_floats_up_to_one_are_fractions_of_255() -> None:
    fractions = read(v2([0.0] * 783 + [1.0], datatype="FP32"), "application/json")
    levels = read(v2([0.0] * 783 + [200.0], datatype="FP32"), "application/json")

    assert fractions.max() == 255
    assert levels.max() == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[1", "JSON"),
        (b"{}", "JSON"),
        (b'{"inputs": []}', "JSON"),
        (b'{"inputs": 5}', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"inputs": [{"shape": [1, 28, 28], "datatype": "UINT8", "data": [NaN]}]}', "JSON"),
        (v2([0] * 783 + [10**400]), "JSON"),
        (v2([0] * 784, datatype="BYTES"), "DTYPE"),
        (v2([0] * 784, datatype=None), "DTYPE"),
        (v2(["0"] * 784), "DTYPE"),
        (v2(None), "DTYPE"),
        (v2({"a": 1}), "DTYPE"),
        (v2([0] * 784, shape="1,28,28"), "SHAPE"),
        (v2([0] * 784, shape=[1, 28, 28.0]), "SHAPE"),
        (v2([0] * 784, shape=[True, 28, 28]), "SHAPE"),
        (v2([0] * 783), "SHAPE"),
        (v2([[0] * 28] * 27 + [[0] * 27]), "SHAPE"),
        (v2([0] * 784, shape=[2**62, 28, 28]), "COUNT"),
        (v2([0] * 783 + [256]), "VALUES"),
        (v2([0] * 783 + [-1]), "VALUES"),
    ],
)
def test_wrong_v2_json_has_a_code(body: bytes, code: str) -> None:
    assert code_of(body, "application/json") == code
