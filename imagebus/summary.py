"""A requestor's last lines: how many packages were answered, how many images were right, how long it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebus.errors import ImageBusError, RequestTimeout

if TYPE_CHECKING:
    from imagebus.streaming import Outcome


@dataclass
class Summary:
    """Counts over the outcomes that were added. `sent` is for the caller to set."""

    sent: int = 0
    failed: int = 0
    lost: int = 0
    correct: int = 0
    judged: int = 0  # images whose true label is known
    round_trips: list[float] = field(default_factory=list)  # seconds, of the answered packages

    def add(self, outcome: Outcome) -> None:
        """Count one package."""
        result, truths = outcome.result, outcome.package.truths
        if isinstance(result, RequestTimeout):
            self.lost += 1
        elif isinstance(result, ImageBusError):
            self.failed += 1
        else:
            self.round_trips.append(result.round_trip)
            if truths is not None:
                self.judged += len(truths)
                pairs = zip(result.predictions, truths, strict=True)
                self.correct += sum(prediction.label == truth for prediction, truth in pairs)

    def __str__(self) -> str:
        """One to three lines."""
        answered = len(self.round_trips)
        left = self.sent - answered - self.failed - self.lost
        lines = [f"sent {self.sent}, answered {answered}, failed {self.failed}, lost {self.lost}"]
        if left:
            lines[0] += f", open {left}"
        if self.judged:
            lines.append(f"accuracy {self.correct / self.judged:.1%} of {self.judged} images")
        if answered > 1:
            from statistics import quantiles  # here, as it takes as long to load as argparse

            percentiles = quantiles(self.round_trips, n=100, method="inclusive")
            lines.append(
                f"round trip p50 {percentiles[49] * 1000:.1f} ms, p99 {percentiles[98] * 1000:.1f} ms"
            )
        return "\n".join(lines)
