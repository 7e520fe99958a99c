"""Fashion-MNIST's four files, made of a few images."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from training.data import FILES

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


def write_idx(folder: Path, images: Array, labels: Array, *, ending: str = "-ubyte.gz") -> Path:
    """A folder with the four files; the first two thirds of the images are to train with."""
    folder.mkdir(parents=True, exist_ok=True)
    cut = len(images) * 2 // 3
    for name, array in zip(FILES, (images[:cut], labels[:cut], images[cut:], labels[cut:]), strict=True):
        content = (
            bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        )
        (folder / f"{name}{ending}").write_bytes(
            gzip.compress(content) if ending.endswith(".gz") else content
        )
    return folder
