"""Changed training images: moved, mirrored, partly overwritten. A training sees others in each epoch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.recipe import Recipe
from models.vocabulary import Images

SIDES = (6, 14)  # pixels: the shortest and the longest side of what is overwritten


def augmented(images: Images, recipe: Recipe, rng: np.random.Generator) -> Images:
    """Images, uint8 (N, 28, 28), each changed as the recipe says by random numbers of its own."""
    count, pixels = len(images), images.shape[1]
    shift = recipe.shift

    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (pixels, pixels), axis=(1, 2))
    down, right = rng.integers(2 * shift + 1, size=(2, count))
    changed: Images = windows[np.arange(count), down, right]

    mirrored = rng.random(count) < recipe.mirrored
    changed[mirrored] = changed[mirrored, :, ::-1]

    erased = np.flatnonzero(rng.random(count) < recipe.erased)
    noise = rng.integers(256, size=(len(erased), pixels, pixels), dtype=np.uint8)
    changed[erased] = np.where(rectangles(len(erased), pixels, rng), noise, changed[erased])
    return changed


def rectangles(count: int, pixels: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Booleans (count, pixels, pixels): in each image a rectangle somewhere is true."""

    def spans() -> npt.NDArray[np.bool_]:  # (count, pixels)
        sides = rng.uniform(*SIDES, size=(count, 1))
        starts = rng.random((count, 1)) * (pixels - sides)
        within: npt.NDArray[np.bool_] = (starts <= np.arange(pixels)) & (np.arange(pixels) < starts + sides)
        return within

    rows, columns = spans(), spans()
    return rows[:, :, np.newaxis] & columns[:, np.newaxis, :]
