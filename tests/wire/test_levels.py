"""Floats as grey levels."""

from __future__ import annotations

import numpy as np
import pytest

from imagebus.wire.levels import levels_of_floats


@pytest.mark.parametrize("scale", [1 / 255, 1.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_both_ranges_give_the_same_levels(scale: float, dtype: type[np.floating]) -> None:
    levels = np.arange(256, dtype=np.uint8)

    assert levels_of_floats((levels * scale).astype(dtype)).tolist() == levels.tolist()


def test_what_resizing_makes_a_little_larger_than_1_does_not_turn_all_black() -> None:
    assert levels_of_floats(np.array([-0.004, 0.5, 1.004])).tolist() == [0, 128, 255]


@pytest.mark.parametrize("numbers", [[0.0, 1.5], [-0.2, 0.5], [0.0, 256.0], [0.5, np.nan], [-1.0, 200.0]])
def test_what_is_neither_is_refused(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="expected 0 to 255, or 0 to 1"):
        levels_of_floats(np.array(numbers))
