"""Raw pixels, and what images a network takes."""

from __future__ import annotations

import math
import re
import uuid
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.envelope import RAW, TOP, Envelope, sha256_hex
from imagebus.wire.message import Message

Images = npt.NDArray[np.uint8]  # (N, 28, 28), grey levels 0-255

SIDE = 28  # pixels, both ways: what the network was trained on
MAX_IMAGES = 1000  # images in one request; its reply stays below Kafka's default limit of 1 MB
_DIMENSION = re.compile(r"[0-9]{1,18}")  # what fits into 63 bits, whatever the digits


def encode_request(
    images: Images,
    topic: str,
    *,
    id: str | None = None,
    reply_to: str | None = None,
    deadline: int | None = None,
    top: int = TOP,
) -> Message:
    """A package of images as a request message.

    `images` is uint8, (N, 28, 28); `deadline` is Unix time in milliseconds, after which nobody waits
    for the answer. Without `id` a new UUID4 is taken.
    """
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype} {images.shape}, expected uint8 (N, 28, 28)")
    id = id or str(uuid.uuid4())
    value = images.tobytes()
    headers = [
        ("correlation_id", id.encode()),
        ("sha256", sha256_hex(value).encode()),
        ("content-type", RAW.encode()),
        ("shape", ",".join(map(str, images.shape)).encode()),
        ("dtype", b"uint8"),
    ]
    if reply_to is not None:
        headers.append(("reply_to", reply_to.encode()))
    if deadline is not None:
        headers.append(("deadline", str(deadline).encode()))
    if top != TOP:
        headers.append(("top", str(top).encode()))
    return Message(topic, value, key=id.encode(), headers=headers)


def read_raw(envelope: Envelope, value: bytes, max_images: int) -> Images:
    """Raw bytes, row-major; the `shape` and `dtype` headers say how to read them."""
    if (envelope.dtype or "uint8") != "uint8":
        raise BadMessage(ErrorCode.DTYPE, "raw images are uint8")
    if envelope.shape is None:
        shape = [math.ceil(len(value) / (SIDE * SIDE)), SIDE, SIDE]
    else:
        shape = _stated_shape(envelope.shape)
    check_shape(shape, max_images)
    if math.prod(shape) != len(value):
        raise BadMessage(ErrorCode.SHAPE, "the value does not have as many bytes as its shape")
    return np.frombuffer(value, np.uint8).reshape(shape[0], SIDE, SIDE)


@lru_cache(maxsize=64)  # a requestor sends one shape again and again
def _stated_shape(stated: str) -> list[int]:
    numbers = [number.strip() for number in stated.split(",", 4)]
    if not all(_DIMENSION.fullmatch(number) for number in numbers):
        raise BadMessage(ErrorCode.SHAPE, "the shape header is not N,28,28")
    return [int(number) for number in numbers]


def check_shape(shape: list[int], max_images: int) -> None:
    """(N, 28, 28), also as (N, 28, 28, 1) or (N, 784), with 1 <= N <= `max_images`."""
    if shape[1:] not in ([SIDE, SIDE], [SIDE, SIDE, 1], [SIDE * SIDE]):
        raise BadMessage(ErrorCode.SHAPE, "images are N,28,28")
    if not 0 <= shape[0] < 2**63:  # where tensors come from, a dimension is a number of 63 bits
        raise BadMessage(ErrorCode.SHAPE, "images are N,28,28")
    if not 1 <= shape[0] <= max_images:
        raise BadMessage(ErrorCode.COUNT, f"a request has 1 to {max_images} images")
