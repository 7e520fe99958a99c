"""Images to send: the shipped sample, an `.npz` file, or a folder of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagebus.errors import BadMessage, ConfigError
from imagebus.wire.pictures import read_picture
from imagebus.wire.pixels import FASHION, Images, fits, shape_of

SAMPLE = Path(__file__).parent / "data" / "fashion-mnist-1000.npz"
_PICTURES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8 (N, 28, 28), and the true label of each where it is known."""

    images: Images
    truths: tuple[str, ...] | None = None

    def package(self, number: int, size: int) -> tuple[Images, tuple[str, ...] | None]:
        """Package `number` (from 0) of `size` images and their truths; starts over at the end."""
        indices = np.arange(number * size, (number + 1) * size) % len(self.images)
        truths = None if self.truths is None else tuple(self.truths[index] for index in indices)
        return self.images[indices], truths


def load_images(path: str | Path = SAMPLE) -> ImageSet:
    """Load the images at `path`, by default the shipped sample.

    An `.npz` file has `images`, uint8 (N, 28, 28), and may have `labels`, (N,) whole numbers, with
    `names`, their texts. A folder has PNG or JPEG files, read by the rule of `wire.pictures.read_picture`; in
    sub-folders they are labelled by the folder's name, as Keras's `image_dataset_from_directory` does.

    Raises `ConfigError`, which names the file, its content and what was expected.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".npz":
        return _from_npz(path)
    problem = (
        "expected a folder of PNG or JPEG files, or an .npz file"
        if path.exists()
        else "no such file or folder"
    )
    raise ConfigError(f"{path}: {problem}")


def _from_npz(path: Path) -> ImageSet:
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
    if labels is None:
        return ImageSet(images)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        expected = f"whole numbers ({len(images)},)"
        raise ConfigError(f"{path}: labels is {labels.dtype} {labels.shape}, expected {expected}")
    if names is None:
        return ImageSet(images, tuple(str(label) for label in labels))
    if names.ndim != 1:
        raise ConfigError(f"{path}: names is {names.dtype} {names.shape}, expected texts (K,)")
    if labels.min() < 0 or labels.max() >= len(names):
        raise ConfigError(f"{path}: labels run from {labels.min()} to {labels.max()}, names has {len(names)}")
    return ImageSet(images, tuple(str(names[label]) for label in labels))


def _from_folder(folder: Path) -> ImageSet:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _PICTURES)
    if not files:
        raise ConfigError(f"{folder}: no PNG or JPEG file in it")
    images = []
    for file in files:
        try:
            images.append(read_picture(file.read_bytes(), FASHION))
        except (BadMessage, OSError) as error:
            raise ConfigError(f"{file}: {error}") from None
    labelled = all(file.parent != folder for file in files)
    return ImageSet(np.stack(images), tuple(file.parent.name for file in files) if labelled else None)
