"""A convolutional network for Fashion-MNIST, trained by Keras and saved for `replier.py`.

    >>> from cnn_minst import CNNFashion
    >>> cf = CNNFashion()            # or CNNFashion("tiny"), the fastest, or CNNFashion("large"), the most accurate
    >>> cf.fit()                     # Fashion-MNIST; writes models/fashion.keras, fashion.onnx and the card
    >>> cf.fit(recipe="long")        # the same, as the shipped networks were trained: an hour or more
    >>> cf.fit(trainX, trainY)       # your own images (N, 28, 28) and labels (N,); writes nothing
    >>> cf.evaluate()                # accuracy on the 10,000 test images
    >>> labels, probabilities = cf.predict(images)

`CNNFashion.load()` gives the saved network back. Its layers are in `training/networks.py`, the recipes in
`training/recipes/`, the training loop in `training/train.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy.typing as npt

from training.card import write_card, write_index
from training.data import LABELS, Images, Probabilities, checked, grey_levels, load_data
from training.distillation import read_teacher
from training.evaluation import evaluate, score
from training.export import Exported, as_onnx, version_of
from training.facts import Facts, Report, call_of, hint_at_long
from training.networks import BACKEND, Network
from training.recipe import read_recipe
from training.serving import load_network
from training.sizes import MODELS, file_name
from training.train import hold_out, train

__all__ = ["CNNFashion", "Predictions"]

SEEN = 1000  # training images that are passed through the network to find the scales of the 8-bit file


class Predictions(NamedTuple):
    """The result of `CNNFashion.predict`."""

    labels: tuple[str, ...]  # N of them
    probabilities: Probabilities  # (N, 10), in the order of LABELS


class CNNFashion:
    """A classifier of ten kinds of clothing. `fit` or `load` gives it its weights.

    `size` is "base", the default of `replier.py`, "tiny", the fastest, or "large", the most accurate; "wide" is
    the teacher of "large", and is not shipped. `ValueError` for any other.
    """

    def __init__(self, size: str = "base") -> None:
        self.size = size
        self.name = file_name(size)
        self.network: Network = None
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
        """Train a new network, with Keras's progress bar, and keep the weights of its best epoch.

        Without images: Fashion-MNIST, from the folder or `.npz` file `data`, or as `load_data` finds it. Ends with
        the accuracy on the test images, and writes the network and its card to the folder `models`.

        With images (N, 28, 28) and labels (N,) of your own, N at least 2: writes nothing, so that the
        shipped network stays the one its card describes. `save` writes it, with a card that claims no accuracy.

        `recipe` is "short" (minutes on two cores) or "long" (an hour or more: as the shipped networks were
        trained); `epochs` replaces its number of epochs. The best epoch is the one with the highest accuracy on a
        twelfth of the training images, held out for that; the test images are not used before the end.

        With a folder `checkpoints`, a training that was stopped resumes after its last whole epoch, also on
        another machine. On JAX (`KERAS_BACKEND=jax`), which trains on a GPU if there is one, Fashion-MNIST
        needs it: the call leaves a `.keras` file there, and the same call on TensorFlow makes the files and the card.

        A recipe with a teacher takes it from `models` or, on JAX, from `checkpoints`; `FileNotFoundError`
        if it is missing.

        On TensorFlow, the same call gives the same weights on the same machine: it seeds Python, NumPy and
        TensorFlow, and makes TensorFlow deterministic for the rest of the process. `ValueError`, which states
        what came, for images and labels that `training/data.py` does not accept.
        """
        plan = read_recipe(self.size, recipe, epochs)
        own = _are_given(trainX, trainY, data)
        on_tensorflow = BACKEND == "tensorflow"
        if checkpoints is None and not (own or on_tensorflow):
            raise ValueError(
                f"Keras is on {BACKEND}, where it writes no ONNX file: expected checkpoints=FOLDER, "
                "from which the same call on TensorFlow makes the files"
            )
        (X, Y), test = (checked(trainX, trainY), None) if own else load_data(data)
        if len(X) < 2:
            raise ValueError("1 image came, expected at least 2: one to train with, one held out")
        folder = Path(checkpoints) if checkpoints is not None else None
        teacher = read_teacher(plan.teacher, Path(models), folder) if plan.teacher else None
        checkpoint = folder / f"{self.name}.npz" if folder else None

        self.network, state = train(X, Y, self.size, plan, teacher=teacher, checkpoint=checkpoint)

        kept, held_out = hold_out(len(X))
        self._seen, self._onnx = X[kept[:SEEN]], None
        self.report = Report(
            call=call_of(self.size, recipe, epochs, own=own),
            recipe=plan,
            teacher=teacher.version if teacher else None,
            devices=state.devices,
            trained=len(kept),
            held_out=len(held_out),
            accuracies=state.accuracies,
        )
        print(self.report)
        if test is None:
            return
        if not on_tensorflow:
            assert checkpoint is not None  # or it was refused at the start
            self.network.save(checkpoint.with_suffix(".keras"))  # for a training that learns from it
            print(f"{checkpoint}: all epochs are done; the same call on TensorFlow makes the files")
            return
        scores = score(self._exported().predict, self._probabilities(test[0]), *test)
        self.report = replace(self.report, scores=scores)
        print(scores)
        if recipe == "short":
            print(hint_at_long(self.size))
        self.save(models)

    def evaluate(
        self,
        X: npt.ArrayLike | None = None,
        Y: npt.ArrayLike | None = None,
        *,
        data: str | Path | None = None,
    ) -> float:
        """The accuracy, 0 to 1, on images X (N, 28, 28) with labels Y (N,); without both, on the test images.

        Raises `ValueError` as `fit` does, and `RuntimeError` before `fit` or `load`.
        """
        images, classes = checked(X, Y) if _are_given(X, Y, data) else load_data(data)[1]
        return evaluate(self._probabilities(images), classes).accuracy

    def predict(self, images: npt.ArrayLike) -> Predictions:
        """The label of each of the images (N, 28, 28), and the probabilities, float32 (N, 10), of all labels.

        Raises `ValueError` as `fit` does, and `RuntimeError` before `fit` or `load`.
        """
        probabilities = self._probabilities(grey_levels(images))
        return Predictions(tuple(LABELS[number] for number in probabilities.argmax(axis=1)), probabilities)

    def save(self, folder: str | Path = MODELS) -> None:
        """Write `fashion.keras`, `fashion.onnx`, the card `fashion.md` with its figures, and an index to `folder`.

        The files of other sizes are `fashion-tiny.keras` and so on. The card describes the training if `fit`
        was called here. The ONNX file is in 8 bits after `fit`; after `load` it is the one that lay beside the
        `.keras` file, or, if none with the same weights did, in floats. Raises `RuntimeError` before `fit` or
        `load`, `OSError` if the folder cannot be written.
        """
        network, folder = self._trained(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder / f"{self.name}.keras")
        (folder / f"{self.name}.onnx").write_bytes(self._exported().content)
        facts = Facts(self.name, version_of(network), network.count_params(), self.report)
        facts.write(folder)
        write_card(folder, facts)
        write_index(folder)

    @classmethod
    def load(cls, folder: str | Path = MODELS, *, size: str = "base") -> CNNFashion:
        """The network that `save` wrote to `folder`. Errors as `training.serving.load_network`'s."""
        loaded = cls(size)
        loaded.network = load_network(Path(folder) / f"{loaded.name}.keras")
        beside = Path(folder) / f"{loaded.name}.onnx"
        loaded._onnx = beside.read_bytes() if beside.is_file() else None
        return loaded

    def _trained(self) -> Network:
        if self.network is None:
            raise RuntimeError("there is no network yet: fit() trains one, CNNFashion.load() loads one")
        return self.network

    def _probabilities(self, images: Images) -> Probabilities:
        probabilities: Probabilities = self._trained().predict(images, batch_size=500, verbose=0)
        return probabilities

    def _exported(self) -> Exported:
        exported = as_onnx(self._trained(), self._seen, self._onnx)
        self._onnx = exported.content
        return exported


def _are_given(X: npt.ArrayLike | None, Y: npt.ArrayLike | None, data: str | Path | None) -> bool:
    """Whether the caller brought images or labels. `ValueError` for both these and `data`."""
    given = X is not None or Y is not None
    if given and data is not None:
        raise ValueError(f"images and data={str(data)!r} came, expected one of them")
    return given
