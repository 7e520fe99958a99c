"""Raw pixels, written and read, and which images a classifier takes."""

from __future__ import annotations

import math
import re
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.envelope import RAW, TOP, Envelope, sha256_hex
from imagebus.wire.message import Message

Images = npt.NDArray[np.uint8]  # (N, height, width), grey levels 0-255

MAX_IMAGES = 1000  # images in one request; its reply stays below Kafka's default limit of 1 MB
_DIMENSION = re.compile(r"[0-9]{1,18}")  # what fits into 63 bits, whatever the digits


class ImageSpecLike(Protocol):
    """What a classifier says of its images, as `ImageSpec` does; a foreign classifier brings its own."""

    @property
    def height(self) -> int:
        """Pixels of a column."""

    @property
    def width(self) -> int:
        """Pixels of a row."""

    @property
    def channels(self) -> int:
        """Numbers of a pixel."""

    @property
    def dtype(self) -> str:
        """Their type, as NumPy names it."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Which images a classifier takes: their size in pixels, and what a pixel is.

    So far that is one grey level in a byte: `channels` is 1, `dtype` "uint8". Raises `ValueError` for others.
    """

    height: int
    width: int
    channels: int
    dtype: str

    def __post_init__(self) -> None:
        if (self.channels, self.dtype) != (1, "uint8"):
            raise ValueError(f"images of {self.channels} {self.dtype} are not read yet, only of 1 uint8")


FASHION = ImageSpec(28, 28, 1, "uint8")  # Fashion-MNIST's: what the networks of this project were trained on


def encode_request(
    images: Images,
    topic: str,
    *,
    spec: ImageSpecLike = FASHION,
    id: str | None = None,
    reply_to: str | None = None,
    deadline: int | None = None,
    top: int = TOP,
) -> Message:
    """A package of images as a request message.

    `images` is an array as `spec` says; `deadline` is Unix time in milliseconds, after which the
    answer is of no use. Without `id`, it gets a new UUID4. Raises `ValueError` for anything else, see `check_images`.
    """
    check_images(images, spec)
    id = id or str(uuid.uuid4())
    value = images.tobytes()
    headers = [
        ("correlation_id", id.encode()),
        ("sha256", sha256_hex(value).encode()),
        ("content-type", RAW.encode()),
        ("shape", _stated(images.shape)),
        ("dtype", spec.dtype.encode()),
    ]
    if reply_to is not None:
        headers.append(("reply_to", reply_to.encode()))
    if deadline is not None:
        headers.append(("deadline", str(deadline).encode()))
    if top != TOP:
        headers.append(("top", str(top).encode()))
    return Message(topic, value, key=id.encode(), headers=headers)


def read_raw(envelope: Envelope, value: bytes, spec: ImageSpecLike, max_images: int) -> Images:
    """Raw bytes, row-major; the `shape` and `dtype` headers say how to read them."""
    if envelope.dtype and envelope.dtype != spec.dtype:
        raise BadMessage(ErrorCode.DTYPE, f"raw images are {spec.dtype}")
    if envelope.shape is None:
        shape = [math.ceil(len(value) / (spec.height * spec.width)), spec.height, spec.width]
    else:
        shape = _stated_shape(envelope.shape)
        if not shape:
            raise BadMessage(ErrorCode.SHAPE, f"the shape header is not {_header_of(spec)}")
    check_shape(shape, spec, max_images)
    if math.prod(shape) != len(value):
        raise BadMessage(ErrorCode.SHAPE, "the value does not have as many bytes as its shape")
    return np.frombuffer(value, np.uint8).reshape(shape[0], spec.height, spec.width)


@lru_cache(maxsize=64)  # a requestor sends one shape again and again
def _stated(shape: tuple[int, ...]) -> bytes:
    """A `shape` header."""
    return ",".join(map(str, shape)).encode()


@lru_cache(maxsize=64)
def _stated_shape(stated: str) -> list[int]:
    """The numbers of a `shape` header; none when it has anything else."""
    numbers = [number.strip() for number in stated.split(",", 4)]
    if not all(_DIMENSION.fullmatch(number) for number in numbers):
        return []
    return [int(number) for number in numbers]


def check_shape(shape: list[int], spec: ImageSpecLike, max_images: int) -> None:
    """(N, height, width), also with a last axis of 1, or flat as (N, pixels), with 1 <= N <= `max_images`."""
    height, width = spec.height, spec.width
    one = shape[1:]
    if one != [height, width] and one not in ([height, width, 1], [height * width]):
        raise BadMessage(ErrorCode.SHAPE, f"images are {_header_of(spec)}")
    if not 0 <= shape[0] < 2**63:  # where tensors come from, a dimension is a number of 63 bits
        raise BadMessage(ErrorCode.SHAPE, f"images are {_header_of(spec)}")
    if not 1 <= shape[0] <= max_images:
        raise BadMessage(ErrorCode.COUNT, f"a request has 1 to {max_images} images")


def check_images(images: object, spec: ImageSpecLike) -> None:
    """Raise `ValueError` for what is no package of images as `spec` says, however its memory is laid out.

    Not converted here: with lists, frames and pictures there is more than one way, and a mask has no place in
    what is sent, so that its pixels would go along as if they were seen.
    """
    expected = f"a NumPy array, {spec.dtype} {shape_of(spec)}"
    if not isinstance(images, np.ndarray):
        made = "" if images is None else "; numpy.asarray(…) makes one of most"
        raise ValueError(f"images are of type {type(images).__name__}, expected {expected}{made}")
    if type(images) is not np.ndarray and isinstance(images, np.ma.MaskedArray):
        raise ValueError(
            "images are a masked array, and pixels cannot be masked on the bus: give those a grey level, "
            "as images.filled(0) does"
        )
    if not fits(images, spec):
        raise ValueError(f"images are {images.dtype} {images.shape}, expected {spec.dtype} {shape_of(spec)}")
    if not 1 <= len(images) <= MAX_IMAGES:
        raise ValueError(f"images has {len(images)} of them, expected 1 to {MAX_IMAGES}")


def fits(images: npt.NDArray[Any], spec: ImageSpecLike) -> bool:
    """Whether an array has images as `spec` says."""
    return images.shape[1:] == (spec.height, spec.width) and images.dtype == spec.dtype


def shape_of(spec: ImageSpecLike) -> str:
    """The shape of an array of images as `spec` says, for error texts."""
    return f"(N, {spec.height}, {spec.width})"


def _header_of(spec: ImageSpecLike) -> str:
    """The same, as it stands in a `shape` header."""
    return f"N,{spec.height},{spec.width}"
