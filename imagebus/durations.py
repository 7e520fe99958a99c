"""Percentiles of any number of durations, in memory that does not grow with their number."""

from __future__ import annotations

import math
from collections import Counter

SHORTEST = 1e-6  # seconds: a shorter one counts as this
STEP = 1.005  # between two classes: a percentile is off by 0.25% at most
_LOG_STEP = math.log(STEP)


class Durations:
    """Durations in seconds, counted by classes that are half a per cent wide.

    From a microsecond to thirty years there are 7,000 classes, and each that occurs is one number: of a requestor
    that runs for days, a few hundred are used.
    """

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self._count = 0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._classes[round(math.log(max(seconds, SHORTEST)) / _LOG_STEP)] += 1
        self._count += 1

    def __len__(self) -> int:
        """How many were added."""
        return self._count

    def percentile(self, percent: float) -> float:
        """The seconds, within 0.25%, that `percent` of all do not exceed. Raises `ValueError` where there are none."""
        if not self._count:
            raise ValueError("a percentile of no durations")
        rank, seen = max(1, math.ceil(self._count * percent / 100)), 0
        for number in sorted(self._classes):
            seen += self._classes[number]
            if seen >= rank:
                break
        return STEP**number
