"""The networks, from the fastest to the most accurate: uint8 (N, 28, 28) in, probabilities (N, 10) out.

What they share is made for ONNX Runtime on a CPU, in 8 bits: plain convolutions, whose channels are multiples of 16
(with fewer a part of each register is idle), and whose normalisation the export folds into their weights; few
channels while a picture has 28x28 pixels, since those cost more to move than to multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from training.vocabulary import LABELS, file_name

layers = keras.layers


def build_network(size: str) -> Any:
    """The network of a size, with random weights."""
    images = keras.Input((28, 28), dtype="uint8", name="images")
    x = layers.Reshape((28, 28, 1))(layers.Rescaling(1 / 255)(images))
    x = BODIES[size](x)
    # In floats also where the rest is not: few bits are left of a probability that is nearly 1.
    outputs = layers.Dense(len(LABELS), activation="softmax", dtype="float32")(x)
    return keras.Model(images, outputs, name=file_name(size))


def build_for_training(size: str) -> Any:
    """The network of a size, with random weights; on a GPU it multiplies in bfloat16, and its weights are floats."""
    usual = keras.config.dtype_policy()
    if any(device.startswith("gpu") for device in keras.distribution.list_devices()):
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return build_network(size)
    finally:
        keras.config.set_dtype_policy(usual)


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
    return deep(x, 32)


def wide(x: Any) -> Any:
    """375 million multiplications: to teach large, not to be served."""
    return deep(x, 64)


def deep(x: Any, channels: int) -> Any:
    """Fifteen convolutions, those on 28x28 pixels with so many channels."""
    x = halved(refined(refined(convolved(x, channels), 2), 2))  # (N, 14, 14, channels)
    x = halved(refined(refined(convolved(x, 2 * channels), 2), 2))  # (N, 7, 7, 2 * channels)
    x = refined(refined(convolved(x, 4 * channels), 2), 2)  # (N, 7, 7, 4 * channels)
    return layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))


BODIES: dict[str, Callable[[Any], Any]] = {"tiny": tiny, "base": base, "large": large, "wide": wide}
