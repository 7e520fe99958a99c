"""How good a network is: its accuracy by class and on altered images, and its calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.data import LABELS, Images, Labels, Probabilities
from training.robustness import Robustness, robustness

BINS = 10  # of confidence, all equally wide


@dataclass(frozen=True)
class Bin:
    """The images whose confidence, the probability of the predicted label, lies in one tenth of the scale."""

    images: int
    confidence: float  # the mean
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """A network's predictions compared with the true labels."""

    confusion: list[list[int]]  # images by true class, then by predicted class
    bins: list[Bin]  # those that are not empty, from the least confident

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of images whose label is correct."""
        return sum(row[number] for number, row in enumerate(self.confusion)) / self.images

    @property
    def calibration_error(self) -> float:
        """The difference between confidence and accuracy, averaged over all images (expected calibration error)."""
        return sum(each.images * abs(each.confidence - each.accuracy) for each in self.bins) / self.images


@dataclass(frozen=True)
class Scores:
    """The figures of a network on the test images; those of its ONNX file, in 8 bits, unless they say otherwise."""

    evaluation: Evaluation
    in_floats: float  # accuracy of the `.keras` file
    relabelled: int  # images whose label differs between the two files
    robustness: Robustness

    def __str__(self) -> str:
        return (
            f"accuracy on the {self.evaluation.images:,} test images: {self.evaluation.accuracy:.2%} in 8 bits, "
            f"as replier.py serves the network; {self.in_floats:.2%} in floats"
        )


def evaluate(probabilities: Probabilities, truth: Labels) -> Evaluation:
    """Compare probabilities (N, 10) with the true labels (N,)."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        Bin(int(chosen.sum()), float(confidence[chosen].mean()), float((predicted == truth)[chosen].mean()))
        for chosen in (numbers == number for number in range(BINS))
        if chosen.any()
    ]
    return Evaluation(confusion.tolist(), bins)


def score(
    predict: Callable[[Images], Probabilities], in_floats: Probabilities, images: Images, truth: Labels
) -> Scores:
    """Test a network in 8 bits, `predict`, beside its probabilities (N, 10) in floats for the same images."""
    in_8_bits = predict(images)
    return Scores(
        evaluate(in_8_bits, truth),
        evaluate(in_floats, truth).accuracy,
        int((in_8_bits.argmax(axis=1) != in_floats.argmax(axis=1)).sum()),
        robustness(predict, images, truth),
    )
