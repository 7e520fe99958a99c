"""The Keras adapter: a `.keras` file behind `replier.py --runtime keras`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from training.data import LABELS, Images, Probabilities
from training.export import version_of
from training.networks import Network


@dataclass(frozen=True)
class KerasModel:
    """A network's identity: its name, its version and the SHA-256 (hex) of its file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class KerasImages:
    """The images that a network takes: their size in pixels, the numbers of a pixel, and their type."""

    height: int = 28
    width: int = 28
    channels: int = 1
    dtype: str = "uint8"


class KerasClassifier:
    """A `.keras` file as a classifier for a replier. Errors as `load_network`'s."""

    def __init__(self, path: str | Path) -> None:
        self._network = load_network(path)
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        self.model = KerasModel(self._network.name, version_of(self._network), digest)
        self.labels: tuple[str, ...] = LABELS
        self.spec = KerasImages()
        for count in (1, 2):  # the second size makes Keras compile for all sizes, before the first request
            self.predict(np.zeros((count, 28, 28), np.uint8))

    def predict(self, images: Images) -> Probabilities:
        """Probabilities, float32 (N, 10), of uint8 images (N, 28, 28)."""
        probabilities: Probabilities = self._network.predict_on_batch(images)
        return probabilities


def load_network(path: str | Path) -> Network:
    """The network in a `.keras` file. Code in the file is not run (Keras's safe mode).

    Raises `FileNotFoundError`, and `ValueError` for another kind of file, for a damaged one and for a
    network that does not take images (N, 28, 28) and give probabilities (N, 10).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix != ".keras":  # Keras's older formats have no safe mode
        raise ValueError(f"{path}: expected a .keras file")
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # which one depends on where the file is damaged
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: not a network that Keras loads: {reason}") from None
    shapes = network.input_shape, network.output_shape
    if shapes != ((None, 28, 28), (None, len(LABELS))):
        raise ValueError(f"{path}: from {shapes[0]} to {shapes[1]}, expected (None, 28, 28) to (None, 10)")
    return network
