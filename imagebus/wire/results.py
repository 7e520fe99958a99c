"""The reply in our own JSON, written and read: the likeliest labels of each image with their probabilities.

Ranking one package costs as much as ranking a batch, so many are ranked at once; and filling a template takes
a third of the time of building objects for a serialiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from imagebus.errors import BadMessage, ErrorCode
from imagebus.wire.envelope import Envelope
from imagebus.wire.message import MAX_HEADER_BYTES, Message, read_json

Probabilities = npt.NDArray[np.float32]  # (N, number of labels), rows sum to 1
# (N, 2 + 2 top) pieces of JSON, for each image: label and probability, then both for each of its likeliest ones.
Ranked = npt.NDArray[np.object_]

# Four digits are enough for a person.
_STEPS = 10_000
_NUMBERS = np.array([b"%r" % (step / _STEPS) for step in range(_STEPS + 1)], dtype=object)


def are_probabilities(values: Probabilities) -> bool:
    """Whether all are numbers from 0 to 1, within float32's precision."""
    return bool(((values > -1e-5) & (values < 1 + 1e-5)).all())


def rank(labels: Sequence[str], probabilities: Probabilities, top: int) -> Ranked:
    """The `top` likeliest labels of each of (N, len(labels)) images; of equal ones the first comes first.

    The probabilities are valid by `are_probabilities`.
    """
    order = (-probabilities).argsort(axis=1, kind="stable")[:, :top]
    steps = np.rint(np.take_along_axis(probabilities, order, axis=1) * _STEPS).astype(np.intp)
    ranked = np.empty((len(order), 2 + 2 * order.shape[1]), dtype=object)
    ranked[:, 2::2] = _texts(tuple(labels))[order]
    ranked[:, 3::2] = _NUMBERS[steps]
    ranked[:, :2] = ranked[:, 2:4]
    return ranked


def as_json(ranked: Ranked, top: int) -> bytes:
    """A JSON array with an object for each image: its `label`, the `probability` of that, and its `top` pairs."""
    count, columns = ranked.shape
    columns = min(columns, 2 + 2 * top)
    templates = b",".join([_template(columns // 2 - 1)] * count)
    return b"[%s]" % templates % tuple(ranked[:, :columns].ravel().tolist())


@lru_cache
def _template(top: int) -> bytes:
    return b'{"label":%s,"probability":%s,"top":[' + b",".join([b"[%s,%s]"] * top) + b"]}"


@lru_cache
def _texts(labels: tuple[str, ...]) -> npt.NDArray[Any]:
    return np.array([orjson.dumps(label) for label in labels], dtype=object)


class ModelIdentity(Protocol):
    """What a reply says of the model that answered; a foreign classifier brings its own."""

    @property
    def name(self) -> str:
        """Its name, the same from version to version."""

    @property
    def version(self) -> str:
        """Which of the models of that name."""

    @property
    def sha256(self) -> str:
        """The digest (hex) of its file."""


@dataclass(frozen=True, slots=True)
class Model:
    """Which model answered: its name, version and the SHA-256 (hex) of its file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image's answer: the likeliest label, its probability, and the likeliest few in order."""

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request, as its caller sees it. `round_trip` is in seconds."""

    id: str
    sha256: str
    model: Model
    predictions: tuple[Prediction, ...]
    round_trip: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """The error that answers one request."""

    id: str
    sha256: str
    code: str
    message: str
    retryable: bool


def write_reply(
    envelope: Envelope,
    model: ModelIdentity,
    labels: Sequence[str],
    probabilities: Probabilities,
    ranked: Ranked | None,
) -> bytes:
    """The predictions for one request in our own JSON."""
    if ranked is None:
        ranked = rank(labels, probabilities, envelope.top)
    return b'{"id":"%s","sha256":"%s","model":%s,"predictions":%s}' % (
        envelope.id.encode(),  # which has no character that JSON would escape
        envelope.sha256.encode(),
        _model_as_json(model.name, model.version, model.sha256),
        as_json(ranked, envelope.top),
    )


def write_error(envelope: Envelope, error: BadMessage, retryable: bool) -> bytes:
    """The error that answers one request in our own JSON."""
    return orjson.dumps(
        {
            "id": envelope.id,
            "sha256": envelope.sha256,
            "error": {"code": error.code, "message": str(error), "retryable": retryable},
        }
    )


@lru_cache
def _model_as_json(name: str, version: str, sha256: str) -> bytes:
    return orjson.dumps({"name": name, "version": version, "sha256": sha256})


def decode_reply(message: Message) -> Reply | ErrorReply:
    """Read a reply of this project's own JSON.

    Raises `BadMessage` (`JSON`, `TOO_LARGE`) when it is not one: forged, cut off, or another program's.
    """
    try:
        body = read_json(message.value)
        id, digest = body["id"], body["sha256"]
        if "error" in body:
            error = body["error"]
            error_reply = ErrorReply(id, digest, error["code"], error["message"], error["retryable"])
            _check_types(error_reply)
            return error_reply
        model = Model(body["model"]["name"], body["model"]["version"], body["model"]["sha256"])
        predictions = tuple(
            Prediction(each["label"], each["probability"], tuple((label, p) for label, p in each["top"]))
            for each in body["predictions"]
        )
        reply = Reply(id, digest, model, predictions)
        _check_types(reply)
        return reply
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadMessage(ErrorCode.JSON, "not a reply of this project") from error


def _check_types(reply: Reply | ErrorReply) -> None:
    """Dataclasses do not check their fields, and a reply may come from anyone.

    Its texts are shown on terminals, so they must be printable.
    """
    texts: list[object] = [reply.id, reply.sha256]
    numbers: list[Any] = []
    if isinstance(reply, ErrorReply):
        texts += [reply.code, reply.message]
        if not isinstance(reply.retryable, bool):
            raise TypeError("retryable is neither true nor false")
    else:
        texts += [reply.model.name, reply.model.version, reply.model.sha256]
        for prediction in reply.predictions:
            texts += [prediction.label, *(label for label, _ in prediction.top)]
            numbers += [prediction.probability, *(p for _, p in prediction.top)]
    if not all(
        isinstance(text, str) and text.isprintable() and len(text) <= MAX_HEADER_BYTES for text in texts
    ):
        raise ValueError("a text is not a short printable string")
    if not all(type(number) in (int, float) and 0 <= number <= 1 for number in numbers):
        raise ValueError("a probability is not a number from 0 to 1")
