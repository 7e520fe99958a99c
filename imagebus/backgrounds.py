"""What lies behind the garments: the networks know black; other backgrounds are noticed, and light ones turned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imagebus.errors import ConfigError
from imagebus.wire.pixels import Images

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

BACKGROUNDS = ("black", "white", "auto")
# Grey levels of an image's edge, its median. Of Fashion-MNIST's 70,000 images, all on black, 19 have an edge of at
# least DARK, since the garment fills them, and 2 of at least LIGHT.
DARK, LIGHT = 32, 128
PER_CENT = 1  # of the images may have such an edge before it is reported


class Background:
    """The background of a set of images, `black`, `white` or `auto`: turns images, and counts those not on black.

    With `white` all images are inverted, with `auto` those with a light edge, with `black` none. What an edge shows
    becomes black exactly, so off-white does too.
    """

    def __init__(self, kind: str) -> None:
        if kind not in BACKGROUNDS:
            raise ConfigError(f"background is {kind!r}, expected one of {', '.join(BACKGROUNDS)}")
        self._kind = kind
        self._seen = 0  # images
        self._edges: list[float] = []  # of those that were not turned

    def turn(self, grey: Image.Image, on_black: Image.Image) -> Image.Image:
        """A grey picture, turned where it is to be; `on_black` is the same with its transparency on black."""
        (level,) = edges(np.asarray(on_black)[np.newaxis])
        table = self._table(level)
        return grey if table is None else grey.point(table.tolist())

    def turn_all(self, images: Images) -> Images:
        """Images (N, height, width), each turned where it is to be."""
        tables = [self._table(level) for level in edges(images)]
        if not any(table is not None for table in tables):
            return images
        pairs = zip(images, tables, strict=True)
        return np.stack([image if table is None else table[image] for image, table in pairs])

    def report(self, path: Path) -> None:
        """Log one line where more images than by chance are not on black."""
        light = sum(each >= LIGHT for each in self._edges)
        grey = sum(DARK <= each < LIGHT for each in self._edges)
        if (light + grey) * 100 <= self._seen * PER_CENT:
            return
        log.warning(
            "%s: of %d images %s have a %s background, and the networks know garments on black%s",
            path,
            self._seen,
            light + grey,
            "light" if not grey else "grey" if not light else "light or grey",
            ": set background to white, or to auto for the light ones alone" if light else "",
        )

    def _table(self, level: float) -> npt.NDArray[np.uint8] | None:
        """The new grey level of each, or None where the image stays as it is."""
        self._seen += 1
        if self._kind == "white" or (self._kind == "auto" and level >= LIGHT):
            return _inverted(level if level >= LIGHT else 255)
        self._edges.append(level)
        return None


def edges(images: Images) -> npt.NDArray[np.float64]:
    """The median of the outermost pixels of each image (N, height, width)."""
    sides = images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]
    return np.median(np.concatenate(sides, axis=1), axis=1)


def _inverted(level: float) -> npt.NDArray[np.uint8]:
    """Grey levels inverted so that `level` and above becomes black, and black white."""
    levels = np.rint((level - np.arange(256)) * 255 / level).clip(0, 255)
    return np.asarray(levels, np.uint8)
