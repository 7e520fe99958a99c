"""The state of a training, and its file: from there it resumes after a stop, also on another machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = list[npt.NDArray[Any]]  # floats, but for the optimizer's counter of steps
GROUPS = ("variables", "best")


@dataclass
class State:
    """Everything that a training needs in order to go on as if it had not stopped."""

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
            arrays |= {f"{group} {number:03}": array for number, array in enumerate(getattr(self, group))}
        partial = path.with_suffix(".part.npz")
        np.savez(partial, **arrays)
        partial.replace(path)

    @classmethod
    def read(cls, path: Path, recipe: str) -> State:
        """The state in a file that `write` wrote. `ValueError` if it belongs to another recipe."""
        with np.load(path) as arrays:
            if str(arrays["recipe"]) != recipe:
                raise ValueError(f"{path}: a training with another recipe stopped there: {arrays['recipe']}")
            groups = [
                [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group} ")]
                for group in GROUPS
            ]
            return cls(recipe, str(arrays["devices"]), arrays["accuracies"].tolist(), *groups)
