"""What the pages say to type is typed, by a test that gets the command from the page, or by a stand-in named below."""

from __future__ import annotations

import ast
import inspect
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnn_minst
from imagebus import MemoryBus
from imagebus.answering import Answering
from imagebus.batching import fill
from imagebus.wire.pixels import encode_request
from training.sizes import SIZES, TEACHER

from ..fakes import FirstPixel, package
from ..programs import ROOT, Program
from .pages import PAGES, blocks, documented, name, tokens

README, API, DESIGN, TRAINING, WIRE = (
    ROOT / page for page in ("README.md", "docs/api.md", "docs/design.md", "docs/training.md", "docs/wire.md")
)

# Commands that take too long, need a cloud or a GPU, or change this environment: the beginning of each, and
# the test that does the same, shorter or on something that is here.
STAND_INS = {
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "make docs": "test_make_docs_builds_the_site_without_a_network",
    "make bench-peers": "test_the_long_commands_have_the_options_that_are_typed",
    "make bench": "test_a_tiny_run_measures_every_contender",
    "make faults": "tests/faults/test_short.py",
    "python3 -m bench": "test_the_long_commands_have_the_options_that_are_typed",
    "python3 -m training.speed": "test_a_card_shows_the_speed_of_the_version_that_was_timed",
    "KERAS_BACKEND=jax python3": "test_on_jax_a_network_learns_from_the_one_that_was_trained_there_before",
    "poetry install": "test_poetry_install_brings_what_the_first_page_needs_and_no_more",
    "poetry build": "test_a_wheel_works_in_an_empty_environment",
    "WHEEL=": "test_a_wheel_works_in_an_empty_environment",
    "pip install": "test_a_wheel_works_in_an_empty_environment",
    "imagebus-broker": "test_a_wheel_works_in_an_empty_environment",
    "source .venv/bin/activate": "test_make_demo_works_on_a_clean_clone",
    "python3 tools/install.py google": "test_make_demo_works_on_a_clean_clone",
    "gcloud beta emulators pubsub start": "tools/pubsub_emulator.py",
    "export PUBSUB_EMULATOR_HOST": "test_the_other_clouds_commands_work",
    # Whole blocks, run by a shell.
    "acl": "test_the_commands_are_enough_where_the_topics_exist",
    "PROJECT=": "test_gcloud_knows_each_command_and_option",
    "REQUESTOR=": "test_gcloud_knows_each_command_and_option",
    "REPLIER=": "test_gcloud_knows_each_command_and_option",
    "OWN_INBOX=": "test_gcloud_knows_each_command_and_option",
    "gcloud": "test_gcloud_knows_each_command_and_option",
}


def typed() -> set[str]:
    return {command for page in PAGES for block in blocks(page, "sh") for command in block.commands}


def test_every_command_of_the_pages_is_run_by_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    run = re.findall(r'documented\("([^"]+)"', tests)

    untried = [command for command in typed() if not command.startswith((*run, *STAND_INS))]

    assert untried == []


@pytest.mark.parametrize("beginning", STAND_INS)
def test_each_stand_in_is_there(beginning: str) -> None:
    stand_in = STAND_INS[beginning]
    files = [*(ROOT / "tests").rglob("*.py")]

    assert any(command.startswith(beginning) for command in typed())
    assert (ROOT / stand_in).is_file() or any(
        f"def {stand_in}" in path.read_text(encoding="utf-8") for path in files
    )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_has_a_language_that_is_tried(page: Path) -> None:
    languages = {token.info for token in tokens(page) if token.type == "fence"}

    assert languages <= {"sh", "python", "json", "properties", "text", "{eval-rst}"}


def test_the_long_commands_have_the_options_that_are_typed() -> None:
    long = [command.split() for command in typed() if command.startswith("python3 -m bench")]
    assert long

    helps: dict[str, str] = {}
    for _, _, module, *arguments in long:
        if module not in helps:
            command = [sys.executable, "-m", module, "--help"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            helps[module] = done.stdout
        for option in arguments[::2]:
            assert f"  {option} " in helps[module], (module, option)


# --- the session of a reader -------------------------------------------------------------------


class Session:
    """A reader's terminals, in a copy of the repository, on the port that the pages name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs: list[Program] = []

    def type(self, *command: str) -> Program:
        program = Program(*command, cwd=self.folder)
        self._programs.append(program)
        return program

    def close(self) -> None:
        for program in reversed(self._programs):
            program.kill()


@pytest.fixture
def session(shared_checkout: Path) -> Iterator[Session]:
    session = Session(shared_checkout)
    yield session
    session.close()


@pytest.fixture(scope="module")
def broker(kafka_jars_here: None, shared_checkout: Path) -> Iterator[Program]:
    """The broker as the README starts it."""
    with socket.socket() as taken:
        assert taken.connect_ex(("127.0.0.1", 9092)), (
            "the README's port, 9092, is taken: stop what listens there"
        )
    broker = Program(*documented("python3 -m imagebus.broker"), cwd=shared_checkout)
    try:
        broker.wait_for("ready: ")
        yield broker
        assert broker.stop(signal.SIGINT) == 0
    finally:
        broker.kill()


@pytest.fixture
def replier(session: Session, broker: Program) -> Program:
    replier = session.type(*documented("python3 replier.py   -f kafka.config -t1"))
    replier.wait_for("ready: ")
    return replier


def test_the_two_commands_work_as_printed(session: Session, broker: Program) -> None:
    requestor = session.type(*documented("python3 requestor.py -f kafka.config -t1"))
    replier = session.type(*documented("python3 replier.py   -f kafka.config -t1"))

    requestor.wait_for("package 2 ")

    assert replier.stop(signal.SIGINT) == 0
    assert requestor.stop(signal.SIGINT) == 0


def test_the_client_works_as_printed(session: Session, replier: Program) -> None:
    (block,) = [block for block in blocks(README, "python") if block.heading == "From Python"]

    client = session.type(sys.executable, "-c", block.text)

    assert client.wait() == 0, client
    assert len(client.out) == 22


def test_the_client_without_the_library_works_as_printed(session: Session, replier: Program) -> None:
    (block,) = blocks(WIRE, "python")
    assert "imagebus" not in block.text

    client = session.type(sys.executable, "-c", block.text)

    assert client.wait() == 0, client
    assert len(client.out) == 2


def test_a_requestor_with_state_works_as_printed(session: Session, replier: Program) -> None:
    requestor = session.type(*documented("python3 requestor.py -f kafka.config --state"))
    requestor.wait_for("package 1 ")
    requestor.kill()

    again = session.type(*documented("python3 requestor.py -f kafka.config --state"))
    again.wait_for("package 1 ")

    assert again.stop(signal.SIGINT) == 0


def test_exactly_once_works_as_printed(session: Session, broker: Program) -> None:
    replier = session.type(*documented("python3 replier.py -f kafka.config --guarantee exactly-once"))
    replier.wait_for("ready: ")

    assert replier.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    "command",
    [
        documented("python3 -m imagebus.replay -f kafka.config --dry-run"),
        documented("python3 -m imagebus.replay -f kafka.config --code KILLER"),
    ],
    ids=lambda command: command[-1],
)
def test_dead_letters_are_sent_back_as_printed(
    session: Session, replier: Program, command: list[str]
) -> None:
    replay = session.type(*command)

    assert replay.wait() == 0, replay
    replay.wait_for("0 back to requests")


def test_the_metrics_are_served_as_printed(session: Session, broker: Program) -> None:
    replier = session.type(*documented("python3 replier.py -f kafka.config --metrics-port"))
    replier.wait_for("ready: ")
    _, address = documented("curl http://127.0.0.1")

    with urllib.request.urlopen(address) as page:
        metrics = page.read().decode()

    assert "imagebus_requests_total" in metrics


def test_the_library_works_without_a_broker_as_printed(session: Session) -> None:
    (block,) = blocks(API, "python")

    program = session.type(sys.executable, "-c", block.text)

    assert program.wait() == 0, program
    program.wait_for("(Prediction(label=")


def test_the_help_of_the_library_is_shown_as_printed(session: Session) -> None:
    shown = session.type(*documented("python3 -c"))

    assert shown.wait() == 0
    shown.wait_for("class Client")


def test_the_other_clouds_commands_work(google_config: Path) -> None:
    programs: list[Program] = []
    try:
        for python, script, *options in (
            documented("python3 requestor.py -f google.json"),
            documented("python3 replier.py   -f google.json"),
        ):
            programs.append(Program(python, ROOT / script, *options, cwd=google_config.parent))
        programs[0].wait_for("package 2 ")

        assert [program.stop(signal.SIGINT) for program in reversed(programs)] == [0, 0]
    finally:
        for program in programs:
            program.kill()


# --- what is typed into Python -----------------------------------------------------------------


def test_the_heart_of_the_replier_works_as_printed() -> None:
    (block,) = [block for block in blocks(DESIGN, "python") if block.heading == "The path of a request"]
    with MemoryBus() as bus:
        member, inbox = bus.join("requests", "repliers"), bus.inbox("replies")
        bus.publish(encode_request(package(1, 2), "requests"))
        answer = Answering(FirstPixel(), replies="replies", dead_letter_topic="requests.dlt").answer
        names: dict[str, Any] = {"fill": fill, "member": member, "answer": answer}

        exec(block.text, {**names, "max_batch_size": 128, "max_wait": 0})

        (reply,) = inbox.receive(10, 5.0)
    assert reply.header("status") == "ok"


# Keras makes arrays of TensorFlow's variables, which do not know NumPy 2's way of it yet.
@pytest.mark.full
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_the_training_session_works_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.load(ROOT / "imagebus" / "data" / "fashion-mnist-1000.npz")
    images, labels = sample["images"], sample["labels"].astype(np.int64)
    small = ((images[:600], labels[:600]), (images[600:], labels[600:]))
    monkeypatch.setattr(cnn_minst, "load_data", lambda *_: small)
    quick = partialmethod(cnn_minst.CNNFashion.fit, epochs=1, models=tmp_path)
    monkeypatch.setattr(cnn_minst.CNNFashion, "fit", quick)
    names = {"trainX": images[:300], "trainY": labels[:300]}
    sessions = [block.text for block in blocks(TRAINING, "python") if "long" not in block.text]

    for session in sessions:
        exec(session.replace(">>> ", ""), names)

    assert (tmp_path / "fashion.onnx").exists()
    assert len(names["labels"]) == 5
    assert names["probabilities"].shape == (5, 10)
    (in_readme,) = [block.text for block in blocks(README, "python") if block.heading == "Train your own"]
    assert in_readme in sessions


def test_the_long_trainings_are_called_as_they_are_defined() -> None:
    texts = [block.text for block in blocks(TRAINING, "python") if "long" in block.text]
    calls = [
        call
        for text in texts
        for call in ast.walk(ast.parse(text.replace(">>> ", "")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    ]
    assert len(calls) == 3

    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        assert isinstance(call.func.value, ast.Call)
        sizes = [argument.value for argument in call.func.value.args if isinstance(argument, ast.Constant)]
        assert set(sizes) <= {*SIZES, TEACHER}
        options = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg}
        inspect.signature(getattr(cnn_minst.CNNFashion, call.func.attr)).bind(None, **options)
