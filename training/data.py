"""Fashion-MNIST, and what is accepted as images and labels."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # (N, 28, 28), whole grey levels, 0 is the background
Labels = npt.NDArray[np.int64]  # (N,), positions in LABELS
Probabilities = npt.NDArray[np.float32]  # (N, 10), rows sum to 1

LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # what the package dataset-fashion-mnist installs


def load_data(folder: str | Path | None = None) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Fashion-MNIST: 60,000 images (N, 28, 28) and labels (N,) to train with, then 10,000 to test with.

    The four IDX files (`train-images-idx3-ubyte.gz` and so on) come from the first source that has them:
    `folder`, Keras's cache, Debian's package, a download by Keras. Raises `FileNotFoundError`, which
    names all four, if none does, and `ValueError` if a file is damaged.
    """
    # Not `Path.expanduser`, which raises where there is no home folder: then there is no cache either.
    keras_home = os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras")  # noqa: PTH111
    cache = Path(keras_home) / "datasets" / "fashion-mnist"
    given = () if folder is None else (Path(folder),)
    for source in (*given, cache, DEBIAN):
        paths = [source / f"{name}-ubyte.gz" for name in FILES]
        if all(path.is_file() for path in paths):
            arrays = [read_idx(path) for path in paths]
            break
    else:
        try:
            import keras  # not at the top: it brings TensorFlow, which only the download needs

            arrays = [array for split in keras.datasets.fashion_mnist.load_data() for array in split]
        except Exception as error:  # what Keras raises when a download fails
            raise FileNotFoundError(
                f"no Fashion-MNIST in 1. the given folder: {folder or 'none was given'}; 2. Keras's cache: {cache}; "
                f"3. Debian's package dataset-fashion-mnist: {DEBIAN}; 4. Keras's download: {error}"
            ) from None
    return checked(*arrays[:2]), checked(*arrays[2:])


def read_idx(path: Path) -> Images:
    """The uint8 array in a gzipped IDX file; its header gives the shape. `ValueError` if it is damaged."""
    try:
        content = gzip.decompress(path.read_bytes())
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", dimensions, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (EOFError, IndexError, ValueError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not a whole gzipped IDX file: {error}") from None


def checked(images: npt.ArrayLike | None, labels: npt.ArrayLike | None) -> tuple[Images, Labels]:
    """Images (N, 28, 28) and their labels (N,) as `grey_levels` and `class_numbers` read them."""
    levels = grey_levels(images)
    return levels, class_numbers(labels, len(levels))


def grey_levels(images: npt.ArrayLike | None) -> Images:
    """Images (N, 28, 28) as whole grey levels, uint8 (N, 28, 28).

    Integers are grey levels from 0 to 255. Floats are grey levels too if any of them is above 1; otherwise
    they run from 0 to 1 and are multiplied by 255. Floats are then rounded.
    Anything else (another shape or dtype, no image, NaN, values outside 0-255) is a `ValueError`,
    which states what came.
    """
    array = _array(images, "images (N, 28, 28)")
    if array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
        raise ValueError(f"images are {array.dtype} {array.shape}, expected (N, 28, 28), N at least 1")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"images are {array.dtype}, expected integers or floats")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also when one is NaN
        raise ValueError(f"images run from {low} to {high}, expected 0 to 255, or 0 to 1")
    if array.dtype.kind == "f":
        array = np.rint(array.astype(np.float32) * (255 if high <= 1 else 1))
    return array.astype(np.uint8)


def class_numbers(labels: npt.ArrayLike | None, count: int) -> Labels:
    """Labels of `count` images, int64 (N,). `ValueError`, stating what came, unless integers from 0 to 9."""
    array = _array(labels, f"labels ({count},)")
    if array.shape != (count,):
        raise ValueError(f"labels are {array.dtype} {array.shape}, expected ({count},), one for each image")
    if array.dtype.kind not in "iu":
        raise ValueError(f"labels are {array.dtype}, expected integers from 0 to 9")
    if array.min() < 0 or array.max() > 9:
        raise ValueError(f"labels run from {array.min()} to {array.max()}, expected integers from 0 to 9")
    return array.astype(np.int64)


def _array(values: npt.ArrayLike | None, expected: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"expected {expected}; what came is no array: {error}") from None
