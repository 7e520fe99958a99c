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
    """All that is chosen for a training; `recipes/base.toml` explains each number."""

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
    average: float  # share of the averaged weights that is kept in a step
    teacher: str  # size of the network whose answers are learned; "" for none
    teaching: float  # share of the targets that the teacher gives
    both_sides: bool  # whether it is asked about the mirror image too

    def in_words(self) -> list[str]:
        """A phrase for each thing that the training does."""
        phrases = [
            f"{self.epochs} epochs in batches of {self.batch}",
            f"images shifted by up to {self.shift} pixels, {self.mirrored:.0%} of them mirrored",
        ]
        if self.mixed:
            phrases.append(f"{self.mixed:.0%} of the images mixed with another one (mixup)")
        if self.erased:
            size = f"up to {self.longest} pixels a side"
            phrases.append(
                f"a rectangle of noise, {size}, in {self.erased:.0%} of the images (random erasing)"
            )
        phrases += [
            f"{NAMES[self.optimizer]} with weight decay {self.weight_decay}",
            f"learning rate up to {self.learning_rate}: one epoch of warm-up, then a cosine to 0",
        ]
        if self.smoothing:
            phrases.append(f"labels smoothed by {self.smoothing}")
        phrases.append(f"weights averaged: {self.average} of the average kept in each step")
        if self.teacher:
            images = "the same image and its mirror image" if self.both_sides else "the same image"
            phrases.append(
                f"{self.teaching:.0%} of each target is the answer of `{self.teacher}` to {images}"
            )
        return phrases


def read_recipe(size: str, version: str, epochs: int | None = None) -> Recipe:
    """The recipe of a size in its version, "short" or "long", with another number of epochs if one is given.

    Raises `ValueError` for another version, and for less than one epoch.
    """
    if version not in ("short", "long"):
        raise ValueError(f"recipe is {version!r}, expected 'short' or 'long'")
    content: dict[str, Any] = tomllib.loads((RECIPES / f"{size}.toml").read_text(encoding="utf-8"))
    values = content | content[version]
    if epochs is not None:
        values["epochs"] = epochs
    if values["epochs"] < 1:
        raise ValueError(f"epochs is {epochs}, expected at least 1")
    return Recipe(**{field.name: values[field.name] for field in fields(Recipe)})
