"""Acting as a user without rights, since root may read everything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UID = 65534  # nobody's, on every system


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, if this process has them. What is imported meanwhile has to be readable by all."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(UID)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach; pytest's own are their user's alone."""
    with tempfile.TemporaryDirectory(prefix="imagebus-open-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
