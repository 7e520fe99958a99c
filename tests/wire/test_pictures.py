"""PNG and JPEG."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from imagebus.errors import BadMessage
from imagebus.wire.pictures import read_picture
from imagebus.wire.pixels import FASHION

from .rig import code_of, images_of


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


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_picture_of_the_right_size_is_taken_as_it_is(format: str) -> None:
    grey = np.full((28, 28), 128, np.uint8)

    images = images_of(picture(Image.fromarray(grey), format), f"image/{format.lower()}")

    assert images.shape == (1, 28, 28)
    np.testing.assert_allclose(images[0].astype(int), grey, atol=2)  # JPEG loses a little


def test_a_larger_picture_keeps_its_proportions_on_black() -> None:
    wide = Image.new("RGB", (280, 140), "white")

    image = read_picture(picture(wide), FASHION)

    assert image[14, 14] == 255
    assert (image[:7] == 0).all()
    assert (image[21:] == 0).all()


def test_transparency_is_black_and_colour_is_luma() -> None:
    transparent = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    red = Image.new("RGB", (28, 28), (255, 0, 0))

    assert (read_picture(picture(transparent), FASHION) == 0).all()
    assert (read_picture(picture(red), FASHION) == 76).all()  # ITU-R 601: 0.299 of red


def test_sixteen_bit_grey_is_scaled() -> None:
    deep = Image.fromarray(np.full((28, 28), 0x8000, np.uint16))

    assert (read_picture(picture(deep), FASHION) == 0x80).all()


def test_a_picture_cut_off_anywhere_has_a_code() -> None:
    whole = picture(Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)))

    codes = {code_of(whole[:length], "image/png") for length in range(1, len(whole))}

    assert codes == {"BAD_IMAGE"}


def test_other_picture_formats_are_not_opened() -> None:
    assert code_of(picture(Image.new("L", (28, 28)), "GIF"), "image/png") == "BAD_IMAGE"


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (9_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    assert code_of(png_header(width, height), "image/png") == "PIXELS_MAX"


@pytest.mark.parametrize("filling", [b"\xff\x01", b"\xff", b"\xff\x01\x00"])
def test_a_jpeg_of_nothing_but_markers_is_refused_before_it_takes_memory(filling: bytes) -> None:
    value = b"\xff\xd8" + filling * 3_000_000

    tracemalloc.start()
    with pytest.raises(BadMessage) as refusal:
        read_picture(value, FASHION)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert refusal.value.code == "BAD_IMAGE"
    assert most < 8_000_000


def test_a_jpeg_with_a_profile_in_many_segments_is_read() -> None:
    encoded = io.BytesIO()
    Image.new("L", (28, 28), 9).save(encoded, "JPEG", icc_profile=bytes(5_000_000))

    assert read_picture(encoded.getvalue(), FASHION).max() == 9
