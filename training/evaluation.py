"""What a network is worth: right and wrong by class, and whether it is right as often as it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.vocabulary import LABELS, Labels, Probabilities

BINS = 10  # of confidence, each as wide as the others


@dataclass(frozen=True)
class Bin:
    """The images of which a network says its label with a probability of one tenth of the scale."""

    images: int
    confidence: float  # the mean probability of the label it gives
    accuracy: float  # the share that is right


@dataclass(frozen=True)
class Evaluation:
    """Answers beside the truth."""

    confusion: list[list[int]]  # true class, predicted class
    bins: list[Bin]  # those with any image, from the least confident

    @property
    def images(self) -> int:
        """How many images there were."""
        return sum(map(sum, self.confusion))

    @property
    def accuracy(self) -> float:
        """The share of images whose label is right."""
        return sum(row[place] for place, row in enumerate(self.confusion)) / self.images

    @property
    def calibration_error(self) -> float:
        """By how much confidence and accuracy differ, over all images (the expected calibration error)."""
        return sum(each.images * abs(each.confidence - each.accuracy) for each in self.bins) / self.images


def evaluate(probabilities: Probabilities, truth: Labels) -> Evaluation:
    """Probabilities (N, 10) beside the true labels (N,)."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        Bin(int(chosen.sum()), float(confidence[chosen].mean()), float((predicted == truth)[chosen].mean()))
        for chosen in (places == place for place in range(BINS))
        if chosen.any()
    ]
    return Evaluation(confusion.tolist(), bins)
