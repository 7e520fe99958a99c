"""What all parts of the training share: the classes, the sizes, and the arrays that they pass on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # (N, 28, 28), whole grey levels, 0 is the background
Labels = npt.NDArray[np.int64]  # (N,), positions in LABELS
Probabilities = npt.NDArray[np.float32]  # (N, 10), rows sum to 1
TrainEpoch = Callable[[int, Images, Probabilities], None]  # of an epoch, from 0: its images and their targets

LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SIZES = ("tiny", "base", "large")  # of networks, from the fastest to the most accurate
TEACHER = "wide"  # a size that large learns from, and that is not shipped


def file_name(size: str) -> str:
    """What the files of a size are called, without their ending; it is the model's name too.

    Raises `ValueError` for a size that there is not.
    """
    known = (*SIZES, TEACHER)
    if size not in known:
        raise ValueError(f"size is {size!r}, expected one of {', '.join(known)}")
    return "fashion" if size == "base" else f"fashion-{size}"
