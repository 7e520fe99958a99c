"""The card of each saved network (its origin, its accuracy, its speed) and the index of the sizes.

    python3 -m training.card      # writes those in models/ again, from what was measured

A training leaves its figures in `NAME.json`, and `python3 -m training.speed` leaves its own in `speed.json`; the pages
are made of these. Every figure is measured, none is typed; the same figures give the same text.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

from training import pictures
from training.data import LABELS
from training.evaluation import Evaluation, Scores
from training.facts import Facts, Report, Speed, SpeedRun, read_speed
from training.robustness import Robustness
from training.sizes import MODELS, SIZES, file_name

PUBLISHED = Path(__file__).parent / "published.toml"
SPEED_PICTURE = "accuracy-speed.png"
INDEX = "README.md"
INDEX_TITLE = "# Trained networks\n"
ALTERATIONS = {
    "shift": "shift in pixels (mean of four directions)",
    "noise": "noise in grey levels (standard deviation)",
    "blur": "blur in pixels (standard deviation)",
}


# --- one card --------------------------------------------------------------------------------------


def write_card(folder: Path, facts: Facts) -> None:
    """Write the card of a network that was saved to `folder`, and its pictures.

    Without an evaluation on the test images, it claims no accuracy on Fashion-MNIST. Raises `OSError` if
    the folder cannot be read and written.
    """
    confusion, reliability = (folder / f"{facts.name}-{kind}.png" for kind in ("confusion", "reliability"))
    for picture in (confusion, reliability):
        picture.unlink(missing_ok=True)  # it may show another network
    report = facts.report
    if report is None:
        parts = ["It was loaded from a file and saved again: nothing is known here of its training.\n"]
    else:
        parts = [_data(report), _recipe(report)]
        if report.scores is not None:
            evaluation = report.scores.evaluation
            pictures.draw_confusion(evaluation.confusion, LABELS, confusion)
            pictures.draw_reliability(evaluation.bins, reliability)
            parts += [
                _accuracy(report.scores, confusion.name),
                _calibration(evaluation, reliability.name),
                _robustness(report.scores.robustness),
            ]
    runs = read_speed(folder)
    parts += [_throughput(facts, runs), _files(folder, facts)]
    body = "\n".join(part for part in parts if part)
    (folder / f"{facts.name}.md").write_text(
        f"""# Model card: {facts.name}

Version `{facts.version}`, {facts.parameters:,} parameters. Generated from `{facts.name}.json` and `speed.json`.

{body}""",
        encoding="utf-8",
    )


def _data(report: Report) -> str:
    data = "Images of the caller's own. The accuracy on Fashion-MNIST was not measured."
    if report.scores is not None:
        data = f"""\
Fashion-MNIST: grey images of ten kinds of clothing, 28x28 pixels, by Zalando Research
(https://github.com/zalandoresearch/fashion-mnist), MIT licence, © 2017 Zalando SE.
The {report.scores.evaluation.images:,} test images were used once, at the end."""
    return f"""## Data

{data}
The network was trained on {report.trained:,} images; {report.held_out:,} others were held out to choose the best epoch.
"""


def _recipe(report: Report) -> str:
    phrases = report.recipe.in_words()
    if report.teacher is not None:
        phrases.append(f"version of that teacher: `{report.teacher}`")
    if report.devices is not None:
        phrases.append(f"computed by Keras on {report.devices}")
    recipe = "\n".join(f"- {phrase}" for phrase in phrases)
    repeated = (
        "TensorFlow gives the same weights again, on the same machine and from the same code and recipe."
    )
    on_jax = report.devices is not None and report.devices.startswith("jax")
    return f"""## Recipe

    >>> from cnn_minst import CNNFashion
    >>> {report.call}

{recipe}

{str(report).capitalize()}.
{"JAX does not promise the same weights again." if on_jax else repeated}
"""


def _accuracy(scores: Scores, picture: str) -> str:
    test = scores.evaluation
    correct = [row[number] for number, row in enumerate(test.confusion)]
    tested = [sum(row) for row in test.confusion]
    predicted = [sum(column) for column in zip(*test.confusion, strict=True)]
    rows = "\n".join(
        f"| {label} | {hits / max(1, images):.1%} | {hits / max(1, predictions):.1%} |"
        for label, hits, images, predictions in zip(LABELS, correct, tested, predicted, strict=True)
    )
    return f"""## Accuracy

**{test.accuracy:.2%}** on the {test.images:,} test images in 8 bits, \
{scores.in_floats:.2%} in floats (the `.keras` file).
Quantisation changes {scores.relabelled:,} of the {test.images:,} labels.

Recall is the share of a class's images that the network recognises; precision is the share of its
predictions of a class that are correct.

| class | recall | precision |
| --- | ---: | ---: |
{rows}

![Confusion matrix: true class by predicted class]({picture})
"""


def _calibration(evaluation: Evaluation, picture: str) -> str:
    return f"""## Calibration

Expected calibration error: **{evaluation.calibration_error:.3f}**. It is the difference between confidence (the
probability of the predicted label) and accuracy in each of ten bins, averaged over the test images.

![Accuracy by confidence]({picture})
"""


def _robustness(robustness: Robustness) -> str:
    tables = "\n\n".join(
        f"| {ALTERATIONS[alteration]} | {' | '.join(strengths)} |\n"
        f"| --- |{' ---: |' * len(strengths)}\n"
        f"| accuracy | {' | '.join(f'{accuracy:.1%}' for accuracy in strengths.values())} |"
        for alteration, strengths in robustness.items()
    )
    return f"""## Shifted, noisy and blurred images

The same test images, altered:

{tables}
"""


def _throughput(facts: Facts, runs: list[SpeedRun]) -> str:
    """The speed of this version on each kind of machine that it was timed on."""
    parts = [_one_throughput(speed, run) for run in runs if (speed := run.of(facts))]
    return "\n".join(["## Throughput\n", *parts]) if parts else ""


def _one_throughput(speed: Speed, run: SpeedRun) -> str:
    plain = run.yardstick.images_per_second
    return f"""\
**{speed.images_per_second:,} images/s** in batches of {run.batch}, on {run.machine};
{speed.on_one_thread:,} images/s on one thread, in batches of {run.batch_on_one_thread} ({run.runtime}).
That is {speed.images_per_second / plain:.2f} times the {plain:,} images/s \
of a plain network with {run.yardstick.name}, timed in turns with it.
"""


def _files(folder: Path, facts: Facts) -> str:
    files = [folder / f"{facts.name}.{kind}" for kind in ("onnx", "keras")]
    rows = "\n".join(
        f"| `{file.name}` | {file.stat().st_size:,} | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |"
        for file in files
    )
    return f"""## Files

| file | bytes | SHA-256 |
| --- | ---: | --- |
{rows}

Both hold the same network: it takes uint8 images (N, 28, 28), where 0 is the background, and gives probabilities
(N, {len(LABELS)}). The `.keras` file holds it in floats; the `.onnx` file, as a training writes it, in 8 bits
(`training/quantization.py`), with name, version and labels in its metadata. Saved again, the same weights give the
same `.onnx` file, but another digest of the `.keras` file, since Keras writes the date into it.
"""


# --- the index of the sizes ------------------------------------------------------------------------


def write_index(folder: Path) -> None:
    """Write `README.md`, one line for each size with a link to its card, and the picture of accuracy by speed.

    A `README.md` that is not such an index stays.
    """
    path = folder / INDEX
    if path.is_file() and not path.read_text(encoding="utf-8").startswith(INDEX_TITLE):
        return
    saved = {size: facts for size in SIZES if (facts := Facts.read(folder, file_name(size)))}
    runs = [run for run in read_speed(folder) if any(run.of(facts) for facts in saved.values())]
    rows = [
        [
            f"[{size}]({facts.name}.md)",
            f"{facts.accuracy:.2%}" if facts.accuracy is not None else "",
            *(f"{speed.images_per_second:,}" if (speed := run.of(facts)) else "" for run in runs),
            f"{facts.parameters:,}",
        ]
        for size, facts in saved.items()
    ]
    if runs:
        speeds = [f"{run.yardstick.images_per_second:,}" for run in runs]
        rows.append([f"{runs[0].yardstick.name}, for comparison", "", *speeds, ""])
    head = ["size", "accuracy", *(f"images/s, {run.machine}" for run in runs), "parameters"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    picture = _picture(folder, list(saved.values()), runs)
    path.write_text(
        f"""{INDEX_TITLE}
Each size links to its card: accuracy by class and on shifted, noisy and blurred images, calibration, throughput.

{table}

Accuracy is that of the `.onnx` file on the test images of Fashion-MNIST. Images per second are those of ONNX Runtime
alone on all cores, by `python3 -m training.speed`; an empty cell means that these weights were not timed there.
{picture}
`NAME.onnx` is the file that `replier.py` serves, `NAME.keras` the same network for Keras, and `NAME.json` the figures
that its training measured. This page and the cards are generated from those figures and from `speed.json` by
`python3 -m training.card`.
""",
        encoding="utf-8",
    )


def _picture(folder: Path, saved: list[Facts], runs: list[SpeedRun]) -> str:
    """Draw accuracy by speed in the newest run, and link it; "" if nothing was timed."""
    path = folder / SPEED_PICTURE
    path.unlink(missing_ok=True)  # it may show other networks
    points = {
        facts.name: (float(speed.images_per_second), facts.accuracy)
        for run in runs[:1]
        for facts in saved
        if (speed := run.of(facts)) and facts.accuracy is not None
    }
    if not points:
        return ""
    pictures.draw_speed(points, tomllib.loads(PUBLISHED.read_text(encoding="utf-8")), path)
    return f"\n![Accuracy by images per second]({SPEED_PICTURE})\n"


def main(folder: Path = MODELS) -> None:
    """Write all cards and the index again."""
    for size in SIZES:
        if facts := Facts.read(folder, file_name(size)):
            write_card(folder, facts)
    write_index(folder)


if __name__ == "__main__":
    main()
