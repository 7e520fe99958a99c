"""Grey levels of floats, which run from 0 to 1 in some programs and from 0 to 255 in others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Resizing by a curve, as bicubic interpolation does, goes a little below 0 and above 1.
OVERSHOOT = 0.1


def levels_of_floats(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Grey levels, uint8, of at least one float.

    They run from 0 to 1 when none is above 1.1, and from 0 to 255 otherwise. Raises `ValueError` for what is neither:
    NaN, numbers outside of both, and fractions none of which is above 2, since as levels these are black.
    """
    low, high = float(numbers.min()), float(numbers.max())
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return _rounded(np.clip(numbers, 0, 1).astype(np.float32) * 255)
    if not (low >= 0 and high <= 255) or (high < 2 and (numbers % 1).any()):
        raise ValueError(f"from {low} to {high}, expected 0 to 255, or 0 to 1")
    return _rounded(numbers)


def _rounded(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.rint(numbers), np.uint8)
