"""Training: changed images, averaged weights, a teacher where the recipe names one, and going on after a stop.

Keras computes on TensorFlow, or, where `KERAS_BACKEND=jax` says so, on JAX; what is done and in which order, and
the file of a training that was stopped, are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.augmentation import augmented
from training.networks import build_for_training, build_network
from training.optimizer import optimizer
from training.recipe import Recipe
from training.teaching import Teacher, judgement, taught
from training.vocabulary import LABELS, Images, Labels, Probabilities, TrainEpoch

SEED = 2017  # the year of Fashion-MNIST; any other number does
HELD_OUT = 1 / 12  # of the training images, to choose the best epoch by: 5,000 of 60,000
FEWEST_STEPS = 16  # in an epoch: of few images, smaller batches are made

Weights = list[npt.NDArray[Any]]
GROUPS = ("variables", "best")


@dataclass
class State:
    """Where a training is: all that it needs to go on as if it had not stopped."""

    recipe: str
    devices: str  # what it began on, as "tensorflow (cpu:0)"
    accuracies: list[float]  # of the averaged weights, after each epoch
    variables: Weights  # of the network and of its optimizer, which averages them
    best: Weights

    def write(self, path: Path) -> None:
        """Write the state to an `.npz` file, in place of the last one or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {
            "recipe": self.recipe,
            "devices": self.devices,
            "accuracies": self.accuracies,
        }
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
            return cls(recipe, str(arrays["devices"]), arrays["accuracies"].tolist(), *groups)


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
    teacher: Teacher | None = None,
    checkpoint: Path | None = None,
) -> tuple[Any, State]:
    """A new network, with the averaged weights of its best epoch, and the state in which the training ended.

    The same call gives the same weights on the same machine (TensorFlow's, that is; JAX promises it on no GPU). With
    a `checkpoint` file, the state is written there after each epoch, and a call that finds one goes on from it, to
    the same weights. `ValueError` when it is that of another recipe.
    """
    make_repeatable()
    kept, held_out = hold_out(len(images))
    recipe = replace(recipe, batch=max(1, min(recipe.batch, len(kept) // FEWEST_STEPS)))
    targets = np.eye(len(LABELS), dtype=np.float32)[labels]  # (N, 10)
    network = compiled(size, recipe, steps=math.ceil(len(kept) / recipe.batch))
    variables = [*network.variables, *network.optimizer.variables]
    whole = repr(recipe) if teacher is None else f"{recipe!r}, teacher {teacher.version}"
    if checkpoint is not None and checkpoint.exists():
        state = State.read(checkpoint, whole)
        for variable, value in zip(variables, state.variables, strict=True):
            variable.assign(value)
    else:
        devices = f"{keras.config.backend()} ({', '.join(keras.distribution.list_devices())})"
        state = State(whole, devices, [], [], network.get_weights())

    if keras.config.backend() == "jax":
        # Not at the top: where TensorFlow computes, there may be no JAX.
        from training.on_jax import epoch_on_jax

        train_epoch = epoch_on_jax(network, recipe)
    else:
        train_epoch = epoch_by_fit(network, recipe)
    judged = build_network(size)  # with the averaged weights
    for epoch in range(len(state.accuracies), recipe.epochs):
        rng = np.random.default_rng((SEED, epoch))  # a training that goes on meets the same numbers
        order = rng.permutation(kept)
        changed, answers = augmented(images[order], targets[order], recipe, rng)
        if teacher is not None:
            answers = taught(
                answers, judgement(teacher, changed, both_sides=recipe.both_sides), recipe.teaching
            )
        train_epoch(epoch, changed, answers)
        average = averaged(network)
        judged.set_weights(average)
        predicted = judged.predict(images[held_out], batch_size=500, verbose=0).argmax(axis=1)
        accuracy = float(np.mean(predicted == labels[held_out]))
        print(f"of {len(held_out):,} held-out images {accuracy:.2%} are right", flush=True)
        if accuracy > max(state.accuracies, default=-1):
            state.best = average
        state.accuracies.append(accuracy)
        if checkpoint is not None:
            state.variables = [np.array(variable) for variable in variables]
            state.write(checkpoint)
    judged.set_weights(state.best)
    return judged, state


def make_repeatable() -> None:
    """Set all random seeds, and let TensorFlow, where it computes, add in the same order each time."""
    keras.utils.set_random_seed(SEED)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf  # not at the top: where JAX computes, there may be none

        tf.config.experimental.enable_op_determinism()


def compiled(size: str, recipe: Recipe, steps: int) -> Any:
    """A network with random weights, to be trained as the recipe says; `steps` make an epoch."""
    network = build_for_training(size)
    all_steps = recipe.epochs * steps
    settled = all_steps / (all_steps + 10)  # in a short training too, averages forget where it began
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(0.99, settled)
    network.compile(
        optimizer(replace(recipe, average=min(recipe.average, settled)), steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.smoothing),
        metrics=["accuracy"],
        jit_compile=False,  # no faster on a CPU, and compiling takes its time; training/on_jax.py compiles an epoch
    )
    network.optimizer.build(network.trainable_variables)
    return network


def epoch_by_fit(network: Any, recipe: Recipe) -> TrainEpoch:
    """What trains a compiled network for one epoch by Keras's `fit`, with its progress bar."""
    last: Weights = []

    def ended(*_: Any) -> None:
        last[:] = network.get_weights()
        network.stop_training = True  # the next epoch has images of its own

    def train_epoch(epoch: int, images: Images, targets: Probabilities) -> None:
        network.fit(
            images,
            targets,
            recipe.batch,
            initial_epoch=epoch,
            epochs=recipe.epochs,
            shuffle=False,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=ended)],
        )
        network.set_weights(last)  # `fit` leaves the averaged ones, from which the training would go on

    return train_epoch


def averaged(network: Any) -> Weights:
    """The weights of a network in training, as its optimizer has averaged them over the last steps."""
    last = network.get_weights()
    network.optimizer.finalize_variable_values(network.trainable_variables)
    average: Weights = network.get_weights()
    network.set_weights(last)
    return average
