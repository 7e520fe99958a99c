"""Training: augmented images, averaged weights, a teacher where the recipe names one, and going on after a stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.export import Exported
from models.networks import build_network
from models.optimizer import optimizer
from models.recipe import Recipe
from models.vocabulary import LABELS, Images, Labels

SEED = 2017  # the year of Fashion-MNIST; any other number does
HELD_OUT = 1 / 12  # of the training images, to choose the best epoch by: 5,000 of 60,000
FEWEST_STEPS = 16  # in an epoch: of few images, smaller batches are made

Floats = npt.NDArray[np.float32]
Weights = list[npt.NDArray[Any]]
GROUPS = ("variables", "average", "best")


@dataclass
class State:
    """Where a training is: all that it needs to go on as if it had not stopped."""

    recipe: str
    accuracies: list[float]  # of the averaged weights, after each epoch
    variables: Weights  # of the network and its optimizer
    average: Weights
    best: Weights

    def write(self, path: Path) -> None:
        """Write the state to an `.npz` file, in place of the last one or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"recipe": self.recipe, "accuracies": self.accuracies}
        for group in GROUPS:
            arrays |= {f"{group} {place:03}": array for place, array in enumerate(getattr(self, group))}
        partial = path.with_suffix(".part.npz")
        np.savez(partial, **arrays)
        partial.replace(path)

    @classmethod
    def read(cls, path: Path, recipe: str) -> State:
        """The state in a file that `write` wrote. `ValueError` when it is that of another recipe."""
        with np.load(path) as arrays:
            if str(arrays["recipe"]) != recipe:
                raise ValueError(f"{path}: a training with another recipe stopped there: {arrays['recipe']}")
            groups = [
                [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group} ")]
                for group in GROUPS
            ]
            return cls(recipe, arrays["accuracies"].tolist(), *groups)


class Average(keras.callbacks.Callback):  # type: ignore[misc]
    """Averages all weights, those of the normalisation too, while the network is trained."""

    def __init__(self, weights: Weights, kept: float) -> None:
        super().__init__()
        self.weights = weights
        self._kept = kept

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature
        """Take in the weights of this step; the first steps, far from any good, are forgotten sooner."""
        step = int(self.model.optimizer.iterations)
        kept = min(self._kept, step / (step + 10))
        pairs = zip(self.weights, self.model.get_weights(), strict=True)
        self.weights = [kept * mean + (1 - kept) * new for mean, new in pairs]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """End this call of Keras's `fit`: the next epoch has images of its own."""
        self.model.stop_training = True


def hold_out(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which of `count` training images to train with, and which to choose the best epoch by."""
    order = np.random.default_rng(SEED).permutation(count)
    held_out, kept = np.split(order, [max(1, round(count * HELD_OUT))])
    return kept, held_out


def train(
    images: Images,
    labels: Labels,
    size: str,
    recipe: Recipe,
    *,
    teacher: Exported | None = None,
    checkpoint: Path | None = None,
) -> tuple[Any, list[float]]:
    """A new network, with the averaged weights of its best epoch, and the held-out accuracy after each epoch.

    The same call gives the same weights on the same machine. With a `checkpoint` file, the state is written
    there after each epoch, and a call that finds one goes on from it, to the same weights. `ValueError` when
    it is that of another recipe.
    """
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    kept, held_out = hold_out(len(images))
    recipe = replace(recipe, batch=max(1, min(recipe.batch, len(kept) // FEWEST_STEPS)))
    targets = np.eye(len(LABELS), dtype=np.float32)[labels]  # (N, 10)
    steps = math.ceil(len(kept) / recipe.batch)  # in an epoch
    network = build_network(size)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # its means settle in a short training too
            layer.momentum = min(0.99, recipe.epochs * steps / (recipe.epochs * steps + 10))
    network.compile(
        optimizer(recipe, steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.smoothing),
        metrics=["accuracy"],
        jit_compile=False,  # on a CPU the compiled step is no faster, and compiling takes its time
    )
    network.optimizer.build(network.trainable_variables)
    variables = [*network.variables, *network.optimizer.variables]
    whole = repr(recipe) if teacher is None else f"{recipe!r}, teacher {teacher.version}"
    if checkpoint is not None and checkpoint.exists():
        state = State.read(checkpoint, whole)
        for variable, value in zip(variables, state.variables, strict=True):
            variable.assign(value)
    else:
        state = State(whole, [], [], network.get_weights(), network.get_weights())

    judged = build_network(size)  # with the averaged weights, and without the optimizer, twice their size
    for epoch in range(len(state.accuracies), recipe.epochs):
        average = Average(state.average, recipe.average)
        network.fit(
            augmented(images[kept], targets[kept], recipe, epoch, teacher),
            initial_epoch=epoch,
            epochs=recipe.epochs,
            shuffle=False,  # `augmented` does
            callbacks=[average],
        )
        judged.set_weights(average.weights)
        predicted = judged.predict(images[held_out], batch_size=500, verbose=0).argmax(axis=1)
        accuracy = float(np.mean(predicted == labels[held_out]))
        print(f"of {len(held_out):,} held-out images {accuracy:.2%} are right", flush=True)
        state.average = average.weights
        if accuracy > max(state.accuracies, default=-1):
            state.best = average.weights
        state.accuracies.append(accuracy)
        if checkpoint is not None:
            state.variables = [np.array(variable) for variable in variables]
            state.write(checkpoint)
    judged.set_weights(state.best)
    return judged, state.accuracies


def augmented(
    images: Images, targets: Floats, recipe: Recipe, epoch: int, teacher: Exported | None = None
) -> Any:
    """A `tf.data` set of batches, in an order and with changes that belong to the epoch.

    Images are moved by up to `recipe.shift` pixels; some are mirrored, in some a rectangle is overwritten
    with noise. A teacher sees the same changed images, and its answers become part of the targets: in 8 bits, in
    ONNX Runtime, which takes a quarter of the time that they take in Keras.
    """
    shift = recipe.shift

    def change(step: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:  # uint8 (n, 28 + 2 shift, 28 + 2 shift)
        padded, batch_targets = batch
        count = tf.shape(padded)[0]

        def uniform(
            place: int, *shape: int
        ) -> Any:  # stateless: a training that goes on meets the same numbers
            seed = (SEED + epoch * 100 + place, tf.cast(step, tf.int32))
            return tf.random.stateless_uniform((count, *shape), seed)

        first = tf.cast(uniform(0, 2) * (2 * shift + 1), tf.int32)
        rows = first[:, :1] + tf.range(28)  # (n, 28), which rows of the padded image the new one is made of
        columns = first[:, 1:] + tf.range(28)
        columns = tf.where(uniform(1, 1) < recipe.mirrored, columns[:, ::-1], columns)
        moved = tf.gather(padded, rows, axis=1, batch_dims=1)  # (n, 28, 28 + 2 shift)
        changed = tf.gather(moved, columns, axis=2, batch_dims=1)  # (n, 28, 28)
        if recipe.erased:
            changed = tf.where(rectangles(uniform, recipe.erased), noise(uniform), changed)
        if teacher is not None:
            answers = tf.ensure_shape(
                tf.numpy_function(teacher.predict, [changed], tf.float32), (None, len(LABELS))
            )
            batch_targets = (1 - recipe.teaching) * batch_targets + recipe.teaching * answers
        return changed, batch_targets

    # Not a Python generator: Keras trains from one with twice the CPU time, half of it in the kernel.
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift)))
    examples = tf.data.Dataset.from_tensor_slices((padded, targets))
    batches = examples.shuffle(len(images), SEED + epoch).batch(recipe.batch)
    plain = tf.data.Options()
    plain.autotune.enabled = False  # its thread sleeps for up to 20 s, and the end of each epoch waits for it
    return batches.enumerate().map(change).prefetch(2).with_options(plain)


def rectangles(uniform: Callable[..., Any], share: float) -> Any:
    """Booleans (n, 28, 28): in a share of the images one rectangle, each side of 6 to 14 pixels, is true."""
    sides = 6 + uniform(2, 2) * 8  # (n, 2)
    starts = uniform(3, 2) * (28 - sides)
    pixels = tf.range(28, dtype=tf.float32)

    def along(axis: int) -> Any:  # (n, 28)
        start, side = starts[:, axis : axis + 1], sides[:, axis : axis + 1]
        return (pixels >= start) & (pixels < start + side)

    chosen = uniform(4, 1) < share  # (n, 1)
    return (along(0) & chosen)[:, :, tf.newaxis] & along(1)[:, tf.newaxis, :]


def noise(uniform: Callable[..., Any]) -> Any:
    """Random grey levels, uint8 (n, 28, 28)."""
    return tf.cast(uniform(5, 28, 28) * 256, tf.uint8)
