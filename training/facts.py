"""Measured figures, in files beside the networks: `NAME.json` by a training, `speed.json` by `training.speed`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from training.evaluation import Bin, Evaluation, Scores
from training.recipe import Recipe, read_recipe
from training.sizes import MODELS, file_name

SPEED = "speed.json"


@dataclass(frozen=True)
class Report:
    """A training, and what it measured."""

    call: str
    recipe: Recipe
    teacher: str | None  # the version of the recipe's teacher
    devices: str | None  # that computed it, as "jax (gpu:0)"; None where it was not recorded
    trained: int  # images
    held_out: int  # images that the best epoch was chosen by
    accuracies: list[float]  # on the held-out images, after each epoch
    scores: Scores | None = None  # on the test images of Fashion-MNIST; None for images of the caller's own

    @property
    def best(self) -> int:
        """The epoch that was kept, the first of those with the highest accuracy, counted from 1."""
        return self.accuracies.index(max(self.accuracies)) + 1

    def __str__(self) -> str:
        return (
            f"epoch {self.best} of {len(self.accuracies)} was kept: accuracy {max(self.accuracies):.2%} "
            f"on the {self.held_out:,} held-out images"
        )


@dataclass(frozen=True)
class Facts:
    """All that is known of a saved network. `report` is None if it was loaded from a file."""

    name: str
    version: str
    parameters: int
    report: Report | None

    @property
    def accuracy(self) -> float | None:
        """On the test images of Fashion-MNIST; None if it was not measured."""
        return self.report.scores.evaluation.accuracy if self.report and self.report.scores else None

    def write(self, folder: Path) -> None:
        """Write the facts to `NAME.json`."""
        text = json.dumps(asdict(self), indent=1)
        (folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, name: str) -> Facts | None:
        """The facts that `write` wrote; None if there is no file."""
        path = folder / f"{name}.json"
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        if report := content["report"]:
            report["recipe"] = Recipe(**report["recipe"])
            if scores := report["scores"]:
                confusion, bins = scores["evaluation"].values()
                scores["evaluation"] = Evaluation(confusion, [Bin(**each) for each in bins])
                report["scores"] = Scores(**scores)
            content["report"] = Report(**report)
        return cls(**content)


def call_of(size: str, recipe: str, epochs: int | None, *, own: bool) -> str:
    """The call of `CNNFashion.fit`, as its user typed it; `own` with images of their own."""
    name = "" if size == "base" else f'"{size}"'
    options = ["trainX, trainY"] * own
    options += [f'recipe="{recipe}"'] * (recipe != "short") + [f"epochs={epochs}"] * (epochs is not None)
    return f"CNNFashion({name}).fit({', '.join(options)})"


def hint_at_long(size: str) -> str:
    """A hint, after the short recipe, at the accuracy of the long one."""
    hint = f'fit(recipe="long") trains {read_recipe(size, "long").epochs} epochs'
    shipped = Facts.read(MODELS, file_name(size))
    if shipped and shipped.report and "long" in shipped.report.call and shipped.accuracy:
        hint += f"; the shipped network, trained that way, reaches {shipped.accuracy:.2%}"
    return hint


@dataclass(frozen=True)
class Speed:
    """How fast one network is, in images per second."""

    name: str
    version: str
    images_per_second: int
    on_one_thread: int


@dataclass(frozen=True)
class SpeedRun:
    """Networks timed in turns on one machine."""

    machine: str
    runtime: str
    batch: int  # images
    batch_on_one_thread: int  # images
    yardstick: Speed  # a plain network, which the others are compared with
    networks: list[Speed]

    def of(self, facts: Facts) -> Speed | None:
        """The speed of these very weights; None if they were not timed."""
        same = (each for each in self.networks if (each.name, each.version) == (facts.name, facts.version))
        return next(same, None)


def read_speed(folder: Path) -> list[SpeedRun]:
    """The last run on each kind of machine, the newest first."""
    path = folder / SPEED
    runs = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    for run in runs:
        run["yardstick"] = Speed(**run["yardstick"])
        run["networks"] = [Speed(**each) for each in run["networks"]]
    return [SpeedRun(**run) for run in runs]


def write_speed(folder: Path, runs: list[SpeedRun]) -> None:
    """Write `speed.json`."""
    text = json.dumps([asdict(run) for run in runs], indent=1)
    (folder / SPEED).write_text(text + "\n", encoding="utf-8")
