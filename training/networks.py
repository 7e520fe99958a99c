"""The networks, from the fastest to the most accurate: uint8 (N, 28, 28) in, probabilities (N, 10) out.

What they share is made for ONNX Runtime on a CPU, in 8 bits: plain convolutions whose channels are multiples of 16
(with fewer, a part of each register is idle) and whose normalisation the export folds into their weights; few
channels while an image has 28x28 pixels, since those cost more to move than to multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras

from training.data import LABELS
from training.sizes import file_name

Network = Any  # a keras.Model: Keras has no types
Tensor = Any  # a symbolic one, (N, …)
BACKEND: str = keras.config.backend()  # "tensorflow" or "jax"; a process has one
layers = keras.layers


def build_network(size: str) -> Network:
    """The network of a size, with random weights."""
    images = keras.Input((28, 28), dtype="uint8", name="images")
    x = layers.Reshape((28, 28, 1))(layers.Rescaling(1 / 255)(images))
    x = BODIES[size](x)
    # In floats also where the rest is not: few bits are left of a probability near 1.
    outputs = layers.Dense(len(LABELS), activation="softmax", dtype="float32")(x)
    return keras.Model(images, outputs, name=file_name(size))


def build_for_training(size: str) -> Network:
    """The network of a size, with random weights; on a GPU it multiplies in bfloat16, with weights in float32."""
    usual = keras.config.dtype_policy()
    if any(device.startswith("gpu") for device in keras.distribution.list_devices()):
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return build_network(size)
    finally:
        keras.config.set_dtype_policy(usual)


def activated(x: Tensor) -> Tensor:
    """Batch normalisation, then ReLU."""
    return layers.ReLU()(layers.BatchNormalization()(x))


def convolved(x: Tensor, channels: int) -> Tensor:
    """A convolution of 3x3 pixels; the export folds the normalisation into its weights."""
    return activated(layers.Conv2D(channels, 3, padding="same", use_bias=False)(x))


def refined(x: Tensor, convolutions: int = 1) -> Tensor:
    """A residual block: convolutions whose result is added to their input."""
    added, channels = x, x.shape[-1]
    for _ in range(convolutions - 1):
        added = convolved(added, channels)
    added = layers.Conv2D(channels, 3, padding="same", use_bias=False)(added)
    return layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(added)]))


def halved(x: Tensor) -> Tensor:
    """2x2 max pooling."""
    return layers.MaxPooling2D()(x)


def flattened(x: Tensor) -> Tensor:
    """One vector. Keras's `Flatten` gives the same, but computes the shape again in each run."""
    return layers.Reshape((math.prod(x.shape[1:]),))(x)


def tiny(x: Tensor) -> Tensor:
    """2.4 million multiplications."""
    x = halved(convolved(x, 16))  # (N, 14, 14, 16)
    x = halved(convolved(x, 32))  # (N, 7, 7, 32)
    x = halved(convolved(convolved(x, 32), 64))  # (N, 3, 3, 64)
    x = activated(layers.Dense(64, use_bias=False)(flattened(x)))
    return layers.Dropout(0.1)(x)


def base(x: Tensor) -> Tensor:
    """14.4 million multiplications."""
    x = halved(refined(convolved(x, 16)))  # (N, 14, 14, 16)
    x = halved(refined(convolved(x, 48)))  # (N, 7, 7, 48)
    x = halved(refined(convolved(x, 96)))  # (N, 3, 3, 96)
    x = convolved(x, 128)
    return layers.Dropout(0.3)(flattened(x))  # (N, 1152)


def large(x: Tensor) -> Tensor:
    """94 million multiplications."""
    return deep(x, 32)


def wide(x: Tensor) -> Tensor:
    """375 million multiplications: to teach large, not to serve."""
    return deep(x, 64)


def deep(x: Tensor, channels: int) -> Tensor:
    """Fifteen convolutions; those on 28x28 pixels have so many channels."""
    x = halved(refined(refined(convolved(x, channels), 2), 2))  # (N, 14, 14, channels)
    x = halved(refined(refined(convolved(x, 2 * channels), 2), 2))  # (N, 7, 7, 2 * channels)
    x = refined(refined(convolved(x, 4 * channels), 2), 2)  # (N, 7, 7, 4 * channels)
    return layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))


BODIES: dict[str, Callable[[Tensor], Tensor]] = {"tiny": tiny, "base": base, "large": large, "wide": wide}
