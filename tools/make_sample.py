"""Make imagebus/data/fashion-mnist-1000.npz: 100 test images of each class of Fashion-MNIST.

    python3 tools/make_sample.py [FOLDER]

FOLDER has the IDX files, if neither Keras's cache nor Debian's package does. The same data give the
same file: the images are drawn with a fixed seed, and keep the order of the test set.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from training.data import LABELS, load_data  # noqa: E402 - it is beside tools/, not installed

SAMPLE = ROOT / "imagebus" / "data" / "fashion-mnist-1000.npz"
PER_CLASS = 100
SEED = 0


def draw(labels: npt.NDArray[np.int64]) -> list[int]:
    """Positions of PER_CLASS images of each class, in ascending order."""
    rng = np.random.default_rng(SEED)
    drawn = [
        rng.choice(np.flatnonzero(labels == number), PER_CLASS, replace=False)
        for number in range(len(LABELS))
    ]
    return sorted(np.concatenate(drawn).tolist())


def main(folder: str | Path | None = None, sample: Path = SAMPLE) -> None:
    _, (images, labels) = load_data(folder)
    rows = draw(labels)
    sample.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        sample, images=images[rows], labels=labels[rows].astype(np.uint8), names=np.array(LABELS)
    )
    print(f"{sample.name}: {len(rows):,} images, {sample.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
