"""The card beside a saved network: where it comes from, how good it is, how fast.

    python3 -m training.card      # writes the cards of the shipped networks again, from what was measured

A training leaves what it measured in `NAME.json`, and `python3 -m training.speed` what it timed in `speed.json`; the
card is made of these. Every number is measured, none typed; the same numbers give the same text.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training import pictures
from training.evaluation import Bin, Evaluation
from training.vocabulary import LABELS, SIZES, file_name

MODELS = Path(__file__).parent.parent / "models"
PUBLISHED = Path(__file__).parent / "published.toml"
SPEED = "speed.json"
SPEED_PICTURE = "accuracy-speed.png"


@dataclass(frozen=True)
class Report:
    """What a training run did and measured."""

    call: str
    recipe: str
    trained: int  # images
    held_out: int  # images that the best epoch was chosen by
    accuracies: list[float]  # after each epoch, the share of the held-out images that is right
    test: Evaluation | None = None  # on the test images of Fashion-MNIST, of the ONNX file
    robustness: dict[str, dict[str, float]] | None = (
        None  # the same images changed: accuracy by change and strength
    )
    in_floats: float | None = None  # accuracy on the test images of the `.keras` file

    @property
    def best(self) -> int:
        """Which epoch is kept: the first of those with the highest accuracy, counted from 1."""
        return self.accuracies.index(max(self.accuracies)) + 1

    def __str__(self) -> str:
        epochs, share = len(self.accuracies), max(self.accuracies)
        return f"epoch {self.best} of {epochs} is kept: {share:.2%} of {self.held_out:,} held-out images are right"


@dataclass(frozen=True)
class Facts:
    """All that is known of a saved network. `report` is None where it came from a file."""

    name: str
    version: str
    parameters: int
    report: Report | None

    def write(self, folder: Path) -> None:
        """Write the facts to `NAME.json`."""
        text = json.dumps(asdict(self), indent=1)
        (folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, name: str) -> Facts | None:
        """The facts that `write` wrote; None where there are none."""
        path = folder / f"{name}.json"
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        report = content["report"]
        if report is not None:
            if report["test"] is not None:
                bins = [Bin(**each) for each in report["test"]["bins"]]
                report["test"] = Evaluation(report["test"]["confusion"], bins)
            content["report"] = Report(**report)
        return cls(**content)


def write_card(folder: Path, facts: Facts) -> None:
    """Write the card of a network that was saved to `folder`, and its pictures.

    Without an evaluation on the test images, it claims no accuracy on Fashion-MNIST. Raises `OSError` when
    the folder cannot be read and written.
    """
    confusion, reliability = (folder / f"{facts.name}-{kind}.png" for kind in ("confusion", "reliability"))
    for picture in (confusion, reliability):
        picture.unlink(missing_ok=True)  # it may be of another network
    report = facts.report
    if report is None:
        parts = ["It was loaded from a file and saved again: its training is not known here.\n"]
    else:
        parts = [_data(report), _recipe(report)]
        if report.test is not None:
            pictures.draw_confusion(report.test.confusion, LABELS, confusion)
            pictures.draw_reliability(report.test.bins, reliability)
            parts += [
                _accuracy(report, report.test, confusion.name),
                _calibration(report.test, reliability.name),
            ]
        if report.robustness is not None:
            parts.append(_robustness(report.robustness))
        parts.append(_speed(folder, facts))
    parts.append(_files(folder, facts.name))
    body = "\n".join(part for part in parts if part)
    path = folder / ("README.md" if facts.name == file_name("base") else f"{facts.name}.md")
    path.write_text(
        f"""# Model card: {facts.name}

Written by `CNNFashion.save()`. Version `{facts.version}`, {facts.parameters:,} parameters.

{body}""",
        encoding="utf-8",
    )


def _data(report: Report) -> str:
    data = "Images of the caller's own; its accuracy on Fashion-MNIST is not measured here."
    if report.test is not None:
        data = f"""\
Fashion-MNIST, 28x28 grey images of ten kinds of clothes, by Zalando Research
(https://github.com/zalandoresearch/fashion-mnist), MIT licence, © 2017 Zalando SE.
Its {report.test.images:,} test images were looked at once, at the end."""
    return f"""## Data

{data}
{report.trained:,} training images trained the network, {report.held_out:,} were held out to choose the best epoch by.
"""


def _recipe(report: Report) -> str:
    return f"""## Recipe

    >>> from cnn_minst import CNNFashion
    >>> {report.call}

made it. On one machine, TensorFlow gives the same weights each time; code and recipe may have moved on since:
{report.recipe}
In this training, {report}.
"""


def _accuracy(report: Report, test: Evaluation, picture: str) -> str:
    right = [row[place] for place, row in enumerate(test.confusion)]
    tested = [sum(row) for row in test.confusion]
    predicted = [sum(column) for column in zip(*test.confusion, strict=True)]
    rows = "\n".join(
        f"| {label} | {right[place] / max(1, tested[place]):.1%} | {right[place] / max(1, predicted[place]):.1%} |"
        for place, label in enumerate(LABELS)
    )
    floats = (
        f" (in floats, as in the `.keras` file: {report.in_floats:.2%})"
        if report.in_floats is not None
        else ""
    )
    return f"""## Accuracy

**{test.accuracy:.2%}** of the {test.images:,} test images are right{floats}. By class: how many of its
images are called so (recall), and how many of the images called so belong to it (precision).

| class | recall | precision |
| --- | ---: | ---: |
{rows}

![Confusion matrix: true class by predicted class]({picture})
"""


def _calibration(test: Evaluation, picture: str) -> str:
    return f"""## Calibration

The probability that the network states of its label and the share that is right differ by
**{test.calibration_error:.3f}** on the mean over the test images (the expected calibration error, in ten bins).

![Reliability: accuracy by stated probability]({picture})
"""


def _robustness(robustness: dict[str, dict[str, float]]) -> str:
    tables = "\n\n".join(
        f"| {change} | {' | '.join(strengths)} |\n"
        f"| --- |{' ---: |' * len(strengths)}\n"
        f"| right | {' | '.join(f'{accuracy:.1%}' for accuracy in strengths.values())} |"
        for change, strengths in robustness.items()
    )
    return f"""## Under other conditions

The same test images, changed:

{tables}
"""


def _speed(folder: Path, facts: Facts) -> str:
    """How fast this version is on each kind of machine that it was timed on; in a picture, the newest run."""
    path = folder / SPEED
    if not path.is_file():
        return ""
    known = [facts, *(Facts.read(folder, file_name(size)) for size in SIZES if file_name(size) != facts.name)]
    parts: list[str] = []
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for run in runs:
        timed = {row["name"]: row for row in run["rows"]}
        points = {
            each.name: (timed[each.name]["images_per_second"], each.report.test.accuracy)
            for each in known
            if each and each.report and each.report.test and _is_timed(each, timed)
        }
        if facts.name in points:
            if not parts:
                pictures.draw_speed(points, _published(), folder / SPEED_PICTURE)
            parts.append(_one_speed(timed[facts.name], timed[run["yardstick"]]["images_per_second"], run))
    if not parts:
        return ""
    return "\n".join(["## Speed\n", *parts, f"![Accuracy by images a second]({SPEED_PICTURE})\n"])


def _is_timed(facts: Facts, timed: dict[str, dict[str, Any]]) -> bool:
    return facts.name in timed and timed[facts.name]["version"] == facts.version


def _one_speed(row: dict[str, Any], yardstick: int, run: dict[str, Any]) -> str:
    return f"""\
**{row["images_per_second"]:,} images a second** in batches of {run["batch"]}, on {run["machine"]};
{row["on_one_thread"]:,} on one thread, {run["batch_on_one_thread"]} images a run ({run["runtime"]}).
That is {row["images_per_second"] / yardstick:.2f} times the {yardstick:,} of a plain network
with {run["yardstick"]}, timed in turns with it (`python3 -m training.speed`).
"""


def _published() -> dict[str, float]:
    return tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))


def _files(folder: Path, name: str) -> str:
    files = [folder / f"{name}.{kind}" for kind in ("onnx", "keras")]
    rows = "\n".join(
        f"| `{file.name}` | {file.stat().st_size:,} | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |"
        for file in files
    )
    return f"""## Files

| file | bytes | SHA-256 |
| --- | ---: | --- |
{rows}

Both hold the same network: uint8 images (N, 28, 28), 0 is the background, to probabilities (N, {len(LABELS)}).
The ONNX file that a training writes has it in 8 bits (`training/quantization.py`), the other in floats. Name, version
and labels are in the metadata of the ONNX file. Keras writes the date into its own file: the same weights, saved
again, give the same digest of the ONNX file only.
"""


def main(folder: Path = MODELS) -> None:
    """Write all cards again."""
    for size in SIZES:
        if facts := Facts.read(folder, file_name(size)):
            write_card(folder, facts)


if __name__ == "__main__":
    main()
