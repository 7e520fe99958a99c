"""An ONNX model file as `predict(images) -> probabilities`.

The files that `CNNFashion.save()` writes describe themselves: uint8 (N, 28, 28) in, probabilities out,
name, version and labels in the ONNX metadata. Files made elsewhere are served too when their shapes fit:
float32 input as (N, 28, 28), (N, 28, 28, 1), (N, 1, 28, 28) or (N, 784) gets grey levels divided by 255,
and an output whose rows are no probabilities goes through a softmax.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

# Read at import: the Linux wheel would keep a file of usage data in the user's cache, and a thread for it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort
import orjson

from imagebus.errors import ConfigError, ModelError
from imagebus.forking import after_fork
from imagebus.wire.pixels import FASHION, Images, ImageSpecLike, shape_of
from imagebus.wire.results import Model, ModelIdentity, Probabilities

# Runs of 16 to 64 images stay in a core's cache: runs of 160 took a quarter longer for each image. Of those, longer
# runs mean fewer hand-overs between threads: with `tiny`, a replier makes 5% more images a second than in runs of 40.
MAX_IMAGES_PER_RUN = 64
MIN_IMAGES_PER_RUN = 16  # to share a batch among threads; one thread is faster for fewer
MAX_LABEL = 100  # characters; with longer ones replies outgrow what the bus takes
_PROBE = 2  # images predicted at start: the shapes are checked and the kernels are warm


class Classifier(Protocol):
    """What the worker needs of a model, in any runtime."""

    @property
    def model(self) -> ModelIdentity:
        """Which model it is."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes."""

    @property
    def spec(self) -> ImageSpecLike:
        """Which images it takes."""

    def predict(self, images: Images) -> Probabilities:
        """Probabilities, float32 (N, len(labels)), of N images as `spec` says."""
        ...


class OnnxClassifier:
    """A model file run by ONNX Runtime.

    `threads` share a large batch (0: one for each core): each runs the whole network on its part, so that
    none waits for another before the end. `predict` may be called from several threads, and in a forked child.
    `labels` names the classes of a file that does not name them itself. Raises `ConfigError`, one line with the
    file's name, when the file is missing, is no ONNX model, or does not classify 28x28 images.
    """

    def __init__(self, path: str | Path, *, labels: Sequence[str] = (), threads: int = 0) -> None:
        path = Path(path)
        self.spec = FASHION
        self._threads = threads or os.cpu_count() or 1
        self._start_pool()
        after_fork(self, OnnxClassifier._start_pool)  # the session has no threads, so it goes on
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors: warnings about a model are for its author
        try:
            content = path.read_bytes()
            # From bytes: the digest is of what runs, and weights outside the file are not found.
            self._session = ort.InferenceSession(
                content,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # to the same provider, after printing why
            )
            metadata = self._session.get_modelmeta().custom_metadata_map
            self._input, self._shape, self._dtype = self._read_input(path)
        except ConfigError:
            raise
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except Exception as error:  # ONNX Runtime raises classes of its own, with no common root
            raise ConfigError(f"{path}: not a model that ONNX Runtime loads: {_first_line(error)}") from None

        self.labels = tuple(labels) or tuple(_stated_labels(metadata))
        self.model = Model(
            name=metadata.get("name", path.stem),
            version=metadata.get("version", "0"),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        self._finish: Callable[[Any], Probabilities] = lambda output: output
        self._check_output(path)

    def _start_pool(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="imagebus-model")

    def predict(self, images: Images) -> Probabilities:
        """Probabilities, float32 (N, len(labels)), of uint8 images (N, 28, 28).

        Raises `ModelError` when the model fails on them.
        """
        parts = min(self._threads, len(images) // MIN_IMAGES_PER_RUN) or 1
        size = min(-(-len(images) // parts), MAX_IMAGES_PER_RUN)
        if len(images) <= size:
            return self._run(images)
        runs = [images[start : start + size] for start in range(0, len(images), size)]
        return np.concatenate(list(self._pool.map(self._run, runs)))

    def _run(self, images: Images) -> Probabilities:
        values: Any = images.reshape(len(images), *self._shape)
        if self._dtype == np.float32:
            values = values.astype(np.float32) / 255
        try:
            return self._finish(self._session.run(None, {self._input: values})[0])
        except Exception as error:
            raise ModelError(f"the model failed on {len(images)} images: {_first_line(error)}") from error

    def _read_input(self, path: Path) -> tuple[str, tuple[int, ...], type[np.uint8 | np.float32]]:
        inputs = self._session.get_inputs()
        shape = tuple(inputs[0].shape[1:]) if inputs[0].shape else ()
        dtypes: dict[str, type[np.uint8 | np.float32]] = {
            "tensor(uint8)": np.uint8,
            "tensor(float)": np.float32,
        }
        if len(inputs) != 1 or shape not in _input_shapes(self.spec) or inputs[0].type not in dtypes:
            found = ", ".join(f"{each.type} {each.shape}" for each in inputs)
            raise ConfigError(f"{path}: its input is {found}; expected uint8 or float {shape_of(self.spec)}")
        if isinstance(inputs[0].shape[0], int):
            raise ConfigError(
                f"{path}: its input is {inputs[0].shape}; expected a free first dimension, the number of images"
            )
        return inputs[0].name, shape, dtypes[inputs[0].type]

    def _check_output(self, path: Path) -> None:
        """One prediction at start: errors are found now, and the first request meets warm kernels."""
        try:
            output = np.asarray(
                self._run(np.zeros((_PROBE, self.spec.height, self.spec.width), self.spec.dtype))
            )
        except ModelError as error:
            raise ConfigError(f"{path}: {error}") from None
        if output.ndim != 2 or output.shape[0] != _PROBE or output.dtype != np.float32:
            raise ConfigError(
                f"{path}: its output is {output.dtype} {output.shape}, expected float32 (N, classes)"
            )
        classes = output.shape[1]
        if not self.labels:
            raise ConfigError(
                f"{path}: its metadata has no labels: give {classes}, as A,B,… in the order of its output"
            )
        if len(self.labels) != classes:
            raise ConfigError(f"{path}: it has {classes} classes, but {len(self.labels)} labels are given")
        shown = (self.model.name, self.model.version, *self.labels)
        if not all(text.isprintable() and len(text) <= MAX_LABEL for text in shown):
            raise ConfigError(
                f"{path}: its name, version or a label is no printable text of at most {MAX_LABEL} characters"
            )
        if not (np.all(output >= 0) and np.allclose(output.sum(axis=1), 1, atol=1e-3)):
            self._finish = _softmax


def _input_shapes(spec: ImageSpecLike) -> tuple[tuple[int, ...], ...]:
    """How a network may lay out one image."""
    height, width = spec.height, spec.width
    return (height, width), (height, width, 1), (1, height, width), (height * width,)


def _softmax(logits: Probabilities) -> Probabilities:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _stated_labels(metadata: dict[str, str]) -> list[str]:
    try:
        labels = orjson.loads(metadata.get("labels", "[]"))
    except orjson.JSONDecodeError:
        return []
    return [str(label) for label in labels] if isinstance(labels, list) else []


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
