"""Percentiles of durations: right to a quarter of a per cent, and in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from statistics import quantiles

import pytest

from imagebus.durations import Durations


def test_percentiles_are_those_of_all_durations() -> None:
    chance = random.Random(18)
    seconds = [chance.lognormvariate(-4.5, 0.8) for _ in range(20_000)]
    durations = Durations()

    for each in seconds:
        durations.add(each)

    exact = quantiles(seconds, n=100, method="inclusive")
    assert durations.percentile(50) == pytest.approx(exact[49], rel=0.005)
    assert durations.percentile(99) == pytest.approx(exact[98], rel=0.01)
    assert len(durations) == len(seconds)


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.00123, 0.0077, 30.0, 1e9])
def test_one_duration_is_every_percentile(seconds: float) -> None:
    durations = Durations()

    durations.add(seconds)

    for percent in (0, 1, 50, 99, 100):
        assert durations.percentile(percent) == pytest.approx(max(seconds, 1e-6), rel=0.0025)


def test_no_duration_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no durations"):
        Durations().percentile(50)


def test_more_durations_take_no_more_memory() -> None:
    chance = random.Random(18)
    durations = Durations()

    def add(count: int) -> None:
        for _ in range(count):
            durations.add(chance.uniform(0.005, 0.05))

    add(20_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        add(40_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 40_000  # bytes; a list took 32 for each
