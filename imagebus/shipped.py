"""Files that come with the project and have their place outside the package: the two scripts, the default model.

In a checkout they lie beside the package. The wheel carries a copy in `imagebus/data`, which stands there
for the root of the checkout.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
DATA = PACKAGE / "data"


def shipped(path: str) -> Path:
    """Where the file is that has this path in a checkout."""
    copy = DATA / path
    return copy if copy.exists() else PACKAGE.parent / path
