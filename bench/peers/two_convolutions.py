"""The network of many tutorials, to measure with beside the shipped ones: two convolutions, 225,034 parameters.

    python -m bench.peers.two_convolutions FOLDER

Built and trained anew from a fixed seed, briefly, on the shipped sample: with random weights all labels of an
image are about as likely, so a wrong reply could not be recognised.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagebus.images import SAMPLE
from training.data import LABELS
from training.export import export_onnx

SEED = 2017
EPOCHS = 5  # of the sample's 1,000 images


def build() -> Any:
    """The network, trained a little: uint8 (N, 28, 28) in, probabilities (N, 10) out."""
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    images = keras.Input((28, 28), dtype="uint8", name="images")
    x = layers.Reshape((28, 28, 1))(layers.Rescaling(1 / 255)(images))
    x = layers.MaxPooling2D()(layers.Conv2D(32, 3, activation="relu")(x))  # (N, 13, 13, 32)
    x = layers.MaxPooling2D()(layers.Conv2D(64, 3, activation="relu")(x))  # (N, 5, 5, 64)
    x = layers.Dense(128, activation="relu")(layers.Flatten()(x))
    output = layers.Dense(len(LABELS), activation="softmax")(x)
    network = keras.Model(images, output, name="two_convolutions")
    network.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    with np.load(SAMPLE) as sample:
        network.fit(sample["images"], sample["labels"].astype(np.int64), epochs=EPOCHS, verbose=0)
    return network


def write(folder: Path) -> Path:
    """Build the network and write its `.keras` and `.onnx` files to a folder; the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    network = build()
    path = folder / "two-convolutions.onnx"
    network.save(path.with_suffix(".keras"))
    path.write_bytes(export_onnx(network))
    return path


if __name__ == "__main__":
    print("written:", write(Path(sys.argv[1])), file=sys.stderr)
