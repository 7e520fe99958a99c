"""A convolutional network for Fashion-MNIST: data, training, evaluation, export.

    >>> from cnn_minst import CNNFashion
    >>> cf = CNNFashion()            # or CNNFashion("tiny"), which is faster, or CNNFashion("large")
    >>> cf.fit()                     # Fashion-MNIST; writes models/fashion.keras, fashion.onnx and the card
    >>> cf.fit(recipe="long")        # the same with the recipe that the shipped networks are made by: an hour or more
    >>> cf.fit(trainX, trainY)       # images (N, 28, 28), labels (N,) of your own; writes nothing
    >>> cf.evaluate()                # accuracy on the 10,000 test images
    >>> labels, probabilities = cf.predict(images)

`CNNFashion.load()` gives the trained network back; `replier.py` serves the `.onnx` file. The networks are in
`training/networks.py`, how they are trained in `training/recipes/` and `training/train.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

# Both are read at import. No notes on how TensorFlow was built; and oneDNN's convolutions, which on a processor
# without AVX-512 are off unless asked for: training takes half the time with them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import numpy.typing as npt

from training.card import Facts, Report, write_card
from training.evaluation import evaluate
from training.export import Exported, export_onnx, version_of
from training.recipe import read_recipe
from training.robustness import robustness
from training.teaching import Teacher
from training.train import hold_out, train
from training.vocabulary import LABELS, Images, Labels, Probabilities, file_name

__all__ = ["LABELS", "MODELS", "CNNFashion", "KerasClassifier", "load_data"]

MODELS = Path(__file__).parent / "models"
SEEN = 1000  # training images that tell what numbers flow between the layers: the ONNX file is in 8 bits


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


# --- network ---------------------------------------------------------------------------------------


class Predictions(NamedTuple):
    """What `CNNFashion.predict` gives: the label of each image, and the probabilities of all labels."""

    labels: tuple[str, ...]  # N of them
    probabilities: Probabilities  # (N, 10), in the order of LABELS


class CNNFashion:
    """A network that tells ten kinds of clothes apart. `fit` or `load` gives it its weights.

    `size` is "base", which `replier.py` serves by default, "tiny", which is faster, or "large", which is
    right most often; "wide" is what "large" learns from, and is not shipped. Raises `ValueError` for another one.
    """

    def __init__(self, size: str = "base") -> None:
        self.size = size
        self.name = file_name(size)
        self.network: Any = None
        self.report: Report | None = None
        self._seen: Images | None = None  # by the training
        self._onnx: bytes | None = None

    def fit(
        self,
        trainX: npt.ArrayLike | None = None,
        trainY: npt.ArrayLike | None = None,
        *,
        recipe: str = "short",
        epochs: int | None = None,
        data: str | Path | None = None,
        models: str | Path = MODELS,
        checkpoints: str | Path | None = None,
    ) -> None:
        """Train a new network with Keras's progress bar, and keep the weights of its best epoch.

        `recipe` is "short" (minutes on two cores) or "long" (an hour or more: what the shipped networks are made by);
        `epochs` replaces its number of epochs. The best epoch is the one with the highest accuracy on a
        twelfth of the training images, held out for that; test images are not looked at before the end.

        Without images: Fashion-MNIST, as `load_data(data)` finds it. Ends with the accuracy on the test
        images, and writes the network and its card to the folder `models`.

        With images (N, 28, 28) and labels (N,) of your own, N at least 2: nothing is written, so that the
        shipped network stays what its card says. `save` writes it, with a card that claims no accuracy.

        With a folder `checkpoints`, a training that was stopped goes on where it was after its last whole
        epoch, also on another machine. Without images, Keras on JAX (`KERAS_BACKEND=jax`) needs one: it trains, on
        a GPU where there is one, and leaves a `.keras` file there; the same call on TensorFlow goes on to the files and
        the card.

        A recipe with a teacher takes the one that is in the folder `models`, or, on JAX, in `checkpoints`, and is
        refused with `FileNotFoundError` if none is.

        The same call on TensorFlow gives the same weights on the same machine: the random seeds of Python, NumPy and
        TensorFlow are set, and TensorFlow is made deterministic for the rest of the process. Raises
        `ValueError` (see `grey_levels` for images and `class_numbers` for labels) that states what came.
        """
        plan = read_recipe(self.size, recipe)
        if epochs is not None:
            plan = replace(plan, epochs=epochs)
        if plan.epochs < 1:
            raise ValueError(f"epochs is {epochs}, expected at least 1")
        own = trainX is not None or trainY is not None
        exports = keras.config.backend() == "tensorflow"
        if checkpoints is None and not (own or exports):
            raise ValueError(
                f"Keras is on {keras.config.backend()}, where it writes no ONNX file: expected checkpoints=FOLDER, "
                "from which the same call on TensorFlow makes the files"
            )
        (X, Y), test = (checked(trainX, trainY), None) if own else load_data(data)
        if len(X) < 2:
            raise ValueError("1 image came, expected at least 2: one to train with, one held out")
        teacher = _read_teacher(plan.teacher, Path(models), checkpoints) if plan.teacher else None
        checkpoint = Path(checkpoints) / f"{self.name}.npz" if checkpoints is not None else None

        self.network, state = train(X, Y, self.size, plan, teacher=teacher, checkpoint=checkpoint)

        size = "" if self.size == "base" else f'"{self.size}"'
        options = ["trainX, trainY"] * own
        options += [f'recipe="{recipe}"'] * (recipe != "short") + [f"epochs={epochs}"] * (epochs is not None)
        steps = f"{plan}\nThe teacher is version {teacher.version}." if teacher else str(plan)
        steps += f"\nIt was computed with Keras on {state.devices}."
        kept, held_out = hold_out(len(X))
        self._seen, self._onnx = X[kept[:SEEN]], None
        self.report = Report(
            f"CNNFashion({size}).fit({', '.join(options)})", steps, len(kept), len(held_out), state.accuracies
        )
        print(self.report)
        if test is None:
            return
        if not exports:
            assert checkpoint is not None  # or it was refused at the start
            self.network.save(checkpoint.with_suffix(".keras"))  # for a training that learns from it
            print(f"{checkpoint}: all epochs are done; the same call on TensorFlow makes the files")
            return
        exported = self._exported()
        evaluation = evaluate(exported.predict(test[0]), test[1])
        in_floats = evaluate(self._probabilities(test[0]), test[1]).accuracy
        changed = robustness(exported.predict, *test)
        self.report = replace(self.report, test=evaluation, in_floats=in_floats, robustness=changed)
        print(
            f"accuracy on the {evaluation.images:,} test images: {evaluation.accuracy:.2%} in 8 bits, as replier.py "
            f"serves the network; {in_floats:.2%} in floats"
        )
        if recipe == "short":
            print(self._what_the_long_recipe_gives())
        self.save(models)

    def _what_the_long_recipe_gives(self) -> str:
        epochs = read_recipe(self.size, "long").epochs
        shipped = Facts.read(MODELS, self.name)
        measured = ""
        if shipped and shipped.report and shipped.report.test and "long" in shipped.report.call:
            measured = f"; the shipped network, made by it, reaches {shipped.report.test.accuracy:.2%}"
        return f'fit(recipe="long") trains {epochs} epochs{measured}'

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
        return evaluate(self._probabilities(images), classes).accuracy

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
        """Write `fashion.keras`, `fashion.onnx`, what is known of them, and the model card, `README.md`, to `folder`.

        The files of other sizes are `fashion-tiny.keras` and so on, and the card `fashion-tiny.md`. It tells
        of the training where `fit` was called here. The ONNX file is in 8 bits after `fit`, by some of the
        training images; after `load` it is the one that lay beside the `.keras` file, or, if none of the same
        weights did, in floats. Raises `RuntimeError` before `fit` or `load`, `OSError` when the folder cannot
        be written.
        """
        network, folder = self._trained(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder / f"{self.name}.keras")
        (folder / f"{self.name}.onnx").write_bytes(self._exported().content)
        facts = Facts(self.name, version_of(network), network.count_params(), self.report)
        facts.write(folder)
        write_card(folder, facts)

    def _exported(self) -> Exported:
        network = self._trained()
        if self._onnx is not None:
            with suppress(Exception):  # which one depends on where the file is damaged
                exported = Exported(self._onnx)
                if exported.version == version_of(network):
                    return exported
        self._onnx = export_onnx(network, self._seen)
        return Exported(self._onnx)

    @classmethod
    def load(cls, folder: str | Path = MODELS, *, size: str = "base") -> CNNFashion:
        """The network that `save` wrote to `folder`. Errors as `load_network`'s."""
        loaded = cls(size)
        loaded.network = load_network(Path(folder) / f"{loaded.name}.keras")
        beside = Path(folder) / f"{loaded.name}.onnx"
        loaded._onnx = beside.read_bytes() if beside.is_file() else None
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


def _read_teacher(size: str, models: Path, checkpoints: str | Path | None) -> Teacher:
    """The network of a size that another one learns from.

    Raises `FileNotFoundError`, which says what makes it, and `ValueError` for a damaged file.
    """
    on_jax = keras.config.backend() == "jax"
    path = models / f"{file_name(size)}.{'keras' if on_jax else 'onnx'}"
    if on_jax and checkpoints is not None and (Path(checkpoints) / path.name).is_file():
        path = Path(checkpoints) / path.name  # where a training on JAX leaves it
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: no such file: CNNFashion("{size}").fit(recipe="long") makes the teacher'
        )
    if not on_jax:
        return Exported.read(path)
    from training.on_jax import OnDevice  # not at the top: where TensorFlow computes, there may be no JAX

    return OnDevice(load_network(path), size)


# --- serving ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KerasModel:
    """Which network it is: its name, its version and the SHA-256 (hex) of its file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class KerasImages:
    """Which images it takes: their size in pixels, the numbers of a pixel, and their type."""

    height: int = 28
    width: int = 28
    channels: int = 1
    dtype: str = "uint8"


class KerasClassifier:
    """A `.keras` file as what `replier.py --runtime keras` serves. Errors as `load_network`'s."""

    def __init__(self, path: str | Path) -> None:
        self._network = load_network(path)
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        self.model = KerasModel(self._network.name, version_of(self._network), digest)
        self.labels: tuple[str, ...] = LABELS
        self.spec = KerasImages()
        for count in (1, 2):  # the second size makes Keras compile for all sizes, before the first request
            self.predict(np.zeros((count, 28, 28), np.uint8))

    def predict(self, images: Images) -> Probabilities:
        """Probabilities, float32 (N, 10), of uint8 images (N, 28, 28)."""
        probabilities: Probabilities = self._network.predict_on_batch(images)
        return probabilities
