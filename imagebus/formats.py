"""The pixels of a request: three content types read into uint8 arrays of (N, 28, 28).

Limits are checked from headers and file headers, before anything large is decoded or allocated.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import orjson
from PIL import Image, UnidentifiedImageError

from imagebus.errors import BadMessage
from imagebus.messages import JPEG, PNG, RAW, V2_JSON, Envelope, ErrorCode, Images, Message

SIDE = 28  # pixels, both ways: what the network was trained on
MAX_IMAGES = 1000  # images in one request; its reply stays below Kafka's default limit of 1 MB
MAX_BYTES = 8 * 1024 * 1024  # of a request's value
MAX_PIXELS = 16_000_000  # of one PNG or JPEG: more than any camera's thumbnail, 16 MB once grey


def read_images(envelope: Envelope, message: Message, *, max_images: int = MAX_IMAGES) -> Images:
    """The images of a request, uint8 (N, 28, 28) with 1 <= N <= `max_images`.

    Raises `BadMessage` with the code of what is wrong with them.
    """
    if len(message.value) > MAX_BYTES:
        raise BadMessage(ErrorCode.TOO_LARGE, f"a request has at most {MAX_BYTES} bytes")
    match envelope.content_type:
        case "application/octet-stream":
            return _raw(message, max_images)
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
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return _grey_square(picture)
    except Image.DecompressionBombError as error:
        raise BadMessage(ErrorCode.PIXELS_MAX, f"a picture has at most {MAX_PIXELS} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BadMessage(ErrorCode.BAD_IMAGE, "the picture cannot be decoded as PNG or JPEG") from error


def _grey_square(picture: Image.Image) -> Images:
    if picture.mode == "P" or "A" in picture.getbands():
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        picture = Image.fromarray((np.asarray(picture, np.uint32) >> 8).astype(np.uint8))
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


def _raw(message: Message, max_images: int) -> Images:
    """Raw bytes, row-major; the `shape` and `dtype` headers say how to read them."""
    if (message.header("dtype") or "uint8") != "uint8":
        raise BadMessage(ErrorCode.DTYPE, "raw images are uint8")
    stated = message.header("shape")
    if stated is None:
        shape = [math.ceil(len(message.value) / (SIDE * SIDE)), SIDE, SIDE]
    else:
        numbers = stated.split(",", 4)
        if not all(number.strip().isascii() and number.strip().isdigit() for number in numbers):
            raise BadMessage(ErrorCode.SHAPE, "the shape header is not N,28,28")
        shape = [int(number) for number in numbers]
    _check_shape(shape, max_images)
    if math.prod(shape) != len(message.value):
        raise BadMessage(ErrorCode.SHAPE, "the value does not have as many bytes as its shape")
    return np.frombuffer(message.value, np.uint8).reshape(shape[0], SIDE, SIDE)


def _v2(value: bytes, max_images: int) -> Images:
    """An Open Inference Protocol V2 body: `inputs[0]` of datatype UINT8 or FP32.

    FP32 grey levels are 0-1 when none is above 1, else 0-255.
    """
    try:
        tensor = orjson.loads(value)["inputs"][0]
        shape, datatype, data = tensor["shape"], tensor["datatype"], tensor["data"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise BadMessage(ErrorCode.JSON, "not a V2 inference request with inputs[0]") from error
    if datatype not in ("UINT8", "FP32"):
        raise BadMessage(ErrorCode.DTYPE, "inputs[0].datatype is neither UINT8 nor FP32")
    if not isinstance(shape, list) or not all(type(number) is int for number in shape):
        raise BadMessage(ErrorCode.SHAPE, "inputs[0].shape is not a list of whole numbers")
    _check_shape(shape, max_images)
    levels = _numbers(data)
    if levels.size != math.prod(shape):
        raise BadMessage(ErrorCode.SHAPE, "inputs[0].data does not have as many numbers as its shape states")
    if not np.isfinite(levels).all() or levels.min() < 0 or levels.max() > 255:
        raise BadMessage(ErrorCode.VALUES, "grey levels are finite numbers from 0 to 255")
    if datatype == "FP32" and levels.max() <= 1:
        levels = levels * 255
    return levels.round().astype(np.uint8).reshape(shape[0], SIDE, SIDE)


def _numbers(data: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A flat or nested JSON list of numbers; nothing else is turned into one."""
    try:
        levels = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise BadMessage(ErrorCode.SHAPE, "inputs[0].data is nested unevenly") from error
    if levels.dtype.kind not in "iuf":
        raise BadMessage(ErrorCode.DTYPE, "inputs[0].data holds something that is not a number")
    return levels.astype(np.float64)


def _check_shape(shape: list[int], max_images: int) -> None:
    """(N, 28, 28), also as (N, 28, 28, 1) or (N, 784), with 1 <= N <= `max_images`."""
    if shape[1:] not in ([SIDE, SIDE], [SIDE, SIDE, 1], [SIDE * SIDE]):
        raise BadMessage(ErrorCode.SHAPE, "images are N,28,28")
    if not 1 <= shape[0] <= max_images:
        raise BadMessage(ErrorCode.COUNT, f"a request has 1 to {max_images} images")
