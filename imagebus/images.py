"""Images to send: the shipped sample, an `.npz` file, a picture, or a folder of pictures."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imagebus.backgrounds import Background
from imagebus.errors import ConfigError
from imagebus.labels import SHIPPED, as_shipped
from imagebus.wire.pixels import FASHION, Images, fits, shape_of

log = logging.getLogger(__name__)

SAMPLE = Path(__file__).parent / "data" / "fashion-mnist-1000.npz"


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8 (N, 28, 28), with the true label and the file of each where they are known."""

    images: Images
    truths: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None  # below the folder that was given

    def package(self, number: int, size: int) -> tuple[Images, tuple[str, ...] | None]:
        """Package `number` (from 0) of `size` images and their truths; starts over at the end."""
        indices = self._indices(number, size)
        return self.images[indices], self._of(self.truths, indices)

    def files_of(self, number: int, size: int) -> tuple[str, ...] | None:
        """The files of the same images."""
        return self._of(self.files, self._indices(number, size))

    def _indices(self, number: int, size: int) -> npt.NDArray[np.intp]:
        return np.arange(number * size, (number + 1) * size) % len(self.images)

    @staticmethod
    def _of(texts: tuple[str, ...] | None, indices: npt.NDArray[np.intp]) -> tuple[str, ...] | None:
        return None if texts is None else tuple(texts[index] for index in indices)


def load_images(path: str | Path = SAMPLE, *, background: str = "black") -> ImageSet:
    """Load the images at `path`, by default the shipped sample.

    An `.npz` file has `images`, uint8 (N, 28, 28), and may have `labels`, (N,): texts, or whole numbers with
    `names`, their texts; without names, 0 to 9 are Fashion-MNIST's. A file or a folder of PNG and JPEG is read by
    the rule of `wire.pictures.read_picture`. Where all pictures lie in sub-folders, the first one below `path` is
    their label, as in Keras's `image_dataset_from_directory`. Labels of the shipped networks are spelt as these do
    (`imagebus.labels.as_shipped`).

    The networks know garments on black. `background` is "black" for images as they are, "white" to invert them, or
    "auto" to invert those with a light edge; one line of the log says where it does not seem to be true.

    Raises `ConfigError`, which names the file, its content and what was expected.
    """
    path = Path(path)
    behind = Background(background)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise ConfigError(f"{path}: {'no such file or folder' if missing else error.strerror}") from None
    if stat.S_ISDIR(mode):
        found = _from_folder(path, behind)
    elif path.suffix.lower() == ".npz":
        found = _from_npz(path, behind)
    elif stat.S_ISREG(mode):
        found = _from_files([path], path.parent, behind)
    else:
        raise ConfigError(f"{path}: neither a file nor a folder")
    behind.report(path)
    return found


def _from_npz(path: Path, behind: Background) -> ImageSet:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "images" not in arrays:
                raise ConfigError(f"{path}: it has no array called images, but {', '.join(arrays) or 'none'}")
            # A member that is no array is read as bytes.
            images = np.asarray(arrays["images"])
            labels, names = (
                np.asarray(arrays[name]) if name in arrays else None for name in ("labels", "names")
            )
    except ConfigError:
        raise
    except Exception as error:  # damage shows as an error of zlib, zipfile, Python or NumPy
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"{path}: cannot be read as .npz: {reason}") from None
    if not fits(images, FASHION) or not len(images):
        expected = f"{FASHION.dtype} {shape_of(FASHION)}"
        raise ConfigError(f"{path}: images is {images.dtype} {images.shape}, expected {expected}")
    try:
        truths = None if labels is None else _truths(labels, names, len(images))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return ImageSet(behind.turn_all(images), truths)


def _truths(labels: npt.NDArray[Any], names: npt.NDArray[Any] | None, count: int) -> tuple[str, ...]:
    """The true label of each image, from the arrays of an `.npz` file; `ConfigError` without the file's name."""
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iuUS":
        expected = f"whole numbers or texts ({count},)"
        raise ConfigError(f"labels is {labels.dtype} {labels.shape}, expected {expected}")
    labels = labels.ravel()
    if labels.dtype.kind in "US":
        return as_shipped(list(_texts("labels", labels)))
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "iuUS"):
        raise ConfigError(f"names is {names.dtype} {names.shape}, expected texts (K,)")
    if names is None and (labels.min() < 0 or labels.max() >= len(SHIPPED)):
        return tuple(str(label) for label in labels)  # not Fashion-MNIST's
    texts = SHIPPED if names is None else as_shipped(list(_texts("names", names)))
    if labels.min() < 0 or labels.max() >= len(texts):
        raise ConfigError(f"labels run from {labels.min()} to {labels.max()}, names has {len(texts)}")
    return tuple(texts[label] for label in labels)


def _texts(array: str, values: npt.NDArray[Any]) -> Iterator[str]:
    for value in values:
        try:
            yield value.decode() if isinstance(value, bytes) else str(value)
        except UnicodeDecodeError:
            raise ConfigError(f"{array} has bytes that are no UTF-8 text") from None


def _from_folder(folder: Path, behind: Background) -> ImageSet:
    from imagebus.image_files import pictures_in  # here, as the sample needs no Pillow

    files = pictures_in(folder)
    found = _from_files(files, folder, behind)
    beside = sum(file.parent == folder for file in files)
    if beside == len(files):
        return found
    if beside:
        log.warning(
            "%s: %d of %d pictures lie beside the sub-folders, so these are not taken for labels",
            folder,
            beside,
            len(files),
        )
        return found
    return replace(found, truths=as_shipped([file.partition("/")[0] for file in found.files or ()]))


def _from_files(files: list[Path], folder: Path, behind: Background) -> ImageSet:
    from imagebus.image_files import read_files

    images = np.stack(read_files(files, behind.turn))
    return ImageSet(images, files=tuple(_name(file.relative_to(folder)) for file in files))


def _name(file: Path) -> str:
    """A path as a text that JSON takes: bytes that are no UTF-8 are escaped."""
    return os.fsencode(file).decode(errors="backslashreplace")
