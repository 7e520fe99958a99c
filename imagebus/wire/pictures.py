"""PNG and JPEG read into grey levels.

Limits are checked from headers and file headers, before anything large is decoded or allocated.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin, PngImagePlugin

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.envelope import Envelope
from imagebus.wire.orientation import EXIF_START, upright
from imagebus.wire.pixels import Images, ImageSpecLike

MAX_PIXELS = 16_000_000  # of one PNG or JPEG: a phone's photo, which takes 64 MB decoded
MAX_SIDE = 65_535  # pixels of one side, JPEG's own limit: Lanczos on a line of 16 million takes 770 MB
PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# The chunks needed for the pixels. Enough texts and profiles would unfold to 64 MB in Pillow.
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# JPEG's markers, after 0xFF. Pillow would read all tags of EXIF data, print warnings, and keep profiles.
_JPEG_ABOUT = frozenset(
    {*range(0xE1, 0xEE), 0xEF, 0xFE}
)  # not JFIF and Adobe, which say how colours are coded
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # no length follows
_JPEG_NO_MARKER = frozenset({0x00, 0xFF})
_JPEG_SCAN = 0xDA
_JPEG_SEGMENTS = (
    10_000  # and bytes between them, before the pixels: a profile and a preview take a few hundred
)
# Makes another grey picture of one, before transparency is laid on black; the second is with it on black.
Turn = Callable[[Image.Image, Image.Image], Image.Image]


def read_one(_: Envelope, value: bytes, spec: ImageSpecLike, __: int) -> Images:
    """A request of one picture."""
    return read_picture(value, spec)[np.newaxis]


def read_picture(encoded: bytes, spec: ImageSpecLike, turn: Turn | None = None) -> Images:
    """One PNG or JPEG as uint8 (height, width).

    The rule: a picture is made grey (ITU-R 601 luma, transparency on black) and turned upright by its EXIF
    orientation. One of that size is then taken as it is. Any other is shrunk or grown until it just fits (Lanczos),
    and centred on black, which is Fashion-MNIST's background. Of an animation it is the first picture. Raises
    `BadMessage` (`BAD_IMAGE`, `PIXELS_MAX`).
    """
    try:
        picture, exif = _opened(encoded)
        with picture:
            _check_pixels(picture.width, picture.height)
            return _fitted(upright(_grey(picture, turn), exif), spec)
    except BadMessage:
        raise
    except Exception as error:  # on nonsense, parsers raise anything: struct.error, KeyError, ...
        raise BadMessage(ErrorCode.BAD_IMAGE, "the picture cannot be decoded as PNG or JPEG") from error


def _opened(encoded: bytes) -> tuple[Image.Image, bytes | None]:
    """A picture and its EXIF data. Not `Image.open`, which tries more formats, and only warns of 100 million pixels."""
    if encoded.startswith(PNG_START):
        bare, exif = _bare_png(encoded)
        return PngImagePlugin.PngImageFile(io.BytesIO(bare)), exif
    if encoded.startswith(JPEG_START):
        bare, exif = _bare_jpeg(encoded)
        return JpegImagePlugin.JpegImageFile(io.BytesIO(bare)), exif
    raise BadMessage(ErrorCode.BAD_IMAGE, "the picture is neither PNG nor JPEG")


def _bare_png(encoded: bytes) -> tuple[bytes, bytes | None]:
    """A PNG with only the chunks for its pixels, and its EXIF data; raises when cut off or a checksum is wrong."""
    start = len(PNG_START)
    length, kind, width, height = struct.unpack_from(">I4sII", encoded, start)
    if (length, kind) != (13, b"IHDR"):
        raise ValueError("it does not begin with its header")
    _check_pixels(width, height)
    kept, exif, place = [PNG_START], None, start
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", encoded, place)
        chunk = encoded[place : place + length + 12]  # around its data stand length, kind and checksum
        if len(chunk) < length + 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise ValueError("a chunk is not whole")
        if kind in _PNG_CHUNKS:
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = chunk[8:-4]
        place += len(chunk)
    return b"".join(kept), exif


def _bare_jpeg(encoded: bytes) -> tuple[bytes, bytes | None]:
    """A JPEG with only the segments for its pixels, and its EXIF data; raises when its header is cut off."""
    kept, exif, place = [encoded[:2]], None, 2
    for _ in range(_JPEG_SEGMENTS):
        place = encoded.index(b"\xff", place)  # between segments there may be other bytes, and more of 0xFF
        marker = encoded[place + 1]
        if marker in _JPEG_NO_MARKER:
            place += 1
            continue
        if marker == _JPEG_SCAN:
            return b"".join([*kept, encoded[place:]]), exif
        (length,) = (0,) if marker in _JPEG_ALONE else struct.unpack_from(">H", encoded, place + 2)
        segment = encoded[place : place + 2 + length]
        if marker not in _JPEG_ABOUT:
            kept.append(segment)
        elif exif is None and segment[4:].startswith(EXIF_START):
            exif = segment[4:]
        place += len(segment)
    raise ValueError("it has more segments than any camera writes")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BadMessage(
            ErrorCode.PIXELS_MAX, f"a picture has at most {MAX_PIXELS} pixels, and {MAX_SIDE} on a side"
        )


def _grey(picture: Image.Image, turn: Turn | None) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if not picture.has_transparency_data:
        grey = picture.convert("L")
        return turn(grey, grey) if turn else grey
    if "A" not in picture.getbands():
        picture = picture.convert("RGBA")
    # The same as laying it on black, with a quarter of the memory.
    grey, alpha = picture.convert("L"), picture.getchannel("A")
    on_black = ImageChops.multiply(grey, alpha)
    return ImageChops.multiply(turn(grey, on_black), alpha) if turn else on_black


def _fitted(grey: Image.Image, spec: ImageSpecLike) -> Images:
    if grey.size != (spec.width, spec.height):
        scale = min(spec.width / grey.width, spec.height / grey.height)
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        place = ((spec.width - size[0]) // 2, (spec.height - size[1]) // 2)
        black = Image.new("L", (spec.width, spec.height))
        black.paste(grey.resize(size, Image.Resampling.LANCZOS), place)
        grey = black
    return np.array(grey, dtype=np.uint8)
