"""A convolutional network for Fashion-MNIST: data, network, training, evaluation, export.

    >>> from cnn_minst import CNNFashion
    >>> cf = CNNFashion()
    >>> cf.fit()                     # Fashion-MNIST; writes models/fashion.keras, fashion.onnx and the card
    >>> cf.fit(trainX, trainY)       # images (N, 28, 28), labels (N,) of your own; writes nothing
    >>> cf.evaluate()                # accuracy on the 10,000 test images
    >>> labels, probabilities = cf.predict(images)

`CNNFashion.load()` gives the trained network back; `replier.py` serves the `.onnx` file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read at import: no notes on how TensorFlow was built

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.card import Report, write_card

Images = npt.NDArray[np.uint8]  # (N, 28, 28), whole grey levels, 0 is the background
Labels = npt.NDArray[np.int64]  # (N,), positions in LABELS
Probabilities = npt.NDArray[np.float32]  # (N, 10), rows sum to 1

LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
NAME = "fashion"
MODELS = Path(__file__).parent / "models"

SEED = 2017  # the year of Fashion-MNIST; any other number does
EPOCHS = 20
BATCH = 128
LEARNING_RATE = 3e-3  # at its highest: it rises over the first epoch, then falls to 0 along a cosine
WEIGHT_DECAY = 0.02
SMOOTHING = 0.05  # of the labels: what the network says of itself is then closer to how often it is right
SHIFT = 2  # pixels, at most, by which a training image is moved in each direction
HELD_OUT = 1 / 12  # of the training images, to choose the best epoch by: 5,000 of 60,000
RECIPE = f"""\
Batches of {BATCH}; images moved by up to {SHIFT} pixels, half of them mirrored; AdamW, its learning rate up to
{LEARNING_RATE} in the first epoch and then down along a cosine, weight decay {WEIGHT_DECAY};
labels smoothed by {SMOOTHING}; seed {SEED}."""


# --- data ------------------------------------------------------------------------------------------

FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # what the package dataset-fashion-mnist installs


def load_data(folder: str | Path | None = None) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Fashion-MNIST: 60,000 images (N, 28, 28) and labels (N,) to train with, then 10,000 to test with.

    The first place that has the four IDX files (`train-images-idx3-ubyte.gz` and so on) gives them:
    `folder`, Keras's cache, Debian's package, a download by Keras. Raises `FileNotFoundError`, which
    names all four, when none does, and `ValueError` when a file is damaged.
    """
    keras_home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    cache = keras_home / "datasets" / "fashion-mnist"
    given = () if folder is None else (Path(folder),)
    for place in (*given, cache, DEBIAN):
        paths = [place / f"{name}-ubyte.gz" for name in FILES]
        if all(path.is_file() for path in paths):
            arrays = [read_idx(path) for path in paths]
            break
    else:
        try:
            arrays = [array for split in keras.datasets.fashion_mnist.load_data() for array in split]
        except Exception as error:  # what Keras raises when a download fails
            raise FileNotFoundError(
                f"no Fashion-MNIST in 1. the given folder: {folder or 'none was given'}; 2. Keras's cache: {cache}; "
                f"3. Debian's package dataset-fashion-mnist: {DEBIAN}; 4. Keras's download: {error}"
            ) from None
    return checked(*arrays[:2]), checked(*arrays[2:])


def read_idx(path: Path) -> Images:
    """The uint8 array in a gzipped IDX file; its header gives the shape. `ValueError` if it is damaged."""
    try:
        content = gzip.decompress(path.read_bytes())
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", dimensions, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (EOFError, IndexError, ValueError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole gzipped IDX file: {error}") from None


def checked(X: npt.ArrayLike | None, Y: npt.ArrayLike | None) -> tuple[Images, Labels]:
    """Images (N, 28, 28) and their labels (N,) as `grey_levels` and `class_numbers` read them."""
    images = grey_levels(X)
    return images, class_numbers(Y, len(images))


def grey_levels(images: npt.ArrayLike | None) -> Images:
    """Images (N, 28, 28) as whole grey levels, uint8 (N, 28, 28).

    The rule: integers are grey levels from 0 to 255. Floats are grey levels too when any of them is
    above 1; otherwise they run from 0 to 1 and are multiplied by 255. Floats are then rounded.
    Anything else (another shape or dtype, no image, NaN, values outside 0-255) is a `ValueError`
    that states what came.
    """
    array = _array(images, "images (N, 28, 28)")
    if array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
        raise ValueError(f"images are {array.dtype} {array.shape}, expected (N, 28, 28), N at least 1")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"images are {array.dtype}, expected integers or floats")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also when one is NaN
        raise ValueError(f"images run from {low} to {high}, expected 0 to 255, or 0 to 1")
    if array.dtype.kind == "f":
        array = np.rint(array.astype(np.float32) * (255 if high <= 1 else 1))
    return array.astype(np.uint8)


def class_numbers(labels: npt.ArrayLike | None, count: int) -> Labels:
    """Labels of `count` images, int64 (N,). `ValueError`, stating what came, unless integers from 0 to 9."""
    array = _array(labels, f"labels ({count},)")
    if array.shape != (count,):
        raise ValueError(f"labels are {array.dtype} {array.shape}, expected ({count},), one for each image")
    if array.dtype.kind not in "iu":
        raise ValueError(f"labels are {array.dtype}, expected integers from 0 to 9")
    if array.min() < 0 or array.max() > 9:
        raise ValueError(f"labels run from {array.min()} to {array.max()}, expected integers from 0 to 9")
    return array.astype(np.int64)


def _array(values: npt.ArrayLike | None, expected: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"expected {expected}; what came is no array: {error}") from None


def hold_out(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which of `count` training images to train with, and which to choose the best epoch by."""
    order = np.random.default_rng(SEED).permutation(count)
    held_out, kept = np.split(order, [max(1, round(count * HELD_OUT))])
    return kept, held_out


def augmented(images: Images, targets: npt.NDArray[np.float32]) -> Any:
    """A `tf.data` set of batches in a new order each epoch, the images moved by up to SHIFT, half of them mirrored."""

    def change(padded: Any, batch_targets: Any) -> tuple[Any, Any]:  # uint8 (n, 28 + 2 SHIFT, 28 + 2 SHIFT)
        count = tf.shape(padded)[0]
        first_row, first_column = tf.unstack(tf.random.uniform((2, count, 1), 0, 2 * SHIFT + 1, tf.int32))
        rows = first_row + tf.range(28)  # (n, 28), which rows of the padded image the new one is made of
        columns = first_column + tf.range(28)
        columns = tf.where(tf.random.uniform((count, 1)) < 0.5, columns, columns[:, ::-1])
        moved = tf.gather(padded, rows, axis=1, batch_dims=1)  # (n, 28, 28 + 2 SHIFT)
        return tf.gather(moved, columns, axis=2, batch_dims=1), batch_targets  # (n, 28, 28)

    # Not a Python generator: Keras trains from one with twice the CPU time, half of it in the kernel.
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    examples = tf.data.Dataset.from_tensor_slices((padded, targets))
    return examples.shuffle(len(images), SEED).batch(BATCH).map(change).prefetch(2)


# --- network ---------------------------------------------------------------------------------------


def build_network() -> Any:
    """The network with random weights: uint8 (N, 28, 28) in, probabilities (N, 10) out."""
    layers = keras.layers

    def activated(x: Any) -> Any:  # the export folds the normalisation of a convolution into its weights
        return layers.ReLU()(layers.BatchNormalization()(x))

    images = keras.Input((28, 28), dtype="uint8", name="images")
    x = layers.Reshape((28, 28, 1))(layers.Rescaling(1 / 255)(images))
    x = activated(layers.Conv2D(16, 3, padding="same", use_bias=False)(x))  # (N, 28, 28, 16)
    x = layers.MaxPooling2D()(x)  # early: from here on a picture has a quarter of the pixels
    x = activated(layers.Conv2D(48, 3, padding="same", use_bias=False)(x))  # (N, 14, 14, 48)
    x = layers.MaxPooling2D()(x)
    x = activated(layers.Conv2D(64, 3, padding="same", use_bias=False)(x))  # (N, 7, 7, 64)
    x = layers.Dropout(0.3)(layers.Flatten()(x))  # (N, 3136)
    x = activated(layers.Dense(128, use_bias=False)(x))  # (N, 128)
    x = layers.Dropout(0.3)(x)
    return keras.Model(images, layers.Dense(len(LABELS), activation="softmax")(x), name=NAME)


# --- training --------------------------------------------------------------------------------------


def train(X: Images, Y: Labels, epochs: int, call: str) -> tuple[Any, Report]:
    """A new network trained on images (N, 28, 28) and labels (N,), with the weights of its best epoch."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    kept, held_out = hold_out(len(X))
    targets = np.eye(len(LABELS), dtype=np.float32)[Y]  # (N, 10)
    steps = -(-len(kept) // BATCH)  # in an epoch
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, (epochs - 1) * steps), warmup_target=LEARNING_RATE, warmup_steps=steps
    )
    network = build_network()
    network.compile(
        keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY),
        keras.losses.CategoricalCrossentropy(label_smoothing=SMOOTHING),
        metrics=["accuracy"],
        jit_compile=False,  # on a CPU the compiled step is no faster, and compiling takes its time
    )
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=epochs, restore_best_weights=True
    )
    history = network.fit(
        augmented(X[kept], targets[kept]),
        epochs=epochs,
        shuffle=False,  # `augmented` does
        validation_data=(X[held_out], targets[held_out]),
        validation_batch_size=500,
        callbacks=[best],
    ).history
    trained = build_network()  # without the optimizer, whose state is twice the size of the weights
    trained.set_weights(network.get_weights())
    report = Report(call, RECIPE, len(kept), len(held_out), tuple(history["val_accuracy"]))
    print(report)
    return trained, report


class Predictions(NamedTuple):
    """What `CNNFashion.predict` gives: the label of each image, and the probabilities of all labels."""

    labels: tuple[str, ...]  # N of them
    probabilities: Probabilities  # (N, 10), in the order of LABELS


class CNNFashion:
    """A network that tells ten kinds of clothes apart. `fit` or `load` gives it its weights."""

    def __init__(self) -> None:
        self.network: Any = None
        self.report: Report | None = None

    def fit(
        self,
        trainX: npt.ArrayLike | None = None,
        trainY: npt.ArrayLike | None = None,
        *,
        epochs: int = EPOCHS,
        data: str | Path | None = None,
        models: str | Path = MODELS,
    ) -> None:
        """Train a new network with Keras's progress bar, and keep the weights of its best epoch.

        The best epoch is the one with the highest accuracy on a twelfth of the training images, held out
        for that; test images are not looked at before the end.

        Without images: Fashion-MNIST, as `load_data(data)` finds it. Ends with the accuracy on the test
        images, and writes the network and its card to the folder `models`.

        With images (N, 28, 28) and labels (N,) of your own, N at least 2: nothing is written, so that the
        shipped network stays what its card says. `save` writes it, with a card that claims no accuracy.

        The same call gives the same weights on the same machine: the random seeds of Python, NumPy and
        TensorFlow are set, and TensorFlow is made deterministic for the rest of the process. Raises
        `ValueError` (see `grey_levels` for images and `class_numbers` for labels) that states what came.
        """
        if epochs < 1:
            raise ValueError(f"epochs is {epochs}, expected at least 1")
        if trainX is not None or trainY is not None:
            X, Y = checked(trainX, trainY)
            if len(X) < 2:
                raise ValueError("1 image came, expected at least 2: one to train with, one held out")
            self.network, self.report = train(X, Y, epochs, "fit(trainX, trainY)")
            return
        (X, Y), (test_X, test_Y) = load_data(data)
        self.network, report = train(X, Y, epochs, "fit()" if epochs == EPOCHS else f"fit(epochs={epochs})")
        confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
        np.add.at(confusion, (test_Y, self._probabilities(test_X).argmax(axis=1)), 1)
        self.report = replace(report, confusion=confusion)
        print(f"accuracy on the {len(test_X):,} test images: {np.trace(confusion) / len(test_X):.2%}")
        self.save(models)

    def evaluate(
        self,
        X: npt.ArrayLike | None = None,
        Y: npt.ArrayLike | None = None,
        *,
        data: str | Path | None = None,
    ) -> float:
        """The share, 0 to 1, of images X (N, 28, 28) with the label in Y (N,); without both, of the test images.

        Raises `ValueError` as `fit` does, and `RuntimeError` before `fit` or `load`.
        """
        given = X is not None or Y is not None
        images, classes = checked(X, Y) if given else load_data(data)[1]
        return float(np.mean(self._probabilities(images).argmax(axis=1) == classes))

    def predict(self, images: npt.ArrayLike) -> Predictions:
        """The label of each of the images (N, 28, 28), and the probabilities, float32 (N, 10), of all labels.

        Raises `ValueError` as `grey_levels` does, and `RuntimeError` before `fit` or `load`.
        """
        probabilities = self._probabilities(grey_levels(images))
        return Predictions(tuple(LABELS[number] for number in probabilities.argmax(axis=1)), probabilities)

    def _probabilities(self, images: Images) -> Probabilities:
        probabilities: Probabilities = self._trained().predict(images, batch_size=500, verbose=0)
        return probabilities

    def _trained(self) -> Any:
        if self.network is None:
            raise RuntimeError("there is no network yet: fit() trains one, CNNFashion.load() loads one")
        return self.network

    def save(self, folder: str | Path = MODELS) -> None:
        """Write `fashion.keras`, `fashion.onnx` and the model card, `README.md`, to `folder`.

        The card tells of the training where `fit` was called here. Raises `RuntimeError` before `fit` or
        `load`, `OSError` when the folder cannot be written.
        """
        network, folder = self._trained(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder / f"{NAME}.keras")
        export_onnx(network, folder / f"{NAME}.onnx")
        write_card(folder, NAME, version_of(network), network.count_params(), LABELS, self.report)

    @classmethod
    def load(cls, folder: str | Path = MODELS) -> CNNFashion:
        """The network that `save` wrote to `folder`. Errors as `load_network`'s."""
        loaded = cls()
        loaded.network = load_network(Path(folder) / f"{NAME}.keras")
        return loaded


# --- files -----------------------------------------------------------------------------------------


def load_network(path: str | Path) -> Any:
    """The network in a `.keras` file. Code in the file is not run (Keras's safe mode).

    Raises `FileNotFoundError`, and `ValueError` for another kind of file, for a damaged one and for a
    network that does not take images (N, 28, 28) and give probabilities (N, 10).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix != ".keras":  # Keras's older formats have no safe mode
        raise ValueError(f"{path}: expected a .keras file")
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # which one depends on where the file is damaged
        raise ValueError(
            f"{path}: not a network that Keras loads: {str(error).partition(chr(10))[0]}"
        ) from None
    shapes = network.input_shape, network.output_shape
    if shapes != ((None, 28, 28), (None, len(LABELS))):
        raise ValueError(f"{path}: from {shapes[0]} to {shapes[1]}, expected (None, 28, 28) to (None, 10)")
    return network


def version_of(network: Any) -> str:
    """Twelve hex digits that stand for the weights: the same in the `.keras` and in the `.onnx` file."""
    return hashlib.sha256(b"".join(weights.tobytes() for weights in network.get_weights())).hexdigest()[:12]


def export_onnx(network: Any, path: Path) -> None:
    """Write the network as one self-describing ONNX file: name, version and labels are in its metadata.

    The same weights give the same bytes.
    """
    import onnx  # here and not at the top: only who exports needs it

    network(np.zeros((1, 28, 28), np.uint8))  # Keras exports only what was called once
    with warnings.catch_warnings():  # of Keras's own patch of tf2onnx
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        network.export(path, format="onnx", verbose=False, opset_version=17)
    model = onnx.load(path)
    _name_by_position(model.graph)
    metadata = {"name": NAME, "version": version_of(network), "labels": json.dumps(LABELS)}
    onnx.helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _name_by_position(graph: Any) -> None:
    """Name everything in an ONNX graph by where it stands: the exporter's names count on from export to export."""
    graph.name, graph.doc_string = NAME, ""
    names = {"": "", graph.input[0].name: "images", graph.output[0].name: "probabilities"}
    for place, node in enumerate(graph.node):
        node.name = f"{place}_{node.op_type}"
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


# --- serving ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KerasModel:
    """Which network it is: its name, its version and the SHA-256 (hex) of its file."""

    name: str
    version: str
    sha256: str


class KerasClassifier:
    """A `.keras` file as what `replier.py --runtime keras` serves. Errors as `load_network`'s."""

    def __init__(self, path: str | Path) -> None:
        self._network = load_network(path)
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        self.model = KerasModel(NAME, version_of(self._network), digest)
        self.labels: tuple[str, ...] = LABELS
        for count in (1, 2):  # the second size makes Keras compile for all sizes, before the first request
            self.predict(np.zeros((count, 28, 28), np.uint8))

    def predict(self, images: Images) -> Probabilities:
        """Probabilities, float32 (N, 10), of uint8 images (N, 28, 28)."""
        probabilities: Probabilities = self._network.predict_on_batch(images)
        return probabilities
