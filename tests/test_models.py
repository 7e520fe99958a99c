"""The parts behind CNNFashion: recipes, resuming, evaluation, altered images, speed, cards."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from cnn_minst import CNNFashion
from imagebus.classifier import OnnxClassifier
from imagebus.images import SAMPLE
from tests.on_jax import run_on_jax
from training.augmentation import augmented, mixed
from training.card import INDEX_TITLE, write_index
from training.card import main as write_cards
from training.checkpoint import State
from training.data import LABELS
from training.distillation import answers_of, taught
from training.evaluation import Scores, evaluate, score
from training.export import Exported, export_onnx
from training.facts import Facts, Report, read_speed, write_speed
from training.networks import build_for_training, build_network
from training.quantization import of_some_columns
from training.recipe import read_recipe
from training.robustness import BLURS, NOISES, SHIFTS, blurred, noisy, robustness, shifted
from training.sizes import MODELS, SIZES, TEACHER, file_name
from training.speed import YARDSTICK, measure, two_convolutions
from training.train import averaged, compiled, epoch_by_fit, hold_out, train

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

# Keras makes arrays of TensorFlow's variables, which do not know NumPy 2's way of it yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")


@pytest.fixture(scope="module")
def sample() -> tuple[Array, Array]:
    with np.load(SAMPLE) as arrays:
        return arrays["images"], arrays["labels"].astype(np.int64)


def one_hot(labels: Array) -> Array:
    return np.eye(len(LABELS), dtype=np.float32)[labels]


# --- networks and recipes --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, TEACHER])
def test_each_size_has_a_network_and_both_recipes(size: str) -> None:
    network = build_network(size)

    assert network.input_shape == (None, 28, 28)
    assert network.output_shape == (None, len(LABELS))
    assert read_recipe(size, "short").epochs < read_recipe(size, "long").epochs


@pytest.mark.parametrize("size", [*SIZES, TEACHER])
def test_the_channels_of_all_convolutions_are_multiples_of_sixteen(size: str) -> None:
    channels = [
        layer.filters for layer in build_network(size).layers if isinstance(layer, keras.layers.Conv2D)
    ]

    assert channels
    assert [count % 16 for count in channels] == [0] * len(channels)


# --- training --------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_training_that_was_stopped_resumes_to_the_same_weights(
    sample: tuple[Array, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = sample[0][:150], sample[1][:150]
    recipe = replace(read_recipe("tiny", "short"), epochs=2, erased=0.5)
    checkpoint = tmp_path / "new" / "tiny.npz"
    whole, state = train(images, labels, "tiny", recipe)
    write = State.write

    def stop_after_one_epoch(state: State, path: Path) -> None:
        write(state, path)
        if len(state.accuracies) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "write", stop_after_one_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(images, labels, "tiny", recipe, checkpoint=checkpoint)
    continued, continued_state = train(images, labels, "tiny", recipe, checkpoint=checkpoint)

    assert continued_state.accuracies == state.accuracies
    for first, second in zip(whole.get_weights(), continued.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_checkpoint_of_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tiny.npz"
    State("another", "tensorflow (cpu:0)", [], [], []).write(path)

    with pytest.raises(ValueError, match=re.escape(f"{path}: a training with another recipe stopped there")):
        State.read(path, "this one")


def test_altered_images_are_the_same_for_the_same_random_numbers_and_others_for_the_next(
    sample: tuple[Array, Array],
) -> None:
    images, targets = sample[0][:64], one_hot(sample[1][:64])
    before = images.copy(), targets.copy()
    recipe = replace(read_recipe("base", "long"), mixed=0.5)

    first, again, later = (
        augmented(images, targets, recipe, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )

    given: tuple[Array, ...] = images, targets
    for place, array in enumerate(given):
        made, same, other = first[place], again[place], later[place]
        assert made.dtype == array.dtype
        assert made.shape == array.shape
        np.testing.assert_array_equal(made, same)
        assert not np.array_equal(made, other)
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_an_image_is_shifted_in_each_direction_and_mirrored_as_often_as_the_recipe_says() -> None:
    images = np.zeros((2000, 28, 28), np.uint8)
    images[:, 10, 10] = 200
    recipe = replace(read_recipe("base", "long"), shift=2, mirrored=0.25, erased=0.0)

    changed, _ = augmented(images, one_hot(np.zeros(2000, np.int64)), recipe, np.random.default_rng(0))

    counts = np.count_nonzero(changed, axis=0)
    assert counts.sum() == len(images)  # each keeps its pixel
    assert (counts > 0).sum() == 2 * 5 * 5
    assert (counts[8:13, 8:13] > 0).all()
    assert (counts[8:13, 15:20] > 0).all()  # the mirror image of column 10 is column 17
    assert counts[:, 15:20].sum() / len(images) == pytest.approx(0.25, abs=0.05)


def test_nothing_but_rectangles_is_overwritten_in_the_share_of_images_that_the_recipe_says() -> None:
    images = np.zeros((400, 28, 28), np.uint8)
    targets = one_hot(np.zeros(400, np.int64))
    recipe = replace(read_recipe("base", "long"), erased=0.5, longest=14)

    changed, answers = augmented(images, targets, recipe, np.random.default_rng(0))

    erased = changed[changed.any(axis=(1, 2))]
    assert 0.4 < len(erased) / len(images) < 0.6
    for image in erased:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert max(inside.shape) <= 15
        assert np.mean(inside > 0) > 0.8  # of random grey levels few are 0
    np.testing.assert_array_equal(answers, targets)


def test_an_image_and_its_target_are_mixed_with_another_one_in_the_same_proportion() -> None:
    grey = np.repeat(np.array([0, 200], np.uint8), 1000)  # the images of each class have one grey level
    images = np.broadcast_to(grey[:, np.newaxis, np.newaxis], (2000, 28, 28))
    targets = one_hot((grey > 0).astype(np.int64))

    changed, answers = mixed(images, targets, 0.5, np.random.default_rng(0))

    of_two = (answers[:, 0] > 0) & (answers[:, 1] > 0)
    assert np.mean(of_two) == pytest.approx(0.25, abs=0.03)  # every second other is of the same class
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(changed[:, 0, 0], 200 * answers[:, 1], atol=0.51)
    assert (changed == changed[:, :1, :1]).all()
    low, high = np.quantile(answers[of_two, 1], (0.25, 0.75))
    assert (low, high) == (pytest.approx(0.25, abs=0.06), pytest.approx(0.75, abs=0.06))


def test_an_epoch_continues_from_the_last_weights_and_not_from_the_averaged_ones(
    sample: tuple[Array, Array],
) -> None:
    images, targets = sample[0][:64], one_hot(sample[1][:64])
    recipe = replace(read_recipe("tiny", "short"), batch=16, epochs=4, average=0.99)
    network = compiled("tiny", recipe, steps=4)
    first = network.trainable_variables[0].numpy()

    epoch_by_fit(network, recipe)(0, images, targets)
    last = network.get_weights()
    average = averaged(network)

    moved = [np.abs(weights[0] - first).max() for weights in (last, average)]
    assert moved[1] < 0.9 * moved[0]
    for weights, kept in zip(network.get_weights(), last, strict=True):
        np.testing.assert_array_equal(weights, kept)


@pytest.mark.full
def test_an_epoch_on_jax_is_the_epoch_of_kerass_fit() -> None:
    done = run_on_jax("""
import keras
import numpy as np
from dataclasses import replace
from training.on_jax import epoch_on_jax
from training.recipe import read_recipe
from training.train import compiled, epoch_by_fit

rng = np.random.default_rng(0)
images, targets = rng.integers(256, size=(70, 28, 28), dtype=np.uint8), rng.random((70, 10), np.float32)
recipe = replace(read_recipe("tiny", "short"), batch=32, epochs=2)  # the last batch has six images
trained = []
for epoch_of in (epoch_by_fit, epoch_on_jax):
    keras.utils.set_random_seed(0)
    network = compiled("tiny", recipe, steps=3)
    network.jit_compile = True  # all operations together compile sooner than each by itself
    train_epoch = epoch_of(network, recipe)
    for epoch in range(2):
        train_epoch(epoch, images, targets)
    trained.append([np.asarray(each.value) for each in (*network.variables, *network.optimizer.variables)])
for by_fit, on_jax in zip(*trained, strict=True):
    np.testing.assert_allclose(on_jax, by_fit, rtol=1e-3, atol=1e-3)
""")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Epoch 2/2") == 2


def test_on_a_gpu_a_network_multiplies_in_bfloat16_and_keeps_its_weights_in_floats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    on_gpu = build_for_training("tiny")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    on_cpu = build_for_training("tiny")

    convolutions = [
        next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
        for network in (on_gpu, on_cpu)
    ]
    assert [layer.compute_dtype for layer in convolutions] == ["bfloat16", "float32"]
    assert {str(weights.dtype) for weights in on_gpu.get_weights()} == {"float32"}
    assert on_gpu.output.dtype == "float32"


def test_a_teacher_gives_its_share_of_the_targets() -> None:
    targets = np.eye(2, dtype=np.float32)
    answers = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)

    np.testing.assert_allclose(taught(targets, answers, 0.75), [[0.625, 0.375], [0.5625, 0.4375]])


def test_a_teacher_can_be_asked_about_the_mirror_image_too() -> None:
    class BrightnessOfTheLeft:
        version = "1"

        def predict(self, images: Array) -> Array:
            return images[:, 0, :1].astype(np.float32)

    images = np.zeros((2, 28, 28), np.uint8)
    images[0, :, 0], images[1, :, -1] = 100, 50

    np.testing.assert_array_equal(answers_of(BrightnessOfTheLeft(), images, both_sides=False), [[100], [0]])
    np.testing.assert_array_equal(answers_of(BrightnessOfTheLeft(), images, both_sides=True), [[50], [25]])


def test_the_teachers_answers_to_the_altered_images_are_learned_and_not_their_labels(
    sample: tuple[Array, Array],
) -> None:
    images, labels = sample[0][:150], np.zeros(150, np.int64)
    labels[hold_out(150)[1]] = 8
    recipe = replace(read_recipe("tiny", "short"), teaching=1.0)

    always_bag = build_network("tiny")
    kernel, bias = always_bag.layers[-1].get_weights()
    always_bag.layers[-1].set_weights([0 * kernel, 50 * np.eye(len(LABELS), dtype=bias.dtype)[8]])
    teacher = Exported(export_onnx(always_bag))

    _, state = train(images, labels, "tiny", recipe, teacher=teacher)

    assert max(state.accuracies) == 1.0
    assert f"teacher {teacher.version}" in state.recipe


# --- evaluation ------------------------------------------------------------------------------------


def test_an_evaluation_counts_correct_labels_and_compares_them_with_the_confidence() -> None:
    probabilities = np.full((4, 10), 0.0, np.float32)
    probabilities[0, 3] = probabilities[1, 3] = 0.95
    probabilities[2, 5] = probabilities[3, 5] = 0.55
    truth = np.array([3, 4, 5, 5])

    evaluation = evaluate(probabilities, truth)

    assert evaluation.images == 4
    assert evaluation.accuracy == 0.75
    assert evaluation.confusion[4][3] == 1
    assert [(each.images, each.accuracy) for each in evaluation.bins] == [(2, 1.0), (2, 0.5)]
    assert evaluation.calibration_error == pytest.approx((0.45 + 0.45) / 2)


def test_images_are_shifted_by_whole_pixels_onto_background() -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 10, 10] = 200

    assert shifted(image, 3, -2)[0, 13, 8] == 200
    assert shifted(image, 3, -2).sum() == 200
    assert not shifted(image, 0, 18).any()


def test_blur_and_noise_keep_the_mean_grey_level() -> None:
    image = np.full((1, 28, 28), 100, np.uint8)

    assert blurred(image, 1.0)[0, 10:18, 10:18].mean() == 100
    assert noisy(image, 16).mean() == pytest.approx(100, abs=2)
    assert noisy(image, 16).std() == pytest.approx(16, abs=2)
    np.testing.assert_array_equal(noisy(image, 16), noisy(image, 16))


def test_robustness_is_measured_for_each_strength_of_each_alteration(sample: tuple[Array, Array]) -> None:
    images, labels = sample[0][:20], sample[1][:20]

    def knows_only_the_unchanged(changed: Array) -> Array:
        same = (changed == images).all(axis=(1, 2))
        return np.eye(10, dtype=np.float32)[np.where(same, labels, (labels + 1) % 10)]

    measured = robustness(knows_only_the_unchanged, images, labels)

    assert [len(each) for each in measured.values()] == [len(SHIFTS), len(NOISES), len(BLURS)]
    assert {accuracy for each in measured.values() for accuracy in each.values()} == {0.0}


# --- 8 bits ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_8_bits(sample: tuple[Array, Array]) -> tuple[Any, onnx.ModelProto]:
    """A network with random weights, a normalisation of which nothing is 0 or 1, and its ONNX file."""
    network = build_network("tiny")
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return network, onnx.load_from_string(export_onnx(network, sample[0][:200]))


def test_images_go_in_as_they_are_and_all_but_the_last_layer_is_in_8_bits(
    in_8_bits: tuple[Any, onnx.ModelProto],
) -> None:
    graph = in_8_bits[1].graph
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    dequantized = {node.output[0]: weights[node.input[0]] for node in graph.node if node.input[0] in weights}

    kernels = [dequantized[node.input[1]] for node in graph.node if node.op_type == "Conv"]

    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.node[0].op_type == "DequantizeLinear"
    assert {kernel.dtype for kernel in kernels} == {np.dtype(np.int8)}
    assert len(kernels) == sum(isinstance(layer, keras.layers.Conv2D) for layer in in_8_bits[0].layers)
    last = [node.input[1] for node in graph.node if node.op_type in ("MatMul", "Gemm")][-1]
    assert weights[last].dtype == np.float32


def test_two_pixels_times_their_weights_fit_into_16_bits(in_8_bits: tuple[Any, onnx.ModelProto]) -> None:
    """Else a processor without VNNI cuts the sum off."""
    graph = in_8_bits[1].graph
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "Conv")
    kernels = next(weights[node.input[0]] for node in graph.node if first.input[1] in node.output)

    assert 32 < np.abs(kernels.astype(int)).max() <= 32767 // 2 // 255


def test_several_columns_at_once_are_the_same_convolution(sample: tuple[Array, Array]) -> None:
    kernels = np.random.default_rng(0).normal(size=(16, 1, 3, 3)).astype(np.float32)
    images = sample[0][:5].astype(np.float32)

    one = keras.ops.conv(images[..., None], kernels.transpose(2, 3, 1, 0), padding="same")
    wide = of_some_columns(kernels).transpose(2, 3, 1, 0)
    several = keras.ops.conv(images.reshape(5, 28, 7, 4), wide, padding="same")

    np.testing.assert_allclose(np.array(several).reshape(5, 28, 28, 16), np.array(one), rtol=1e-4, atol=1e-2)


# --- speed and cards -------------------------------------------------------------------------------


def test_the_yardstick_has_225_thousand_weights_and_gives_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    path.write_bytes(two_convolutions())

    probabilities = OnnxClassifier(path, labels=LABELS).predict(np.zeros((3, 28, 28), np.uint8))

    assert probabilities.shape == (3, 10)
    assert len(path.read_bytes()) == pytest.approx(225_034 * 4, rel=0.01)


def a_report(scores: Scores | None = None) -> Report:
    return Report("CNNFashion().fit()", read_recipe("tiny", "short"), None, "abacus", 2, 1, [0.5], scores)


def perfect_scores() -> Scores:
    evaluation = evaluate(np.eye(10, dtype=np.float32), np.arange(10))
    return Scores(evaluation, in_floats=0.9, relabelled=1, robustness={"shift": {"1": 0.5}})


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    for report in (a_report(perfect_scores()), a_report(), None):
        facts = Facts("fashion", "a", 3, report)
        facts.write(tmp_path)

        assert Facts.read(tmp_path, "fashion") == facts

    assert Facts.read(tmp_path, "fashion-tiny") is None


def test_scores_compare_the_network_in_8_bits_with_the_one_in_floats(sample: tuple[Array, Array]) -> None:
    images, truth = sample[0][:4], np.array([3, 4, 5, 5])
    in_floats, in_8_bits = one_hot(truth), one_hot(np.array([3, 4, 5, 6]))

    scores = score(lambda _: in_8_bits, in_floats, images, truth)

    assert scores.evaluation.accuracy == 0.75
    assert (scores.in_floats, scores.relabelled) == (1.0, 1)
    assert str(scores).startswith("accuracy on the 4 test images: 75.00% in 8 bits")


def test_a_card_shows_the_speed_of_the_version_that_was_timed_and_of_no_other(tmp_path: Path) -> None:
    network = CNNFashion("tiny")
    network.network = build_network("tiny")
    network.report = a_report(perfect_scores())
    network.save(tmp_path)
    card, index = tmp_path / "fashion-tiny.md", tmp_path / "README.md"
    untimed = card.read_text(encoding="utf-8")

    speed = measure(tmp_path, rounds=1, seconds=0.01)
    elsewhere = replace(speed, machine="a faster machine", batch=7)
    write_speed(tmp_path, [speed, elsewhere])
    write_cards(tmp_path)
    timed, listed = card.read_text(encoding="utf-8"), index.read_text(encoding="utf-8")
    facts = Facts.read(tmp_path, "fashion-tiny")
    assert facts
    other_weights = replace(facts, version="another")
    other_weights.write(tmp_path)
    write_cards(tmp_path)

    assert read_speed(tmp_path) == [speed, elsewhere]
    assert ([each.name for each in speed.networks], speed.yardstick.name) == (["fashion-tiny"], YARDSTICK)
    assert f"**{speed.networks[0].images_per_second:,} images/s**" in timed
    assert "in batches of 100, on " in timed
    assert "in batches of 7, on a faster machine" in timed
    assert f"| {speed.networks[0].images_per_second:,} |" in listed
    assert "images/s, a faster machine" in listed
    assert "(accuracy-speed.png)" in listed
    for other in (untimed, card.read_text(encoding="utf-8"), index.read_text(encoding="utf-8")):
        assert "images/s" not in other
    assert not (tmp_path / "accuracy-speed.png").exists()


def test_the_index_links_the_card_of_each_saved_size_and_replaces_no_other_readme(tmp_path: Path) -> None:
    index = tmp_path / "README.md"
    Facts("fashion", "a", 3_000, a_report(perfect_scores())).write(tmp_path)
    Facts("fashion-tiny", "b", 2_000, None).write(tmp_path)

    write_index(tmp_path)
    ours = index.read_text(encoding="utf-8")
    index.write_text("somebody else's")
    write_index(tmp_path)

    assert ours.startswith(INDEX_TITLE)
    assert "| [tiny](fashion-tiny.md) |  | 2,000 |\n| [base](fashion.md) | 100.00% | 3,000 |\n" in ours
    assert "large" not in ours
    assert index.read_text() == "somebody else's"


def test_the_shipped_pages_and_pictures_are_those_that_the_figures_give(tmp_path: Path) -> None:
    pages = {"README.md", *(f"{file_name(size)}.md" for size in SIZES)}
    for file in MODELS.iterdir():
        if file.suffix in (".json", ".keras", ".onnx"):
            shutil.copy(file, tmp_path)

    write_cards(tmp_path)

    made, shipped = ({file.name: file for file in folder.iterdir()} for folder in (tmp_path, MODELS))
    assert pages <= made.keys()
    assert made.keys() == shipped.keys()
    for name in pages:
        assert made[name].read_text(encoding="utf-8") == shipped[name].read_text(encoding="utf-8")
    for name in made:
        if name.endswith(".png"):  # another font or processor may move an edge by a grey level
            mine, theirs = (np.asarray(Image.open(files[name]), float) for files in (made, shipped))
            assert mine.shape == theirs.shape
            assert np.abs(mine - theirs).mean() < 1
