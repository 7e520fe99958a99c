"""Medians and spread of all rounds, as Markdown and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.contenders import Figures

Rounds = Mapping[str, Sequence[Figures]]  # contender -> its figures, round by round

_NAMES = {
    "bare-100": "ONNX Runtime alone, batches of 100",
    "bare-5": "ONNX Runtime alone, batches of 5",
    "replier": "**replier.py**",
    "careless": "the same loop, sending and committing in the background",
    "careful-loop": "careful loop: batches, confirmed replies, then offsets",
    "keras-loop": "loop with Keras `predict`",
    "echo": "echo without a model",
}
# A contender's own row also shows what it was measured for beside the backlog.
_ALONE = {"replier": "replier-alone", "echo": "echo-alone"}
_COLUMNS = (
    ("images/s", "images_per_s", ",.0f"),
    ("of bare", "images_of_bare", ".3f"),
    ("CPU ms / 1,000", "cpu_ms_per_1000", ",.1f"),
    ("of bare", "cpu_of_bare", ".3f"),
    ("p50 ms", "p50_ms", ".2f"),
    ("p99 ms", "p99_ms", ".2f"),
    ("ready s", "ready_s", ".2f"),
    ("MB", "resident_mb", ".0f"),
)


def with_ratios(rounds: Rounds) -> dict[str, list[Figures]]:
    """All figures, with their ratios to their references in the same round."""
    related = {name: [dict(figures) for figures in each] for name, each in rounds.items()}

    def relate(ratio: str, name: str, reference: str, figure: str) -> None:
        for ours, theirs in zip(related.get(name, ()), related.get(reference, ()), strict=False):
            if figure in ours:
                ours[ratio] = ours[figure] / theirs[figure]

    for name in related:
        relate("images_of_bare", name, "bare-100", "images_per_s")
        relate("cpu_of_bare", name, "bare-100", "cpu_ms_per_1000")
    relate("images_of_keras_loop", "replier", "keras-loop", "images_per_s")
    relate("images_of_careless", "replier", "careless", "images_per_s")
    for figure in ("p50_ms", "p99_ms"):
        relate(f"{figure[:3]}_of_echo", "replier-alone", "echo-alone", figure)
    return related


def summary(rounds: Rounds) -> dict[str, Any]:
    """contender -> figure -> median, low, high and the value of each round."""
    return {
        name: {
            figure: {
                "median": statistics.median(values),
                "low": min(values),
                "high": max(values),
                "rounds": values,
            }
            for figure in each[0]
            for values in [[figures[figure] for figures in each]]
        }
        for name, each in rounds.items()
    }


def render(rounds: Rounds) -> str:
    """The table and the lines below it."""
    rows = []
    for name, title in _NAMES.items():
        measured = [rounds[each] for each in (name, _ALONE.get(name, "")) if each in rounds]
        if measured:
            rows.append([title, *(cell(measured, figure, form) for _, figure, form in _COLUMNS)])
    return "\n".join([*markdown(["", *(title for title, _, _ in _COLUMNS)], rows), "", *_notes(rounds)])


def cell(measured: Iterable[Sequence[Figures]], figure: str, form: str) -> str:
    """`median ±n%`, where n is half the way from the lowest to the highest round."""
    values = [figures[figure] for each in measured for figures in each if figure in figures]
    if not values:
        return ""
    median = statistics.median(values)
    spread = (max(values) - min(values)) / 2 / median if median else 0.0
    return f"{median:{form}} ±{spread:.0%}" if len(values) > 1 else f"{median:{form}}"


def _notes(rounds: Rounds) -> list[str]:
    lines = []
    served = rounds.get("replier", ())

    def median(name: str, figure: str) -> float:
        return statistics.median(figures[figure] for figures in rounds[name])

    if served:
        lost, repeated, wrong = (int(sum(each[f] for each in served)) for f in ("lost", "repeated", "wrong"))
        loaded = "loaded" if any(each["tensorflow"] for each in served) else "not loaded"
        lines.append(f"- of the replier's replies {lost} lost, {repeated} repeated, {wrong} wrong")
        lines.append(
            f"- replier: at most {max(each['peak_mb'] for each in served):.0f} MB resident, "
            f"TensorFlow {loaded}"
        )
    if served and "images_of_keras_loop" in served[0]:
        times = median("replier", "images_of_keras_loop")
        lines.append(f"- {times:,.0f} times the images per second of the loop with Keras `predict`")
    if served and "images_of_careless" in served[0]:
        share = median("replier", "images_of_careless")
        lines.append(f"- {share:.3f} of the images per second of the same loop without a guarantee")
    if "p50_of_echo" in rounds.get("replier-alone", [{}])[0]:
        p50, p99 = (median("replier-alone", f"{p}_of_echo") for p in ("p50", "p99"))
        lines.append(f"- one package at a time: p50 {p50:.2f} times the echo's, p99 {p99:.2f} times")
    return lines


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(head), line(rule), *map(line, rows)]
