"""`tools/install.py`: a line for each step, and when a step fails, why."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .programs import ROOT

LINES = f"environment: .venv, Python {platform.python_version()}\npackages: {{}} of 1\n"


class Checkout:
    """A folder with the tool and a lock file of one package, which lies beside it as a wheel."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "install.py", folder / "tools")
        wheel = folder / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny.py", "")
            archive.writestr(
                "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
            )
            archive.writestr(
                "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr("tiny-1.0.dist-info/RECORD", "")
        self.lock(hashlib.sha256(wheel.read_bytes()).hexdigest())

    def lock(self, sha256: str) -> None:
        package = (
            f'name = "tiny"\nversion = "1.0"\ngroups = ["main"]\nfiles = [{{hash = "sha256:{sha256}"}}]\n'
        )
        (self.folder / "poetry.lock").write_text(f"[[package]]\n{package}", encoding="utf-8")

    def install(self, **environment: str) -> subprocess.CompletedProcess[str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        return subprocess.run(
            [sys.executable, self.folder / "tools" / "install.py"],
            env=others | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_set_up_prints_a_line_for_each_step_and_nothing_when_all_is_there(checkout: Checkout) -> None:
    first, second = checkout.install(), checkout.install()

    assert (first.returncode, first.stdout, first.stderr) == (0, LINES.format(1), "")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_a_file_that_is_not_the_locked_one_is_refused(checkout: Checkout) -> None:
    checkout.lock("0" * 64)

    done = checkout.install()

    assert (done.returncode, done.stdout) == (1, LINES.format(1))
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "tiny==1.0" in done.stderr
    assert done.stderr.endswith(f"all that it said is in {checkout.folder / '.venv' / 'pip.log'}\n")


@pytest.mark.full
def test_without_a_network_pips_own_reason_is_shown(checkout: Checkout) -> None:
    index = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}

    done = checkout.install(PIP_INDEX_URL="http://127.0.0.1:9/simple", **index)

    assert (done.returncode, done.stdout) == (1, LINES.format(0))
    assert "No matching distribution found for tiny==1.0" in done.stderr
    assert len(done.stderr.splitlines()) <= 7
    assert "Traceback" not in done.stderr


@pytest.mark.full
def test_half_an_environment_is_made_anew(checkout: Checkout) -> None:
    checkout.install()
    environment = checkout.folder / ".venv"
    (pip,) = environment.glob("lib/*/site-packages/pip")
    shutil.rmtree(pip / "_vendor")
    (environment / "unfinished").touch()  # both as Ctrl-C leaves them
    (environment / "installed-main").unlink()

    done = checkout.install()

    assert (done.returncode, done.stdout, done.stderr) == (0, LINES.format(1), "")
    assert not (environment / "unfinished").exists()


def test_a_folder_that_cannot_be_made_is_named(checkout: Checkout) -> None:
    (checkout.folder / ".venv").touch()

    done = checkout.install()

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{checkout.folder / '.venv'}: Not a directory\n"


def test_a_python_that_is_too_old_is_told_so(checkout: Checkout) -> None:
    script = checkout.folder / "tools" / "install.py"
    older = "import sys, runpy; sys.version_info = (3, 9, 18); sys.modules['tomllib'] = None"
    command = [sys.executable, "-c", f"{older}; runpy.run_path({str(script)!r}, run_name='__main__')"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Python 3.11, 3.12 or 3.13 is needed, this is 3.9.18: try make PYTHON=python3.13\n"
    )
