"""The three networks, from the fastest to the most accurate: uint8 (N, 28, 28) in, probabilities (N, 10) out.

What they share is made for ONNX Runtime on a CPU, in 8 bits: plain convolutions, whose channels are multiples of 16
(with fewer a part of each register is idle), and whose normalisation the export folds into their weights; few
channels while a picture has 28x28 pixels, since those cost more to move than to multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from models.vocabulary import LABELS, file_name

layers = keras.layers


def build_network(size: str) -> Any:
    """The network of a size, with random weights."""
    images = keras.Input((28, 28), dtype="uint8", name="images")
    x = layers.Reshape((28, 28, 1))(layers.Rescaling(1 / 255)(images))
    x = BODIES[size](x)
    return keras.Model(images, layers.Dense(len(LABELS), activation="softmax")(x), name=file_name(size))


def activated(x: Any) -> Any:
    """Normalised, then cut off below 0."""
    return layers.ReLU()(layers.BatchNormalization()(x))


def convolved(x: Any, channels: int) -> Any:
    """A convolution with 3x3 pixels; the export folds the normalisation into its weights."""
    return activated(layers.Conv2D(channels, 3, padding="same", use_bias=False)(x))


def refined(x: Any, convolutions: int = 1) -> Any:
    """Convolutions, added to what went in: what they learn is what is missing yet."""
    added, channels = x, x.shape[-1]
    for _ in range(convolutions - 1):
        added = convolved(added, channels)
    added = layers.Conv2D(channels, 3, padding="same", use_bias=False)(added)
    return layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(added)]))


def halved(x: Any) -> Any:
    """The highest of each 2x2 pixels."""
    return layers.MaxPooling2D()(x)


def flattened(x: Any) -> Any:
    """One vector. Keras's `Flatten` says the same, but asks for the shape again in each run."""
    return layers.Reshape((math.prod(x.shape[1:]),))(x)


def tiny(x: Any) -> Any:
    """2.4 million multiplications."""
    x = halved(convolved(x, 16))  # (N, 14, 14, 16)
    x = halved(convolved(x, 32))  # (N, 7, 7, 32)
    x = halved(convolved(convolved(x, 32), 64))  # (N, 3, 3, 64)
    x = activated(layers.Dense(64, use_bias=False)(flattened(x)))
    return layers.Dropout(0.1)(x)


def base(x: Any) -> Any:
    """14.4 million multiplications."""
    x = halved(refined(convolved(x, 16)))  # (N, 14, 14, 16)
    x = halved(refined(convolved(x, 48)))  # (N, 7, 7, 48)
    x = halved(refined(convolved(x, 96)))  # (N, 3, 3, 96)
    x = convolved(x, 128)
    return layers.Dropout(0.3)(flattened(x))  # (N, 1152)


def large(x: Any) -> Any:
    """94 million multiplications."""
    x = halved(refined(refined(convolved(x, 32), 2), 2))  # (N, 14, 14, 32)
    x = halved(refined(refined(convolved(x, 64), 2), 2))  # (N, 7, 7, 64)
    x = refined(refined(convolved(x, 128), 2), 2)  # (N, 7, 7, 128)
    return layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))


BODIES: dict[str, Callable[[Any], Any]] = {"tiny": tiny, "base": base, "large": large}
