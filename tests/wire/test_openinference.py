"""Open Inference Protocol V2 in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from imagebus.errors import BadMessage
from imagebus.wire.replies import encode_error, encode_reply

from ..fakes import LABELS, FirstPixel, envelope_of
from .rig import code_of, images_of, request, v2


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 28, 28, 1), (2, 784)])
def test_v2_integers_are_grey_levels(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8)

    flat = images_of(v2(images.ravel().tolist(), shape), "application/json")
    nested = images_of(v2(images.tolist(), shape), "application/json")

    np.testing.assert_array_equal(flat, images)
    np.testing.assert_array_equal(nested, images)


def test_v2_floats_up_to_one_are_fractions_of_255() -> None:
    fractions = images_of(v2([0.0] * 783 + [1.0], datatype="FP32"), "application/json")
    levels = images_of(v2([0.0] * 783 + [200.0], datatype="FP32"), "application/json")

    assert fractions.max() == 255
    assert levels.max() == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[1", "JSON"),
        (b"{}", "JSON"),
        (b'{"inputs": []}', "JSON"),
        (b'{"inputs": 5}', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"inputs": [{"shape": [1, 28, 28], "datatype": "UINT8", "data": [NaN]}]}', "JSON"),
        (v2([0] * 783 + [10**400]), "JSON"),
        (v2([0] * 784, datatype="BYTES"), "DTYPE"),
        (v2([0] * 784, datatype=None), "DTYPE"),
        (v2(["0"] * 784), "DTYPE"),
        (v2(None), "DTYPE"),
        (v2({"a": 1}), "DTYPE"),
        (v2([0] * 784, shape="1,28,28"), "SHAPE"),
        (v2([0] * 784, shape=[1, 28, 28.0]), "SHAPE"),
        (v2([0] * 784, shape=[True, 28, 28]), "SHAPE"),
        (v2([0] * 783), "SHAPE"),
        (v2([[0] * 28] * 27 + [[0] * 27]), "SHAPE"),
        (v2([0] * 784, shape=[2**62, 28, 28]), "COUNT"),
        (v2([0] * 783 + [256]), "VALUES"),
        (v2([0] * 783 + [-1]), "VALUES"),
    ],
)
def test_wrong_v2_json_has_a_code(body: bytes, code: str) -> None:
    assert code_of(body, "application/json") == code


def test_a_v2_request_is_answered_in_v2() -> None:
    message = request(b"{}", correlation_id="1", content_type="application/json; charset=utf-8")
    envelope = envelope_of(message)

    body = json.loads(
        encode_reply(envelope, "replies", FirstPixel.model, LABELS, np.eye(10, dtype=np.float32)[:2]).value
    )
    error = json.loads(encode_error(envelope, "replies", BadMessage("SHAPE", "images are N,28,28")).value)

    assert body["model_name"], body["id"] == ("fashion", "1")
    assert [output["name"] for output in body["outputs"]] == ["probabilities", "labels"]
    assert body["outputs"][0]["shape"] == [2, 10]
    assert body["outputs"][1]["data"] == ["a", "b"]
    assert error == {"error": "SHAPE: images are N,28,28", "id": "1"}
