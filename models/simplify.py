"""An ONNX graph as the exporter leaves it, made simpler in place: fewer steps, the same result.

1. Grey levels are scaled by the weights of the first convolution, not one by one.
2. What a dense layer gives is scaled by its weights.
3. Pixels are flattened in the order that they lie in, channel by channel; the dense layer's weights follow.

A part that does not look as expected stays as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


def simplify(model: Any) -> None:
    """Make the graph of an ONNX model simpler, in place."""
    graph = _Graph(model)
    for node in list(model.graph.node):
        if node.op_type == "Conv":
            _scale_before(graph, node)
        elif node.op_type == "MatMul":
            _scale_after(graph, node)
            _flatten_before(graph, node)
    graph.drop_unused()


class _Graph:
    """What is where in a graph."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._onnx = onnx
        self.graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
        self.shapes = {
            value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in inferred
        }

    def maker(self, value: str) -> Any:
        """The node that gives a value; None for weights and the graph's input."""
        return next((node for node in self.graph.node if value in node.output), None)

    def only_user(self, value: str) -> Any:
        """The node that takes a value, if it is one."""
        users = [node for node in self.graph.node if value in node.input]
        return users[0] if len(users) == 1 else None

    def weights(self, value: str) -> Values | None:
        """Weights by their name."""
        for tensor in self.graph.initializer:
            if tensor.name == value:
                array: Values = self._onnx.numpy_helper.to_array(tensor)
                return array
        return None

    def set_weights(self, value: str, weights: Values) -> None:
        """Other weights under the same name."""
        for tensor in self.graph.initializer:
            if tensor.name == value:
                tensor.CopyFrom(self._onnx.numpy_helper.from_array(weights.astype(np.float32), value))

    def bypass(self, node: Any) -> None:
        """Remove a node: what takes its result takes its first input instead."""
        for user in self.graph.node:
            user.input[:] = [node.input[0] if value == node.output[0] else value for value in user.input]
        self.graph.node.remove(node)

    def drop_unused(self) -> None:
        """Remove nodes and weights that nothing leads on from."""
        wanted = {value.name for value in self.graph.output}
        kept = []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        initializers = [tensor for tensor in self.graph.initializer if tensor.name in wanted]
        for field, values in ((self.graph.node, kept[::-1]), (self.graph.initializer, initializers)):
            copies = [type(value).FromString(value.SerializeToString()) for value in values]
            del field[:]
            field.extend(copies)


def _scale_before(graph: _Graph, convolution: Any) -> None:
    """Levels * scale + 0, reshaped, convolved: the weights are scaled instead."""
    node = graph.maker(convolution.input[0])
    while node is not None and node.op_type in ("Reshape", "Mul", "Add"):
        before, other = graph.maker(node.input[0]), graph.weights(node.input[1])
        if other is None or graph.only_user(node.output[0]) is None:
            return
        if node.op_type == "Mul" and other.size == 1:
            weights = graph.weights(convolution.input[1])
            if weights is None:
                return
            graph.set_weights(convolution.input[1], weights * other.reshape(()))
            graph.bypass(node)
        elif node.op_type == "Add" and not other.any():
            graph.bypass(node)
        elif node.op_type != "Reshape":
            return
        node = before


def _scale_after(graph: _Graph, dense: Any) -> None:
    """(Values @ weights) * scales: the weights are scaled instead."""
    node = graph.only_user(dense.output[0])
    if node is None or node.op_type != "Mul":
        return
    weights, scales = graph.weights(dense.input[1]), graph.weights(node.input[1])
    if weights is not None and scales is not None and scales.size == weights.shape[1]:
        graph.set_weights(dense.input[1], weights * scales.reshape(1, -1))
        graph.bypass(node)


def _flatten_before(graph: _Graph, dense: Any) -> None:
    """Channels last, flattened, @ weights: the weights are in another order instead."""
    reshape, weights = graph.maker(dense.input[0]), graph.weights(dense.input[1])
    transpose = (
        graph.maker(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
    )
    if transpose is None or transpose.op_type != "Transpose" or weights is None:
        return
    height, width, channels = graph.shapes[transpose.output[0]][1:]
    if list(transpose.attribute[0].ints) != [0, 2, 3, 1] or height * width * channels != len(weights):
        return
    ordered = weights.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(weights.shape)
    graph.set_weights(dense.input[1], ordered)
    reshape.op_type = "Flatten"
    reshape.input[:] = [transpose.input[0]]
    del reshape.attribute[:]
