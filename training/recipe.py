"""How a network is trained, as data: `recipes/SIZE.toml`, with a short and a long version in each."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"
NAMES = {"muon": "Muon", "adamw": "AdamW"}


@dataclass(frozen=True)
class Recipe:
    """What a training does; `recipes/base.toml` explains each number."""

    epochs: int
    batch: int  # images
    optimizer: str  # "muon" or "adamw"
    learning_rate: float  # at its highest
    weight_decay: float
    smoothing: float  # of the labels
    shift: int  # pixels
    mirrored: float  # share of the images
    mixed: float  # share of the images
    erased: float  # share of the images
    longest: int  # pixels, of a side of what is erased
    average: float  # how much of the averaged weights is kept in a step
    teacher: str  # size of the network whose answers are learned; "" for none
    teaching: float  # share of the targets that the teacher gives
    both_sides: bool  # whether it is asked about the mirror image too

    def __str__(self) -> str:
        lines = [
            f"{self.epochs} epochs in batches of {self.batch}; images moved by up to {self.shift} pixels, "
            f"{self.mirrored:.0%} of them mirrored,",
            f"{self.mixed:.0%} mixed with another one, a rectangle of noise of up to {self.longest} pixels a side "
            f"in {self.erased:.0%};",
            f"{NAMES[self.optimizer]}, its learning rate up to {self.learning_rate} in the first epoch and then down "
            "along a cosine,",
            f"weight decay {self.weight_decay}; labels smoothed by {self.smoothing}; weights averaged "
            f"({self.average} kept in a step).",
        ]
        if self.teacher:
            asked = "the same image and its mirror image" if self.both_sides else "the same image"
            lines.append(f"{self.teaching:.0%} of each target is what `{self.teacher}` says of {asked}.")
        return "\n".join(lines)


def read_recipe(size: str, version: str) -> Recipe:
    """The recipe of a size in its version, "short" or "long". Raises `ValueError` for another version."""
    if version not in ("short", "long"):
        raise ValueError(f"recipe is {version!r}, expected 'short' or 'long'")
    content: dict[str, Any] = tomllib.loads((RECIPES / f"{size}.toml").read_text(encoding="utf-8"))
    values = content | content[version]
    return Recipe(**{field.name: values[field.name] for field in fields(Recipe)})
