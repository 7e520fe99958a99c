"""The picture of how cost grows, drawn from the tables of `docs/benchmarks.md`, so that the two cannot differ.

    python -m bench.growth.picture [--page docs/benchmarks.md] [--picture docs/growth.png]

A page that lacks a table is refused in one line.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagebus import ConfigError, cli

FOLDER = Path(__file__).parents[2] / "docs"
# Section of the page -> the column that grows in it.
GROWS = {
    "Packages": "images in a package",
    "Repliers": "repliers",
    "Partitions": "partitions",
    "Backlog": "packages",
    "Requestors": "requestors",
}
SPEED, COST = "images/s", ("CPU ms / 1,000", "their CPU ms / 1,000")
KIND = "read"  # the column that distinguishes two lines of one section


@dataclass(frozen=True)
class Curve:
    """One line of a panel; all sequences have one length."""

    name: str
    grown: Sequence[float]
    images_per_s: Sequence[float]
    cpu_ms_per_1000: Sequence[float]


def read_curves(page: str) -> dict[str, list[Curve]]:
    """The curves of each section in `GROWS`. Raises `ConfigError` for a page that lacks one of their columns."""
    sections = dict(part.partition("\n")[::2] for part in page.split("\n### "))
    curves: dict[str, list[Curve]] = {}
    for section, column in GROWS.items():
        head, *rows = [
            _cells(line) for line in sections.get(section, "").splitlines() if line.startswith("|")
        ] or [[]]
        cost = next((name for name in COST if name in head), COST[0])
        for needed in (column, SPEED, cost):
            if needed not in head:
                raise ConfigError(f"section {section!r} of the page has no table with a column {needed!r}")
        lines = [dict(zip(head, row, strict=True)) for row in rows[1:]]
        kinds = dict.fromkeys(line.get(KIND, "") for line in lines)
        curves[section] = [
            Curve(
                kind,
                *(
                    [float(line[name].replace(",", "")) for line in lines if line.get(KIND, "") == kind]
                    for name in (column, SPEED, cost)
                ),
            )
            for kind in kinds
        ]
    return curves


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def draw(curves: dict[str, list[Curve]], path: Path) -> None:
    """Two rows of panels, images a second above CPU time, and a column for each section."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(curves), 5), layout="constrained")
    panels = figure.subplots(2, len(curves), sharex="col", sharey="row", squeeze=False)
    for number, (section, lines) in enumerate(curves.items()):
        above, below = panels[0][number], panels[1][number]
        for line in lines:
            above.plot(line.grown, line.images_per_s, marker="o", label=line.name)
            below.plot(line.grown, line.cpu_ms_per_1000, marker="o", label=line.name)
        below.set_xscale("log")
        below.set_xlabel(GROWS[section])
        below.set_xticks(lines[0].grown, [f"{each:,.0f}" for each in lines[0].grown], fontsize=7)
        below.minorticks_off()
        above.set_title(section)
        if len(lines) > 1:
            above.legend(title="replies read", fontsize=7, title_fontsize=7)
    panels[0][0].set_ylabel("images a second")
    panels[1][0].set_ylabel("CPU ms for 1,000 images")
    for row in panels:
        row[0].set_ylim(bottom=0)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth.picture", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--page", type=Path, default=FOLDER / "benchmarks.md", metavar="FILE")
    parser.add_argument("--picture", type=Path, default=FOLDER / "growth.png", metavar="FILE")
    args = parser.parse_args()
    draw(read_curves(args.page.read_text(encoding="utf-8")), args.picture)
    return 0


if __name__ == "__main__":
    cli.run(main)
