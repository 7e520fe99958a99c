"""The documentation is executed: what README.md says to type is typed, what it lists is all there is."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import venv
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest

import cnn_minst

from .programs import ROOT, Program

README = (ROOT / "README.md").read_text(encoding="utf-8")

# How each command line of the README is tried: here, or where the name says.
TRIED = {
    "make demo": "tests/test_demo.py",
    "make test": "the run that this test is part of",
    "make lint": "test_each_make_target_is_there",
    "make bench": "tests/test_bench.py",
    "poetry install": "test_poetry_takes_the_lock_file",
    "source .venv/bin/activate": "what poetry install made; the tests run with the Python in it",
    "python3 replier.py   -f kafka.config -t1 requests -t2 replies -c kafka": "test_the_commands_work_as_printed",
    "python3 requestor.py -f kafka.config -t1 requests -t2 replies -c kafka": "test_the_commands_work_as_printed",
    "python3 -m imagebus.broker": "test_the_commands_work_as_printed",
    "python3 tools/install.py google": "make test, with more groups",
    "KERAS_BACKEND=jax python3 -c 'from cnn_minst import CNNFashion; "
    'CNNFashion("wide").fit(recipe="long", checkpoints="checkpoints")\'': (
        "test_tensorflow_makes_the_files_of_a_training_on_jax, of another size and shorter"
    ),
    "KERAS_BACKEND=jax python3 -c 'from cnn_minst import CNNFashion; "
    'CNNFashion("large").fit(recipe="long", checkpoints="checkpoints")\'': (
        "test_on_jax_a_network_learns_from_the_one_that_was_trained_there_before, of other sizes and shorter"
    ),
    "python3 requestor.py -f google.json -t1 requests -t2 replies -c google": "test_the_other_clouds_commands_work",
    "python3 replier.py   -f google.json -t1 requests -t2 replies -c google": "test_the_other_clouds_commands_work",
}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_every_command_of_the_readme_is_tried_somewhere() -> None:
    lines = {line for block in blocks("sh") for line in block.splitlines()}

    assert lines == set(TRIED)


def test_each_make_target_is_there() -> None:
    # Inside `make test` a make says more than it was asked.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")
    }

    def make(*arguments: str) -> str:
        command = ["make", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    listed = make("help")

    targets = {line.split("\t")[0] for line in listed.splitlines()}
    assert {"demo", "test", "lint", "bench"} <= targets
    for target in targets:
        assert make("-n", target)


@pytest.mark.parametrize("script", ["requestor.py", "replier.py"])
def test_the_readme_lists_exactly_the_options_of_each_script(script: str) -> None:
    printed = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    options = set(re.findall(r"^  (--?[a-z][a-z0-9-]*)", printed, re.MULTILINE)) - {"-h"}

    tables = re.findall(r"^\| (both scripts|`[a-z]+\.py`) \|.*?\n\n", README, re.DOTALL | re.MULTILINE)
    assert tables == ["both scripts", "`requestor.py`", "`replier.py`"]
    listed: set[str] = set()
    for name in ("both scripts", f"`{script}`"):
        table = README[README.index(f"| {name} |") :].partition("\n\n")[0]
        for row in table.splitlines()[2:]:
            listed |= set(re.findall(r"`(--?[a-z][a-z0-9-]*)", row.split(" | ")[0]))
    assert listed == options


def test_poetry_takes_the_lock_file(tmp_path: Path) -> None:
    venv.create(tmp_path / "poetry", with_pip=True)
    bin = tmp_path / "poetry" / "bin"
    pip: list[str | Path] = [bin / "python", "-m", "pip", "install", "-q", "poetry>=2.2,<3"]
    if subprocess.run(pip, check=False).returncode and not os.environ.get("CI"):
        pytest.skip("Poetry cannot be fetched here")

    for command in (["check", "--lock"], ["install", "--dry-run"]):
        done = subprocess.run(
            [bin / "poetry", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )

        assert done.returncode == 0, done.stdout + done.stderr
    assert "tensorflow" in done.stdout


# Keras makes arrays of TensorFlow's variables, which do not know NumPy 2's way of it yet.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_the_training_session_works_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.load(ROOT / "samples" / "fashion-mnist-1000.npz")
    images, labels = sample["images"], sample["labels"].astype(np.int64)
    small = ((images[:600], labels[:600]), (images[600:], labels[600:]))
    monkeypatch.setattr(cnn_minst, "load_data", lambda *_: small)
    quick = partialmethod(cnn_minst.CNNFashion.fit, epochs=1, models=tmp_path)
    monkeypatch.setattr(cnn_minst.CNNFashion, "fit", quick)
    names = {"trainX": images[:300], "trainY": labels[:300]}

    for block in blocks("python"):
        if block.startswith(">>> "):
            exec(block.replace(">>> ", ""), names)

    assert (tmp_path / "fashion.onnx").exists()
    assert len(names["labels"]) == 5
    assert names["probabilities"].shape == (5, 10)


def test_the_commands_work_as_printed(kafka_jars_here: None) -> None:
    def start(command: str) -> Program:
        (line,) = [line for line in TRIED if line.startswith(command) and "google" not in line]
        return Program(sys.executable, *shlex.split(line)[1:])

    with socket.socket() as taken:
        assert taken.connect_ex(("127.0.0.1", 9092)), (
            "the README's port, 9092, is taken: stop what listens there"
        )
    programs = [start("python3 -m imagebus.broker")]
    try:
        programs[0].wait_for("ready: ")
        programs += [start("python3 requestor.py"), start("python3 replier.py")]
        programs[1].wait_for("package 2 ")
        (api,) = [block for block in blocks("python") if block.startswith("import numpy")]
        printed = Program(sys.executable, "-c", api)
        programs.append(printed)

        assert printed.wait() == 0, printed
        assert len(printed.out) == 12
        assert [program.stop(signal.SIGINT) for program in reversed(programs[:3])] == [0, 0, 0]
    finally:
        for program in reversed(programs):
            program.kill()


def test_the_other_clouds_commands_work(google_config: Path) -> None:
    programs: list[Program] = []
    try:
        for script in ("requestor.py", "replier.py"):
            (line,) = [line for line in TRIED if line.startswith(f"python3 {script}") and "google" in line]
            _, _, *options = shlex.split(line)
            programs.append(Program(sys.executable, ROOT / script, *options, cwd=google_config.parent))
        programs[0].wait_for("package 2 ")

        assert [program.stop(signal.SIGINT) for program in reversed(programs)] == [0, 0]
    finally:
        for program in programs:
            program.kill()
