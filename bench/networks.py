"""Networks to measure with beside the shipped one, built and trained anew from a fixed seed.

    python -m bench.networks two-convolutions|tiny FOLDER

`two-convolutions` is the network of many tutorials, 225,034 parameters; `tiny` has 12,810 and a third of
its work, so that the bus and the code around the model are what is measured. Both are trained a little on
the shipped sample: random weights find all labels of an image about as likely, and then no reply can be
told from a wrong one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagebus.images import SAMPLE
from models.export import export_onnx
from models.vocabulary import LABELS

SEED = 2017
EPOCHS = 5  # of the sample's 1,000 images


def two_convolutions(x: Any) -> Any:
    layers = keras.layers
    x = layers.MaxPooling2D()(layers.Conv2D(32, 3, activation="relu")(x))  # (N, 13, 13, 32)
    x = layers.MaxPooling2D()(layers.Conv2D(64, 3, activation="relu")(x))  # (N, 5, 5, 64)
    return layers.Dense(128, activation="relu")(layers.Flatten()(x))


def tiny(x: Any) -> Any:
    layers = keras.layers
    x = layers.MaxPooling2D()(layers.Conv2D(16, 3, activation="relu")(x))  # (N, 13, 13, 16)
    x = layers.MaxPooling2D()(layers.Conv2D(32, 3, activation="relu")(x))  # (N, 5, 5, 32)
    return layers.Flatten()(x)


NETWORKS: dict[str, Callable[[Any], Any]] = {"two-convolutions": two_convolutions, "tiny": tiny}


def build(name: str) -> Any:
    """A network, trained a little: uint8 (N, 28, 28) in, probabilities (N, 10) out."""
    keras.utils.set_random_seed(SEED)
    images = keras.Input((28, 28), dtype="uint8", name="images")
    grey = keras.layers.Reshape((28, 28, 1))(keras.layers.Rescaling(1 / 255)(images))
    output = keras.layers.Dense(len(LABELS), activation="softmax")(NETWORKS[name](grey))
    network = keras.Model(images, output, name=name.replace("-", "_"))
    network.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    with np.load(SAMPLE) as sample:
        network.fit(sample["images"], sample["labels"].astype(np.int64), epochs=EPOCHS, verbose=0)
    return network


def write(name: str, folder: Path) -> Path:
    """Build a network and write its `.keras` and `.onnx` files to a folder; the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    network = build(name)
    path = folder / f"{name}.onnx"
    network.save(path.with_suffix(".keras"))
    export_onnx(network, path)
    return path


if __name__ == "__main__":
    print("written:", write(sys.argv[1], Path(sys.argv[2])), file=sys.stderr)
