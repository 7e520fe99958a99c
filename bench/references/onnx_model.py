"""The model of the careful loop and of the peers: ONNX Runtime on packages as they come off the wire.

It imports nothing of the project, so that it works in the peers' environment as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read on import; else a thread of it starts

import numpy as np
import onnxruntime as ort
import orjson

Packages = Sequence[bytes]  # each is uint8 pixels, row-major, (N, 28, 28)
IMAGE = 28 * 28  # bytes
SHARED = 64  # images: from this size on, the cores share a batch
Prediction = tuple[str, float]  # label and probability of an image


class OnnxModel:
    """A served model file, the shipped one or that of `bench/peers/two_convolutions.py`.

    The cores share a large batch: each runs the whole network on its part, so that none waits for another
    before the end. ONNX Runtime's own threads gain less here, for more CPU time.
    """

    def __init__(self, path: str | Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._labels = np.array(json.loads(metadata["labels"]))
        self._cores = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._cores)
        self.predict([bytes(5 * IMAGE)])  # warm before the first request

    def predict(self, packages: Packages) -> list[list[Prediction]]:
        """The predictions for each package, the likeliest label of each image."""
        images = np.frombuffer(b"".join(packages), np.uint8).reshape(-1, 28, 28)
        probabilities = self._run(images)
        labels = self._labels[probabilities.argmax(axis=1)].tolist()
        predictions = zip(labels, probabilities.max(axis=1).astype(np.float64).round(4).tolist(), strict=True)
        return [[next(predictions) for _ in range(len(package) // IMAGE)] for package in packages]

    def _run(self, images: Any) -> Any:
        if len(images) < SHARED:
            return self._session.run(None, {self._input: images})[0]
        parts = np.array_split(images, self._cores)
        return np.concatenate(
            list(self._pool.map(lambda part: self._session.run(None, {self._input: part})[0], parts))
        )


def encode_reply(id: str, predictions: Iterable[Prediction]) -> bytes:
    """The reply to one package, as `bench/replies.py` reads it."""
    listed = [{"label": label, "probability": probability} for label, probability in predictions]
    return orjson.dumps({"id": id, "predictions": listed})
