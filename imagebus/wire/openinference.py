"""Open Inference Protocol V2 in JSON: a request read, its reply and its error written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.envelope import Envelope
from imagebus.wire.envelope import read_envelope as envelope_of
from imagebus.wire.levels import levels_of_floats
from imagebus.wire.message import Message, read_json
from imagebus.wire.pixels import Images, ImageSpecLike, check_shape
from imagebus.wire.results import ModelIdentity, Probabilities, Ranked

NAME = "open-inference-v2"
# The members of a V2 body that are read. None may be there twice: parsers differ on which one counts.
_MEMBERS = (b'"id"', b'"inputs"', b'"shape"', b'"datatype"', b'"data"')


def read_envelope(message: Message, headers: Mapping[str, str], content_type: str) -> Envelope:
    """As for our own dialect, but the id may be in the body; `BadMessage` then has other codes too."""
    return envelope_of(message, headers, content_type, dialect=NAME, id_in_body=_id_in_body)


def _id_in_body(value: bytes) -> str | None:
    """The `id` in a request's body."""
    try:
        body = read_json(value)
    except orjson.JSONDecodeError:
        return None
    id = body.get("id")
    return id if isinstance(id, str) else None


def read_inputs(_: Envelope, value: bytes, spec: ImageSpecLike, max_images: int) -> Images:
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
    check_shape(shape, spec, max_images)
    levels = _numbers(data)
    if levels.size != math.prod(shape):
        raise BadMessage(ErrorCode.SHAPE, "inputs[0].data does not have as many numbers as its shape states")
    return _levels(levels, datatype).reshape(shape[0], spec.height, spec.width)


def _levels(numbers: npt.NDArray[np.float64], datatype: str) -> Images:
    if datatype == "FP32":
        try:
            return levels_of_floats(numbers)
        except ValueError as error:
            raise BadMessage(ErrorCode.VALUES, f"grey levels are {error}") from None
    if numbers.min() < 0 or numbers.max() > 255:
        raise BadMessage(ErrorCode.VALUES, "grey levels are numbers from 0 to 255")
    if (numbers % 1).any():
        raise BadMessage(ErrorCode.VALUES, "grey levels of datatype UINT8 are whole numbers")
    return numbers.astype(np.uint8)


def _refuse_repeated_members(value: bytes) -> None:
    """Raise `BadMessage` (`JSON`) where an object has a member twice; `value` is JSON that could be parsed.

    Only a text that contains one of the members we read more than once, or names with escapes, is checked:
    Python's parser is slower than orjson, which silently takes the last of two.
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

    NumPy does not judge `data`: it turns booleans into numbers, and one long text among numbers into an array
    in which each has that length.
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


def write_reply(
    envelope: Envelope,
    model: ModelIdentity,
    labels: Sequence[str],
    probabilities: Probabilities,
    _: Ranked | None,
) -> bytes:
    """The predictions for one request: all probabilities, and the likeliest label of each image."""
    count, classes = probabilities.shape
    body = {
        "model_name": model.name,
        "model_version": model.version,
        "id": envelope.id,
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [count, classes],
                "data": probabilities.astype(np.float64).round(6).ravel().tolist(),
            },
            {
                "name": "labels",
                "datatype": "BYTES",
                "shape": [count],
                "data": [labels[index] for index in probabilities.argmax(axis=1)],
            },
        ],
    }
    return orjson.dumps(body)


def write_error(envelope: Envelope, error: BadMessage, _: bool) -> bytes:
    """The error that answers one request."""
    return orjson.dumps({"error": f"{error.code}: {error}", "id": envelope.id})
