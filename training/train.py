"""The training loop: altered images, averaged weights, a teacher if the recipe has one, a checkpoint per epoch.

Keras computes on TensorFlow or, with `KERAS_BACKEND=jax`, on JAX: the same steps in the same order, and the same
checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from training.augmentation import augmented
from training.checkpoint import State, Weights
from training.data import LABELS, Images, Labels, Probabilities
from training.distillation import Teacher, answers_of, taught
from training.networks import BACKEND, Network, build_for_training, build_network
from training.optimizer import optimizer
from training.recipe import Recipe

SEED = 2017  # the year of Fashion-MNIST; any other number does
HELD_OUT = 1 / 12  # of the training images, to choose the best epoch by: 5,000 of 60,000
FEWEST_STEPS = 16  # in an epoch: a small data set is cut into smaller batches


def hold_out(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The positions of the images to train with, of `count`, and of those to choose the best epoch by."""
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
) -> tuple[Network, State]:
    """A new network, with the averaged weights of its best epoch, and the final state of its training.

    The same call gives the same weights on the same machine (on TensorFlow: JAX does not promise that on a GPU). The
    state is written to the file `checkpoint` after each epoch, and a call that finds one resumes there, to the same
    weights. `ValueError` if it belongs to another recipe.
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
        devices = f"{BACKEND} ({', '.join(keras.distribution.list_devices())})"
        state = State(whole, devices, [], [], network.get_weights())

    if BACKEND == "jax":
        # Not at the top: where TensorFlow computes, there may be no JAX.
        from training.on_jax import epoch_on_jax

        train_epoch = epoch_on_jax(network, recipe)
    else:
        train_epoch = epoch_by_fit(network, recipe)
    judged = build_network(size)  # with the averaged weights
    for epoch in range(len(state.accuracies), recipe.epochs):
        rng = np.random.default_rng((SEED, epoch))  # a resumed training draws the same numbers
        order = rng.permutation(kept)
        altered, goals = augmented(images[order], targets[order], recipe, rng)
        if teacher is not None:
            answers = answers_of(teacher, altered, both_sides=recipe.both_sides)
            goals = taught(goals, answers, recipe.teaching)
        train_epoch(epoch, altered, goals)
        average = averaged(network)
        judged.set_weights(average)
        predicted = judged.predict(images[held_out], batch_size=500, verbose=0).argmax(axis=1)
        accuracy = float(np.mean(predicted == labels[held_out]))
        print(f"accuracy on the {len(held_out):,} held-out images: {accuracy:.2%}", flush=True)
        if accuracy > max(state.accuracies, default=-1):
            state.best = average
        state.accuracies.append(accuracy)
        if checkpoint is not None:
            state.variables = [np.array(variable) for variable in variables]
            state.write(checkpoint)
    judged.set_weights(state.best)
    return judged, state


def make_repeatable() -> None:
    """Set all random seeds, and make TensorFlow, if it computes, add in the same order each time."""
    keras.utils.set_random_seed(SEED)
    if BACKEND == "tensorflow":
        import tensorflow as tf  # not at the top: where JAX computes, there may be none

        tf.config.experimental.enable_op_determinism()


def compiled(size: str, recipe: Recipe, steps: int) -> Network:
    """A network with random weights, compiled for the recipe; an epoch has so many steps."""
    network = build_for_training(size)
    all_steps = recipe.epochs * steps
    settled = all_steps / (all_steps + 10)  # averages forget the random weights, in a short training too
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(0.99, settled)
    network.compile(
        optimizer(replace(recipe, average=min(recipe.average, settled)), steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.smoothing),
        metrics=["accuracy"],
        jit_compile=BACKEND == "jax",  # TensorFlow is no faster for it on a CPU, and compiling takes time
    )
    network.optimizer.build(network.trainable_variables)
    return network


def epoch_by_fit(network: Network, recipe: Recipe) -> Callable[[int, Images, Probabilities], None]:
    """A function that trains a compiled network for one epoch by Keras's `fit`, with its progress bar.

    It takes the number of the epoch, from 0, its images and their targets, in the order in which they are used.
    """
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


def averaged(network: Network) -> Weights:
    """The weights of a network in training, averaged by its optimizer over the last steps."""
    last = network.get_weights()
    network.optimizer.finalize_variable_values(network.trainable_variables)
    average: Weights = network.get_weights()
    network.set_weights(last)
    return average
