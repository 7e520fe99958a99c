"""Draw requestor_replier.png, the picture of the two programs and their topics at the top of the README:

python3 -m tools.draw_picture
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from imagebus.images import load_images

PICTURE = Path(__file__).resolve().parent.parent / "requestor_replier.png"
INK, PALE, BLUE, GREEN, RED = "#1f2933", "#9aa5b1", "#2563ab", "#2f7d4f", "#b03a2e"
PARTITIONS = 6


def program(axes: Axes, x: float, name: str, lines: str, color: str) -> None:
    """A program: a rounded box, its middle at `x`."""
    axes.add_patch(
        FancyBboxPatch((x - 1.1, 1.1), 2.2, 2.4, boxstyle="round,pad=0.1", fc="white", ec=color, lw=2)
    )
    axes.text(
        x, 3.18, name, ha="center", va="center", color=color, weight="bold", size=14, family="monospace"
    )
    axes.text(x, 1.3, lines, ha="center", va="bottom", color=INK, size=9, linespacing=1.6)


def topic(axes: Axes, x: float, y: float, name: str, color: str, partitions: int = PARTITIONS) -> None:
    """A topic: a row of partitions, its middle at `x`."""
    width = 0.42
    for number in range(partitions):
        left = x + (number - partitions / 2) * width
        axes.add_patch(Rectangle((left, y), width, 0.5, fc=color, ec="white", lw=2, alpha=0.85))
        axes.text(left + width / 2, y + 0.25, str(number), ha="center", va="center", color="white", size=9)
    axes.text(x, y + 0.72, name, ha="center", va="center", color=color, size=12, family="monospace")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, bend: float) -> None:
    """A bent arrow; `bend` above 0 to the left as seen along it."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=16,
            color=color,
            lw=1.8,
        )
    )


def main() -> None:
    """Draw and save."""
    figure, axes = pyplot.subplots(figsize=(12, 4.9), dpi=120)
    axes.set_xlim(0, 12)
    axes.set_ylim(-0.45, 4.75)
    axes.axis("off")

    program(
        axes, 1.5, "requestor.py", "a package every second,\neach reply once,\na summary at the end", BLUE
    )
    program(
        axes, 10.5, "replier.py", "batch, check SHA-256,\npredict (ONNX Runtime),\nreply, then commit", GREEN
    )
    topic(axes, 6, 3.55, "requests", BLUE)
    topic(axes, 6, 0.65, "replies", GREEN)
    topic(axes, 10.5, -0.35, "requests.dlt", RED, partitions=3)

    arrow(axes, (2.75, 3.1), (4.55, 3.8), BLUE, -0.1)
    arrow(axes, (7.45, 3.8), (9.25, 3.1), BLUE, -0.1)
    arrow(axes, (9.25, 1.5), (7.45, 0.95), GREEN, -0.1)
    arrow(axes, (4.55, 0.95), (2.75, 1.5), GREEN, -0.1)
    arrow(axes, (10.5, 0.95), (10.5, 0.62), RED, 0)
    axes.text(6, 3.32, "five images, request id, SHA-256", ha="center", va="top", color=INK, size=10)
    axes.text(6, 0.42, "label and probability for each image", ha="center", va="top", color=INK, size=10)
    axes.text(6, 2.28, "Apache Kafka", ha="center", va="center", color=PALE, size=17, weight="bold")

    images, _ = load_images().package(0, 5)
    for number, image in enumerate(images):
        left = 0.57 + number * 0.38
        axes.imshow(image, cmap="gray_r", extent=(left, left + 0.34, 2.3, 2.64), aspect="auto", zorder=3)
    axes.set_xlim(0, 12)  # imshow has moved them
    axes.set_ylim(-0.45, 4.75)
    figure.savefig(PICTURE, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
