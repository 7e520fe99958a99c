"""The pictures of the cards, as PNG files: the same numbers give the same bytes with the same matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluation import Bin

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_confusion(confusion: list[list[int]], labels: Sequence[str], path: Path) -> None:
    """The matrix (N, N), true class by predicted class."""
    figure = _figure(7.5, 7)
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    counts = np.array(confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(shares**0.5, cmap="Blues")  # the root, so that small shares can be seen
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for (true, predicted), count in np.ndenumerate(counts):
        colour = "white" if shares[true, predicted] > 0.4 else "black"
        axes.text(predicted, true, str(count), ha="center", va="center", color=colour)
    _save(figure, path)


def draw_reliability(bins: Sequence[Bin], path: Path) -> None:
    """Accuracy by confidence, beside the diagonal of a perfectly calibrated network."""
    figure = _figure(5, 4.5)
    axes = figure.add_subplot(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    axes.plot([each.confidence for each in bins], [each.accuracy for each in bins], marker="o")
    for each in bins:
        axes.annotate(
            f"{each.images:,}",
            (each.confidence, each.accuracy),
            xytext=(6, -12),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_title("beside each point: the number of images", fontsize=9)
    _save(figure, path)


def draw_speed(points: dict[str, tuple[float, float]], published: dict[str, float], path: Path) -> None:
    """Networks as points, accuracy by images a second; published accuracies as lines, since their speed is unknown."""
    figure = _figure(7.5, 5)
    axes = figure.add_subplot(
        xlabel="images/s", ylabel="accuracy on the test images, %", xscale="log", xlim=(800, 400_000)
    )
    for name, accuracy in published.items():
        axes.axhline(100 * accuracy, color="grey", linewidth=0.8, linestyle=":")
        axes.text(850, 100 * accuracy + 0.04, name, color="grey", fontsize=8)
    for name, (speed, accuracy) in points.items():
        axes.plot(speed, 100 * accuracy, marker="o", color="tab:blue")
        axes.annotate(name, (speed, 100 * accuracy), xytext=(7, 5), textcoords="offset points")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # not at the top: only a card with pictures waits for it

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=100, metadata={"Software": None})  # leaves out which matplotlib drew it
