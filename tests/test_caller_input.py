"""What a caller may hand to a client, and what is refused at once, in one line that says why."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagebus.client import Client
from imagebus.images import load_images
from imagebus.open_packages import Package
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.wire.pixels import FASHION, Images, encode_request
from imagebus.wire.requests import read_request

from .fakes import package
from .test_client import SECONDS, Answerer

ONE = package(1)


class Frame:
    """As a pandas frame: a shape and dtypes, and no `dtype` and no `tobytes`."""

    shape = (1, 784)
    dtypes = "uint8"


class Tensor:
    """As a tensor of another library: NumPy can make an array of it."""

    shape = (1, 28, 28)
    dtype = "torch.uint8"

    def __array__(self, *_: Any, **__: Any) -> Images:
        return ONE


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def client(broker: MemoryBroker) -> Iterator[Client]:
    with Client(MemoryBus(broker), timeout=SECONDS) as client:
        yield client


NO_IMAGES: dict[str, tuple[Any, str]] = {
    "None": (None, r"images are of type NoneType, expected a NumPy array, uint8 \(N, 28, 28\)$"),
    "list": (ONE.tolist(), r"images are of type list, .*numpy.asarray"),
    "list of arrays": ([ONE[0]], r"images are of type list, .*numpy.asarray"),
    "bytes": (ONE.tobytes(), "images are of type bytes, "),
    "memoryview": (memoryview(ONE.tobytes()), "images are of type memoryview, "),
    "text": ("shirt.png", "images are of type str, "),
    "path": (Path("shirt.png"), "images are of type PosixPath, "),
    "frame": (Frame(), "images are of type Frame, "),
    "tensor": (Tensor(), "images are of type Tensor, "),
    "picture": (Image.new("L", (28, 28)), "images are of type Image, "),
    "image set": (load_images(), "images are of type ImageSet, "),
    "masked": (np.ma.masked_array(ONE, mask=ONE == 0), r"a masked array, .*images.filled\(0\)"),
    "masked, nothing hidden": (np.ma.masked_array(ONE), "a masked array"),
    "none at all": (ONE[:0], "images has 0 of them, expected 1 to 1000"),
    "too many": (np.zeros((1001, 28, 28), np.uint8), "images has 1001 of them, expected 1 to 1000"),
    "one without the first axis": (ONE[0], r"images are uint8 \(28, 28\), expected"),
    "no axis": (np.uint8(1) + np.zeros((), np.uint8), r"images are of type uint8, expected"),
    "channels": (ONE[..., None], r"images are uint8 \(1, 28, 28, 1\), expected"),
    "colours": (np.zeros((1, 28, 28, 3), np.uint8), r"images are uint8 \(1, 28, 28, 3\), expected"),
    "flat": (ONE.reshape(1, 784), r"images are uint8 \(1, 784\), expected"),
    "floats": (ONE / 255, r"images are float64 \(1, 28, 28\), expected"),
    "signed": (ONE.astype(np.int8), "images are int8"),
    "big-endian": (ONE.astype(">u2"), "images are >u2"),
    "truth values": (ONE > 0, "images are bool"),
    "objects": (ONE.astype(object), "images are object"),
    "texts": (ONE.astype(str), "images are <U"),
    "fields": (np.zeros((1, 28, 28), [("grey", np.uint8)]), r"images are \[\('grey', 'u1'\)\]"),
}


@pytest.mark.parametrize(("images", "says"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_array_of_images_is_refused_at_once(
    client: Client, broker: MemoryBroker, images: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        client.submit(images)
    with pytest.raises(ValueError, match=says):
        Package(images)

    assert "\n" not in str(refused.value)
    assert client.in_flight == 0
    assert broker.topics["requests"] == []


def laid_out(tmp_path: Path) -> Iterator[tuple[str, Images]]:
    """The same images in memory of other kinds."""
    grey = np.random.default_rng(18).integers(0, 256, (3, 28, 28), np.uint8)
    wide = np.zeros((3, 28, 56), np.uint8)
    wide[:, :, ::2] = grey
    yield "every second column", wide[:, :, ::2]
    yield "backwards twice", grey[::-1].copy()[::-1]
    yield "column-major", np.asfortranarray(grey)
    yield "big-endian of one byte", grey.astype(">u1")
    frozen = grey.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    np.save(tmp_path / "grey.npy", grey)
    yield "memory-mapped", np.load(tmp_path / "grey.npy", mmap_mode="r")
    yield "from a buffer", np.frombuffer(grey.tobytes(), np.uint8).reshape(3, 28, 28)
    yield "broadcast", np.broadcast_to(grey[0], (3, 28, 28))
    yield "a record array", grey.view(np.recarray)


def test_pixels_are_the_same_however_they_lie_in_memory(tmp_path: Path) -> None:
    for kind, images in laid_out(tmp_path):
        request = encode_request(images, "requests")

        _, read = read_request(request, FASHION, reply_topics=("replies",))

        np.testing.assert_array_equal(read, images, kind)


def test_what_the_caller_writes_over_its_array_later_is_not_sent(
    client: Client, broker: MemoryBroker
) -> None:
    images = package(1)

    client.submit(images)
    images[:] = 7

    assert broker.topics["requests"][0].value == package(1).tobytes()


NO_TIMES: list[Any] = [math.inf, -math.inf, math.nan, -1, 0, 0.0, 1e300, 10**400, "5", b"5", True, [], None]


@pytest.mark.parametrize("timeout", NO_TIMES, ids=repr)
def test_a_timeout_that_is_no_time_is_refused_at_once(client: Client, timeout: Any) -> None:
    says = "timeout is .*, expected seconds above 0 and at most 1,000,000,000"

    with pytest.raises(ValueError, match=says):
        Client(MemoryBus(), timeout=timeout)
    if timeout is not None:  # then it is the client's
        with pytest.raises(ValueError, match=says):
            client.submit(ONE, timeout=timeout)
    assert client.in_flight == 0


@pytest.mark.parametrize(
    "timeout", [np.float32(30), np.float64(30), np.int64(30), np.array(30), Decimal(30), 30, 1e9], ids=repr
)
def test_a_timeout_may_be_any_number(broker: MemoryBroker, timeout: Any) -> None:
    with Client(MemoryBus(broker), timeout=timeout) as client:
        answerer = Answerer(broker)
        futures = [client.submit(ONE), client.submit(ONE, timeout=timeout)]
        for _ in futures:
            answerer.answer(answerer.request())

        assert [len(future.result(SECONDS).predictions) for future in futures] == [1, 1]


@pytest.mark.parametrize("top", [0, -1, 1.0, "1", True, None, math.inf, []], ids=repr)
def test_a_number_of_labels_that_is_none_is_refused_at_once(client: Client, top: Any) -> None:
    with pytest.raises(ValueError, match=r"top is .*, expected a whole number of at least 1"):
        client.submit(ONE, top=top)

    assert client.in_flight == 0


@pytest.mark.parametrize("top", [1, np.int64(2), np.uint8(200), sys.maxsize, 10**100], ids=repr)
def test_any_number_of_labels_may_be_asked_for(client: Client, broker: MemoryBroker, top: Any) -> None:
    client.submit(ONE, top=top)

    envelope, _ = read_request(broker.topics["requests"][0], FASHION, reply_topics=("replies",))

    assert envelope.top == min(int(top), 10**18 - 1)


NO_IDS: list[Any] = [
    "",
    " ",
    "a b",
    "a/b",
    "../b",
    "é",
    "a\n",
    "a\0",
    "x" * 65,
    uuid.UUID(int=7),
    7,
    b"a",
    (),
]


@pytest.mark.parametrize("id", NO_IDS, ids=repr)
def test_an_id_that_no_replier_takes_is_refused_at_once(
    client: Client, broker: MemoryBroker, id: Any
) -> None:
    says = "id is .*, expected a text of 1 to 64 of A-Z a-z 0-9 . _ -"

    with pytest.raises(ValueError, match=says):
        client.submit(ONE, id=id)
    with pytest.raises(ValueError, match=says):
        Package(ONE, id=id)

    assert client.in_flight == 0
    assert broker.topics["requests"] == []


@pytest.mark.parametrize("in_flight", [0, -1, 1.5, None], ids=repr)
def test_a_map_that_could_send_nothing_is_refused_at_once(client: Client, in_flight: Any) -> None:
    with pytest.raises(ValueError, match=r"in_flight is .*, expected a whole number of at least 1"):
        client.map([ONE], in_flight=in_flight)
