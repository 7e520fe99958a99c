"""PNG and JPEG read into grey levels.

Limits are checked from headers and file headers, before anything large is decoded or allocated.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin, PngImagePlugin

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.envelope import Envelope
from imagebus.wire.pixels import Images, ImageSpecLike

MAX_PIXELS = 16_000_000  # of one PNG or JPEG: a phone's photo, which takes 64 MB decoded
MAX_SIDE = 65_535  # pixels of one side, JPEG's own limit: Lanczos on a line of 16 million takes 770 MB
_PNG_START, _JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# The chunks needed for the pixels. Enough texts and profiles would unfold to 64 MB in Pillow.
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def read_one(_: Envelope, value: bytes, spec: ImageSpecLike, __: int) -> Images:
    """A request of one picture."""
    return read_picture(value, spec)[np.newaxis]


def read_picture(encoded: bytes, spec: ImageSpecLike) -> Images:
    """One PNG or JPEG as uint8 (height, width).

    The rule: a picture of that size is taken as it is. Any other is made grey (ITU-R 601 luma, transparency
    on black), shrunk or grown until it just fits (Lanczos), and centred on black, which is Fashion-MNIST's
    background. Raises `BadMessage` (`BAD_IMAGE`, `PIXELS_MAX`).
    """
    try:
        with _opened(encoded) as picture:
            _check_pixels(picture.width, picture.height)
            return _grey(picture, spec)
    except BadMessage:
        raise
    except Exception as error:  # on nonsense, parsers raise anything: struct.error, KeyError, ...
        raise BadMessage(ErrorCode.BAD_IMAGE, "the picture cannot be decoded as PNG or JPEG") from error


def _opened(encoded: bytes) -> Image.Image:
    """Not `Image.open`, which tries more formats, and only warns of 100 million pixels."""
    if encoded.startswith(_PNG_START):
        return PngImagePlugin.PngImageFile(io.BytesIO(_bare_png(encoded)))
    if encoded.startswith(_JPEG_START):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(encoded))
    raise BadMessage(ErrorCode.BAD_IMAGE, "the picture is neither PNG nor JPEG")


def _bare_png(encoded: bytes) -> bytes:
    """A PNG with only the chunks for its pixels; raises when it is cut off or a checksum is wrong."""
    start = len(_PNG_START)
    length, kind, width, height = struct.unpack_from(">I4sII", encoded, start)
    if (length, kind) != (13, b"IHDR"):
        raise ValueError("it does not begin with its header")
    _check_pixels(width, height)
    kept, place = [_PNG_START], start
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", encoded, place)
        chunk = encoded[place : place + length + 12]  # around its data stand length, kind and checksum
        if len(chunk) < length + 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise ValueError("a chunk is not whole")
        if kind in _PNG_CHUNKS:
            kept.append(chunk)
        place += len(chunk)
    return b"".join(kept)


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BadMessage(
            ErrorCode.PIXELS_MAX, f"a picture has at most {MAX_PIXELS} pixels, and {MAX_SIDE} on a side"
        )


def _grey(picture: Image.Image, spec: ImageSpecLike) -> Images:
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        if "A" not in picture.getbands():
            picture = picture.convert("RGBA")
        # The same as laying it on black, with a quarter of the memory.
        grey = ImageChops.multiply(picture.convert("L"), picture.getchannel("A"))
    else:
        grey = picture.convert("L")
    if grey.size != (spec.width, spec.height):
        scale = min(spec.width / grey.width, spec.height / grey.height)
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        place = ((spec.width - size[0]) // 2, (spec.height - size[1]) // 2)
        black = Image.new("L", (spec.width, spec.height))
        black.paste(grey.resize(size, Image.Resampling.LANCZOS), place)
        grey = black
    return np.array(grey, dtype=np.uint8)
