"""Altered training images: shifted, mirrored, mixed, partly erased. Each epoch sees other ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.data import Images, Probabilities
from training.recipe import Recipe

SHORTEST = 6  # pixels, of a side of an erased rectangle


def augmented(
    images: Images, targets: Probabilities, recipe: Recipe, rng: np.random.Generator
) -> tuple[Images, Probabilities]:
    """Images, uint8 (N, 28, 28), each altered by random numbers of its own as the recipe says, and their targets.

    Targets (N, 10) stay as they are, except those of mixed images.
    """
    count, pixels = len(images), images.shape[1]
    shift = recipe.shift

    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (pixels, pixels), axis=(1, 2))
    down, right = rng.integers(2 * shift + 1, size=(2, count))
    changed: Images = windows[np.arange(count), down, right]

    mirrored = rng.random(count) < recipe.mirrored
    changed[mirrored] = changed[mirrored, :, ::-1]

    changed, targets = mixed(changed, targets, recipe.mixed, rng)

    erased = np.flatnonzero(rng.random(count) < recipe.erased)
    noise = rng.integers(256, size=(len(erased), pixels, pixels), dtype=np.uint8)
    changed[erased] = np.where(rectangles(len(erased), pixels, recipe.longest, rng), noise, changed[erased])
    return changed, targets


def mixed(
    images: Images, targets: Probabilities, share: float, rng: np.random.Generator
) -> tuple[Images, Probabilities]:
    """A share of the images, and of their targets, mixed in a random proportion with another image.

    This is mixup with an alpha of 1 (https://arxiv.org/abs/1710.09412).
    """
    chosen = np.flatnonzero(rng.random(len(images)) < share)
    others = rng.integers(len(images), size=len(chosen))
    part = rng.random(len(chosen), dtype=np.float32)[:, np.newaxis]  # of the other
    mixed_images, mixed_targets = images.copy(), targets.copy()
    mixed_targets[chosen] += part * (targets[others] - targets[chosen])
    pixels = part[:, :, np.newaxis]
    mixed_images[chosen] = np.rint((1 - pixels) * images[chosen] + pixels * images[others])
    return mixed_images, mixed_targets


def rectangles(count: int, pixels: int, longest: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Booleans (count, pixels, pixels): in each image a random rectangle is true, its sides at most `longest`."""

    def spans() -> npt.NDArray[np.bool_]:  # (count, pixels)
        sides = rng.uniform(SHORTEST, longest, size=(count, 1))
        starts = rng.random((count, 1)) * (pixels - sides)
        within: npt.NDArray[np.bool_] = (starts <= np.arange(pixels)) & (np.arange(pixels) < starts + sides)
        return within

    rows, columns = spans(), spans()
    return rows[:, :, np.newaxis] & columns[:, np.newaxis, :]
