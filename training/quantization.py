"""Quantisation: the network in 8-bit integers, which a processor multiplies several times as fast as floats.

Weights become int8, with a scale for each channel; activations become uint8, with a scale for each layer, which is
found by passing images through. The images are uint8 already: the factor from grey levels to pixels, 1/255, is one
more scale. The last layer stays in floats, since probabilities would otherwise be multiples of 1/255.

Method: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, applied after the training; done by ONNX Runtime's own tool.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.helper import make_node, make_tensor_value_info
from onnx.numpy_helper import from_array, to_array
from onnxruntime import quantization as tool
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from training.data import Images

BATCH = 100  # images passed through at a time
SCALED = "scaled"  # pixels, from 0 to 1
SCALING = {"Cast", "Mul", "Add"}  # the operators that compute them from images
COLUMNS = 4  # a divisor of 28


def quantized(model: Any, images: Images) -> Any:
    """One of the networks, an ONNX model, in 8 bits; the scales are found with images like those it will classify."""
    floats = onnx.ModelProto()
    floats.CopyFrom(model)
    _begin_with_scaled_pixels(floats.graph)
    _take_some_columns_at_once(floats.graph)
    add_pre_process_metadata(floats)  # the tool would else ask for a step that is not needed
    nodes = floats.graph.node
    kinds = [node.op_type for node in nodes]
    first = nodes[kinds.index("Conv")].input[1]
    last = max(position for position, kind in enumerate(kinds) if kind in ("MatMul", "Gemm"))
    # A processor without VNNI adds 8-bit products in pairs, and clips sums that need more than 16 bits. That happens
    # with pixels, since neighbours are often both white, and hardly ever later: so the first weights get 7 bits.
    seven = {"axis": 0, "quant_type": tool.QuantType.QInt8, "reduce_range": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        tool.quantize_static(
            floats,
            path,
            _Reader(images),
            per_channel=True,
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in nodes[last:]],
            extra_options={"TensorQuantOverrides": {first: [seven]}},
        )
        result = onnx.load(path)
    _begin_with_images(result.graph)
    return result


class _Reader(tool.CalibrationDataReader):  # type: ignore[misc]
    """Passes images through, as scaled pixels."""

    def __init__(self, images: Images) -> None:
        self._parts = iter(np.array_split(images, math.ceil(len(images) / BATCH)))

    def get_next(self) -> dict[str, Any] | None:
        """The next part; None after the last one."""
        part = next(self._parts, None)
        return None if part is None else {SCALED: part.astype(np.float32) / 255}


def _begin_with_scaled_pixels(graph: Any) -> None:
    """Remove the nodes that scale the pixels; the graph then takes scaled ones, float32 (N, 28, 28)."""
    count = [node.op_type in SCALING for node in graph.node].index(False)
    graph.node[count].input[0] = SCALED
    del graph.node[:count]
    graph.input[0].CopyFrom(make_tensor_value_info(SCALED, onnx.TensorProto.FLOAT, ["N", 28, 28]))


def _begin_with_images(graph: Any) -> None:
    """Take images again: scaled pixels in 8 bits are the uint8 (N, 28, 28) that come."""
    scale = from_array(np.array(1 / 255, np.float32), "pixel_scale")
    zero = from_array(np.array(0, np.uint8), "pixel_zero")
    graph.initializer.extend([scale, zero])
    graph.node.insert(0, make_node("DequantizeLinear", ["images", scale.name, zero.name], [SCALED]))
    graph.input[0].CopyFrom(make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 28, 28]))


def _take_some_columns_at_once(graph: Any) -> None:
    """Let the first convolution, 3x3 of one channel, read four columns as four channels, and compute four at once.

    The results stay the same. But a convolution in 8 bits first gathers the pixels that each result needs, channel by
    channel, and for the first convolution that takes a third of a network's time: this way it gathers
    a quarter as many.
    """
    _, convolution, relu = graph.node[:3]  # the first gives the pixels a channel dimension
    rest = graph.node[3:]
    for tensor in graph.initializer:
        if tensor.name == convolution.input[1]:
            kernels = to_array(tensor)  # (channels, 1, 3, 3)
            tensor.CopyFrom(from_array(of_some_columns(kernels), tensor.name))
        elif tensor.name in convolution.input[2:]:
            tensor.CopyFrom(from_array(np.tile(to_array(tensor), COLUMNS), tensor.name))

    def reshape(source: str, target: str, *shape: int) -> Any:
        graph.initializer.append(from_array(np.array(shape), f"{target}_shape"))
        return make_node("Reshape", [source, f"{target}_shape"], [target], target)

    def transpose(source: str, target: str, *order: int) -> Any:
        return make_node("Transpose", [source], [target], target, perm=order)

    groups = 28 // COLUMNS
    before = [
        reshape(SCALED, "columns_last", -1, 28, groups, COLUMNS),
        transpose("columns_last", "columns", 0, 3, 1, 2),
    ]
    after = [
        transpose(relu.output[0], "channels_last", 0, 2, 3, 1),
        reshape("channels_last", "columns_apart", -1, 28, 28, len(kernels)),
        transpose("columns_apart", "first_layer", 0, 3, 1, 2),
    ]
    convolution.input[0] = "columns"
    for node in rest:
        node.input[:] = ["first_layer" if name == relu.output[0] else name for name in node.input]
    del graph.node[:]
    graph.node.extend([*before, convolution, relu, *after, *rest])
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def of_some_columns(kernels: Any) -> Any:
    """Kernels (channels, 1, 3, 3), rewritten to compute four columns from four columns: (4 * channels, 4, 3, 3)."""
    wide = np.zeros((COLUMNS, len(kernels), COLUMNS, 3, 3), np.float32)
    for column in range(COLUMNS):
        for step in (-1, 0, 1):
            group, within = divmod(column + step, COLUMNS)  # where the column `step` to the right is found
            wide[column, :, within, :, 1 + group] = kernels[:, 0, :, 1 + step]
    return wide.reshape(-1, COLUMNS, 3, 3)
