"""The network in whole numbers of 8 bits, which a processor multiplies several times as fast as floats.

Weights become int8, with a scale for each channel; what flows between the layers becomes uint8, with a scale for
each layer that is found by letting images through. The images are uint8 as they come: that a pixel is 1/255 of its
grey level is one more scale. The last layer stays in floats, lest probabilities be steps of 1/255.

Method: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, after the training; done by ONNX Runtime's own tool.
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

from training.vocabulary import Images

BATCH = 100  # images that are let through at a time
SCALED = "scaled"  # pixels, from 0 to 1
SCALING = {"Cast", "Mul", "Add"}  # the operators that make them of images
COLUMNS = 4  # a divisor of 28


def quantized(model: Any, images: Images) -> Any:
    """The ONNX model of one of the networks in 8 bits, by uint8 images (N, 28, 28) like those that it will see."""
    floats = onnx.ModelProto()
    floats.CopyFrom(model)
    _begin_with_scaled_pixels(floats.graph)
    _take_some_columns_at_once(floats.graph)
    add_pre_process_metadata(floats)  # so that the tool does not ask for what it would do before
    nodes = floats.graph.node
    kinds = [node.op_type for node in nodes]
    first = nodes[kinds.index("Conv")].input[1]
    last = max(place for place, kind in enumerate(kinds) if kind in ("MatMul", "Gemm"))
    # Where a processor has no VNNI, products of 8 bits are added in pairs, and cut off where the sum has more than
    # 16. That happens with pixels, of which neighbours are often white, and hardly ever later: 7 bits for those.
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
    """Lets images through, as scaled pixels."""

    def __init__(self, images: Images) -> None:
        self._parts = iter(np.array_split(images, math.ceil(len(images) / BATCH)))

    def get_next(self) -> dict[str, Any] | None:
        """The next part; None after the last one."""
        part = next(self._parts, None)
        return None if part is None else {SCALED: part.astype(np.float32) / 255}


def _begin_with_scaled_pixels(graph: Any) -> None:
    """Leave out the nodes that make scaled pixels of images; the graph takes those, float32 (N, 28, 28)."""
    count = [node.op_type in SCALING for node in graph.node].index(False)
    graph.node[count].input[0] = SCALED
    del graph.node[:count]
    graph.input[0].CopyFrom(make_tensor_value_info(SCALED, onnx.TensorProto.FLOAT, ["N", 28, 28]))


def _begin_with_images(graph: Any) -> None:
    """Take images again: uint8 (N, 28, 28) is what scaled pixels are in 8 bits."""
    scale = from_array(np.array(1 / 255, np.float32), "pixel_scale")
    zero = from_array(np.array(0, np.uint8), "pixel_zero")
    graph.initializer.extend([scale, zero])
    graph.node.insert(0, make_node("DequantizeLinear", ["images", scale.name, zero.name], [SCALED]))
    graph.input[0].CopyFrom(make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 28, 28]))


def _take_some_columns_at_once(graph: Any) -> None:
    """Let the first convolution, 3x3 of one channel, take four columns as four channels, and make four at once.

    The numbers stay the same. But in 8 bits a convolution first collects the pixels that each of its results is
    made of, one channel at a time, and for the first one that takes a third of a network's time: this way a
    quarter as many are collected.
    """
    _, convolution, relu = graph.node[:3]  # the first gives the pixels a channel, in the order of one layout
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
    """Kernels (channels, 1, 3, 3) for each of four columns, of four columns: (4 * channels, 4, 3, 3)."""
    wide = np.zeros((COLUMNS, len(kernels), COLUMNS, 3, 3), np.float32)
    for column in range(COLUMNS):
        for step in (-1, 0, 1):
            group, place = divmod(column + step, COLUMNS)  # of the column that lies so far to the right
            wide[column, :, place, :, 1 + group] = kernels[:, 0, :, 1 + step]
    return wide.reshape(-1, COLUMNS, 3, 3)
