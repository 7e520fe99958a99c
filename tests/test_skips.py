"""No test is skipped in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .programs import ROOT

SKIPPED = """
import pytest

@pytest.fixture
def missing():
    pytest.skip("a part is missing")

def test_of_it(missing):
    pass

@pytest.mark.skipif(True, reason="another system")
def test_of_another():
    pass
"""


@pytest.mark.parametrize(("ci", "counted"), [("", "2 skipped"), ("true", "2 errors")])
def test_a_skipped_test_is_a_failure_in_ci_alone(tmp_path: Path, ci: str, counted: str) -> None:
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]

    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )

    assert counted in done.stdout
    assert done.returncode == (1 if ci else 0)
    assert ("nothing may be skipped in CI: " in done.stdout) == bool(ci)
