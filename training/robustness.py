"""Test images as a worse camera would give them: moved, noisy, blurred."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.vocabulary import Images, Labels, Probabilities

SEED = 2017
SHIFTS = (1, 2, 3, 4)  # pixels
NOISES = (8, 16, 32, 64)  # grey levels, the standard deviation
BLURS = (0.5, 1.0, 1.5, 2.0)  # pixels, the standard deviation


def robustness(
    predict: Callable[[Images], Probabilities], images: Images, truth: Labels
) -> dict[str, dict[str, float]]:
    """The share of images that is right under each change, for each strength of it."""

    def accuracy(*changed: Images) -> float:
        return float(np.mean([np.mean(predict(each).argmax(axis=1) == truth) for each in changed]))

    return {
        "moved by pixels, mean of four directions": {
            str(step): accuracy(
                *(moved(images, *by) for by in ((step, 0), (-step, 0), (0, step), (0, -step)))
            )
            for step in SHIFTS
        },
        "noise of grey levels": {str(deviation): accuracy(noisy(images, deviation)) for deviation in NOISES},
        "blur of pixels": {str(deviation): accuracy(blurred(images, deviation)) for deviation in BLURS},
    }


def moved(images: Images, down: int, right: int) -> Images:
    """Images (N, 28, 28) moved by whole pixels; what comes into view is background."""
    most = max(abs(down), abs(right))
    padded = np.pad(images, ((0, 0), (most, most), (most, most)))
    return padded[:, most - down : most - down + 28, most - right : most - right + 28]


def noisy(images: Images, deviation: float) -> Images:
    """Images with normally distributed noise of this many grey levels, the same each time."""
    noise = np.random.default_rng(SEED).normal(0, deviation, images.shape)
    return np.rint(np.clip(images + noise, 0, 255)).astype(np.uint8)


def blurred(images: Images, deviation: float) -> Images:
    """Images (N, 28, 28) behind a Gaussian blur of this many pixels."""
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    weights /= weights.sum()
    values = images.astype(np.float32)
    for axis in (1, 2):
        width = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        padded = np.pad(values, width)
        values = sum(
            weight * np.take(padded, range(place, place + 28), axis=axis)
            for place, weight in enumerate(weights)
        )
    return np.rint(values).astype(np.uint8)
