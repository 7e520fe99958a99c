"""Shape, type, count and JSON: raw pixels and Open Inference Protocol V2."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from imagebus.wire.message import MAX_BYTES, MAX_JSON_OBJECTS, MAX_JSON_PARTS, read_json
from imagebus.wire.pixels import MAX_IMAGES

from .rig import CANARY, IMAGE, V2, frugally, memory_within, outcome, refused, request, served, v2

FIVE = bytes(5 * 784)


def refused_v2(body: bytes) -> str:
    return refused(request(body, content_type=V2))


def served_v2(body: bytes) -> bool:
    return served(request(body, content_type=V2))


# --- shape, dtype, count: from the headers ------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        "4,28,28",
        "6,28,28",
        "5,28,27",
        "5,0,28",
        "5,28,0",
        "5,-28,-28",
        "-5,28,28",
        "-0,28,28",
        "+5,28,28",
        "5,28",
        "3920",
        "28,28,5",
        "5,28,28,2",
        "5,28,28,1,1",
        ",".join(["1"] * 33),
        ",".join(["5", "28", "28", *["1"] * 30]),
        f"{2**63},28,28",
        f"{2**64 + 5},28,28",
        f"5,{2**63},28",
        "1" * 1000 + ",28,28",
        "5" + "0" * 1_000_000 + ",28,28",
        "",
        ",",
        "5,,28,28",
        "5,28,28,",
        "5.0,28,28",
        "5e0,28,28",
        "0x5,28,28",
        "5_0,28,28",
        "five,28,28",
        "[5,28,28]",
        "(5, 28, 28)",
        "5 28 28",
        "5;28;28",
        "²,28,28",
        "\u0665,28,28",
        "\uff15,28,28",
        "5\0,28,28",
        "nan,28,28",
        CANARY,
        b"\xff,28,28",
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shape: str | bytes) -> None:
    assert frugally(refused, request(FIVE, shape=shape)) == "SHAPE"


@pytest.mark.parametrize("shape", ["5,28,28", "5,28,28,1", "5,784", " 5 , 28 , 28 ", "05,028,0028", None])
def test_a_shape_that_fits_is_served(shape: str | None) -> None:
    assert served(request(FIVE, shape=shape))


@pytest.mark.parametrize("length", [1, 783, 785, 5 * 784 - 1, 5 * 784 + 1])
def test_bytes_that_are_no_whole_images_are_refused(length: int) -> None:
    assert refused(request(bytes(length))) == "SHAPE"
    assert refused(request(bytes(length), shape=f"{length // 784},28,28")) in ("SHAPE", "COUNT")


@pytest.mark.parametrize("shape", ["0,28,28", "00,28,28", f"{MAX_IMAGES + 1},28,28", "9" * 18 + ",784"])
def test_no_image_or_too_many_are_refused_from_the_header(shape: str) -> None:
    assert frugally(refused, request(IMAGE, shape=shape)) == "COUNT"


def test_too_many_images_without_a_shape_are_refused() -> None:
    assert refused(request(bytes(784 * (MAX_IMAGES + 1)))) == "COUNT"
    assert served(request(bytes(784 * MAX_IMAGES)))


@pytest.mark.parametrize(
    "dtype",
    ["float32", "int8", "uint16", "UINT8", "u1", "|u1", "object", "O", " uint8", "uint8\0", CANARY, b"\xff"],
)
def test_another_dtype_is_refused(dtype: str | bytes) -> None:
    assert refused(request(dtype=dtype)) == "DTYPE"


# --- JSON --------------------------------------------------------------------------------------


def test_a_body_cut_off_anywhere_is_no_json() -> None:
    whole = v2([0, 128, 255, *[0] * 781], name="Ä")
    assert served_v2(whole)

    codes = {refused_v2(whole[:length]) for length in range(1, len(whole))}

    assert codes == {"JSON"}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"inputs":' * 9_000 + b"1" + b"}" * 9_000,
        b'{"inputs":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        v2([]).replace(b'"data":[]', b'"data":' + b"[" * 5_000 + b"]" * 5_000),
    ],
)
def test_deep_nesting_is_no_json_and_no_recursion_error(body: bytes) -> None:
    assert refused_v2(body) == "JSON"


def test_nesting_that_the_parser_takes_is_no_recursion_error_either() -> None:
    deep = b"[" * 1_000 + b"0" + b"]" * 1_000

    assert refused_v2(v2([]).replace(b'"data":[]', b'"data":' + deep)) == "SHAPE"
    assert refused_v2(v2([]).replace(b'"data":[]', b'"d\\u0061ta":' + deep)) in ("JSON", "SHAPE")
    assert served_v2(v2([0] * 784).replace(b'{"inputs"', b'{"parameters":' + deep + b',"inputs"'))


@pytest.mark.parametrize(
    "body",
    [
        v2([0] * 784).replace(b'"shape"', b'"shape":[5,28,28],"shape"'),
        v2([0] * 784).replace(b'"data"', b'"data":[],"data"'),
        v2([0] * 784).replace(b'"data"', b'"d\\u0061ta":[],"data"'),
        v2([0] * 784).replace(b'"datatype"', b'"datatype" : "FP32", "datatype"'),
        v2([0] * 784)[:-1] + b',"inputs":[]}',
        b'{"inputs":[],' + v2([0] * 784)[1:],
        v2([0] * 784, id="1")[:-1] + b',"id":"2"}',
    ],
)
def test_a_member_that_stands_twice_is_refused(body: bytes) -> None:
    assert refused_v2(body) == "JSON"


def test_members_of_the_same_name_in_several_objects_are_no_repeats() -> None:
    tensor = {"name": "data", "shape": [1, 28, 28], "datatype": "UINT8", "data": [0] * 784}

    assert served_v2(orjson.dumps({"id": "id", "inputs": [tensor, tensor], "outputs": [{"name": '"data"'}]}))


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"true",
        b"5",
        b'"inputs"',
        b"[]",
        b"{}",
        b'{"Inputs": []}',
        b'{"inputs": null}',
        b'{"inputs": 5}',
        b'{"inputs": "shape"}',
        b'{"inputs": {}}',
        b'{"inputs": {"0": {}}}',
        b'{"inputs": []}',
        b'{"inputs": [null]}',
        b'{"inputs": [5]}',
        b'{"inputs": [[]]}',
        b'{"inputs": ["shape"]}',
        b'{"inputs": [{}]}',
        b'{"inputs": [{"shape": [1, 28, 28], "datatype": "UINT8"}]}',
        b'{"inputs": [{"datatype": "UINT8", "data": []}]}',
        b'{"inputs": [{"shape": [1, 28, 28], "data": []}]}',
        b"{'inputs': []}",
        b"{inputs: []}",
        b'{"inputs": [],}',
        b'{"inputs": []} {"inputs": []}',
        b"\xef\xbb\xbf" + v2([0] * 784),
        v2([0] * 784) + b"\0",
        v2([0] * 784).decode().encode("utf-16"),
        v2([0] * 784, name="\xff").replace("\xff".encode(), b"\xff"),
        v2([0] * 784).replace(b'"images"', b'"\\ud800"'),
        v2([0] * 784).replace(b'"images"', b'"\x1b[2J"'),
        v2([0] * 784).replace(b"[0,", b"[00,"),
        v2([0] * 784).replace(b"[0,", b"[0x1,"),
        v2([0] * 784).replace(b"[0,", b"[+1,"),
        v2([0] * 784).replace(b"[0,", b"[.5,"),
        v2([0] * 784).replace(b"[0,", b"[NaN,"),
        v2([0] * 784).replace(b"[0,", b"[Infinity,"),
        v2([0] * 784).replace(b"[0,", b"[-Infinity,"),
        v2([0] * 784).replace(b"[0,", b"[1e999,"),
        v2([0] * 784).replace(b"[0,", b"[" + b"1" * 10_000 + b","),
        v2([0] * 784).replace(b"[0,", b"[-" + b"1" * 1_000_000 + b","),
        v2([0] * 784).replace(b"[1,28,28]", b"[" + b"1" * 10_000 + b",28,28]"),
    ],
)
def test_what_is_no_v2_request_is_refused(body: bytes) -> None:
    assert refused_v2(body) == "JSON"


@pytest.mark.parametrize(
    "shape",
    [
        None,
        5,
        "1,28,28",
        {},
        {"0": 1},
        [],
        [784],
        [28, 28],
        [1, 28, 27],
        [1, 28, 28, 2],
        [1, 28, 28, 1, 1],
        [1] * 33,
        [1] * 100_000,
        [-1, 28, 28],
        [1, -28, -28],
        [1, 0, 28],
        [2**63, 28, 28],
        [2**64 - 1, 28, 28],
        [1.0, 28, 28],
        [1e300, 28, 28],
        ["1", 28, 28],
        [True, 28, 28],
        [None, 28, 28],
        [[1], 28, 28],
        [[1, 28, 28]],
        [{}, 28, 28],
        [CANARY],
    ],
)
def test_a_v2_shape_that_does_not_fit_is_refused(shape: Any) -> None:
    assert refused_v2(v2([0] * 784, shape)) == "SHAPE"


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (0, [1, 28, 28]),
        ([], [1, 28, 28]),
        ([[]], [1, 28, 28]),
        ([[], []], [1, 28, 28]),
        ([0] * 783, [1, 28, 28]),
        ([0] * 785, [1, 28, 28]),
        ([0] * 784, [2, 28, 28]),
        ([0] * 784, [5, 28, 28, 1]),
        ([0] * 5 * 784, [4, 28, 28]),
        ([[0] * 784, [0]], [1, 28, 28]),
        ([[0] * 28] * 27 + [[0] * 27], [1, 28, 28]),
        ([*[0] * 783, [0]], [1, 28, 28]),
        ([[0], *[0] * 783], [1, 28, 28]),
        ([[0], [[0]], *[[0]] * 782], [1, 28, 28]),
        ([[], *[[0]] * 784], [1, 28, 28]),
    ],
)
def test_data_of_another_size_than_the_shape_are_refused(data: Any, shape: list[int]) -> None:
    assert refused_v2(v2(data, shape)) == "SHAPE"


@pytest.mark.parametrize("shape", [[0, 28, 28], [MAX_IMAGES + 1, 28, 28], [2**62, 784]])
def test_no_image_or_too_many_are_refused_from_the_v2_shape(shape: list[int]) -> None:
    assert refused_v2(v2([0] * 784, shape)) == "COUNT"


def test_as_many_v2_images_as_allowed_are_served_flat_and_with_each_pixel_in_brackets() -> None:
    assert served_v2(v2([0] * 784 * MAX_IMAGES, [MAX_IMAGES, 28, 28]))
    assert served_v2(v2([[[[0]] * 28] * 28] * MAX_IMAGES, [MAX_IMAGES, 28, 28, 1]))
    assert refused_v2(v2([0] * 784 * (MAX_IMAGES + 1), [MAX_IMAGES + 1, 28, 28])) == "COUNT"


@pytest.mark.parametrize(
    "datatype",
    [None, 5, "", "uint8", "INT8", "UINT16", "FP16", "FP64", "BOOL", "BYTES", ["UINT8"], {}, CANARY],
)
def test_another_v2_datatype_is_refused(datatype: Any) -> None:
    assert refused_v2(v2([0] * 784, datatype=datatype)) == "DTYPE"


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize(
    "data",
    [
        None,
        True,
        "AAAA",
        CANARY,
        {},
        {"0": 0},
        ["0"] * 784,
        [True] * 784,
        [None] * 784,
        [{}] * 784,
        [{"a": {"b": {}}}] * 784,
        [*[0] * 783, "0"],
        [*[0] * 783, True],
        [*[0] * 783, False],
        [*[0] * 783, None],
        [*[0] * 783, {}],
        [[*[0] * 783, CANARY]],
    ],
)
def test_data_that_are_no_numbers_are_refused(data: Any, datatype: str) -> None:
    assert refused_v2(v2(data, datatype=datatype)) == "DTYPE"


def test_one_long_text_among_the_numbers_does_not_make_each_of_them_as_long() -> None:
    body = v2([*[0] * 783, "x" * 1_000_000])

    with memory_within(20 * len(body)):  # the parser's own workspace is twelve times its text
        assert refused_v2(body) == "DTYPE"


@pytest.mark.parametrize(
    ("level", "datatype"),
    [
        (256, "UINT8"),
        (-1, "UINT8"),
        (2**63, "UINT8"),
        (2**64 - 1, "UINT8"),
        (0.5, "UINT8"),
        (254.999, "UINT8"),
        (1e300, "UINT8"),
        (255.001, "FP32"),
        (-0.101, "FP32"),
        (1.101, "FP32"),
        (1.9, "FP32"),
        (1e300, "FP32"),
        (10**300, "FP32"),
    ],
)
def test_what_is_no_grey_level_is_refused(level: float, datatype: str) -> None:
    body = v2([*[0] * 783, 7], datatype=datatype).replace(b"7]", f"{level}]".encode())

    assert refused_v2(body) == "VALUES"


@pytest.mark.parametrize(
    ("level", "datatype"),
    [(5.0, "UINT8"), (-0.0, "UINT8"), (-0.0, "FP32"), (1e-300, "FP32"), (3, "FP32")]
    + [(level, "FP32") for level in (-0.1, 1.1, 1, 2, 1.0)],
)
def test_odd_spellings_of_grey_levels_are_served(level: float, datatype: str) -> None:
    assert served_v2(v2([*[0] * 783, level], datatype=datatype))


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[' + b"{}," * (MAX_JSON_OBJECTS + 1) + b"{}]}",
        b'{"inputs":[' + b"[]," * MAX_JSON_PARTS + b"[]]}",
        b'{"inputs":[' + b"0," * MAX_JSON_PARTS + b"0]}",
    ],
)
def test_json_that_would_take_many_times_its_size_is_refused_before_it_is_parsed(body: bytes) -> None:
    assert len(body) < MAX_BYTES

    assert frugally(refused, request(body, content_type=V2)) == "TOO_LARGE"


@pytest.mark.parametrize(
    "body", [b"[" + b"[]," * 300_000 + b"[]]", b" \n[{}]", b'"text"', b"1", b"\xef\xbb\xbf{}"]
)
def test_json_that_is_no_object_is_not_even_parsed(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(request(body, content_type=V2)) == "JSON"

    monkeypatch.setattr("imagebus.wire.message.orjson.loads", None)
    with pytest.raises(orjson.JSONDecodeError):
        read_json(body)


def test_an_error_to_a_v2_request_is_a_v2_error() -> None:
    came = outcome(request(v2([0]), content_type=V2)).message

    assert set(orjson.loads(came.value)) == {"error", "id"}
