"""Fashion-MNIST, and what is accepted as images and labels."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imagebus.wire.levels import levels_of_floats

Images = npt.NDArray[np.uint8]  # (N, 28, 28), whole grey levels, 0 is the background
Labels = npt.NDArray[np.int64]  # (N,), positions in LABELS
Probabilities = npt.NDArray[np.float32]  # (N, 10), rows sum to 1

LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_UINT8 = 8  # IDX's number of that type
FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
ARRAYS = ("x_train", "y_train", "x_test", "y_test")  # of an .npz file, as Keras names them
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # what the package dataset-fashion-mnist installs

Split = tuple[Images, Labels]


def load_data(data: str | Path | None = None) -> tuple[Split, Split]:
    """Fashion-MNIST: 60,000 images (N, 28, 28) and labels (N,) to train with, then 10,000 to test with.

    `data` is a folder with the four IDX files, gzipped (`train-images-idx3-ubyte.gz` and so on) or not, or an
    `.npz` file with the arrays `x_train`, `y_train`, `x_test` and `y_test`. What is given is used, or refused.
    Without it the IDX files come from the first source that has them: Keras's cache, Debian's package, a download
    by Keras.

    Raises `FileNotFoundError`, which names the files or sources that were looked for, and `ValueError` if a file is
    damaged or has other data.
    """
    arrays = _nearest() if data is None else _given(_expanded(data))
    try:
        return checked(*arrays[:2]), checked(*arrays[2:])
    except ValueError as error:
        raise ValueError(f"data: {data or 'Fashion-MNIST'}: {error}") from None


def _given(path: Path) -> list[npt.NDArray[Any]]:
    """The four arrays of a folder or an `.npz` file."""
    if path.suffix.lower() == ".npz" and not path.is_dir():
        return read_npz(path)
    if not path.is_dir():
        problem = "expected a folder or an .npz file" if path.exists() else "no such file or folder"
        raise FileNotFoundError(f"data: {path}: {problem}")
    found = [find_idx(path, name) for name in FILES]
    missing = [f"{name}-ubyte" for name, file in zip(FILES, found, strict=True) if file is None]
    if missing:
        archives = sorted(path.glob("*.npz"))
        hint = f"; to use {archives[0].name}, give that file" if archives else ""
        raise FileNotFoundError(f"data: {path}: it has no {', '.join(missing)}, with .gz or without{hint}")
    return [read_idx(file) for file in found if file]


def _nearest() -> list[npt.NDArray[Any]]:
    """The four arrays, without anything given."""
    cache = _expanded(os.environ.get("KERAS_HOME") or "~/.keras") / "datasets" / "fashion-mnist"
    for source in (cache, DEBIAN):
        paths = [source / f"{name}-ubyte.gz" for name in FILES]
        if all(path.is_file() for path in paths):
            return [read_idx(path) for path in paths]
    try:
        import keras  # not at the top: it brings TensorFlow, which only the download needs

        return [array for split in keras.datasets.fashion_mnist.load_data() for array in split]
    except Exception as error:  # what Keras raises when a download fails
        raise FileNotFoundError(
            f"no Fashion-MNIST in 1. Keras's cache: {cache}; 2. Debian's package dataset-fashion-mnist: {DEBIAN}; "
            f"3. Keras's download: {error}; a folder or file can be given as data"
        ) from None


def _expanded(path: str | Path) -> Path:
    """Without `~`. Not by `Path.expanduser`, which raises where there is no home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def find_idx(folder: Path, name: str) -> Path | None:
    """The IDX file of that name in a folder, gzipped or not, also with a dot as Zalando's first files had it."""
    for stem in (name, name.replace("-idx", ".idx")):
        for ending in ("-ubyte.gz", "-ubyte"):
            if (file := folder / f"{stem}{ending}").is_file():
                return file
    return None


def read_idx(path: Path) -> Images:
    """The uint8 array in an IDX file, gzipped or not; its header gives the shape. `ValueError` if it is damaged."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        zeros, dtype, dimensions = content[:2], content[2], content[3]
        if zeros != b"\0\0" or dtype != _UINT8:
            raise ValueError("it does not begin as one of bytes does")
        shape = np.frombuffer(content, ">u4", dimensions, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (EOFError, IndexError, ValueError, zlib.error, gzip.BadGzipFile) as error:
        packed = "gzipped " * (path.suffix == ".gz")
        raise ValueError(f"{path}: not a whole {packed}IDX file: {error}") from None


def read_npz(path: Path) -> list[npt.NDArray[Any]]:
    """The arrays `x_train`, `y_train`, `x_test`, `y_test` of an `.npz` file. `ValueError` if it has others."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if missing := [name for name in ARRAYS if name not in arrays]:
                found = ", ".join(arrays) or "none"
                raise ValueError(f"it has no array {', '.join(missing)}, but {found}")
            return [np.asarray(arrays[name]) for name in ARRAYS]
    except FileNotFoundError:
        raise FileNotFoundError(f"data: {path}: no such file or folder") from None
    except Exception as error:  # damage shows as an error of zlib, zipfile, Python or NumPy
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"data: {path}: cannot be used as .npz: {reason}") from None


def checked(images: npt.ArrayLike | None, labels: npt.ArrayLike | None) -> tuple[Images, Labels]:
    """Images (N, 28, 28) and their labels (N,) as `grey_levels` and `class_numbers` read them."""
    levels = grey_levels(images)
    return levels, class_numbers(labels, len(levels))


def grey_levels(images: npt.ArrayLike | None) -> Images:
    """Images (N, 28, 28) as whole grey levels, uint8 (N, 28, 28).

    Integers are grey levels from 0 to 255. Of floats, see `imagebus.wire.levels`.
    Anything else (another shape or dtype, no image, NaN, values outside 0-255) is a `ValueError`,
    which states what came.
    """
    array = _array(images, "images (N, 28, 28)")
    if array.ndim != 3 or array.shape[1:] != (28, 28) or not len(array):
        raise ValueError(f"images are {array.dtype} {array.shape}, expected (N, 28, 28), N at least 1")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"images are {array.dtype}, expected integers or floats")
    if array.dtype.kind == "f":
        try:
            return levels_of_floats(array)
        except ValueError as error:
            raise ValueError(f"images run {error}") from None
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise ValueError(f"images run from {low} to {high}, expected 0 to 255, or 0 to 1")
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
