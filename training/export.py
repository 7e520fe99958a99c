"""The network as one self-describing ONNX file."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from training.data import LABELS, Images, Probabilities
from training.networks import Network

BATCH = 500  # images that are predicted at a time


def version_of(network: Network) -> str:
    """Twelve hex digits that identify the weights: the same in the `.keras` and in the `.onnx` file."""
    return hashlib.sha256(b"".join(weights.tobytes() for weights in network.get_weights())).hexdigest()[:12]


def export_onnx(network: Network, images: Images | None = None) -> bytes:
    """The network as one self-describing ONNX file: name, version and labels are in its metadata.

    With images (N, 28, 28), N at least 1, like those that it will classify, it is in 8 bits (see
    `training/quantization.py`); without, in floats. The same weights and images give the same bytes.
    """
    import onnx  # not at the top, and neither is the next: only an export needs them

    from training.quantization import quantized

    network(np.zeros((1, 28, 28), np.uint8))  # Keras exports only a network that was called
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        with warnings.catch_warnings():  # from Keras's own patch of tf2onnx
            warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
            network.export(path, format="onnx", verbose=False, opset_version=17)
        model = onnx.load(path)
    _name_by_position(model.graph, network.name)
    if images is not None:
        model = quantized(model, images)
    metadata = {"name": network.name, "version": version_of(network), "labels": json.dumps(LABELS)}
    onnx.helper.set_model_props(model, metadata)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class Exported:
    """A file made by `export_onnx`, ready to predict. Raises ONNX Runtime's errors for other content."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        options = ort.SessionOptions()
        # Idle threads must not spin: a training computes beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.version: str = self._session.get_modelmeta().custom_metadata_map.get("version", "")

    @classmethod
    def read(cls, path: Path) -> Exported:
        """Read a file. Raises `OSError`, and a `ValueError` that names the file if it is not a model."""
        content = path.read_bytes()
        try:
            return cls(content)
        except Exception as error:  # ONNX Runtime raises classes of its own, with no common root
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path}: not a model that ONNX Runtime loads: {reason}") from None

    def predict(self, images: Images) -> Probabilities:
        """Probabilities, float32 (N, 10), of uint8 images (N, 28, 28), N at least 1."""
        parts = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return np.concatenate([self._session.run(None, {"images": part})[0] for part in parts])


def as_onnx(network: Network, images: Images | None, known: bytes | None) -> Exported:
    """The network's `known` ONNX file if it holds the same weights, or a new export."""
    if known is not None:
        with suppress(Exception):  # which one depends on where the file is damaged
            exported = Exported(known)
            if exported.version == version_of(network):
                return exported
    return Exported(export_onnx(network, images))


def _name_by_position(graph: Any, name: str) -> None:
    """Name everything in an ONNX graph by its position: the exporter's numbers go on from export to export."""
    graph.name, graph.doc_string = name, ""
    names = {"": "", graph.input[0].name: "images", graph.output[0].name: "probabilities"}
    for position, node in enumerate(graph.node):
        node.name = f"{position}_{node.op_type}"
        for number, value in enumerate(node.input):
            names.setdefault(value, f"{node.name}_{number}")
        names.setdefault(node.output[0], node.name)
        node.input[:] = [names[value] for value in node.input]
        node.output[:] = [names[value] for value in node.output]
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = names[value.name]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    graph.initializer.sort(key=lambda tensor: tensor.name)
