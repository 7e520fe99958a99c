"""The pixels of a request: three content types read into uint8 arrays of (N, 28, 28).

Limits are checked from headers and file headers, before anything large is decoded or allocated.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zlib
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import orjson
from PIL import Image, ImageChops, JpegImagePlugin, PngImagePlugin

from imagebus.errors import BadMessage
from imagebus.messages import (
    JPEG,
    PNG,
    RAW,
    V2_JSON,
    Envelope,
    ErrorCode,
    Images,
    Message,
    check_size,
    read_json,
)

SIDE = 28  # pixels, both ways: what the network was trained on
MAX_IMAGES = 1000  # images in one request; its reply stays below Kafka's default limit of 1 MB
MAX_PIXELS = 16_000_000  # of one PNG or JPEG: a photograph of a telephone; decoded it has 64 MB
MAX_SIDE = 65_535  # pixels of one side, JPEG's own limit: Lanczos on a line of 16 million takes 770 MB
_DIMENSION = re.compile(r"[0-9]{1,18}")  # what fits into 63 bits, whatever the digits
_PNG_START, _JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# The chunks that pixels need. Texts and profiles unfold to 64 MB when Pillow meets enough of them.
_PNG_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Members of a V2 body that are read. JSON allows none of them twice, and parsers differ on which one counts.
_MEMBERS = (b'"id"', b'"inputs"', b'"shape"', b'"datatype"', b'"data"')


def read_images(envelope: Envelope, message: Message, *, max_images: int = MAX_IMAGES) -> Images:
    """The images of a request, uint8 (N, 28, 28) with 1 <= N <= `max_images`.

    Raises `BadMessage` with the code of what is wrong with them.
    """
    check_size(message.value)
    match envelope.content_type:
        case "application/octet-stream":
            return _raw(envelope, message.value, max_images)
        case "image/png" | "image/jpeg":
            return read_picture(message.value)[np.newaxis]
        case "application/json":
            return _v2(message.value, max_images)
        case _:
            raise BadMessage(ErrorCode.FORMAT, f"content-type is none of {RAW}, {PNG}, {JPEG}, {V2_JSON}")


def read_picture(encoded: bytes) -> Images:
    """One PNG or JPEG as uint8 (28, 28).

    The rule: a 28x28 picture is taken as it is. Any other is made grey (ITU-R 601 luma, transparency
    on black), shrunk or grown until its longer side is 28 (Lanczos), and centred on black, which is
    Fashion-MNIST's background. Raises `BadMessage` (`BAD_IMAGE`, `PIXELS_MAX`).
    """
    try:
        with _opened(encoded) as picture:
            _check_pixels(picture.width, picture.height)
            return _grey_square(picture)
    except BadMessage:
        raise
    except Exception as error:  # a parser that meets nonsense raises anything: struct.error, KeyError, ...
        raise BadMessage(ErrorCode.BAD_IMAGE, "the picture cannot be decoded as PNG or JPEG") from error


def _opened(encoded: bytes) -> Image.Image:
    """Not by `Image.open`, which tries more formats, and warns of 100 million pixels instead of refusing."""
    if encoded.startswith(_PNG_START):
        return PngImagePlugin.PngImageFile(io.BytesIO(_bare_png(encoded)))
    if encoded.startswith(_JPEG_START):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(encoded))
    raise BadMessage(ErrorCode.BAD_IMAGE, "the picture is neither PNG nor JPEG")


def _bare_png(encoded: bytes) -> bytes:
    """A PNG with no more chunks than its pixels need; raises when it is cut off or a checksum is wrong."""
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


def _grey_square(picture: Image.Image) -> Images:
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        if "A" not in picture.getbands():
            picture = picture.convert("RGBA")
        # The same as laying it on black, with a quarter of the memory.
        grey = ImageChops.multiply(picture.convert("L"), picture.getchannel("A"))
    else:
        grey = picture.convert("L")
    if grey.size != (SIDE, SIDE):
        scale = SIDE / max(grey.size)
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        square = Image.new("L", (SIDE, SIDE))
        square.paste(
            grey.resize(size, Image.Resampling.LANCZOS), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
        )
        grey = square
    return np.array(grey, dtype=np.uint8)


def _raw(envelope: Envelope, value: bytes, max_images: int) -> Images:
    """Raw bytes, row-major; the `shape` and `dtype` headers say how to read them."""
    if (envelope.dtype or "uint8") != "uint8":
        raise BadMessage(ErrorCode.DTYPE, "raw images are uint8")
    if envelope.shape is None:
        shape = [math.ceil(len(value) / (SIDE * SIDE)), SIDE, SIDE]
    else:
        shape = _stated_shape(envelope.shape)
    _check_shape(shape, max_images)
    if math.prod(shape) != len(value):
        raise BadMessage(ErrorCode.SHAPE, "the value does not have as many bytes as its shape")
    return np.frombuffer(value, np.uint8).reshape(shape[0], SIDE, SIDE)


@lru_cache(maxsize=64)  # a requestor sends one shape again and again
def _stated_shape(stated: str) -> list[int]:
    numbers = [number.strip() for number in stated.split(",", 4)]
    if not all(_DIMENSION.fullmatch(number) for number in numbers):
        raise BadMessage(ErrorCode.SHAPE, "the shape header is not N,28,28")
    return [int(number) for number in numbers]


def _v2(value: bytes, max_images: int) -> Images:
    """An Open Inference Protocol V2 body: `inputs[0]` of datatype UINT8 or FP32.

    FP32 grey levels are 0-1 when none is above 1, else 0-255.
    """
    try:
        tensor = read_json(value)["inputs"][0]
        shape, datatype, data = tensor["shape"], tensor["datatype"], tensor["data"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise BadMessage(ErrorCode.JSON, "not a V2 inference request with inputs[0]") from error
    _refuse_repeated_members(value)
    if datatype not in ("UINT8", "FP32"):
        raise BadMessage(ErrorCode.DTYPE, "inputs[0].datatype is neither UINT8 nor FP32")
    if not isinstance(shape, list) or not all(type(number) is int for number in shape):
        raise BadMessage(ErrorCode.SHAPE, "inputs[0].shape is not a list of whole numbers")
    _check_shape(shape, max_images)
    levels = _numbers(data)
    if levels.size != math.prod(shape):
        raise BadMessage(ErrorCode.SHAPE, "inputs[0].data does not have as many numbers as its shape states")
    if levels.min() < 0 or levels.max() > 255:
        raise BadMessage(ErrorCode.VALUES, "grey levels are numbers from 0 to 255")
    if datatype == "UINT8" and (levels % 1).any():
        raise BadMessage(ErrorCode.VALUES, "grey levels of datatype UINT8 are whole numbers")
    if datatype == "FP32" and levels.max() <= 1:
        levels = levels * 255
    return levels.round().astype(np.uint8).reshape(shape[0], SIDE, SIDE)


def _refuse_repeated_members(value: bytes) -> None:
    """Raise `BadMessage` (`JSON`) where an object has a member twice; `value` is JSON that could be parsed.

    Only a text that has one of the members we read more than once, or spells names with escapes, is gone
    through: Python's parser is slower than orjson, which takes the last of two in silence.
    """

    def no_repeats(members: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in members}) != len(members):
            raise ValueError

    if b"\\" in value or any(value.count(member) > 1 for member in _MEMBERS):
        try:
            json.loads(value.decode(), object_pairs_hook=no_repeats)
        except (ValueError, RecursionError) as error:
            raise BadMessage(
                ErrorCode.JSON, "an object of the V2 request has the same member twice"
            ) from error


def _numbers(data: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A flat or nested JSON list of numbers, flattened; nothing else is turned into one.

    NumPy is not asked what `data` is: it makes numbers of booleans, and of one long text among numbers
    an array in which each has that length.
    """
    kinds = {type(data)}
    if kinds == {list}:
        kinds = set(map(type, data))
        while kinds == {list} and len(set(map(len, data))) == 1:
            data = list(chain.from_iterable(data))
            kinds = set(map(type, data))
    if list in kinds:
        raise BadMessage(ErrorCode.SHAPE, "inputs[0].data is nested unevenly")
    if not kinds <= {int, float}:
        raise BadMessage(ErrorCode.DTYPE, "inputs[0].data holds something that is not a number")
    return np.array(data, np.float64)


def _check_shape(shape: list[int], max_images: int) -> None:
    """(N, 28, 28), also as (N, 28, 28, 1) or (N, 784), with 1 <= N <= `max_images`."""
    if shape[1:] not in ([SIDE, SIDE], [SIDE, SIDE, 1], [SIDE * SIDE]):
        raise BadMessage(ErrorCode.SHAPE, "images are N,28,28")
    if not 0 <= shape[0] < 2**63:  # where tensors come from, a dimension is a number of 63 bits
        raise BadMessage(ErrorCode.SHAPE, "images are N,28,28")
    if not 1 <= shape[0] <= max_images:
        raise BadMessage(ErrorCode.COUNT, f"a request has 1 to {max_images} images")
