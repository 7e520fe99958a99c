"""What a user may get wrong: the config file, the command line, the model file, images, left-over state.

Data given to `fit` are in tests/test_cnn_minst.py.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest
from onnx import TensorProto, helper

import replier
import requestor
from imagebus.classifier import OnnxClassifier
from imagebus.errors import ConfigError
from imagebus.images import load_images
from imagebus.open_packages import OpenPackages, Package
from imagebus.transports.kafka.config import read_settings

from ..fakes import LABELS, package
from .rig import CANARY


def said(call: Callable[[], object], path: Path) -> str:
    """The one line that is said of a file; it names the file and shows no secret."""
    with pytest.raises(ConfigError) as refused:
        call()
    line = str(refused.value)
    assert str(path) in line
    assert CANARY not in line.replace(str(path), "")
    assert "\n" not in line
    return line


# --- the config file ---------------------------------------------------------------------------

CONFIGS = [
    ("", "bootstrap.servers is missing"),
    ("\n\n# nothing\n", "bootstrap.servers is missing"),
    ("bootstrap.servers=\n", "bootstrap.servers is missing"),
    ("bootstrap.servers\n", ":1: expected key = value"),
    ("bootstrap.servers: a:1\n", ":1: expected key = value"),
    (f"a=1\n{CANARY}\n", ":2: expected key = value"),
    (f"sasl.password {CANARY}\n", ":1: expected key = value"),
    (f"sasl.password:{CANARY}=\n", ":1: expected key = value"),
    (f"sasl.password: {CANARY}=x\n", ":1: expected key = value"),
    (f"a=1\nMIIE{CANARY}==\n", ":2: expected key = value"),
    (f"\x1b[2J{CANARY}=1\n", ":1: expected key = value"),
    (f"é{CANARY}=1\n", ":1: expected key = value"),
    ("[kafka]\nbootstrap.servers=a:1\n", ":1: expected key = value"),
    ("bootstrap.servers=a:1\0\n", ":1: "),
    ("Bootstrap.Servers=a:1\n", ":1: expected key = value"),
    ('{"bootstrap.servers": "a:1"}', ":1: this is JSON, expected key = value"),
    ('\ufeff  \n {"type": "service_account"}', ":1: this is JSON, expected key = value"),
    (f"sasl.password={CANARY}\nsasl.password={CANARY}\n", ":2: sasl.password is set twice"),
    ("sasl.password=${NOT_SET_ANYWHERE}\n", ":1: sasl.password uses ${NOT_SET_ANYWHERE}"),
    (f"plugin.library.paths={CANARY}.so\n", ":1: plugin.library.paths is refused"),
    (f"sasl.kerberos.kinit.cmd={CANARY}\n", ":1: sasl.kerberos.kinit.cmd is refused"),
    (f"ssl.engine.location={CANARY}\n", ":1: ssl.engine.location is refused"),
    ("enable.auto.commit=true\n", ":1: enable.auto.commit must be false"),
    (f"isolation.level={CANARY}\n", ":1: isolation.level must be read_committed"),
    (f"group.id={CANARY}\n", ":1: group.id is not set here"),
    ("bootstrap.servers=a:70000\n", ":1: bootstrap.servers has a port"),
    ("bootstrap.servers=a:1,b:0\n", ":1: bootstrap.servers has a port"),
    ("bootstrap.servers=a:\n", ":1: bootstrap.servers has a port"),
    ("bootstrap.servers=a:-1\n", ":1: bootstrap.servers has a port"),
    ("bootstrap.servers=a:9092 \u0665\n", ":1: bootstrap.servers has a port"),
    (f"bootstrap.servers=a:{'9' * 10_000}\n", ":1: bootstrap.servers has a port"),
    (f"bootstrap.servers=a:{CANARY}\n", ":1: bootstrap.servers has a port"),
]


@pytest.mark.parametrize(("text", "line"), CONFIGS)
def test_a_config_file_that_is_wrong_is_one_line_with_file_and_key(
    tmp_path: Path, text: str, line: str
) -> None:
    path = tmp_path / "kafka.config"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)

    assert line in said(lambda: read_settings(path), path)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"\x80", b"a=\xc3\x28\n", bytes(range(256))])
def test_a_config_file_that_is_no_text_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "kafka.config"
    path.write_bytes(content)

    assert "cannot be read as text" in said(lambda: read_settings(path), path)


def test_a_missing_config_file_or_a_folder_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "kafka.config"

    assert "no such file" in said(lambda: read_settings(missing), missing)
    assert "cannot be read" in said(lambda: read_settings(tmp_path), tmp_path)


def test_a_secret_in_a_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kafka.config"
    path.write_text(f"bootstrap.servers=a:1\nsasl.password={CANARY}\n")
    path.chmod(0o644)

    assert ":2: sasl.password stands in a file that everybody can read" in said(
        lambda: read_settings(path), path
    )


# --- the command line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        *((replier.options, [name, "0"]) for name in ("--partitions", "--max-batch-size", "--max-rounds")),
        *((requestor.options, [name, "0"]) for name in ("--partitions", "--batch-size", "--top")),
        (replier.options, ["--max-batch-size", "1.5"]),
        (replier.options, ["--max-batch-size", "many"]),
        (replier.options, ["--max-batch-size", "9" * 5_000]),
        (replier.options, ["--max-batch-size"]),
        (replier.options, ["--metrics-port", "70000"]),
        (replier.options, ["--metrics-port", "0"]),
        (replier.options, ["--metrics-port", "-1"]),
        (replier.options, ["--max-wait", "-1"]),
        (replier.options, ["--max-wait", "inf"]),
        (replier.options, ["--max-wait", "nan"]),
        (replier.options, ["--threads", "-1"]),
        (replier.options, ["--runtime", "torch"]),
        (replier.options, ["--guarantee", "at-most-once"]),
        (replier.options, ["-c", "carrier-pigeon"]),
        (replier.options, ["--no-such-option"]),
        (replier.options, ["left over"]),
        (requestor.options, ["--interval", "-1"]),
        (requestor.options, ["--timeout", "0"]),
        (requestor.options, ["--timeout", "1e999"]),
        (requestor.options, ["--count", "-1"]),
        (requestor.options, ["--batch-size", "\u0660"]),
    ],
)
def test_a_command_line_that_is_wrong_ends_with_status_2_and_names_the_option(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: Callable[[], object],
    arguments: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["program.py", *arguments])

    with pytest.raises(SystemExit) as ended:
        options()

    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("program.py: error: ")
    assert arguments[0] in line


# --- the model file ----------------------------------------------------------------------------


def model_bytes(*, output: int = TensorProto.FLOAT, classes: int = 10, **metadata: str) -> bytes:
    """A network that says nothing of the image: as many zeros as it has classes."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Slice", ["flat", "start", "end", "axis"], ["few"]),
        helper.make_node("Cast", ["few"], ["output"], to=output),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("start", 0), ("end", classes), ("axis", 1))
    ]
    graph = helper.make_graph(
        nodes,
        "zeros",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 28, 28])],
        [helper.make_tensor_value_info("output", output, ["n", classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    if metadata:
        helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"no model",
        b"\x89PNG\r\n\x1a\n",
        b"PK\x03\x04",
        b"\xff" * 10_000,
        b'{"json": true}',
        model_bytes()[:-1],
        model_bytes()[: len(model_bytes()) // 2],
        model_bytes(output=TensorProto.DOUBLE),
        model_bytes(output=TensorProto.INT64),
        model_bytes(),
        model_bytes(labels="no JSON"),
        model_bytes(labels='{"a": 1}'),
        model_bytes(labels="[]"),
        model_bytes(labels='["a"]'),
        model_bytes(labels=orjson.dumps([*LABELS[:9], "\x1b[2J"]).decode()),
        model_bytes(labels=orjson.dumps([*LABELS[:9], "x" * 1000]).decode()),
        model_bytes(labels=orjson.dumps([*LABELS[:9], "a\nb"]).decode()),
        model_bytes(labels=orjson.dumps(LABELS).decode(), name="\x1b[2J"),
        model_bytes(labels=orjson.dumps(LABELS).decode(), version="1" * 1000),
    ],
)
def test_a_model_file_that_cannot_be_served_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    said(lambda: OnnxClassifier(path), path)


def test_a_model_file_that_is_a_folder_is_one_line(tmp_path: Path) -> None:
    said(lambda: OnnxClassifier(tmp_path), tmp_path)


def test_a_model_file_changed_in_any_one_byte_is_served_or_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    whole = model_bytes(labels=orjson.dumps(LABELS).decode())

    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(ConfigError):
            OnnxClassifier(path, threads=1)


def test_an_onnx_file_that_onnx_itself_takes_is_the_one_that_is_changed() -> None:
    onnx.checker.check_model(onnx.load_from_string(model_bytes()))


# --- images ------------------------------------------------------------------------------------


def npz(**arrays: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


IMAGES = package(1, 2, 3)
WHOLE = npz(images=IMAGES, labels=np.array([0, 1, 2]), names=np.array(["a", "b", "c"]))
# The header of an array that claims 100 million images.
LIAR = npy(IMAGES).replace(b"(3, 28, 28), }", b"(100000000, 28, 28), }").replace(b" " * 8 + b"\n", b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        npy(IMAGES),
        npy([object()]),
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE.replace(IMAGES.tobytes()[:4], b"\xff" * 4, 1)[:200] + WHOLE[200:].replace(b"\0", b"\1"),
        zipped(images=b""),
        zipped(images=b"\x93NUMPY"),
        zipped(images=b"\x93NUMPY\x09\x00\xff\xff"),
        zipped(images=b"\x93NUMPY\x01\x00\x0c\x00{'descr': 1}\n"),
        zipped(images=npy([object()])),
        zipped(images=LIAR),
        zipped(images=npy(IMAGES)[:-1]),
        zipped(other=npy(IMAGES)),
        npz(pictures=IMAGES),
        npz(images=IMAGES[:0]),
        npz(images=IMAGES[0]),
        npz(images=IMAGES[:, :27]),
        npz(images=IMAGES.astype(np.float32)),
        npz(images=np.array(CANARY)),
        npz(images=IMAGES, labels=np.array([0, 1])),
        npz(images=IMAGES, labels=np.array(0)),
        npz(images=IMAGES, labels=np.array([0.0, 1.0, 2.0])),
        npz(images=IMAGES, labels=np.array(["a", "b"])),
        npz(images=IMAGES, labels=np.array([True, False, True])),
        npz(images=IMAGES, labels=np.eye(3)),
        npz(images=IMAGES, labels=np.array([0, 1, 2]), names=np.array([b"\xff", b"b", b"c"])),
        npz(images=IMAGES, labels=np.array([0, 1, 2]), names=np.array([0.1, 0.2, 0.3])),
        zipped(images=npy(IMAGES), labels=npy([0, 1, 2]), names=npy(np.array(["a", "b", "c"], object))),
        npz(images=IMAGES, labels=np.array([0, 1, 2]), names=np.array(["a", "b"])),
        npz(images=IMAGES, labels=np.array([-1, 0, 1]), names=np.array(["a", "b"])),
        npz(images=IMAGES, labels=np.array([0, 0, 0]), names=np.array("a")),
        npz(images=IMAGES, labels=np.array([0, 0, 0]), names=np.array([["a", "b"]])),
    ],
)
def test_an_npz_file_that_has_no_images_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.npz"
    path.write_bytes(content)

    said(lambda: load_images(path), path)


@pytest.mark.parametrize(
    ("labels", "names", "truths"),
    [
        (np.array([0, 9, 4], np.uint8), None, ("T-shirt/top", "Ankle boot", "Coat")),
        (np.array([0, 9, 4], np.int64), None, ("T-shirt/top", "Ankle boot", "Coat")),
        (np.array([[0], [9], [4]], np.int16), None, ("T-shirt/top", "Ankle boot", "Coat")),
        (np.array([0, 9, 10]), None, ("0", "9", "10")),
        (np.array([0, 1, 1]), np.array([b"Bag", b"ankle_boot"]), ("Bag", "Ankle boot", "Ankle boot")),
        (np.array([0, 1, 1]), np.array(["caf\xe9", "Bag"]), ("caf\xe9", "Bag", "Bag")),
        (np.array([0, 1, 1]), np.array(["caf\xe9".encode(), b"Bag"]), ("caf\xe9", "Bag", "Bag")),
        (np.array([0, 1, 1]), np.array([8, 9]), ("Bag", "Ankle boot", "Ankle boot")),
        (np.array(["bag", "Coat", "cat"]), None, ("Bag", "Coat", "cat")),
        (np.array([b"bag", b"Coat", b"cat"]), None, ("Bag", "Coat", "cat")),
    ],
)
def test_labels_of_an_npz_file_are_numbers_or_texts_with_names_or_without(
    tmp_path: Path,
    labels: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
    names: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None,
    truths: tuple[str, ...],
) -> None:
    path = tmp_path / "images.NPZ"
    path.write_bytes(npz(images=IMAGES, labels=labels, **({} if names is None else {"names": names})))

    assert load_images(path).truths == truths


@pytest.mark.parametrize("content", [b"", b"\0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xd9"])
def test_a_picture_in_a_folder_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "coat.png"
    path.write_bytes(content)

    said(lambda: load_images(tmp_path), path)


def test_a_folder_without_pictures_another_file_and_nothing_are_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text(CANARY)
    (tmp_path / "folder.png").mkdir()

    said(lambda: load_images(tmp_path), tmp_path)
    said(lambda: load_images(text), text)
    said(lambda: load_images(tmp_path / "missing"), tmp_path / "missing")


# --- open packages of a requestor that was killed ----------------------------------------------


def left(folder: Path, content: bytes) -> Path:
    path = folder / "left.open"
    path.write_bytes(content)
    return path


def opened(folder: Path) -> list[Package]:
    packages = OpenPackages(folder)
    try:
        return packages.load()
    finally:
        packages.close()


PIXELS = package(1, 2).tobytes()
ABOUT = {"id": "1", "number": 1, "truths": ["a", "b"]}


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b"\n" + PIXELS,
        PIXELS,
        b"null\n" + PIXELS,
        b"[]\n" + PIXELS,
        b"{}\n" + PIXELS,
        b"[" * 100_000,
        orjson.dumps(ABOUT) + PIXELS,
        orjson.dumps(ABOUT),
        orjson.dumps(ABOUT) + b"\n",
        orjson.dumps(ABOUT) + b"\n" + PIXELS[:-1],
        orjson.dumps(ABOUT) + b"\n" + PIXELS + b"\0",
        *(
            orjson.dumps(ABOUT | {name: value}) + b"\n" + PIXELS
            for name, value in [
                ("id", 1),
                ("id", None),
                ("id", ""),
                ("id", "../../x"),
                ("id", CANARY + "\n"),
                ("number", "1"),
                ("number", 0),
                ("number", -1),
                ("number", 1.0),
                ("number", True),
                ("number", None),
                ("number", 2**63),
                ("truths", "ab"),
                ("truths", 5),
                ("truths", ["a"]),
                ("truths", ["a", "b", "c"]),
                ("truths", ["a", 1]),
                ("truths", ["a", None]),
                ("truths", {"a": 1, "b": 2}),
                ("files", "ab"),
                ("files", ["a"]),
                ("files", ["a", 1]),
            ]
        ),
    ],
)
def test_a_file_that_no_requestor_left_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = left(tmp_path, content)

    assert "not a package that a requestor left there" in said(lambda: opened(tmp_path), path)


def test_a_file_that_a_requestor_left_is_read(tmp_path: Path) -> None:
    left(tmp_path, orjson.dumps(ABOUT) + b"\n" + PIXELS)

    (package,) = opened(tmp_path)

    assert (package.id, package.number, package.truths) == ("1", 1, ("a", "b"))
    assert package.images.tobytes() == PIXELS


def test_a_folder_that_is_a_file_or_in_use_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "state"
    text.write_text("")

    said(lambda: OpenPackages(text), text)
