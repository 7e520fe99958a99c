"""The sizes of network, and the names of their files."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).parent.parent / "models"  # the shipped networks and their cards
SIZES = ("tiny", "base", "large")  # from the fastest to the most accurate
TEACHER = "wide"  # a size that large learns from, and that is not shipped


def file_name(size: str) -> str:
    """The name of a size's files, without their ending; it is the model's name too.

    Raises `ValueError` for an unknown size.
    """
    known = (*SIZES, TEACHER)
    if size not in known:
        raise ValueError(f"size is {size!r}, expected one of {', '.join(known)}")
    return "fashion" if size == "base" else f"fashion-{size}"
