"""Accuracy on test images as a worse camera would take them: shifted, noisy, blurred."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.data import Images, Labels, Probabilities

SEED = 2017
SHIFTS = (1, 2, 3, 4)  # pixels
NOISES = (8, 16, 32, 64)  # grey levels, the standard deviation
BLURS = (0.5, 1.0, 1.5, 2.0)  # pixels, the standard deviation

Robustness = dict[
    str, dict[str, float]
]  # accuracy by alteration, "shift", "noise" or "blur", and by strength


def robustness(predict: Callable[[Images], Probabilities], images: Images, truth: Labels) -> Robustness:
    """The accuracy under each alteration, at each strength; a shift's is the mean over four directions."""

    def accuracy(*altered: Images) -> float:
        return float(np.mean([np.mean(predict(each).argmax(axis=1) == truth) for each in altered]))

    def directions(step: int) -> list[tuple[int, int]]:
        return [(step, 0), (-step, 0), (0, step), (0, -step)]

    return {
        "shift": {
            str(step): accuracy(*(shifted(images, *each) for each in directions(step))) for step in SHIFTS
        },
        "noise": {str(deviation): accuracy(noisy(images, deviation)) for deviation in NOISES},
        "blur": {str(deviation): accuracy(blurred(images, deviation)) for deviation in BLURS},
    }


def shifted(images: Images, down: int, right: int) -> Images:
    """Images (N, 28, 28) shifted by whole pixels; the pixels that come into view are background."""
    most = max(abs(down), abs(right))
    padded = np.pad(images, ((0, 0), (most, most), (most, most)))
    return padded[:, most - down : most - down + 28, most - right : most - right + 28]


def noisy(images: Images, deviation: float) -> Images:
    """Images with normally distributed noise of so many grey levels, the same on each call."""
    noise = np.random.default_rng(SEED).normal(0, deviation, images.shape)
    return np.rint(np.clip(images + noise, 0, 255)).astype(np.uint8)


def blurred(images: Images, deviation: float) -> Images:
    """Images (N, 28, 28) under a Gaussian blur of so many pixels."""
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    weights /= weights.sum()
    values = images.astype(np.float32)
    for axis in (1, 2):
        width = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        padded = np.pad(values, width)
        values = sum(
            weight * np.take(padded, range(start, start + 28), axis=axis)
            for start, weight in enumerate(weights)
        )
    return np.rint(values).astype(np.uint8)
