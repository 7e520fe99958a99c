"""A copy of the repository, in which a reader's commands may leave their files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..programs import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of the repository as they stand, without what git ignores."""
    return copy_repository(tmp_path / "checkout")


@pytest.fixture(scope="module")
def shared_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One `checkout` for all tests of a module."""
    return copy_repository(tmp_path_factory.mktemp("docs") / "checkout")


def copy_repository(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.rstrip("\0").split("\0"):
        if (ROOT / name).exists():  # one that was removed is listed until that is committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder
