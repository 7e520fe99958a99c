"""PNG and JPEG: cut off, lying, decorated, huge. Odd but whole pictures are served."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from imagebus.wire.pictures import MAX_PIXELS, MAX_SIDE, read_picture
from imagebus.wire.pixels import FASHION

from .rig import CANARY, IMAGE, JPEG, PNG, frugally, outcome, refused, request, served, v2

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NOISE = np.random.default_rng(0).integers(0, 256, (9, 10, 4), np.uint8)
PICTURE = Image.fromarray(NOISE)


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, *, bits: int = 8, colour: int = 0, method: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, method, 0, 0))


def png(width: int, height: int, pixels: bytes = b"", *before: bytes) -> bytes:
    """A grey PNG that claims a size, whatever pixels it has."""
    parts = (header(width, height), *before, chunk(b"IDAT", zlib.compress(pixels, 9)), chunk(b"IEND"))
    return SIGNATURE + b"".join(parts)


def refused_as(value: bytes, content_type: str = PNG) -> str:
    return refused(request(value, content_type=content_type))


def served_as(value: bytes, content_type: str = PNG) -> bool:
    return served(request(value, content_type=content_type))


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("PNG", "L", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 0}),
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {"optimize": True}),
    ],
)
def test_a_picture_cut_off_anywhere_is_refused(format: str, mode: str, options: dict[str, object]) -> None:
    whole = encoded(PICTURE.convert(mode), format, **options)
    assert served_as(whole)

    codes = {refused_as(whole[:length]) for length in range(1, len(whole))}

    assert codes == {"BAD_IMAGE"}


@pytest.mark.parametrize("content_type", [PNG, JPEG])
@pytest.mark.parametrize(
    "value",
    [
        b"\0",
        IMAGE,
        SIGNATURE,
        SIGNATURE + chunk(b"IEND"),
        SIGNATURE + header(28, 28) + chunk(b"IEND"),
        SIGNATURE + header(28, 28) + chunk(b"IDAT") + chunk(b"IEND"),
        SIGNATURE + header(28, 28) + chunk(b"IDAT", b"no zlib") + chunk(b"IEND"),
        SIGNATURE + chunk(b"IHDR", b"short") + chunk(b"IEND"),
        SIGNATURE + header(28, 28, bits=3) + chunk(b"IDAT") + chunk(b"IEND"),
        SIGNATURE + header(28, 28, colour=9) + chunk(b"IDAT") + chunk(b"IEND"),
        SIGNATURE + header(28, 28, method=1) + chunk(b"IDAT") + chunk(b"IEND"),
        SIGNATURE + struct.pack(">I", 2**31 - 1) + b"IHDR",
        SIGNATURE + struct.pack(">I", 2**32 - 1) + b"IHDR",
        png(0, 0),
        png(0, 28),
        png(28, 28, bytes(28 * 29)).replace(b"IHDR", b"iHDR"),
        png(28, 28, bytes(28 * 29))[:-16] + b"\0" * 4 + chunk(b"IEND"),
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff" + b"\0" * 1000,
        b"\xff\xd8\xff\xc0" + b"\xff" * 1000,
        encoded(PICTURE, "GIF"),
        encoded(PICTURE, "TIFF"),
        encoded(PICTURE.convert("RGB"), "BMP"),
        encoded(PICTURE.convert("RGB"), "WEBP"),
        encoded(PICTURE.convert("RGB"), "PPM"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        CANARY.encode(),
        v2([0] * 784),
    ],
)
def test_what_is_no_whole_png_or_jpeg_is_refused(value: bytes, content_type: str) -> None:
    assert refused_as(value, content_type) == "BAD_IMAGE"


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (20_000, 20_000),
        (9_000, 9_000),
        (10_000, 10_000),
        (4_001, 4_000),
        (2**31 - 1, 2**31 - 1),
        (2**31 - 1, 1),
        (MAX_PIXELS, 1),
        (1, MAX_PIXELS),
        (MAX_SIDE + 1, 1),
        (1, MAX_SIDE + 1),
    ],
)
def test_a_pixel_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    bomb = png(width, height)

    with warnings.catch_warnings(action="error"):
        assert len(bomb) < 90
        assert frugally(refused, request(bomb, content_type=PNG)) == "PIXELS_MAX"


def test_a_pixel_bomb_as_jpeg_is_refused_too() -> None:
    small = encoded(PICTURE.convert("L"), "JPEG")
    place = small.index(b"\xff\xc0") + 5
    bomb = small[:place] + struct.pack(">HH", 65_000, 65_000) + small[place + 4 :]

    assert frugally(refused, request(bomb, content_type=JPEG)) == "PIXELS_MAX"


@pytest.mark.parametrize(
    ("width", "height"), [(4_000, 4_000), (MAX_SIDE, 1), (1, MAX_SIDE), (1, 1), (29, 27)]
)
def test_the_largest_and_oddest_pictures_within_the_limits_are_served(width: int, height: int) -> None:
    assert served_as(encoded(Image.new("L", (width, height))))


def test_pixels_that_a_header_claims_and_that_are_not_there_are_black() -> None:
    assert served_as(png(28, 28, b"\0" + b"\x09" * 28))
    assert read_picture(png(28, 28, b"\0" + b"\x09" * 28), FASHION).sum() == 28 * 9


def test_a_header_that_claims_less_than_there_is_is_believed() -> None:
    assert read_picture(png(1, 1, b"\0" + b"\xff" * 1000), FASHION).max() == 255


TEXT = zlib.compress(b"x" * 1_000_000, 9)


@pytest.mark.parametrize(
    "bombs",
    [
        [chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 100_000_000, 9))],
        [chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"x" * 100_000_000, 9))],
        [chunk(b"iCCP", b"k\0\0" + zlib.compress(b"x" * 100_000_000, 9))],
        [chunk(b"zTXt", b"k%d\0\0" % number + TEXT) for number in range(200)],
        [chunk(b"iTXt", b"k%d\0\1\0\0\0" % number + TEXT) for number in range(200)],
        [chunk(b"tEXt", b"k%d\0v" % number) for number in range(20_000)],
    ],
)
def test_texts_in_a_picture_do_not_unfold(bombs: list[bytes]) -> None:
    bomb = png(28, 28, bytes(28 * 29), *bombs)

    assert frugally(lambda sent: outcome(sent).code, request(bomb, content_type=PNG)) == "ok"


@pytest.mark.parametrize(
    "value",
    [
        encoded(PICTURE, save_all=True, append_images=[PICTURE.rotate(180)]),
        encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) << 8)),
        encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) << 8), transparency=0),
        encoded(PICTURE.convert("1")),
        encoded(PICTURE.convert("LA")),
        encoded(PICTURE.convert("L"), transparency=0),
        encoded(PICTURE.convert("RGB"), transparency=(0, 0, 0)),
        encoded(PICTURE.convert("P"), transparency=b"\0\x80\xff"),
        encoded(PICTURE.convert("L"), "JPEG"),
        encoded(PICTURE.convert("CMYK"), "JPEG"),
        encoded(PICTURE.convert("YCbCr"), "JPEG", progressive=True),
        encoded(PICTURE.convert("L")) + b"what comes after the end",
    ],
)
@pytest.mark.parametrize("content_type", [PNG, JPEG])
def test_whole_pictures_of_every_kind_are_served_under_either_name(value: bytes, content_type: str) -> None:
    assert served_as(value, content_type)


def test_an_interlaced_picture_is_served() -> None:
    def rows(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
        return b"".join(b"\0" + row.tobytes() for row in pixels) if pixels.size else b""

    grey = np.arange(784, dtype=np.uint8).reshape(28, 28)
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    pixels = b"".join(rows(grey[top::down, left::right]) for top, left, down, right in passes)
    first = chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 1))
    interlaced = SIGNATURE + first + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND")

    np.testing.assert_array_equal(read_picture(interlaced, FASHION), grey)
    assert served_as(interlaced)


def exif(*entries: tuple[int, int, int, int], order: str = "<", count: int | None = None) -> bytes:
    """EXIF data with these tags: each its number, type, count and value."""
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HIH", 42, 8, len(entries) if count is None else count)
    return b"Exif\0\0" + head + b"".join(struct.pack(order + "HHIHH", *each, 0) for each in entries)


CORNER = Image.fromarray(
    np.pad(np.full((8, 8), 255, np.uint8), ((0, 20), (0, 20)))
)  # white at the upper left


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_picture_that_says_it_lies_on_its_side_is_turned(format: str, order: str) -> None:
    about = exif((0x010F, 2, 1, 0), (0x0112, 3, 1, 6), order=order)

    turned = read_picture(encoded(CORNER, format, exif=about), FASHION)

    assert (turned[2, 2] < 9, turned[2, 25] > 246) == (True, True)


@pytest.mark.parametrize(
    "about",
    [
        exif((0x0112, 3, 1, 0)),
        exif((0x0112, 3, 1, 9)),
        exif((0x0112, 3, 1, 65_535)),
        exif((0x0112, 3, 2, 6)),
        exif((0x0112, 4, 1, 6)),
        exif((0x0112, 3, 1, 6))[:-4],
        exif(count=65_535),
        exif((0x0112, 3, 1, 6)).replace(struct.pack("<I", 8), struct.pack("<I", 2**32 - 1), 1),
        exif((0x0112, 3, 1, 6)).replace(b"II*\0", b"II+\0"),
        exif((0x0112, 3, 1, 6)).replace(b"II*\0", b"XX*\0"),
        b"Exif\0\0",
        b"Exif\0\0II",
    ],
)
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_picture_whose_orientation_is_none_is_taken_as_it_lies(format: str, about: bytes) -> None:
    with warnings.catch_warnings(action="error"):
        taken = read_picture(encoded(CORNER, format, exif=about), FASHION)

    assert (taken[2, 2] > 246, taken[2, 25] < 9) == (True, True)


@pytest.mark.parametrize(("format", "content_type"), [("PNG", PNG), ("JPEG", JPEG)])
def test_exif_data_whose_tags_overlap_do_not_unfold(format: str, content_type: str) -> None:
    # Each of these tags claims the same 40 kB.
    about = exif(*((tag, 7, 40_000, 0) for tag in range(0x9000, 0x9000 + 3_000)))

    sent = request(
        encoded(Image.new("L", (28, 28)), format, exif=about + bytes(25_000)), content_type=content_type
    )

    assert frugally(lambda each: outcome(each).code, sent) == "ok"


def test_the_transparent_colour_of_a_picture_is_black() -> None:
    white = Image.new("RGB", (28, 28), "white")

    assert (read_picture(encoded(white, transparency=(255, 255, 255)), FASHION) == 0).all()


def test_half_transparent_white_is_half_grey() -> None:
    half = Image.new("LA", (28, 28), (255, 128))

    assert (read_picture(encoded(half), FASHION) == 128).all()
    assert (read_picture(encoded(half.convert("RGBA")), FASHION) == 128).all()


def test_what_a_picture_says_of_itself_is_not_repeated() -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", CANARY)

    came = outcome(request(encoded(PICTURE, pnginfo=about), content_type=PNG)).message

    assert CANARY.encode() not in came.value
