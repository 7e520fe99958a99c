"""Training on JAX: an epoch as one program.

Keras's `fit` calls the device for each batch, and a GPU is idle in between. On an NVIDIA H200 an epoch of large took
2.2 s with `fit`, in batches of 250 and beside two other trainings, and 0.76 s with this, in batches of 500 and beside a
training of wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from training.data import Images, Probabilities
from training.export import version_of
from training.networks import Network, build_for_training
from training.recipe import Recipe

PREDICTED = 500  # images at a time


def epoch_on_jax(network: Network, recipe: Recipe) -> Callable[[int, Images, Probabilities], None]:
    """As `train.epoch_by_fit`, without a progress bar."""
    groups = network.trainable_variables, network.non_trainable_variables, network.optimizer.variables

    def step(state: Any, batch: Any) -> Any:
        weights, others, optimizer = state
        images, targets = batch

        def loss_of(weights: Any, others: Any) -> Any:
            answers, others = network.stateless_call(weights, others, images, training=True)
            return network.loss(targets, answers), others

        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights, others)
        weights, optimizer = network.optimizer.stateless_apply(optimizer, gradients, weights)
        return (weights, others, optimizer), loss

    steps = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0)

    def train_epoch(epoch: int, images: Images, targets: Probabilities) -> None:
        state: Any = tuple([variable.value for variable in group] for group in groups)
        losses = []
        whole = len(images) - len(images) % recipe.batch
        for part in (slice(whole), slice(whole, None)):  # the last batch can be a smaller one
            if count := len(images[part]):
                size = min(recipe.batch, count)
                batches = [given[part].reshape(-1, size, *given.shape[1:]) for given in (images, targets)]
                state, some = steps(state, batches)
                losses.append(some)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        print(f"Epoch {epoch + 1}/{recipe.epochs} - loss: {np.mean(np.concatenate(losses)):.4f}")

    return train_epoch


class OnDevice:
    """A trained network of a size, as a teacher on the device that trains."""

    def __init__(self, network: Network, size: str) -> None:
        self.version = version_of(network)
        copy = build_for_training(size)
        copy.set_weights(network.get_weights())
        groups = copy.trainable_variables, copy.non_trainable_variables
        values = [[variable.value for variable in group] for group in groups]

        def predict(_: Any, images: Any) -> Any:
            return None, copy.stateless_call(*values, images, training=False)[0]

        self._predict = jax.jit(lambda parts: jax.lax.scan(predict, None, parts)[1])

    def predict(self, images: Images) -> Probabilities:
        """Probabilities, float32 (N, 10), of uint8 images (N, 28, 28)."""
        missing = -len(images) % PREDICTED
        parts = np.pad(images, ((0, missing), (0, 0), (0, 0))).reshape(-1, PREDICTED, *images.shape[1:])
        return np.concatenate(np.asarray(self._predict(parts)))[: len(images)]
