"""The card beside a saved network, `README.md` and `confusion.png`: where it comes from and how good it is.

Every number is measured, none typed; the same numbers give the same text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Report:
    """What a training run did and measured."""

    call: str  # of CNNFashion
    recipe: str
    trained: int  # images
    held_out: int  # images that the best epoch was chosen by
    accuracies: tuple[float, ...]  # after each epoch, the share of the held-out images that is right
    confusion: npt.NDArray[np.int64] | None = None  # (10, 10), test images: true class, predicted class

    @property
    def best(self) -> int:
        """Which epoch is kept: the first of those with the highest accuracy, counted from 1."""
        return self.accuracies.index(max(self.accuracies)) + 1

    def __str__(self) -> str:
        epochs, share = len(self.accuracies), max(self.accuracies)
        return f"epoch {self.best} of {epochs} is kept: {share:.2%} of {self.held_out:,} held-out images are right"


def write_card(
    folder: Path, name: str, version: str, parameters: int, labels: Sequence[str], report: Report | None
) -> None:
    """Write the card of the network `name` that was saved to `folder`.

    `report` is None where the network came from a file. Without a confusion matrix, the card claims no
    accuracy on Fashion-MNIST. Raises `OSError` when the folder cannot be read and written.
    """
    picture = folder / "confusion.png"
    picture.unlink(missing_ok=True)  # it may be of another network
    origin = "It was loaded from a file and saved again: its training is not known here.\n"
    if report is not None:
        origin = _data_and_recipe(report)
        if report.confusion is not None:
            draw_confusion(report.confusion, labels, picture)
            origin += _accuracy(report.confusion, labels, picture.name)
    files = [folder / f"{name}.{kind}" for kind in ("onnx", "keras")]
    rows = "\n".join(
        f"| `{file.name}` | {file.stat().st_size:,} | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |"
        for file in files
    )
    card = f"""# Model card: {name}

Written by `CNNFashion.save()`. Version `{version}`, {parameters:,} parameters.

{origin}
## Files

| file | bytes | SHA-256 |
| --- | ---: | --- |
{rows}

Both hold the same network: uint8 images (N, 28, 28), 0 is the background, to probabilities (N, {len(labels)}).
Name, version and labels are in the metadata of the ONNX file. Keras writes the date into its own file: the
same weights, saved again, give the same digest of the ONNX file only.
"""
    (folder / "README.md").write_text(card, encoding="utf-8")


def _data_and_recipe(report: Report) -> str:
    data = "Images of the caller's own; its accuracy on Fashion-MNIST is not measured here."
    if report.confusion is not None:
        data = f"""\
Fashion-MNIST, 28x28 grey images of ten kinds of clothes, by Zalando Research
(https://github.com/zalandoresearch/fashion-mnist), MIT licence, © 2017 Zalando SE.
Its {report.confusion.sum():,} test images were looked at once, at the end."""
    return f"""## Data

{data}
{report.trained:,} training images trained the network, {report.held_out:,} were held out to choose the best epoch by.

## Recipe

    >>> from cnn_minst import CNNFashion
    >>> CNNFashion().{report.call}

trains it again, on the same machine to the same weights.
{report.recipe}
In this training, {report}.
"""


def _accuracy(confusion: npt.NDArray[np.int64], labels: Sequence[str], picture: str) -> str:
    right, tested, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    rows = "\n".join(
        f"| {label} | {right[number] / max(1, tested[number]):.1%} | {right[number] / max(1, predicted[number]):.1%} |"
        for number, label in enumerate(labels)
    )
    return f"""
## Accuracy

**{right.sum() / tested.sum():.2%}** of the {tested.sum():,} test images are right. By class: how many of its
images are called so (recall), and how many of the images called so belong to it (precision).

| class | recall | precision |
| --- | ---: | ---: |
{rows}

![Confusion matrix: true class by predicted class]({picture})
"""


def draw_confusion(confusion: npt.NDArray[np.int64], labels: Sequence[str], path: Path) -> None:
    """Draw the matrix (N, N), true class by predicted class, as a PNG file."""
    from matplotlib.figure import Figure  # only a card with a picture waits for it

    figure = Figure(figsize=(7.5, 7), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    axes.imshow(shares**0.5, cmap="Blues")  # the root, so that small shares can be seen
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for (true, predicted), count in np.ndenumerate(confusion):
        colour = "white" if shares[true, predicted] > 0.4 else "black"
        axes.text(predicted, true, str(count), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=100, metadata={"Software": None})  # not which matplotlib drew it
