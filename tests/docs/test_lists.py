"""What the pages list is all there is: options, error codes, metrics, headers, settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import imagebus
from imagebus import BadMessage, Message
from imagebus.errors import ErrorCode
from imagebus.metrics import Metrics
from imagebus.replay import REPLAY, ROUNDS
from imagebus.transports.kafka.config import read_settings
from imagebus.wire.dead_letters import dead_letter
from imagebus.wire.message import Position
from imagebus.wire.results import decode_reply

from ..programs import ROOT
from .pages import PAGES, README, Block, blocks, code, name, table

API, CONFIGURATION, WIRE, METRICS = (
    ROOT / "docs" / f"{page}.md" for page in ("api", "configuration", "wire", "metrics")
)
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
FIGURE = r"[0-9][0-9.,]*[0-9]|[0-9]"
OPTION = r"--?[a-z][a-z0-9-]*"


def help_of(*program: str) -> str:
    """What a program prints for --help."""
    command = [sys.executable, *program, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def listed_options(*tables: str) -> set[str]:
    """The options in the first column of tables of the configuration page."""
    rows = [row for first_column in tables for row in table(CONFIGURATION, first_column)]
    return {cell.partition(" ")[0] for row in rows for cell in code(row[0])}


@pytest.mark.parametrize(
    ("program", "tables"),
    [
        (["requestor.py"], ["both scripts", "`requestor.py`"]),
        (["replier.py"], ["both scripts", "`replier.py`"]),
        (["-m", "imagebus.replay"], ["both scripts", "`imagebus.replay`"]),
        (["-m", "imagebus.broker"], ["`imagebus.broker`"]),
    ],
    ids=lambda value: value[-1],
)
def test_the_page_lists_exactly_the_options_of_each_program(program: list[str], tables: list[str]) -> None:
    printed = set(re.findall(rf"^  ({OPTION})", help_of(*program), re.MULTILINE)) - {"-h"}

    assert listed_options(*tables) - {"-t2" if "imagebus.replay" in program else ""} == printed


def test_the_page_describes_every_public_name() -> None:
    described = re.findall(r"^\.\. auto\w+:: (\w+)", API.read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(described) == imagebus.__all__


def test_the_page_lists_exactly_the_error_codes() -> None:
    listed = [code(row[0]) for row in table(WIRE, "code")]

    assert sorted(listed) == sorted([each.value] for each in ErrorCode)


def test_the_page_lists_exactly_the_metrics() -> None:
    metrics = Metrics()
    metrics.errors["SHAPE"] += 1
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name for family in metrics.collect()
    }

    assert {code(row[0])[0] for row in table(METRICS, "metric")} == exported


def test_the_page_lists_exactly_the_headers_of_a_dead_letter() -> None:
    original = Message("requests", b"x" * 1_000_000, position=Position(1, 2, 3))
    letter = dead_letter(original, "requests.dlt", BadMessage(ErrorCode.NO_ID, "no id"), group="repliers")

    listed = {code(row[0])[0] for row in table(WIRE, "header of a dead letter")}

    assert listed == {header for header, _ in letter.headers} | {ROUNDS, REPLAY}


def test_the_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    measured = set(re.findall(FIGURE, (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")))

    shown = [figure for row in table(README, "") for cell in row[1:] for figure in re.findall(FIGURE, cell)]
    (speed,) = re.findall(rf"({FIGURE}) images a second", README.read_text(encoding="utf-8"))

    assert len(shown) > 10
    assert {*shown, speed} <= measured


def json_blocks() -> list[Block]:
    return blocks(WIRE, "json")


@pytest.mark.parametrize("block", json_blocks(), ids=lambda block: block.heading)
def test_the_json_of_the_page_is_json(block: Block) -> None:
    assert orjson.loads(block.text)


@pytest.mark.parametrize(
    "block", [block for block in json_blocks() if block.heading == "A reply"], ids=["reply", "error"]
)
def test_the_replies_of_the_page_are_understood(block: Block) -> None:
    reply = decode_reply(Message("replies", block.text.encode()))

    assert reply.id == "…"


@pytest.mark.parametrize(
    "block",
    [block for page in PAGES for block in blocks(page, "properties")],
    ids=lambda block: f"{name(block.page)}, {block.heading}",
)
def test_the_settings_of_the_pages_are_accepted(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "secret")
    (tmp_path / "kafka.config").write_text(block.text, encoding="utf-8")

    settings = read_settings(tmp_path / "kafka.config")

    assert set(settings) == set(re.findall(r"^([a-z.]+) ?=", block.text, re.MULTILINE))


def test_each_make_target_is_there_and_listed() -> None:
    # Inside `make test` a make says more than it was asked.
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}

    def make(*arguments: str) -> str:
        command = ["make", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    listed = make("help")

    targets = {line.split("\t")[0] for line in listed.splitlines()}
    assert {row[0] for row in table(CONTRIBUTING, "target")} == {
        f"`make {target}`" for target in targets - {"help"}
    }
    for target in targets:
        assert make("-n", target)
