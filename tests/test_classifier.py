"""ONNX files as classifiers: the shipped one, others that fit, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from imagebus.classifier import MAX_IMAGES_PER_RUN, OnnxClassifier
from imagebus.errors import ConfigError

LABELS = tuple("abcdefghij")


def model_file(
    path: Path,
    *,
    input_type: int = TensorProto.FLOAT,
    shape: Sequence[int | str] = ("n", 28, 28),
    classes: int = 10,
    softmax: bool = False,
) -> Path:
    """A model whose class `i` has as logit the grey level of the image's pixel `i`, as it comes in."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("Slice", ["flat", "starts", "ends", "axes"], ["logits"]),
        helper.make_node("Softmax" if softmax else "Identity", ["logits"], ["output"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("starts", 0), ("ends", classes), ("axes", 1))
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("images", input_type, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.fixture
def images() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (1, 28, 28), (784,)])
def test_float_models_of_any_layout_get_grey_levels_from_0_to_1(
    tmp_path: Path, shape: tuple[int, ...], images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> None:
    classifier = OnnxClassifier(model_file(tmp_path / "other.onnx", shape=("n", *shape)), labels=LABELS)

    probabilities = classifier.predict(images)

    logits = images.reshape(3, -1)[:, :10].astype(np.float32) / 255
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    assert classifier.labels == LABELS
    assert (classifier.model.name, classifier.model.version) == ("other", "0")


def test_probabilities_are_left_as_they_are(tmp_path: Path) -> None:
    path = model_file(tmp_path / "model.onnx", input_type=TensorProto.UINT8, softmax=True)

    probabilities = OnnxClassifier(path, labels=LABELS).predict(np.zeros((2, 28, 28), np.uint8))

    np.testing.assert_allclose(probabilities, np.full((2, 10), 0.1), rtol=1e-6)


def test_many_images_are_predicted_in_several_runs(tmp_path: Path) -> None:
    count = 2 * MAX_IMAGES_PER_RUN + 1
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 0, 0] = np.arange(count) % 256
    classifier = OnnxClassifier(model_file(tmp_path / "model.onnx"), labels=LABELS)

    together = classifier.predict(images)

    one_by_one = np.concatenate([classifier.predict(image[np.newaxis]) for image in images])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-6)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = model_file(tmp_path / "model.onnx")

    classifier = OnnxClassifier(path, labels=LABELS)

    assert classifier.model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_cannot_be_served_is_refused_with_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    cases = {
        "No such file": (tmp_path / "missing.onnx", LABELS),
        "not a model that ONNX Runtime loads": (text, LABELS),
        "its input is tensor(float) ['n', 32, 32]": (model_file(tmp_path / "a", shape=("n", 32, 32)), LABELS),
        "its input is [1, 28, 28]; expected a free": (model_file(tmp_path / "e", shape=(1, 28, 28)), LABELS),
        "its input is tensor(double)": (model_file(tmp_path / "b", input_type=TensorProto.DOUBLE), LABELS),
        "its metadata has no labels: give 10, as A,B,…": (model_file(tmp_path / "c"), ()),
        "it has 10 classes, but 2 labels are given": (model_file(tmp_path / "d"), ("a", "b")),
    }

    for reason, (path, labels) in cases.items():
        with pytest.raises(ConfigError) as refused:
            OnnxClassifier(path, labels=labels)

        message = str(refused.value)
        assert reason in message
        assert message.startswith(str(path))
        assert "\n" not in message


def test_a_model_file_may_not_bring_weights_from_elsewhere(tmp_path: Path) -> None:
    model = onnx.load(model_file(tmp_path / "model.onnx"))
    weights = model.graph.initializer[0]
    weights.ClearField("int64_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(model.SerializeToString())

    with pytest.raises(ConfigError, match="not a model that ONNX Runtime loads"):
        OnnxClassifier(outside, labels=LABELS)
