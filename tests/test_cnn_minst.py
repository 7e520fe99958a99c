"""The network: what it refuses, training, the files it writes, and the shipped ones."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from onnx import load as load_onnx

from cnn_minst import CNNFashion
from imagebus.classifier import OnnxClassifier
from imagebus.images import SAMPLE
from imagebus.wire.pixels import encode_request
from imagebus.wire.replies import encode_reply
from imagebus.wire.requests import read_request
from imagebus.wire.results import Reply, decode_reply
from tests.idx import write_idx
from tests.on_jax import run_on_jax
from training.data import LABELS, grey_levels
from training.export import version_of
from training.facts import Facts
from training.networks import build_network
from training.optimizer import Muon
from training.recipe import read_recipe
from training.serving import KerasClassifier
from training.sizes import MODELS, SIZES, file_name
from training.train import hold_out

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

# Keras makes arrays of TensorFlow's variables, which do not know NumPy 2's way of it yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

FLOORS = {"tiny": 0.93, "base": 0.947, "large": 0.955}  # accuracy on all 10,000 test images


@pytest.fixture(scope="module")
def sample() -> tuple[Array, Array]:
    with np.load(SAMPLE) as arrays:
        return arrays["images"], arrays["labels"]


@pytest.fixture(scope="module")
def fitted(sample: tuple[Array, Array]) -> CNNFashion:
    images, labels = sample
    network = CNNFashion()
    network.fit(images[:300], labels[:300], epochs=8)
    return network


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


# --- grey levels -----------------------------------------------------------------------------------


def test_integers_are_grey_levels_even_when_none_is_above_one() -> None:
    images = np.ones((2, 28, 28), np.int64)

    np.testing.assert_array_equal(grey_levels(images), np.ones((2, 28, 28), np.uint8))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_up_to_one_are_shares_of_255(dtype: type[np.floating[Any]]) -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(4)[: 28 * 28].reshape(1, 28, 28)
    images = (levels / levels.max()).astype(dtype)

    expected = np.rint(levels / levels.max() * 255)
    np.testing.assert_allclose(grey_levels(images), expected, atol=1 if dtype == np.float16 else 0)
    assert grey_levels(images).dtype == np.uint8


def test_floats_above_one_are_grey_levels_and_are_rounded() -> None:
    images = np.zeros((1, 28, 28))
    images[0, 0, :4] = 0.4, 1.6, 254.5, 255.0

    assert grey_levels(images)[0, 0, :4].tolist() == [0, 2, 254, 255]


def test_the_network_sees_the_same_image_in_each_of_the_three_ways(
    fitted: CNNFashion, sample: tuple[Array, Array]
) -> None:
    images = sample[0][:20]

    as_integers = fitted.predict(images).probabilities
    as_levels = fitted.predict(images.astype(np.float64)).probabilities
    as_shares = fitted.predict(images / 255).probabilities

    np.testing.assert_array_equal(as_levels, as_integers)
    np.testing.assert_array_equal(as_shares, as_integers)


# --- what is refused -------------------------------------------------------------------------------

ZEROS = np.zeros((4, 28, 28))
FOUR = np.arange(4)


def one_pixel(value: float) -> Array:
    images = ZEROS.copy()
    images[1, 2, 3] = value
    return images


BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "two dimensions": (np.zeros((4, 784)), "images are float64 (4, 784), expected (N, 28, 28)"),
    "four dimensions": (np.zeros((4, 28, 28, 1)), "images are float64 (4, 28, 28, 1), expected (N, 28, 28)"),
    "one image": (np.zeros((28, 28)), "images are float64 (28, 28), expected (N, 28, 28)"),
    "another size": (np.zeros((4, 32, 32)), "images are float64 (4, 32, 32), expected (N, 28, 28)"),
    "none": (np.zeros((0, 28, 28)), "images are float64 (0, 28, 28), expected (N, 28, 28), N at least 1"),
    "rows of unequal length": ([[[0, 1], [0]]], "expected images (N, 28, 28); what came is no array"),
    "objects": (np.full((4, 28, 28), None), "images are object, expected integers or floats"),
    "texts": (np.full((4, 28, 28), "0"), "images are <U1, expected integers or floats"),
    "booleans": (np.full((4, 28, 28), True), "images are bool, expected integers or floats"),
    "complex": (np.zeros((4, 28, 28), complex), "images are complex128, expected integers or floats"),
    "NaN": (one_pixel(np.nan), "images run from nan to nan, expected 0 to 255"),
    "infinity": (one_pixel(np.inf), "images run from 0.0 to inf, expected 0 to 255"),
    "below 0": (one_pixel(-1), "images run from -1.0 to 0.0, expected 0 to 255"),
    "above 255": (np.full((4, 28, 28), 256), "images run from 256 to 256, expected 0 to 255"),
}
BAD_LABELS: dict[str, tuple[Any, str]] = {
    "none": (None, "labels are object (), expected (4,), one for each image"),
    "too few": (FOUR[:3], "labels are int64 (3,), expected (4,), one for each image"),
    "a column": (FOUR[:, np.newaxis], "labels are int64 (4, 1), expected (4,)"),
    "one-hot": (np.eye(4, 10), "labels are float64 (4, 10), expected (4,)"),
    "ragged": ([[1, 2], [3]], "expected labels (4,); what came is no array"),
    "texts": (["Coat"] * 4, "labels are <U4, expected integers from 0 to 9"),
    "objects": (np.array([0, 1, 2, None]), "labels are object, expected integers from 0 to 9"),
    "floats": (np.array([0, 1, 2, 3.5]), "labels are float64, expected integers from 0 to 9"),
    "NaN": (np.array([0, 1, 2, np.nan]), "labels are float64, expected integers from 0 to 9"),
    "negative": (np.array([0, 1, 2, -1]), "labels run from -1 to 2, expected integers from 0 to 9"),
    "ten": (np.array([0, 1, 2, 10]), "labels run from 0 to 10, expected integers from 0 to 9"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_images_that_are_none_are_refused_with_what_came_and_what_is_expected(
    case: str, fitted: CNNFashion
) -> None:
    images, reason = BAD_IMAGES[case]

    for call in (
        lambda: CNNFashion().fit(images, FOUR),
        lambda: fitted.evaluate(images, FOUR),
        lambda: fitted.predict(images),
    ):
        with pytest.raises(ValueError, match=re.escape(reason)):
            call()


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_are_none_are_refused_with_what_came_and_what_is_expected(
    case: str, fitted: CNNFashion
) -> None:
    labels, reason = BAD_LABELS[case]

    for call in (lambda: CNNFashion().fit(ZEROS, labels), lambda: fitted.evaluate(ZEROS, labels)):
        with pytest.raises(ValueError, match=re.escape(reason)):
            call()


def test_images_beside_data_are_refused(fitted: CNNFashion, tmp_path: Path) -> None:
    for call in (
        lambda: CNNFashion().fit(ZEROS, FOUR, data=tmp_path),
        lambda: fitted.evaluate(ZEROS, FOUR, data=tmp_path),
    ):
        with pytest.raises(ValueError, match=r"images and data='.*' came, expected one of them"):
            call()


def test_labels_without_images_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("images are object (), expected (N, 28, 28)")):
        CNNFashion().fit(None, FOUR)


def test_one_image_is_too_few_to_train_with() -> None:
    with pytest.raises(ValueError, match="1 image came, expected at least 2"):
        CNNFashion().fit(ZEROS[:1], FOUR[:1])


def test_no_epoch_is_too_few_to_train_for() -> None:
    with pytest.raises(ValueError, match="epochs is 0, expected at least 1"):
        CNNFashion().fit(ZEROS, FOUR, epochs=0)


def test_a_size_or_a_recipe_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 'huge', expected one of tiny, base, large, wide"):
        CNNFashion("huge")
    with pytest.raises(ValueError, match="recipe is 'quick', expected 'short' or 'long'"):
        CNNFashion().fit(ZEROS, FOUR, recipe="quick")


def test_a_network_without_weights_says_how_it_gets_them(tmp_path: Path) -> None:
    empty = CNNFashion()

    for call in (
        lambda: empty.predict(ZEROS),
        lambda: empty.evaluate(ZEROS, FOUR),
        lambda: empty.save(tmp_path),
    ):
        with pytest.raises(RuntimeError, match="fit\\(\\) trains one"):
            call()


# --- training --------------------------------------------------------------------------------------


def test_training_on_own_images_gives_the_same_weights_each_time_and_writes_nothing(
    fitted: CNNFashion, sample: tuple[Array, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = sample
    monkeypatch.chdir(tmp_path)
    shipped = contents(MODELS)
    again = CNNFashion()

    again.fit(images[:300], labels[:300], epochs=8)

    for first, second in zip(fitted.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert contents(MODELS) == shipped
    assert list(tmp_path.iterdir()) == []


def test_training_learns(fitted: CNNFashion, sample: tuple[Array, Array]) -> None:
    images, labels = sample

    assert fitted.evaluate(images[300:], labels[300:]) > 0.3  # guessing: 0.1


def test_a_step_moves_the_kernels_between_the_first_and_the_last_as_far_in_all_directions() -> None:
    rate = 0.01
    variables = build_network("tiny").trainable_variables
    kernels = [variable for variable in variables if len(variable.shape) > 1]
    before = [np.array(variable) for variable in variables]
    rng = np.random.default_rng(0)
    gradients = [  # a hundred times as steep for one output as for another
        (rng.choice([-1, 1], array.shape) * np.geomspace(0.01, 1, array.shape[-1])).astype(np.float32)
        for array in before
    ]
    optimizer = Muon(rate, weight_decay=0, adam_weight_decay=0)
    optimizer.build(variables)

    optimizer.apply(gradients)

    for variable, array in zip(variables, before, strict=True):
        change = np.array(variable) - array
        if any(variable is kernel for kernel in kernels[1:-1]):
            matrix = change.reshape(-1, change.shape[-1]) / (0.2 * rate)
            stretched = np.linalg.svd(matrix, compute_uv=False) / max(matrix.shape) ** 0.5
            assert stretched == pytest.approx(1, abs=0.35)
        else:  # AdamW's first step is as long for each number
            assert np.abs(change) == pytest.approx(rate, rel=1e-3)


def test_the_best_epoch_is_kept_and_not_the_last(sample: tuple[Array, Array]) -> None:
    images = sample[0][:240]
    chance = np.random.default_rng(0).integers(10, size=240)  # nothing to learn: accuracy goes up and down
    network = CNNFashion("tiny")

    network.fit(images, chance, epochs=8)

    _, held_out = hold_out(240)
    report = network.report
    assert report is not None
    assert report.accuracies[report.best - 1] == max(report.accuracies) > report.accuracies[-1]
    assert network.evaluate(images[held_out], chance[held_out]) == pytest.approx(max(report.accuracies))


def test_training_on_fashion_mnist_tells_its_accuracy_and_writes_files_and_card(
    sample: tuple[Array, Array], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = sample
    data, models = write_idx(tmp_path / "data", images[:300], labels[:300]), tmp_path / "models"
    network = CNNFashion()

    network.fit(epochs=2, data=data, models=models)

    in_floats = network.evaluate(images[200:300], labels[200:300])
    answers = OnnxClassifier(models / "fashion.onnx").predict(images[200:300]).argmax(axis=1)
    accuracy = np.mean(answers == labels[200:300])
    output = capsys.readouterr().out
    assert "Epoch 2/2" in output
    assert f"accuracy on the 100 test images: {accuracy:.2%} in 8 bits" in output
    assert f"{in_floats:.2%} in floats" in output
    assert 'fit(recipe="long") trains' in output
    assert sorted(file.name for file in models.iterdir()) == [
        "README.md",
        "fashion-confusion.png",
        "fashion-reliability.png",
        "fashion.json",
        "fashion.keras",
        "fashion.md",
        "fashion.onnx",
    ]
    card = (models / "fashion.md").read_text(encoding="utf-8")
    assert "CNNFashion().fit(epochs=2)" in card
    assert "## Shifted, noisy and blurred images" in card
    assert f"**{accuracy:.2%}** on the 100 test images in 8 bits" in card
    assert "trained on 183 images; 17 others were held out" in card
    assert network.evaluate(data=data) == in_floats


def test_a_small_network_learns_from_the_one_in_the_folder_and_has_files_and_a_card_of_its_own(
    sample: tuple[Array, Array], tmp_path: Path
) -> None:
    images, labels = sample
    data, models = write_idx(tmp_path / "data", images[:150], labels[:150]), tmp_path / "models"
    teacher = CNNFashion()
    teacher.network = build_network("base")
    teacher.save(models)
    kept = contents(models)
    del kept["README.md"]  # the index, which will list both
    network = CNNFashion("tiny")

    network.fit(recipe="long", epochs=1, data=data, models=models)

    card = (models / "fashion-tiny.md").read_text(encoding="utf-8")
    assert 'CNNFashion("tiny").fit(recipe="long", epochs=1)' in card
    assert "is the answer of `base` to the same image" in card
    assert kept.items() <= contents(models).items()
    index = (models / "README.md").read_text(encoding="utf-8")
    assert "(fashion-tiny.md)" in index
    assert "(fashion.md)" in index
    assert OnnxClassifier(models / "fashion-tiny.onnx").model.name == "fashion-tiny"
    loaded = CNNFashion.load(models, size="tiny")
    np.testing.assert_array_equal(loaded.predict(images).probabilities, network.predict(images).probabilities)


# Two thirds train, of which 80 are not held out: whole batches of five, so that JAX compiles one program and not two.
WHOLE = 131


@pytest.mark.full
def test_tensorflow_makes_the_files_of_a_training_on_jax(
    sample: tuple[Array, Array], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_idx(tmp_path / "data", sample[0][:WHOLE], sample[1][:WHOLE])

    done = run_on_jax(f"""
from cnn_minst import CNNFashion
CNNFashion("tiny").fit(epochs=2, data={str(data)!r}, checkpoints={str(tmp_path)!r})
CNNFashion("tiny").fit(epochs=2, data={str(data)!r})
""")
    network = CNNFashion("tiny")
    network.fit(epochs=2, data=data, checkpoints=tmp_path, models=tmp_path / "models")

    assert "Epoch 2/2" in done.stdout
    assert (
        "fashion-tiny.npz: all epochs are done; the same call on TensorFlow makes the files\n" in done.stdout
    )
    assert done.stderr.splitlines()[-1].startswith(
        "ValueError: Keras is on jax, where it writes no ONNX file"
    )
    report = network.report
    assert report is not None
    assert str(report) in done.stdout  # the same epoch is kept, with the same accuracy
    assert "Epoch" not in capsys.readouterr().out  # nothing is trained again
    _, held_out = hold_out(87)
    assert network.evaluate(sample[0][:87][held_out], sample[1][:87][held_out]) == max(report.accuracies)
    assert "by Keras on jax (cpu:0)" in (tmp_path / "models" / "fashion-tiny.md").read_text(encoding="utf-8")


@pytest.mark.full
def test_on_jax_a_network_learns_from_the_one_that_was_trained_there_before(
    sample: tuple[Array, Array], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = {"data": str(write_idx(tmp_path / "data", sample[0][:WHOLE], sample[1][:WHOLE]))}
    where["checkpoints"] = str(tmp_path / "checkpoints")

    done = run_on_jax(f"""
from cnn_minst import CNNFashion
CNNFashion().fit(epochs=1, **{where})
CNNFashion("tiny").fit(recipe="long", epochs=1, **{where})
""")
    teacher, network = CNNFashion(), CNNFashion("tiny")
    teacher.fit(epochs=1, models=tmp_path, **where)
    network.fit(recipe="long", epochs=1, models=tmp_path, **where)

    assert done.returncode == 0, done.stderr
    assert "Epoch" not in capsys.readouterr().out  # nothing is trained again
    assert network.report is not None
    assert network.report.teacher == version_of(teacher.network)


def test_a_teacher_that_is_not_there_is_named_before_the_training(
    sample: tuple[Array, Array], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'fashion.onnx'}: no such file")):
        CNNFashion("tiny").fit(sample[0][:20], sample[1][:20], recipe="long", models=tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r'CNNFashion\("wide"\)\.fit\(recipe="long"\) makes the teacher'
    ):
        CNNFashion("large").fit(sample[0][:20], sample[1][:20], recipe="long", models=tmp_path)

    (tmp_path / "fashion.onnx").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"fashion\.onnx: not a model that ONNX Runtime loads"):
        CNNFashion("tiny").fit(sample[0][:20], sample[1][:20], recipe="long", models=tmp_path)


def assert_nearly_the_same(in_8_bits: Array, in_floats: Array) -> None:
    """Two in a hundred labels may differ: those of images of which the network is unsure."""
    np.testing.assert_allclose(in_8_bits.sum(axis=1), 1, atol=1e-4)
    assert np.abs(in_8_bits - in_floats).mean() < 0.005
    assert np.mean(in_8_bits.argmax(axis=1) == in_floats.argmax(axis=1)) >= 0.98


# --- files -----------------------------------------------------------------------------------------


def test_a_saved_network_is_loaded_again(
    fitted: CNNFashion, sample: tuple[Array, Array], tmp_path: Path
) -> None:
    images = sample[0][:50]

    fitted.save(tmp_path / "new" / "folder")
    loaded = CNNFashion.load(tmp_path / "new" / "folder")

    assert loaded.predict(images).labels == fitted.predict(images).labels
    np.testing.assert_array_equal(loaded.predict(images).probabilities, fitted.predict(images).probabilities)


def test_the_card_of_a_network_trained_on_own_images_claims_no_accuracy(
    fitted: CNNFashion, tmp_path: Path
) -> None:
    (tmp_path / "fashion-confusion.png").write_bytes(b"of an earlier network")

    fitted.save(tmp_path)
    own = (tmp_path / "fashion.md").read_text(encoding="utf-8")
    CNNFashion.load(tmp_path).save(tmp_path)
    loaded = (tmp_path / "fashion.md").read_text(encoding="utf-8")

    assert "The accuracy on Fashion-MNIST was not measured" in own
    assert "CNNFashion().fit(trainX, trainY, epochs=8)" in own
    assert "nothing is known here of its training" in loaded
    for card in (own, loaded):
        assert "## Accuracy" not in card
        assert "Zalando" not in card
    assert not (tmp_path / "fashion-confusion.png").exists()


def test_the_onnx_file_of_a_training_is_in_8_bits_and_gives_nearly_the_same_probabilities(
    fitted: CNNFashion, sample: tuple[Array, Array], tmp_path: Path
) -> None:
    fitted.save(tmp_path)

    assert_nearly_the_same(
        OnnxClassifier(tmp_path / "fashion.onnx").predict(sample[0]), fitted.predict(sample[0]).probabilities
    )
    assert (tmp_path / "fashion.onnx").stat().st_size < (tmp_path / "fashion.keras").stat().st_size / 2


def test_without_training_images_the_onnx_file_is_in_floats_and_gives_the_same_probabilities(
    fitted: CNNFashion, sample: tuple[Array, Array], tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    for beside in (b"", b"damaged"):
        (tmp_path / "fashion.onnx").write_bytes(beside)

        CNNFashion.load(tmp_path).save(tmp_path)

        onnx = OnnxClassifier(tmp_path / "fashion.onnx").predict(sample[0])
        np.testing.assert_allclose(onnx, fitted.predict(sample[0]).probabilities, atol=1e-4)


def test_the_onnx_file_describes_itself(fitted: CNNFashion, tmp_path: Path) -> None:
    fitted.save(tmp_path)

    onnx = OnnxClassifier(tmp_path / "fashion.onnx")

    assert onnx.labels == LABELS
    assert onnx.model.name == "fashion"
    assert onnx.model.version == version_of(fitted.network)
    model = load_onnx(tmp_path / "fashion.onnx")
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["images", "probabilities"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_the_same_weights_give_the_same_onnx_file(fitted: CNNFashion, tmp_path: Path) -> None:
    fitted.save(tmp_path / "first")

    CNNFashion.load(tmp_path / "first").save(tmp_path / "second")

    first, second = (tmp_path / folder / "fashion.onnx" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


# --- serving ---------------------------------------------------------------------------------------


def test_both_runtimes_serve_the_same_network(
    fitted: CNNFashion, sample: tuple[Array, Array], tmp_path: Path
) -> None:
    images = sample[0][:200]
    fitted.save(tmp_path)

    in_keras = KerasClassifier(tmp_path / "fashion.keras")
    in_onnx = OnnxClassifier(tmp_path / "fashion.onnx")

    assert in_keras.labels == in_onnx.labels
    assert (in_keras.model.name, in_keras.model.version) == (in_onnx.model.name, in_onnx.model.version)
    assert in_keras.model.sha256 == hashlib.sha256((tmp_path / "fashion.keras").read_bytes()).hexdigest()
    assert_nearly_the_same(in_onnx.predict(images), in_keras.predict(images))
    assert in_keras.predict(images).dtype == np.float32


def test_a_reply_tells_which_keras_file_answered(fitted: CNNFashion, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    classifier = KerasClassifier(tmp_path / "fashion.keras")
    images = np.zeros((2, 28, 28), np.uint8)
    request = encode_request(images, "requests", id="a")
    envelope, read_back = read_request(request, classifier.spec, reply_topics=["replies"])

    message = encode_reply(
        envelope, "replies", classifier.model, classifier.labels, classifier.predict(read_back)
    )

    reply = decode_reply(message)
    assert isinstance(reply, Reply)
    assert asdict(reply.model) == asdict(classifier.model)


def small_network(inputs: tuple[int, ...], outputs: int, *extra: Any) -> Any:
    layers = keras.layers
    return keras.Sequential([keras.Input(inputs), *extra, layers.Flatten(), layers.Dense(outputs)])


def test_files_that_hold_no_such_network_are_refused_by_name(tmp_path: Path) -> None:
    text, old, colour, binary = (
        tmp_path / name for name in ("text.keras", "old.h5", "rgb.keras", "two.keras")
    )
    text.write_text("no network")
    old.write_bytes(b"")
    small_network((28, 28, 3), 10).save(colour)
    small_network((28, 28), 2).save(binary)
    cases = {
        text: "not a network that Keras loads",
        old: "expected a .keras file",
        colour: "from (None, 28, 28, 3) to (None, 10), expected (None, 28, 28) to (None, 10)",
        binary: "from (None, 28, 28) to (None, 2), expected (None, 28, 28) to (None, 10)",
    }

    for path, reason in cases.items():
        with pytest.raises(ValueError, match=re.escape(f"{path}: {reason}")) as refused:
            KerasClassifier(path)

        assert "\n" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'fashion.keras'}: no such file")):
        CNNFashion.load(tmp_path)


def test_code_in_a_keras_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "code.keras"
    small_network((28, 28), 10, keras.layers.Lambda(lambda x: x)).save(path)

    with pytest.raises(ValueError, match="not a network that Keras loads"):
        KerasClassifier(path)


# --- the shipped networks --------------------------------------------------------------------------


def card_of(size: str) -> str:
    return (MODELS / f"{file_name(size)}.md").read_text(encoding="utf-8")


def stated_accuracy(size: str) -> float:
    found = re.search(r"\*\*([0-9.]+)%\*\* on the 10,000 test images", card_of(size))
    assert found
    return float(found[1]) / 100


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_network_reaches_its_floor_on_all_test_images_by_its_card(size: str) -> None:
    assert stated_accuracy(size) >= FLOORS[size]


@pytest.mark.parametrize("size", SIZES)
def test_the_shipped_files_agree_and_are_as_accurate_on_the_sample_as_the_card_says(
    size: str, sample: tuple[Array, Array]
) -> None:
    images, labels = sample
    stated = stated_accuracy(size)

    in_onnx = OnnxClassifier(MODELS / f"{file_name(size)}.onnx").predict(images)
    in_keras = KerasClassifier(MODELS / f"{file_name(size)}.keras").predict(images)

    assert_nearly_the_same(in_onnx, in_keras)
    accuracy = np.mean(in_onnx.argmax(axis=1) == labels)
    assert accuracy == pytest.approx(stated, abs=3 * (stated * (1 - stated) / len(images)) ** 0.5)


@pytest.mark.parametrize("size", SIZES)
def test_the_card_names_the_digests_and_the_version_of_the_shipped_files(size: str) -> None:
    for name in (f"{file_name(size)}.onnx", f"{file_name(size)}.keras"):
        content = (MODELS / name).read_bytes()
        assert f"| `{name}` | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |" in card_of(size)
    assert f"Version `{OnnxClassifier(MODELS / f'{file_name(size)}.onnx').model.version}`" in card_of(size)


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_network_is_the_one_that_code_and_recipe_describe(size: str) -> None:
    network, recipe = build_network(size), read_recipe(size, "long")

    shipped = CNNFashion.load(size=size).network
    facts = Facts.read(MODELS, file_name(size))

    assert [weight.shape for weight in shipped.get_weights()] == [
        weight.shape for weight in network.get_weights()
    ]
    assert f"{network.count_params():,} parameters" in card_of(size)
    assert "\n".join(f"- {phrase}" for phrase in recipe.in_words()) in card_of(size)
    assert f"of {recipe.epochs} was kept" in card_of(size)
    assert 'fit(recipe="long")\n' in card_of(size)
    assert facts
    assert facts.version == version_of(shipped)
