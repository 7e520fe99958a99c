"""What a reply says of each image: its likeliest labels in order, each with its probability, as JSON text.

Ranking one package alone costs as much as ranking a batch, so that is done for many at once; and filling texts
into a template takes a third of the time of building objects for a serialiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

Probabilities = npt.NDArray[np.float32]  # (N, number of labels), rows sum to 1
# (N, 2 + 2 top) pieces of JSON, for each image: label, probability, and for each of its likeliest ones the same.
Ranked = npt.NDArray[np.object_]

# Four digits are what a person reads.
_STEPS = 10_000
_NUMBERS = np.array([b"%r" % (step / _STEPS) for step in range(_STEPS + 1)], dtype=object)


def are_probabilities(values: Probabilities) -> bool:
    """Whether all are numbers from 0 to 1, but for the last digits of float32."""
    return bool(((values > -1e-5) & (values < 1 + 1e-5)).all())


def rank(labels: Sequence[str], probabilities: Probabilities, top: int) -> Ranked:
    """The `top` likeliest labels of each of (N, len(labels)) images; of equal ones the first comes first.

    The probabilities are such as `are_probabilities` lets pass.
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
    pairs = b",".join([b"[%s,%s]"] * (columns // 2 - 1))
    template = b'{"label":%s,"probability":%s,"top":[' + pairs + b"]}"
    return b"[%s]" % b",".join([template] * count) % tuple(ranked[:, :columns].ravel().tolist())


@lru_cache
def _texts(labels: tuple[str, ...]) -> npt.NDArray[Any]:
    return np.array([orjson.dumps(label) for label in labels], dtype=object)
