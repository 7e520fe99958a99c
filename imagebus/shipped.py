"""Files of the project outside the package: the two scripts, the default model.

In a checkout they lie beside the package; the wheel carries copies in `imagebus/data`.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
DATA = PACKAGE / "data"


def shipped(path: str) -> Path:
    """The location of a file, given its path in a checkout."""
    copy = DATA / path
    return copy if copy.exists() else PACKAGE.parent / path
