"""What callers hand over, checked at once: a `ValueError` in one line instead of a failure far away."""

from __future__ import annotations

import operator
import reprlib
from typing import Any, SupportsFloat, SupportsIndex

from imagebus.wire.envelope import is_id

LONGEST_SECONDS = 1e9  # thirty years: what is meant to have no end, and still is a date as others write it
MOST_LABELS = 10**18 - 1  # the largest number that a `top` header may state; no model has so many


def seconds(value: SupportsFloat, name: str) -> float:
    """A time limit: above 0, at most `LONGEST_SECONDS`. NumPy's numbers are numbers too."""
    found = _number(value)
    if found is None or not 0 < found <= LONGEST_SECONDS:  # NaN is neither
        raise ValueError(
            f"{name} is {reprlib.repr(value)}, expected seconds above 0 and at most {LONGEST_SECONDS:,.0f}"
        )
    return found


def pause(value: SupportsFloat, name: str) -> float:
    """A pause: at least 0, at most `LONGEST_SECONDS`."""
    found = _number(value)
    if found is None or not 0 <= found <= LONGEST_SECONDS:
        raise ValueError(
            f"{name} is {reprlib.repr(value)}, expected seconds of at least 0 and at most {LONGEST_SECONDS:,.0f}"
        )
    return found


def count(value: SupportsIndex, name: str) -> int:
    """A whole number of at least 1."""
    try:
        found = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = 0
    if found < 1:
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a whole number of at least 1")
    return found


def labels(value: SupportsIndex, name: str = "top") -> int:
    """How many labels to list. Any number may be meant as "all", but not all can be sent."""
    return min(count(value, name), MOST_LABELS)


def request_id(value: Any) -> str:
    """An id that a replier takes; with any other, the request would be a dead letter and a time-out here."""
    if not isinstance(value, str) or not is_id(value):
        raise ValueError(f"id is {reprlib.repr(value)}, expected a text of 1 to 64 of A-Z a-z 0-9 . _ -")
    return value


def _number(value: Any) -> float | None:
    """A number as a float; None for what is none, such as a text or a truth value."""
    if isinstance(value, (str, bytes, bool)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
